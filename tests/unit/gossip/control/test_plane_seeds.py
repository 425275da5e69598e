"""Control planes in trouble: seeded losses, cuts, crashes and changes of voters, then peace.

A counter is raised by compare-and-set from all nodes at once. Whatever happened: each raise that
was acknowledged is in it once, none that was refused is, reads never go back behind what was
acknowledged before they began, no token is given twice, and at last all copies are the same.
"""

import random
from collections.abc import Callable
from typing import Any

import pytest

from gossip.consensus.configuration import Configuration
from gossip.consensus.requests import NotLeader, Overloaded
from gossip.control import committed_log, participation
from gossip.control.commands import AcquireLock, OpenSession, ReleaseLock, Transact
from gossip.control.lookups import KeysResult, ReadKeys
from gossip.control.outcomes import Declined, LockResult, SessionResult, TransactionResult
from gossip.control.requests import (
    ControlRead,
    ControlWrite,
    IndeterminateResult,
    UnavailableResult,
)
from gossip.control.transactions import (
    Compare,
    CompareField,
    CompareRelation,
    GetKey,
    PutKey,
)
from gossip.core.errors import InvalidRequest
from tests.support.control_net import ControlNet, voter

NODES = 5
STEPS = 60


class Trouble:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.net = ControlNet(NODES, seed)
        self.net.gather_s = 0.003 * (seed % 2)
        self.waiting: list[tuple[int, int, Callable[[Any], None]]] = []
        self.added = self.unsure = self.refused = 0
        self.seen = 0
        """The largest value that somebody was told."""
        self.tokens: list[int] = []
        self.reads = 0

    # What clients do.

    def submit(self, node: int, request: Any, done: Callable[[Any], None]) -> None:
        if node in self.net.planes:
            self.waiting.append((node, self.net.submit(node, request), done))

    def collect(self) -> None:
        left = []
        for node, number, done in self.waiting:
            completed = self.net.results.get((node, number))
            if completed is not None:
                done(completed.result)
            else:
                left.append((node, number, done))
        self.waiting = left

    def read(self, node: int) -> None:
        floor = self.seen

        def done(result: Any) -> None:
            if not isinstance(result, KeysResult):
                return
            self.reads += 1
            entries = result.results[0].entries
            value = int(entries[0].value) if entries else 0
            assert value >= floor, "a read sees all that was acknowledged before it began"
            self.seen = max(self.seen, value)
            if self.rng.random() < 0.7:
                self.add(node, value)

        self.submit(node, ControlRead(ReadKeys((GetKey("counter"),)), timeout_s=20.0), done)

    def add(self, node: int, value: int) -> None:
        same = (
            Compare("counter", CompareField.VALUE, CompareRelation.EQUAL, str(value).encode())
            if value
            else Compare("counter", CompareField.CREATED, CompareRelation.EQUAL, 0)
        )
        action = Transact((same,), (PutKey("counter", str(value + 1).encode()),))

        def done(result: Any) -> None:
            match result:
                case TransactionResult(succeeded=True):
                    self.added += 1
                    self.seen = max(self.seen, value + 1)
                case IndeterminateResult():
                    self.unsure += 1
                case _:
                    self.refused += 1

        self.submit(node, ControlWrite(action, 20.0), done)

    def lock(self, node: int) -> None:
        def opened(result: Any) -> None:
            if isinstance(result, SessionResult):
                action = AcquireLock("door", result.session)
                self.submit(node, ControlWrite(action, 20.0), lambda r: held(r, result.session))

        def held(result: Any, session: int) -> None:
            if isinstance(result, LockResult) and result.token:
                assert result.token not in self.tokens, "a token is given once"
                self.tokens.append(result.token)
                if self.rng.random() < 0.5:
                    release = ControlWrite(ReleaseLock("door", session), 20.0)
                    self.submit(node, release, lambda _result: None)
            else:
                assert isinstance(
                    result, LockResult | Declined | IndeterminateResult | UnavailableResult
                )

        self.submit(node, ControlWrite(OpenSession(node, 4_000, 1_000), 20.0), opened)

    # What befalls the network.

    def befall(self) -> None:
        net, rng = self.net, self.rng
        node = rng.choice(net.ids)
        match rng.randrange(8):
            case 0 if node in net.planes and len(net.planes) > 3:
                net.crash(node)
                self.forget(node)
            case 1 | 2:
                for gone in set(net.ids) - net.planes.keys():
                    net.start(gone)
            case 3:
                net.separate(node)
            case 4:
                net.heal()
            case 5:
                net.loss = rng.choice([0.0, 0.0, 0.1, 0.3])
            case 6:
                slow = rng.choice([0.002, 0.002, 0.5, 9.0])
                net.save_s = lambda each: slow if each == node else 0.002
            case _:
                self.change_voters()

    def forget(self, node: int) -> None:
        """Whoever asked on a node that died never hears what became of it."""
        gone = [each for each in self.waiting if each[0] == node]
        self.waiting = [each for each in self.waiting if each[0] != node]
        for _, _, done in gone:
            done(IndeterminateResult("its node died"))

    def change_voters(self) -> None:
        net = self.net
        leading = net._leading()
        if not leading or leading[-1].part.raft is None:
            return
        raft = leading[-1].part.raft
        wanted = self.rng.sample(net.ids, 3)
        voters = tuple(voter(node) for node in wanted)
        learners = tuple(each for each in voters if each not in raft.configuration.voters)
        try:
            if set(learners) <= set(raft.configuration.learners):
                raft.change(Configuration(voters), net.now)
            else:
                raft.change(Configuration(raft.configuration.voters, (), learners), net.now)
        except (InvalidRequest, NotLeader, Overloaded):
            return
        net._perform(leading[-1].me.node)

    def run(self) -> None:
        for _ in range(STEPS):
            for _ in range(self.rng.randrange(4)):
                node = self.rng.choice(self.net.ids)
                self.rng.choice([self.read, self.read, self.lock])(node)
            if self.rng.random() < 0.5:
                self.befall()
            self.net.run(self.rng.choice([0.01, 0.3, 2.0, 8.0]))
            self.collect()
        self.end()

    def end(self) -> None:
        net = self.net
        net.heal()
        net.loss = 0.0
        net.save_s = lambda _node: 0.002
        for node in set(net.ids) - net.planes.keys():
            net.start(node)
        for _ in range(10):
            net.run(25.0)
            self.collect()
        assert not self.waiting, "every request completes"
        net.put(1, "last")
        net.agree()
        counted = int(net.get(2, "counter") or b"0")
        assert self.added <= counted <= self.added + self.unsure
        assert self.seen <= counted


@pytest.fixture
def small_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let snapshots be made and pulled all the time."""
    monkeypatch.setattr(participation, "COMPACT_ENTRIES", 20)
    monkeypatch.setattr(committed_log, "KEPT_ENTRIES_MAX", 10)


@pytest.mark.usefixtures("small_logs")
def test_trouble_loses_nothing_and_counts_nothing_twice() -> None:
    added = reads = 0
    for seed in range(3):
        trouble = Trouble(seed)
        trouble.run()
        added, reads = added + trouble.added, reads + trouble.reads
    assert added > 15, "it was not all refused"
    assert reads > 30


@pytest.mark.slow
@pytest.mark.usefixtures("small_logs")
@pytest.mark.parametrize("seed", range(100, 160))
def test_more_trouble(seed: int) -> None:
    Trouble(seed).run()
