"""The control plane inside whole nodes: its frames, its saves, and who may speak."""

import random
from typing import Any

import pytest

from gossip.consensus.configuration import Voter
from gossip.consensus.storage import MemoryLog, founded
from gossip.control import messages as m
from gossip.control.answering import members_of_any
from gossip.control.commands import ChangeRegistry, Transact
from gossip.control.lookups import ReadKeys, ReadRegistry
from gossip.control.outcomes import ChangedResult
from gossip.control.participation import TOKENS_FROM
from gossip.control.plane import StoredLog
from gossip.control.requests import (
    ControlCompleted,
    ControlRead,
    ControlWrite,
    RegistryCommitted,
    UnavailableResult,
)
from gossip.control.transactions import GetKey, PutKey
from gossip.core.machine import Address, Durability, Emit, Persist, SendFrame
from gossip.core.tuning import PROFILES
from gossip.kv.requests import RegistryAdopted
from gossip.kv.storage import MemoryStorage, RegistryChange
from gossip.node import Node, NodeConfig
from gossip.registry.node import RegisteredNode
from gossip.registry.node_change import NodeChange, arrange
from gossip.registry.registry import Registry, admit, found, remove
from gossip.sim.toy_cipher import ToySuite, toy_signing
from tests.support.registries import COVEY, signed

A, B, STRANGER = 1, 2, 9
NAMES = {A: "ada", B: "ben"}
REGISTRY = admit(found(COVEY, RegisteredNode(A, "ada")), RegisteredNode(B, "ben"))
SIGNED = signed(REGISTRY)


class Pair:
    """Two nodes whose streams work and whose datagrams are all lost."""

    def __init__(self) -> None:
        self.now = 0.0
        self.logs = {A: MemoryLog(), B: MemoryLog()}
        self.logs[A].replace(founded(Voter(100 + A, A)))
        self.told: dict[int, list[Any]] = {A: [], B: []}
        self.saved: list[Persist] = []
        self.is_genuine = True
        self.nodes = {number: self.node(number) for number in (A, B)}
        self.turn()

    def node(self, number: int, *, log: bool = True, tags: dict[str, str] | None = None) -> Node:
        address = Address("192.0.2.1", number)
        settings = NodeConfig(
            number, 1, NAMES[number], (address,), tags or {}, PROFILES["lan"], COVEY, number
        )
        stored = StoredLog(100 + number, 7, self.logs[number].stored()) if log else None
        return Node(
            settings, ToySuite(bytes(32)), SIGNED, lambda _payload, _signature: self.is_genuine,
            MemoryStorage(), random.Random(number), lambda _now: 0, self.now, log=stored,
            signing=toy_signing(COVEY, number),
        )  # fmt: skip

    def turn(self) -> None:
        """Perform effects until there are none."""
        while any(self.perform(number, node) for number, node in self.nodes.items()):
            pass

    def perform(self, number: int, node: Node) -> bool:
        effects = list(node.effects())
        for effect in effects:
            match effect:
                case SendFrame(data=data, to=to):
                    if to in self.nodes:
                        self.nodes[to].receive_frame(data, number, self.now)
                case Persist():
                    self.save(number, effect)
                case Emit(event=event):
                    self.told[number].append(event)
                case _:
                    pass
        return bool(effects)

    def save(self, number: int, batch: Persist) -> None:
        if batch.token > TOKENS_FROM:
            assert batch.durability is Durability.FSYNC
            self.logs[number].apply(batch.changes)
            self.saved.append(batch)
        self.nodes[number].persisted(batch.token, self.now)

    def run(self, duration_s: float) -> None:
        end = self.now + duration_s
        while self.now < end:
            self.now += 0.1
            for node in self.nodes.values():
                node.wake(self.now)
            self.turn()

    def ask(self, number: int, request: Any) -> Any:
        asked = self.nodes[number].with_control(
            lambda control: control.submit(request, self.now), self.now
        )
        self.turn()
        self.run(1.0)
        [done] = [
            each
            for each in self.told[number]
            if isinstance(each, ControlCompleted) and each.request == asked
        ]
        return done.result


