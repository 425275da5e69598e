"""How shared keys stand: three real state planes, each of which tells of its own."""

import asyncio
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest

from agent.cluster import kv_stats
from agent.cluster.kv_quotas import QuotaRounds
from agent.cluster.kv_stats import KvStatsReport, KvSurvey, count_incomplete
from agent.exits import AgentError
from gossip.kv.quotas import Use, use_of
from gossip.kv.requests import OVER_QUOTA, Delete, Put, Rejected
from gossip.kv.spaces import SpaceSetting, space_of
from gossip.kv.storage import DAMAGED
from tests.support.kv_net import Net, registry_of

A, B, C = 1, 2, 3
LOOKS_S = 90.0
"""More than a round of comparisons with everybody."""


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_stats, "ANSWERS_S", 0.5)
    monkeypatch.setattr(kv_stats, "AGAIN_S", 0.02)


class StoredKeys:
    """Counts in memory as the database counts on the disk."""

    def __init__(self, net: Net, number: int) -> None:
        self._storage = net.storages[number]
        self.is_readable, self.looks = True, 0
        self.takes_s = 0.0
        self.on_look: Callable[[], None] = lambda: None

    def count_keys(self, partition: int) -> int:
        self.looks += 1
        self.on_look()
        if not self.is_readable:
            raise AgentError("the disk is gone")
        return sum(bool(r.live) for r in self._storage.records.get(partition, {}).values())

    def count_space(self, partition: int, name: str) -> tuple[int, int]:
        self.looks += 1
        records = self._storage.records.get(partition, {})
        found = [use_of(r.live) for key, r in records.items() if space_of(key) == name]
        return sum(use.keys for use in found), sum(use.size_bytes for use in found)

    def size_bytes(self) -> int:
        return 4096


