"""Rules for keys that begin alike: what is shown, accepted and replaced by them."""

import pytest

from gossip.core.errors import InvalidRequest
from gossip.kv.changes import CounterUpdate, SetUpdate
from gossip.kv.requests import Delete, Get, List, Put, Update, Watch
from gossip.kv.spaces import (
    LWW,
    NO_SPACE,
    SpaceSetting,
    changed_space,
    check_space_name,
    read_space,
)
from tests.support.kv_net import Net, registry_of

LATE_S = 10.0


def net_of(*numbers: int, **policies: str) -> Net:
    net = Net(registry_of(numbers))
    table = {name: SpaceSetting(policy=policy) for name, policy in policies.items()}
    for plane in net.planes.values():
        plane.spaces.replace(table)
    return net


def put_apart(net: Net, key: str) -> None:
    """Have two values written that know nothing of each other, the second one later."""
    net.isolate(1)
    net.ask(1, Put(key, b"first", w=1))
    net.run(LATE_S)
    net.ask(2, Put(key, b"second", w=1))
    net.heal()
    net.run(40)


def test_of_concurrent_values_all_are_shown_or_the_latest_as_the_policy_says() -> None:
    net = net_of(1, 2, 3, lamps="lww")
    for key in ("lamps/hall", "device/7/state", "plain/hall"):
        put_apart(net, key)
    assert net.values(net.ask(3, Get("lamps/hall"))) == [b"second"]
    assert net.values(net.ask(3, Get("device/7/state"))) == [b"second"], "by default"
    assert net.values(net.ask(3, Get("plain/hall"))) == [b"second", b"first"]
    shown = {entry.key: len(entry.values) for entry in net.ask(2, List()).entries}
    assert shown == {"lamps/hall": 1, "device/7/state": 1, "plain/hall": 2}
    net.planes[3].spaces.replace({})
    assert net.values(net.ask(3, Get("lamps/hall"))) == [b"second", b"first"], "nothing is lost yet"


def test_a_watch_shows_what_a_read_would() -> None:
    net = net_of(1, 2, 3, lamps="lww")
    net.submit(3, Watch(prefix="lamps/"))
    net.run(2)
    put_apart(net, "lamps/hall")
    events = [event for event in net.watched if event.kind == "put"]
    assert events
    assert all(len(event.values) == 1 for event in events)
    assert events[-1].values[0].data == b"second"


def test_the_next_put_takes_the_place_of_all_also_with_an_old_context() -> None:
    net = net_of(1, 2, 3, lamps="lww")
    old = net.ask(1, Put("lamps/hall", b"zero")).context
    put_apart(net, "lamps/hall")
    net.ask(3, Put("lamps/hall", b"third", context=old))
    net.run(40)
    for plane in net.planes.values():
        plane.spaces.replace({})
    assert net.values(net.ask(2, Get("lamps/hall"))) == [b"third"]


def test_a_delete_of_what_is_shown_brings_nothing_hidden_to_light() -> None:
    net = net_of(1, 2, 3, lamps="lww")
    net.isolate(1)
    net.ask(1, Put("lamps/hall", b"first", w=1))
    net.run(LATE_S)
    second = net.ask(2, Put("lamps/hall", b"second", w=1)).context
    net.heal()
    net.run(40)
    net.ask(3, Delete("lamps/hall", context=second))
    net.run(40)
    assert net.values(net.ask(2, Get("lamps/hall"))) == []


def test_a_delete_leaves_what_is_later_than_it_has_seen() -> None:
    net = net_of(1, 2, 3, lamps="lww")
    net.isolate(1)
    first = net.ask(1, Put("lamps/hall", b"first", w=1)).context
    net.run(LATE_S)
    net.ask(2, Put("lamps/hall", b"second", w=1))
    net.heal()
    net.run(40)
    net.ask(3, Delete("lamps/hall", context=first))
    assert net.values(net.ask(2, Get("lamps/hall"))) == [b"second"]


def test_typed_values_merge_under_lww_as_everywhere() -> None:
    net = net_of(1, 2, 3)
    for member in ("a", "b", "c"):
        net.ask(1, Update("device/7/tags", SetUpdate(member)))
    net.ask(2, Update("device/7/tags", SetUpdate("a", removes=True)))
    assert net.values(net.ask(3, Get("device/7/tags"))) == [b'["b", "c"]']


def test_a_type_as_policy_accepts_changes_of_it_alone_and_deletes() -> None:
    net = net_of(1, 2, 3, doors="counter")
    net.ask(1, Update("doors/opened", CounterUpdate(2)))
    for refused in (Put("doors/opened", b"3"), Update("doors/opened", SetUpdate("x"))):
        with pytest.raises(InvalidRequest, match="type counter; nothing was written"):
            net.submit(1, refused)
    assert net.values(net.ask(3, Get("doors/opened"))) == [b"2"]
    assert net.ask(2, Delete("doors/opened")).outcome == "ok"
    assert net.values(net.ask(3, Get("doors/opened"))) == []


def test_what_another_version_asks_of_a_space_is_kept() -> None:
    theirs = b'{"colour":"red","policy":"siblings"}'
    assert read_space(theirs) == SpaceSetting(policy="siblings")
    changed = changed_space(theirs, {"policy": LWW})
    assert changed == b'{"colour":"red","policy":"lww"}'
    assert changed_space(changed, {"policy": None}) == b'{"colour":"red"}'
    assert changed_space(b'{"policy":"lww"}', {"policy": None}) == b""


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b'{"policy":7}', b'{"policy":"newest"}'])
def test_what_cannot_be_read_asks_nothing(data: bytes) -> None:
    assert read_space(data) == NO_SPACE


@pytest.mark.parametrize("changes", [{"policy": 7}, {"policy": "newest"}, {"policy": [LWW]}])
def test_what_no_space_can_be_asked_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        changed_space(b"", changes)


@pytest.mark.parametrize("name", ["", "a/b", "x" * 129, "\0b"])
def test_a_space_is_called_by_what_keys_begin_with(name: str) -> None:
    with pytest.raises(InvalidRequest, match="is no space"):
        check_space_name(name)
