"""Each checker catches a bug that is planted for it; a kit that cannot fail proves nothing.

A mutation breaks one rule in the code of the protocols; storms of a few seeds must then end with
the checker that guards the rule. Without mutations the same storms pass.
"""

from collections.abc import Callable

import msgspec
import pytest

from gossip.core.envelope import Envelope, ReplayWindow
from gossip.core.ids import NodeId
from gossip.core.machine import Address, Instant
from gossip.kv import forwarding, joint_quorum, records, writes
from gossip.kv.messages import Message, RegistryOffer
from gossip.kv.outbound import OutboundFrames
from gossip.kv.registry_sync import RegistrySync
from gossip.kv.repair import RepairScheduler
from gossip.membership.bootstrap import Bootstrap
from gossip.membership.detection import updates
from gossip.membership.detection.failure_detector import FailureDetector
from gossip.membership.detection.sleepers import SleepingMembers
from gossip.membership.detection.updates import MemberUpdates
from gossip.membership.model.local_member import LocalMember
from gossip.membership.model.members import MemberChanged, MemberState
from gossip.membership.model.messages import Suspect, Update
from gossip.membership.model.signatures import Signatures
from gossip.sim import campaign
from gossip.sim.consistency import NoLostWrites
from gossip.sim.faults import plan, strike
from gossip.sim.invariants import (
    Checker,
    IncarnationGrows,
    NoFalseDeath,
    NoResurrection,
    NothingInvented,
    RegistryIsKept,
    SelfAlive,
    SleepersAreSpared,
    Violation,
)
from gossip.sim.network import Conditions
from gossip.sim.world import World
from tests.sim.test_hostile_member import Scene, forge

SEEDS = range(20)
STORM_S = 90.0
Plant = Callable[[pytest.MonkeyPatch], None]


def storms(*kinds: type[Checker], seeds: range = SEEDS) -> None:
    """Let several storms come, each under checkers of its own."""
    for seed in seeds:
        storm(seed, [kind() for kind in kinds])


def campaigns(first: int) -> None:
    """Run several seeds of the campaign, with all checkers; this one before the others."""
    for seed in (first, *SEEDS):
        campaign.run(seed)


def storm(seed: int, checkers: list[Checker]) -> None:
    """Let one seed's faults come over five nodes."""
    world = World(seed, checkers=checkers)
    names = list("abcde")
    world.add(*names)
    for fault in plan(seed, names, STORM_S, frozenset()):
        world.driver.schedule.at(fault.at, strike, world, fault)
    world.run(STORM_S)
    world.peace(campaign.PEACE)
    world.run(30)


def lossy_day(checker: Checker) -> None:
    """Let ten nodes live through 10 % loss, and nothing worse, for ten minutes."""
    world = World(1, conditions=Conditions(loss=0.1), checkers=[checker])
    world.add(*"abcdefghij")
    world.run(600)


def power_cut() -> None:
    """Switch all devices off at the moment of an acknowledgement, while their disks are slow."""
    world = World(1, checkers=[NoLostWrites()])
    world.add("a", "b", "c")
    world.run(10)
    for name in "abc":
        world.slow_disk(name, 0.5)
    write = world.put("a", "key", b"value")
    world.run_until(lambda: write.is_done, within_s=10)
    assert write.outcome == "ok"
    world.crash("a", "b", "c")
    world.peace(campaign.PEACE)
    world.run(10)
    for checker in world.checkers:
        checker.settled(world)


def any_packet_revives(patch: pytest.MonkeyPatch) -> None:
    """Believe that who sends a packet is alive, also when it is dead at that incarnation."""
    hear = MemberUpdates.saw_packet

    def mutant(
        self: MemberUpdates, node: int, boot: int, incarnation: int, source: Address, now: Instant
    ) -> bool:
        member = self._members.get(node)
        claim = (member.boot, member.incarnation) if member else None
        if member and member.state is MemberState.DEAD and claim == (boot, incarnation):
            revived = msgspec.structs.replace(member, state=MemberState.ALIVE)
            # Past the member list, which asserts the rule as well: the checker is under test.
            self._members.put(revived)
            self._outbound.emit(MemberChanged(revived, member.state, "sent a packet"))
        return hear(self, node, boot, incarnation, source, now)

    patch.setattr(MemberUpdates, "saw_packet", mutant)


