"""What ends an agent twice while it is taken in is passed over, and told."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.config.paths import Paths
from agent.doctor import agent_checks
from agent.doctor.findings import Status
from agent.runtime.probation import REMEMBERED_MAX, Probation
from gossip.core.errors import LimitExceeded, Malformed
from gossip.core.trials import trusted
from gossip.events.events import EventDelivered
from gossip.events.events import title_of as event_title
from gossip.events.messages import Event, Query
from gossip.events.queries import QueryReceived
from gossip.events.queries import title_of as query_title
from gossip.kv.records import KeyState, Version
from gossip.kv.replica import title_of as record_title
from gossip.kv.requests import Get, Put
from gossip.membership.anti_entropy import merge
from tests.support.kv_net import Net, registry_of
from tests.support.membership_solo import Solo, alive

OTHER_VERSION = "99.0"


def paths(tmp_path: Path) -> Paths:
    found = Paths.find(tmp_path)
    found.create()
    return found


class Bug(Exception):
    """What nobody foresaw."""


def fail() -> None:
    raise Bug


def blamed(at: Paths, *names: str) -> Probation:
    """Return the probation of a life after several that ended with these names."""
    for name in names:
        with pytest.raises(Bug):
            Probation(at).take(name, fail)
    return Probation(at)


def taken(probation: Probation, what: str) -> bool:
    done: list[str] = []
    assert probation.take(what, lambda: done.append(what)) == bool(done)
    return bool(done)


def test_what_goes_well_leaves_no_trace(tmp_path: Path) -> None:
    at = paths(tmp_path)
    assert taken(Probation(at), "event 1")
    assert not Probation(at).counts
    assert not at.set_aside.exists()


@pytest.mark.parametrize("refusal", [Malformed("x"), LimitExceeded("x")])
def test_what_is_refused_as_it_should_be_is_not_to_blame(
    tmp_path: Path, refusal: Exception
) -> None:
    at = paths(tmp_path)

    def refuse() -> None:
        raise refusal

    with pytest.raises(type(refusal)):
        Probation(at).take("event 1", refuse)
    assert not Probation(at).counts


def test_one_end_is_forgiven_and_the_second_is_not(tmp_path: Path) -> None:
    at = paths(tmp_path)
    probation = blamed(at, "event 1")
    assert probation.counts["ended_by/event"] == 1
    assert not probation.set_aside
    assert taken(probation, "event 1")
    probation = blamed(at, "event 1")
    assert probation.set_aside == ["event 1"]
    assert not taken(probation, "event 1")
    assert taken(probation, "event 2")
    assert probation.counts["set_aside/event"] == 1
    assert Probation(at).set_aside == ["event 1"], "also after a start that had nothing to blame"


KILLED = """
import os, signal, sys
from pathlib import Path
from agent.config.paths import Paths
from agent.runtime.probation import Probation
def end():
    os.kill(os.getpid(), signal.SIGKILL)
Probation(Paths.find(Path(sys.argv[1]))).take("query a\\x1b", end)
"""


def test_the_note_outlives_a_process_that_is_killed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As the kernel does for want of memory, and a C library by a wild pointer."""
    at = paths(tmp_path)
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
        assert done.returncode == -signal.SIGKILL
    assert Probation(at).set_aside == ["query a\x1b"]
    assert "\x1b" not in caplog.text


def test_another_version_tries_again(tmp_path: Path) -> None:
    at = paths(tmp_path)
    assert blamed(at, "event 1", "event 1").set_aside
    assert not Probation(at, OTHER_VERSION).set_aside


def test_what_is_remembered_is_bounded(tmp_path: Path) -> None:
    at = paths(tmp_path)
    probation = blamed(at, *(f"event {n}" for n in range(REMEMBERED_MAX + 2)))
    assert taken(probation, "event 0")
    assert at.set_aside.stat().st_size < 100 * REMEMBERED_MAX


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 1}', b"\xff" * 99])
def test_damaged_notes_keep_no_agent_from_starting(tmp_path: Path, content: bytes) -> None:
    at = paths(tmp_path)
    at.set_aside.write_bytes(content)
    at.on_trial.write_bytes(content)
    assert taken(Probation(at), "event 1")


def test_without_a_place_for_the_note_things_are_taken_in_all_the_same(tmp_path: Path) -> None:
    at = paths(tmp_path)
    at.on_trial.mkdir()
    assert taken(Probation(at), "event 1")


def test_the_doctor_names_what_is_passed_over() -> None:
    assert agent_checks.probation([]).status is Status.OK
    finding = agent_checks.probation(["event 1"])
    assert finding.status is Status.FAIL
    assert "event 1" in finding.message