class Desks:
    """The surveys of all nodes of a net; who is in ``away`` is not there, as all believe."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.away: set[int] = set()
        self.deaf: set[int] = set()
        self.counts: Counter[str] = Counter()
        self.stored = {number: StoredKeys(net, number) for number in net.planes}

    def report(self, of: int = A) -> KvStatsReport:
        members = {n: SimpleNamespace(is_live=n not in self.away) for n in self.net.planes}
        at: dict[int, KvSurvey] = {}

        def carry(sender: int, to: int, data: bytes) -> None:
            if not {sender, to} & self.deaf:
                asyncio.get_running_loop().call_soon(at[to].receive_frame, data, sender)

        async def scenario() -> KvStatsReport:
            for number, plane in self.net.planes.items():
                driver: Any = SimpleNamespace(
                    node=SimpleNamespace(
                        settings=SimpleNamespace(me=number),
                        state=plane,
                        swim=SimpleNamespace(members=members),
                    ),
                    counts=self.counts,
                    now=lambda: self.net.now,
                    send_frame=lambda data, to, sender=number: carry(sender, to, data),
                )
                at[number] = KvSurvey(driver, self.stored[number], lambda: 7.0)
            report = await at[of].report()
            for each in at.values():
                await each.stop()
            return report

        return asyncio.run(scenario())


@pytest.fixture
def net() -> Net:
    return Net(registry_of([A, B, C]))


def test_a_key_with_three_copies_is_counted_once_and_a_deleted_one_not_at_all(net: Net) -> None:
    for n in range(20):
        net.ask(A, Put(f"k{n}", b"v", w=3))
    net.ask(A, Delete("k0", w=3))
    net.run(1.0)
    report = Desks(net).report()
    assert report.told.keys() == {A, B, C}
    assert sum(report.keys().values()) == 19
    assert [sum(count for _, count in report.told[n].keys) for n in (A, B, C)] == [19] * 3


def test_comparisons_have_an_age_and_what_they_find_is_counted(net: Net) -> None:
    net.run(LOOKS_S)
    first = Desks(net).report().told[A]
    ages = {each.peer: each.age_s for each in first.comparisons}
    assert ages.keys() == {B, C}
    assert all(age is not None and age < LOOKS_S for age in ages.values())
    assert first.differing == 0
    net.isolate(C)
    net.run(LOOKS_S)
    net.ask(A, Put("k", b"v"))
    told = Desks(net).report().told[A]
    [age] = [each.age_s for each in told.comparisons if each.peer == C]
    assert age is not None
    assert age >= LOOKS_S
    net.heal()
    net.run(2 * LOOKS_S)
    last = Desks(net).report().told
    assert sum(each.differing for each in last.values()) > 0
    assert sum(each.repaired for each in last.values()) > 0
    assert all(each.age_s is not None and each.age_s < LOOKS_S for each in last[A].comparisons)


def test_a_write_that_missed_an_owner_leaves_a_hint(net: Net) -> None:
    repair = net.planes[A].repair
    repair.want(3, B)
    repair.want(3, C)
    repair.want(4, C)
    waiting = {each.peer: each.waiting for each in Desks(net).report().told[A].comparisons}
    assert waiting == {B: 1, C: 2}


def test_damaged_copies_are_counted(net: Net) -> None:
    net.crash(B)
    net.storages[B].complete = dict.fromkeys(range(3), DAMAGED)
    net.start(B)
    told = Desks(net).report().told
    assert (told[B].damaged, told[A].damaged) == (3, 0)
    assert told[B].incomplete == count_incomplete(net.planes[B]) >= 3
    assert told[A].incomplete == 0


def test_who_is_away_is_not_asked_and_who_is_deaf_is_silent(net: Net) -> None:
    desks = Desks(net)
    desks.away, desks.deaf = {B}, {C}
    report = desks.report()
    assert report.told.keys() == {A}
    assert set(report.asked) == {A, B, C}


def test_a_disk_that_cannot_be_read_is_silent_and_at_home_an_error(net: Net) -> None:
    desks = Desks(net)
    desks.stored[B].is_readable = False
    assert desks.report().told.keys() == {A, C}
    assert desks.counts["frames_dropped/unanswerable"] > 0
    with pytest.raises(AgentError):
        desks.report(B)


def test_those_who_ask_at_once_have_the_keys_counted_once(net: Net) -> None:
    counter = StoredKeys(net, A)
    node = SimpleNamespace(settings=SimpleNamespace(me=A), state=net.planes[A])
    driver: Any = SimpleNamespace(node=node, now=lambda: net.now)

    async def scenario() -> None:
        survey = KvSurvey(driver, counter, lambda: 1.0)
        await asyncio.gather(*(survey.own() for _ in range(9)))
        await survey.own()
        await survey.stop()

    asyncio.run(scenario())
    assert counter.looks == net.registry.partitions


def test_spaces_with_a_quota_are_counted_and_coordinators_go_by_it(net: Net) -> None:
    for n in range(20):
        net.ask(A, Put(f"lamps/{n}", b"v" * 10, w=3))
        net.ask(A, Put(f"others/{n}", b"v", w=3))
    net.run(1.0)
    assert not any(stats.uses for stats in Desks(net).report().told.values()), "nobody asks"
    setting = {"lamps": SpaceSetting(quota_keys=20), "empty": SpaceSetting(quota_bytes=1)}
    for number in (A, B):
        net.planes[number].spaces.replace(setting)
    desks = Desks(net)
    desks.deaf = {B}
    first, second = desks.report(), Desks(net).report()
    assert [each.name for each in second.told[B].uses] == ["empty", "lamps"]
    assert second.told[C].uses == (), "it has not heard of the quotas"
    quotas = net.planes[A].writes.quotas
    for report in (first, second):
        survey: Any = SimpleNamespace(report=AsyncMock(return_value=report))
        asyncio.run(QuotaRounds(survey, net.planes[A]).ask())
        assert (quotas.use("lamps"), quotas.use("empty")) == (Use(20, 200), Use(0, 0))
    assert net.ask(A, Put("lamps/more", b"v")) == Rejected(OVER_QUOTA)
    net.planes[A].spaces.replace({})
    survey = SimpleNamespace(report=AsyncMock(side_effect=AssertionError("nobody is asked")))
    asyncio.run(QuotaRounds(survey, net.planes[A]).ask())


def test_counting_that_takes_long_is_done_the_less_often(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = StoredKeys(net, A)
    node = SimpleNamespace(settings=SimpleNamespace(me=A), state=net.planes[A])
    driver: Any = SimpleNamespace(node=node, now=lambda: net.now)
    now = [0.0]

    async def scenario() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now[0])
        survey = KvSurvey(driver, counter, lambda: 1.0)
        for took_s, fresh_s in ((0.0, 1.0), (0.5, 10.0), (30.0, 60.0)):
            counter.takes_s = took_s / net.registry.partitions
            counter.looks = 0
            await survey.own()
            now[0] += fresh_s - 0.25
            await survey.own()
            assert counter.looks == net.registry.partitions
            now[0] += 0.5
        await survey.stop()

    counter.on_look = lambda: now.__setitem__(0, now[0] + counter.takes_s)
    asyncio.run(scenario())