def test_a_founder_and_another_node_agree() -> None:
    pair = Pair()
    assert pair.ask(B, ControlWrite(Transact((), (PutKey("a", b"1"),)))).succeeded
    read = pair.ask(A, ControlRead(ReadKeys((GetKey("a"),))))
    assert read.results[0].entries[0].value == b"1"
    stale = pair.ask(B, ControlRead(ReadKeys((GetKey("a"),)), stale=True))
    assert stale.results == read.results
    assert pair.saved, "the log was saved"
    assert pair.nodes[A].counts["control_part/begun"] == 1
    due = pair.nodes[A].deadline()
    assert due is not None
    assert due - pair.now < 10.0


def test_a_copy_that_nobody_wants_is_not_pulled() -> None:
    pair = Pair()
    pair.run(30.0)
    control = pair.nodes[B].control
    assert control is not None
    assert control.state.index == 0
    pair.ask(B, ControlRead(ReadKeys((GetKey("a"),)), stale=True))
    assert control.state.index > 0


def test_a_stranger_is_not_heard() -> None:
    pair = Pair()
    frame = m.CODEC.encode(m.ControlAsk(1, m.LeaderAsk()))
    pair.nodes[A].receive_frame(frame, STRANGER, pair.now)
    assert pair.nodes[A].counts["frames_dropped/stranger"] == 1
    assert not [each for each in pair.nodes[A].effects() if isinstance(each, SendFrame)]


def test_a_node_without_a_log_skips_its_frames() -> None:
    pair = Pair()
    pair.nodes[B] = pair.node(B, log=False)
    frame = m.CODEC.encode(m.ControlAsk(1, m.LeaderAsk()))
    pair.nodes[B].receive_frame(frame, A, pair.now)
    assert pair.nodes[B].counts["frames_skipped/unknown"] == 1


def test_a_node_says_what_its_tags_say_of_its_power() -> None:
    pair = Pair()
    for tags, expected in (({"power": "battery"}, False), ({"power": "mains"}, True), ({}, None)):
        node = pair.node(B, tags=tags)
        assert node.control is not None
        assert node.control.own_reports.report(pair.now).is_on_mains is expected


def test_who_belongs_by_the_registry_may_vote() -> None:
    pair = Pair()
    pair.run(700.0)
    founder = pair.nodes[A].control
    assert founder is not None
    assert founder.part.configuration.learners == (Voter(100 + B, B),)


NEXT = admit(REGISTRY, RegisteredNode(3, "cleo"))
FIRST_IN_LOG = ControlWrite(ChangeRegistry(b"", SIGNED))


def following(before: Registry, after: Registry) -> ControlWrite:
    return ControlWrite(ChangeRegistry(before.mark, signed(after)))


def test_what_is_committed_is_saved_followed_and_shown() -> None:
    pair = Pair()
    assert isinstance(pair.ask(A, FIRST_IN_LOG), ChangedResult)
    assert pair.nodes[A].state.registry == REGISTRY
    saved_before = len(pair.told[A])
    assert isinstance(pair.ask(A, following(REGISTRY, NEXT)), ChangedResult)
    assert [node.state.registry for node in pair.nodes.values()] == [NEXT, NEXT]
    control = pair.nodes[B].control
    assert control is not None
    assert control.state.index == 0, "who keeps no copy was shown it by the leader"
    adopted = [e for e in pair.told[A][saved_before:] if isinstance(e, RegistryAdopted)]
    assert [each.registry for each in adopted] == [NEXT]
    assert not [e for e in pair.told[A] if isinstance(e, RegistryCommitted)], "a matter of planes"


def test_who_drains_by_the_registry_does_not_stand_by() -> None:
    pair = Pair()
    pair.ask(A, FIRST_IN_LOG)
    pair.ask(A, following(REGISTRY, arrange(REGISTRY, B, NodeChange(drains=True))))
    pair.run(700.0)
    founder = pair.nodes[A].control
    assert founder is not None
    assert founder.part.configuration.learners == ()


def test_nobody_follows_what_is_committed_before_it_is_saved() -> None:
    pair = Pair()
    pair.ask(A, FIRST_IN_LOG)
    pair.nodes[A].with_control(lambda c: c.submit(following(REGISTRY, NEXT), pair.now), pair.now)
    unsaved = []
    for _ in range(10):
        for effect in list(pair.nodes[A].effects()):
            if isinstance(effect, Persist) and effect.token < TOKENS_FROM:
                unsaved.append(effect)
            elif isinstance(effect, Persist):
                pair.save(A, effect)
            assert not isinstance(effect, SendFrame), "nothing is shown"
    assert [each.changes for each in unsaved] == [(RegistryChange(NEXT.epoch, signed(NEXT)),)]
    assert pair.nodes[A].state.registry == REGISTRY
    pair.save(A, unsaved[0])
    assert pair.nodes[A].state.registry == NEXT