# ---- what is tried ------------------------------------------------------------------------------


def refusing(*refused: str) -> tuple[list[str], Callable[[str, Callable[[], None]], bool]]:
    """Return what was tried, and a probation that passes over some of it."""
    tried: list[str] = []

    def on_trial(what: str, take: Callable[[], None]) -> bool:
        tried.append(what)
        if what in refused:
            return False
        take()
        return True

    return tried, on_trial


STATE = KeyState((Version(7, 1, 5, b"v"),), ((7, 1),), ())
TITLED = """
from gossip.kv.records import KeyState, Version
from gossip.kv.replica import title_of
print(title_of("k", KeyState((Version(7, 1, 5, b"v"),), ((7, 1),), ())), end="")
"""


def test_a_write_has_one_name_wherever_it_comes_from_and_another_write_has_another() -> None:
    elsewhere = KeyState(STATE.live, STATE.context, ((9, 9),))
    assert record_title("k", STATE) == record_title("k", elsewhere)
    assert record_title("l", STATE) != record_title("k", STATE)
    other = KeyState((Version(7, 2, 5, b"v"),), ((7, 2),), ())
    assert record_title("k", other) != record_title("k", STATE)
    elsewhere_too = [sys.executable, "-c", TITLED]
    told = {subprocess.run(elsewhere_too, check=True, capture_output=True).stdout for _ in "ab"}
    assert told == {record_title("k", STATE).encode()}, "in every process"
    assert event_title(Event(1, 2, 3, 4, "n", b"")) == event_title(Event(1, 2, 3, 9, "m", b"x"))
    assert merge.title_of(1, 2, 3, 4) != merge.title_of(1, 2, 3, 5)


def test_an_event_and_a_query_that_are_set_aside_are_neither_delivered_nor_passed_on() -> None:
    events = [Event(2, 1, n, n, "shout", b"") for n in (1, 2)]
    asked = [Query(2, 1, n, "ask", b"", {}, 5000) for n in (1, 2)]
    solo = Solo(2)
    tried, on_trial = refusing(event_title(events[0]), query_title((2, 1, 1)))
    solo.swim.put_on_trial(on_trial)
    solo.hear(2, *events, *asked)
    solo.now += 5
    solo.swim.wake(solo.now)
    sent = solo.drain()
    told = [each.event for each in solo.events if isinstance(each, EventDelivered)]
    assert told == [events[1]]
    assert [each.key for each in solo.events if isinstance(each, QueryReceived)] == [(2, 1, 2)]
    passed_on = [message for _, message in sent if isinstance(message, Event | Query)]
    assert passed_on
    assert events[0] not in passed_on
    assert asked[0] not in passed_on
    assert {event_title(each) for each in events} <= set(tried)


def test_the_words_of_a_member_are_tried_where_they_come_by_rumour_and_by_exchange() -> None:
    solo = Solo(2)
    tried, on_trial = refusing(merge.title_of(3, 1, 1))
    solo.swim.put_on_trial(on_trial)
    solo.hear(2, alive(3), alive(4))
    assert 3 not in solo.swim.members
    assert 4 in solo.swim.members
    assert tried == [merge.title_of(3, 1, 1), merge.title_of(4, 1, 1)]


def test_a_record_that_is_set_aside_here_is_lost_nowhere() -> None:
    """A pass that left it out and then believed itself complete would delete it everywhere."""
    net = Net(registry_of((1, 2, 3)))
    passed_over: list[str] = []

    def on_trial(what: str, take: Callable[[], None]) -> bool:
        if what.endswith(" of poison"):
            passed_over.append(what)
            return False
        take()
        return True

    net.planes[3].replica.on_trial = on_trial
    assert net.ask(1, Put("poison", b"treasure")).outcome == "ok"
    for n in range(20):
        net.ask(1, Put(f"key-{n}", b"v"))
    net.run(300)
    assert len(set(passed_over)) == 1
    assert len(passed_over) > 1, "it was told again by repair, and not taken in"
    held = [sum(map(len, storage.records.values())) for storage in net.storages.values()]
    assert held == [21, 21, 20], "all else is everywhere"
    net.planes[3].replica.on_trial = trusted  # a newer version
    net.run(300)
    for number in net.planes:
        assert net.values(net.ask(number, Get("poison"))) == [b"treasure"]
    held = [sum(map(len, storage.records.values())) for storage in net.storages.values()]
    assert held == [21, 21, 21]
