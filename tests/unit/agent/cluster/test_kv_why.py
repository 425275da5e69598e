"""Why a key reads as it does: three real state planes, asked over streams that a test can cut."""

import asyncio
from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from types import SimpleNamespace
from typing import Any

import pytest

from agent.cluster import kv_why
from agent.cluster.kv_messages import VIEW_CODEC, KeyView
from agent.cluster.kv_why import KeyReport, KeyViews
from agent.exits import AgentError
from gossip.core.errors import InvalidRequest
from gossip.kv.records import Version
from gossip.kv.requests import Delete, Get, Put
from gossip.kv.storage import DAMAGED
from gossip.kv.typed_values import pack_register
from tests.support.kv_net import Net, registry_of

A, B, C = 1, 2, 3
KEY = "lights/north"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_why, "ANSWERS_S", 0.5)
    monkeypatch.setattr(kv_why, "AGAIN_S", 0.01)


class Desks:
    """The looks of all nodes of a net; ``loses`` says which frames do not arrive."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.counts: Counter[str] = Counter()
        self.loses: Callable[[int, int], bool] = lambda _sender, _to: False
        self.at: dict[int, KeyViews] = {}
        for number, plane in net.planes.items():
            driver: Any = SimpleNamespace(
                node=SimpleNamespace(settings=SimpleNamespace(me=number), state=plane),
                counts=self.counts,
                send_frame=lambda data, to, sender=number: self._carry(sender, to, data),
            )
            self.at[number] = KeyViews(driver)

    def _carry(self, sender: int, to: int, data: bytes) -> None:
        if to in self.at and not self.loses(sender, to):
            asyncio.get_running_loop().call_soon(self.at[to].receive_frame, data, sender)

    def report(self, of: int = A, key: str = KEY) -> KeyReport:
        return asyncio.run(self.at[of].report(key))


@pytest.fixture
def net() -> Net:
    return Net(registry_of([A, B, C]))


def test_all_owners_tell_the_same_of_a_key_that_is_whole(net: Net) -> None:
    net.ask(A, Put(KEY, b"on", w=3))
    report = Desks(net).report(B)
    assert report.views.keys() == {A, B, C} == set(report.ownership.owners)
    [version] = report.live
    assert version.size_bytes == 2
    assert version.digest == blake2b(b"on", digest_size=8).digest()
    assert all(view.may_answer and view.copy.is_sound for view in report.views.values())
    assert not any(report.lacks(node) or report.outdated(node) for node in report.views)
    assert report.is_quorum


def test_of_what_expires_the_size_is_that_of_what_was_written() -> None:
    version = kv_why._version(Version(1, 1, 1 << 16, pack_register(b"on", 2**50)))
    assert (version.size_bytes, version.expires_ms) == (2, 2**50)
    assert version.digest == blake2b(b"on", digest_size=8).digest()


def test_who_missed_a_write_is_behind_and_looking_repairs_nothing(net: Net) -> None:
    net.ask(A, Put(KEY, b"first", w=3))
    net.isolate(C)
    net.ask(A, Put(KEY, b"second"))
    report = Desks(net).report()
    [version] = report.live
    assert report.lacks(C) == {version.dot}
    [old] = report.outdated(C)
    assert old == report.views[C].versions[0].dot != version.dot
    assert not report.lacks(B)
    assert [v.dot for v in Desks(net).report().views[C].versions] == [old]


def test_a_deleted_key_is_told_from_one_that_never_reached_somebody(net: Net) -> None:
    """Who lacks a version and has seen it knows that it is gone; who has not is behind."""
    net.ask(A, Put(KEY, b"on", w=3))
    net.isolate(C)
    net.ask(A, Delete(KEY))
    report = Desks(net).report()
    assert report.live == ()
    assert len(report.outdated(C)) == 1
    assert not report.outdated(A)
    assert not report.lacks(A)


def test_siblings_are_told_apart(net: Net) -> None:
    net.ask(A, Put(KEY, b"on", w=3))
    seen = net.ask(A, Get(KEY)).context
    net.ask(A, Put(KEY, b"one", w=3, context=seen))
    net.ask(B, Put(KEY, b"other", w=3, context=seen))
    report = Desks(net).report(C)
    assert len(report.live) == 2
    assert [v.stamp for v in report.live] == sorted((v.stamp for v in report.live), reverse=True)
    assert not any(report.lacks(node) for node in report.views)


def test_of_who_does_not_answer_nothing_is_claimed(net: Net) -> None:
    net.ask(A, Put(KEY, b"on", w=3))
    desks = Desks(net)
    desks.loses = lambda sender, to: C in (sender, to)
    report = desks.report()
    assert report.views.keys() == {A, B}
    assert report.is_quorum
    desks.loses = lambda _sender, _to: True
    report = desks.report()
    assert report.views.keys() == {A}
    assert not report.is_quorum


def test_a_frame_that_is_lost_is_sent_again(net: Net) -> None:
    net.ask(A, Put(KEY, b"on", w=3))
    desks, lost = Desks(net), Counter[tuple[int, int]]()

    def first_is_lost(sender: int, to: int) -> bool:
        lost[sender, to] += 1
        return lost[sender, to] == 1

    desks.loses = first_is_lost
    assert desks.report().views.keys() == {A, B, C}


def test_a_damaged_copy_is_told_as_such_and_counts_for_no_quorum(net: Net) -> None:
    net.ask(A, Put(KEY, b"on", w=3))
    partition = net.registry.partition_of(KEY)
    for node in (B, C):
        net.crash(node)
        net.storages[node].complete[partition] = DAMAGED
        net.start(node)
    report = Desks(net).report()
    assert not report.views[B].copy.is_sound
    assert not report.views[B].may_answer
    assert not report.is_quorum
    assert len(report.live) == 1


def test_a_key_that_cannot_be_is_refused(net: Net) -> None:
    with pytest.raises(InvalidRequest):
        Desks(net).report(key="")


def test_a_disk_that_cannot_be_read_is_no_answer_and_counted(net: Net) -> None:
    desks = Desks(net)

    def unreadable(*_: object) -> None:
        raise AgentError("the disk is gone")

    net.storages[B].load = unreadable  # type: ignore[assignment,method-assign]
    assert B not in desks.report().views
    assert desks.counts["frames_dropped/unanswerable"] > 0


def test_what_is_not_on_the_disk_yet_is_told_too(net: Net) -> None:
    net.save_s = lambda _node: 3600.0
    net.submit(A, Put(KEY, b"on"))
    view = Desks(net).report().views[A]
    assert isinstance(view, KeyView)
    assert len(view.versions) == 1
    assert len(VIEW_CODEC.encode(view)) < 1024