def test_who_copies_the_log_follows_what_stands_in_it() -> None:
    pair = Pair()
    pair.ask(B, ControlRead(ReadRegistry()))
    pair.ask(A, FIRST_IN_LOG)
    control = pair.nodes[B].control
    assert control is not None
    pair.ask(A, following(REGISTRY, NEXT))
    read = pair.ask(B, ControlRead(ReadRegistry(), stale=True))
    assert (read.registry, read.mark) == (signed(NEXT), NEXT.mark)
    pair.nodes[B] = pair.node(B)
    assert pair.nodes[B].state.registry == REGISTRY, "its disk has forgotten"
    pair.nodes[B].with_control(lambda c: c.part.copy.want(pair.now), pair.now)
    pair.run(1.0)
    assert pair.nodes[B].state.registry == NEXT


def test_who_does_not_vote_changes_nothing() -> None:
    pair = Pair()
    refused = pair.ask(B, FIRST_IN_LOG)
    assert isinstance(refused, UnavailableResult)
    assert "only a node that votes" in refused.reason
    assert pair.nodes[A].counts["control_asks/no_vote"] == 1
    assert pair.ask(A, ControlRead(ReadRegistry())).mark == b""


def test_what_the_authority_did_not_sign_does_not_come_into_the_log() -> None:
    pair = Pair()
    pair.ask(A, FIRST_IN_LOG)
    pair.is_genuine = False
    assert isinstance(pair.ask(A, following(REGISTRY, NEXT)), UnavailableResult)
    assert pair.nodes[A].counts["control_asks/invalid"] == 1
    pair.is_genuine = True
    assert pair.ask(A, ControlRead(ReadRegistry())).mark == REGISTRY.mark


def test_a_registry_in_the_log_that_the_authority_did_not_sign_is_not_followed() -> None:
    """A leader that lies has taken it in."""
    pair = Pair()
    pair.ask(A, FIRST_IN_LOG)
    control = pair.nodes[A].control
    assert control is not None
    control.asks._members_of = members_of_any
    pair.is_genuine = False
    assert isinstance(pair.ask(A, following(REGISTRY, NEXT)), ChangedResult)
    assert pair.nodes[A].state.registry == REGISTRY
    assert pair.nodes[A].counts["registries_refused/committed"] == 1


def test_who_would_leave_too_few_voters_is_refused() -> None:
    pair = Pair()
    pair.ask(A, FIRST_IN_LOG)
    refused = pair.ask(A, following(REGISTRY, remove(REGISTRY, A, accept_loss=True)))
    assert isinstance(refused, UnavailableResult)
    assert "so few voters" in refused.reason
    assert pair.nodes[A].counts["control_asks/would_stall"] == 1
    assert isinstance(pair.ask(A, following(REGISTRY, remove(REGISTRY, B))), ChangedResult)


def test_who_was_removed_is_not_heard_by_the_voters() -> None:
    pair = Pair()
    pair.ask(A, FIRST_IN_LOG)
    pair.ask(A, following(REGISTRY, remove(REGISTRY, B)))
    dropped = pair.nodes[A].counts["frames_dropped/stranger"]
    pair.nodes[B].with_control(lambda c: c.submit(ControlRead(ReadRegistry()), pair.now), pair.now)
    pair.run(1.0)
    assert pair.nodes[A].counts["frames_dropped/stranger"] > dropped


def test_the_issuer_that_leads_acts() -> None:
    pair = Pair()
    pair.run(15.0)
    assert pair.nodes[A].state.progress.voting() == (A, (A,))


@pytest.mark.interpreted
def test_who_leaves_or_sleeps_lets_somebody_else_lead(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair()
    handed_over: list[float] = []
    control = pair.nodes[A].control
    assert control is not None
    monkeypatch.setattr(control, "hand_over", handed_over.append)
    pair.nodes[A].sleep(60.0, 1.0)
    pair.nodes[A].leave(2.0)
    assert handed_over == [1.0, 2.0]