def incarnations_wrap(patch: pytest.MonkeyPatch) -> None:
    """Begin again at 1 behind the third incarnation, as a number with too few bits would."""
    rise = LocalMember.rise_above

    def mutant(self: LocalMember, incarnation: int) -> None:
        rise(self, incarnation)
        if self.incarnation > 3:
            self._alive = msgspec.structs.replace(self._alive, incarnation=1)

    patch.setattr(LocalMember, "rise_above", mutant)


def accusers_count_on(patch: pytest.MonkeyPatch) -> None:
    """Accuse the incarnation after the one that did not answer."""
    hear = MemberUpdates.apply

    def mutant(self: MemberUpdates, claim: Update, source: Address | None, now: Instant) -> None:
        if isinstance(claim, Suspect) and source is None:
            claim = msgspec.structs.replace(claim, incarnation=claim.incarnation + 1)
        hear(self, claim, source, now)

    patch.setattr(MemberUpdates, "apply", mutant)


def updates_about_us_are_believed(patch: pytest.MonkeyPatch) -> None:
    """List ourselves as others see us."""

    def mutant(self: MemberUpdates, claim: Update, source: Address | None, now: Instant) -> None:
        if isinstance(claim, Suspect) and claim.boot == self._local.boot:
            ourselves = self._members[self._local.id]
            self._member_list.put(
                msgspec.structs.replace(ourselves, state=MemberState.SUSPECT), now
            )

    patch.setattr(MemberUpdates, "_about_us", mutant)


def nobody_refutes(patch: pytest.MonkeyPatch) -> None:
    """Be silent when others call us dead; and ask by datagrams alone, so that they do."""
    patch.setattr(MemberUpdates, "_about_us", lambda *_: None)
    patch.setattr(FailureDetector, "_ask_by_stream", lambda *_: None)


def registries_are_followed_at_once(patch: pytest.MonkeyPatch) -> None:
    """Whoever is shown a newer registry follows it while it is on its way to the disk."""
    original = RegistrySync.offered

    def offered(self: RegistrySync, message: RegistryOffer, peer: NodeId, now: Instant) -> None:
        original(self, message, peer, now)
        self.adopt(message.signed, now)

    patch.setattr(RegistrySync, "offered", offered)


def sleepers_are_given_up(patch: pytest.MonkeyPatch) -> None:
    """Take whoever announced its sleep for dead, without waiting for the end of it."""
    patch.setattr(updates, "_is_early", lambda *_: False)
    patch.setattr(
        SleepingMembers,
        "overdue",
        lambda self, _now: sorted(each for each in self._overdue_at if each != self._me),
    )


def the_dead_are_not_greeted(patch: pytest.MonkeyPatch) -> None:
    """Look for nobody who was declared dead."""
    patch.setattr(Bootstrap, "_reconnect", lambda *_: None)


def frames_do_not_wait_for_the_disk(patch: pytest.MonkeyPatch) -> None:
    """Say that something is stored before it is."""
    send = OutboundFrames.send

    def mutant(self: OutboundFrames, message: Message, to: int, after: int = 0) -> None:
        send(self, message, to)

    patch.setattr(OutboundFrames, "send", mutant)


