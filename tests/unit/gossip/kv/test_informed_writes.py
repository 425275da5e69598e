"""Writes that look first: what they write, when they do not, and what they do not decide."""

import pytest

from gossip.core.errors import InvalidRequest
from gossip.kv.records import encode_context
from gossip.kv.requests import ALL, Delete, Get, List, Put, PutResult, Rejected
from tests.support.kv_net import Net, registry_of


def net_of(*numbers: int) -> Net:
    return Net(registry_of(numbers))


def test_a_key_is_made_only_where_there_is_none() -> None:
    net = net_of(1, 2, 3, 4)
    assert net.ask(1, Put("lamp", b"on", if_unchanged=True)).outcome == "ok"
    refused = net.ask(2, Put("lamp", b"off", if_unchanged=True))
    assert isinstance(refused, Rejected)
    assert refused.mismatch
    assert net.values(net.ask(3, Get("lamp"))) == [b"on"]
    net.ask(3, Delete("lamp"))
    assert net.ask(4, Put("lamp", b"off", if_unchanged=True)).outcome == "ok"


def test_a_value_is_replaced_only_where_it_is_still_what_was_seen() -> None:
    net = net_of(1, 2, 3)
    net.ask(1, Put("lamp", b"red"))
    seen = net.ask(1, Get("lamp")).context
    net.ask(2, Put("lamp", b"green"))
    refused = net.ask(1, Put("lamp", b"blue", context=seen, if_unchanged=True))
    assert refused.mismatch
    assert net.values(net.ask(3, Get("lamp"))) == [b"green"]
    seen = net.ask(1, Get("lamp")).context
    done = net.ask(1, Put("lamp", b"blue", context=seen, if_unchanged=True))
    assert isinstance(done, PutResult)
    assert net.values(net.ask(3, Get("lamp"))) == [b"blue"]
    net.ask(3, Delete("lamp"))
    assert net.ask(1, Put("lamp", b"x", context=seen, if_unchanged=True)).mismatch


def test_of_two_that_look_at_once_both_may_write_and_nothing_is_lost() -> None:
    net = net_of(1, 2, 3)
    net.ask(1, Put("lamp", b"red"))
    seen = net.ask(1, Get("lamp")).context
    asked = [
        (number, net.submit(number, Put("lamp", value, context=seen, if_unchanged=True)))
        for number, value in ((1, b"green"), (2, b"blue"))
    ]
    net.run(6)
    assert [net.results[name].outcome for name in asked] == ["ok", "ok"]
    assert sorted(net.values(net.ask(3, Get("lamp")))) == [b"blue", b"green"]


def test_nothing_is_written_where_too_few_can_tell_what_there_is() -> None:
    net = net_of(1, 2, 3)
    net.isolate(1)
    refused = net.ask(1, Put("lamp", b"on", w=1, if_unchanged=True, timeout_s=2))
    assert isinstance(refused, Rejected)
    assert refused.unreachable
    net.heal()
    assert net.values(net.ask(2, Get("lamp"))) == []


def test_all_means_every_owner_that_there_is() -> None:
    net = net_of(1, 2, 3)
    assert net.ask(1, Put("lamp", b"on", w=ALL)).needed == 3
    assert net.ask(1, Get("lamp", r=ALL)).answered == 3
    assert [e.key for e in net.ask(2, List(r=ALL)).entries] == ["lamp"]
    net.isolate(3)
    assert net.ask(1, Put("lamp", b"off", w=ALL, timeout_s=2)).outcome == "indeterminate"
    assert net.ask(1, Get("lamp", r=ALL, timeout_s=2)).outcome == "unavailable"
    net.heal()
    alone = net_of(1)
    assert alone.ask(1, Put("lamp", b"on", w=ALL)).needed == 1
    with pytest.raises(InvalidRequest):
        alone.submit(1, Put("lamp", b"on", w=2))


def test_all_travels_to_who_coordinates() -> None:
    net = net_of(1, 2, 3, 4, 5)
    key = next(f"k{n}" for n in range(99) if 1 not in net.registry.owners_of(f"k{n}"))
    assert net.ask(1, Put(key, b"on", w=ALL)).acks == 3


def test_a_key_with_more_versions_than_a_context_can_name_is_refused_and_holds_no_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gossip.kv.records.CONTEXT_BYTES_MAX", 300)
    net = net_of(1)
    unseen = encode_context("k", ())
    while len(net.ask(1, Get("k")).context) <= 300:
        net.ask(1, Put("k", b"", context=unseen))
    assert isinstance(net.ask(1, Delete("k")), Rejected)
    assert isinstance(net.ask(1, Put("k", b"", context=unseen, if_unchanged=True)), Rejected)
    assert net.ask(1, Put("k", b"one")).versions == 1, "who does not look replaces all of them"