def deletes_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Merge without asking the clock what was processed before."""
    patch.setattr(records, "seen", lambda *_: ())


def one_is_a_quorum(patch: pytest.MonkeyPatch) -> None:
    """Be content with a single answer."""
    for module in (forwarding, joint_quorum, writes):
        patch.setattr(module, "quorum", lambda *_: 1)


def nobody_surveys(patch: pytest.MonkeyPatch) -> None:
    """Ask no peer what differs."""
    patch.setattr(RepairScheduler, "survey", lambda *_: None)


def nobody_compares(patch: pytest.MonkeyPatch) -> None:
    """Begin no pass over a partition, for whatever reason."""
    patch.setattr(RepairScheduler, "want", lambda *_: None)


def everything_is_kept(patch: pytest.MonkeyPatch) -> None:
    """Remember a replay window for each packet."""
    admit = Envelope._admit

    def mutant(self: Envelope, sender: int, boot: int, window: ReplayWindow, counter: int) -> None:
        admit(self, sender, boot, window, counter)
        self._windows[sender, counter] = window

    patch.setattr(Envelope, "_admit", mutant)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("complaint", "plant", "found_by"),
    [
        ("QuorumReads|NoLostWrites", deletes_are_forgotten, 0),
        ("QuorumReads", one_is_a_quorum, 1),
        ("equal replicas", nobody_surveys, 5),
        ("an end of all hand-offs", nobody_compares, 0),
        ("Bounded", everything_is_kept, 6),
        ("one view of the members", the_dead_are_not_greeted, 4),
    ],
)
def test_a_campaign_ends_at_the_complaint(
    complaint: str, plant: Plant, found_by: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seed that once found it saves time; when it does no more, another one must."""
    plant(monkeypatch)
    with pytest.raises(Violation, match=complaint):
        campaigns(found_by)


def nothing_is_verified(patch: pytest.MonkeyPatch) -> None:
    """Believe any signature, and none."""
    patch.setattr(Signatures, "holds", lambda *_: True)


def signatures_are_a_choice(patch: pytest.MonkeyPatch) -> None:
    """Believe unsigned words of who has signed before."""
    holds = Signatures.holds

    def mutant(self: Signatures, member: NodeId, words: tuple[object, ...], sign: bytes) -> bool:
        return not sign or holds(self, member, words, sign)

    patch.setattr(Signatures, "holds", mutant)


def any_signature_is_good(patch: pytest.MonkeyPatch) -> None:
    """Look whether there is a signature, and not whose."""
    patch.setattr(Signatures, "_fits", lambda *_: True)


def lives_begin_by_themselves(patch: pytest.MonkeyPatch) -> None:
    """Believe in a later life by the header of a packet, or an accusation."""
    patch.setattr(Signatures, "may_live", lambda *_: True)


@pytest.mark.parametrize(
    "plant",
    [
        nothing_is_verified,
        signatures_are_a_choice,
        any_signature_is_good,
        lives_begin_by_themselves,
    ],
)
def test_a_liar_is_noticed_where_signatures_are_not_checked(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene()
    plant(monkeypatch)
    with pytest.raises(Violation, match="WordsAreTheirOwn"):
        forge(scene, scene.ada)


@pytest.mark.parametrize(
    ("checker", "plant"),
    [
        (NoResurrection, any_packet_revives),
        pytest.param(IncarnationGrows, incarnations_wrap, marks=pytest.mark.slow),
        (NothingInvented, accusers_count_on),
        (SelfAlive, updates_about_us_are_believed),
        (RegistryIsKept, registries_are_followed_at_once),
        pytest.param(SleepersAreSpared, sleepers_are_given_up, marks=pytest.mark.slow),
    ],
)
def test_a_storm_ends_at_the_checker(
    checker: type[Checker], plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(Violation, match=checker.__name__):
        storms(checker)


@pytest.mark.slow
def test_without_a_mutation_storms_pass() -> None:
    storms(
        NoResurrection,
        IncarnationGrows,
        NothingInvented,
        RegistryIsKept,
        SelfAlive,
        SleepersAreSpared,
        seeds=SEEDS[:3],
    )


def test_false_deaths_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody_refutes(monkeypatch)
    with pytest.raises(Violation, match="NoFalseDeath"):
        lossy_day(NoFalseDeath())


def test_acknowledgements_before_the_disk_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    power_cut()
    frames_do_not_wait_for_the_disk(monkeypatch)
    with pytest.raises(Violation, match="NoLostWrites"):
        power_cut()
