"""A member with valid credentials does its worst, by the thousands; the others stay as they are.

Each test is one promise of ``docs/attacks.md`` about "a member that lies": what it may cost is
bounded, what is thrown away is counted, and nobody who is well stays dead for others.
"""

from collections import Counter
from random import Random

import msgspec
import pytest

from gossip.core.ids import next_boot
from gossip.core.machine import Address
from gossip.core.tuning import LAN
from gossip.events.events import EventDelivered
from gossip.events.messages import Event, Query, QueryResponse, ResponseKind
from gossip.membership.model.facts import FACTS_BYTES_MAX, Facts
from gossip.membership.model.members import MemberChanged, MemberState
from gossip.membership.model.messages import (
    Alive,
    Asleep,
    Dead,
    Left,
    Suspect,
    SyncDelta,
    SyncEntry,
)
from gossip.sim.host import Host
from gossip.sim.invariants import (
    Checker,
    IncarnationGrows,
    SelfAlive,
    WordsAreTheirOwn,
    WorldView,
)
from gossip.sim.world import World
from tests.fuzz.mallory import Mallory
from tests.fuzz.memory import outgrown

HONEST = ("ada", "bob", "cy", "dot")
MANY = 10_000
AT_ONCE = 50
REFUTED_S = 2.0
"""In which time a healthy member has refuted any lie to everybody, in profile ``lan``."""
REUNITED_S = 60.0
"""... and in which all find each other again when everybody was said dead to everybody."""
LONG_AGO = Address("192.0.2.9", 7747)


class Mourning(Checker):
    """Notes for how long anybody believed a member dead that is well."""

    def __init__(self) -> None:
        self.deaths = 0
        self.longest_s = 0.0
        self._since: dict[tuple[str, int], float] = {}

    def member_changed(self, world: WorldView, host: Host, change: MemberChanged) -> None:
        name = world.names.get(change.member.id)
        if name not in HONEST:
            return
        key = host.name, change.member.id
        if change.member.state in (MemberState.DEAD, MemberState.LEFT, MemberState.ASLEEP):
            self.deaths += key not in self._since
            self._since.setdefault(key, world.now)
        elif key in self._since:
            self.longest_s = max(self.longest_s, world.now - self._since.pop(key))

    @property
    def mourned(self) -> int:
        """How many are believed dead now."""
        return len(self._since)


class Scene:
    """Four honest members and one that is not."""

    def __init__(self, seed: int = 1) -> None:
        self.mourning = Mourning()
        words = WordsAreTheirOwn(but="mallory")
        self.world = World(seed, checkers=[SelfAlive(), IncarnationGrows(), words, self.mourning])
        self.world.add(*HONEST, "mallory")
        assert self.world.run_until(self.world.is_whole, within_s=20) is not None
        self.world.run(5.0)
        self.mallory = Mallory(self.world, "mallory")
        self.hosts = [self.world.hosts[name] for name in HONEST]
        self.ada = self.hosts[0]

    def counts(self, family: str) -> int:
        """Sum a family of counters over all nodes."""
        return sum(n for label, n in self.world.counts.items() if label.startswith(family))

    def is_well(self) -> bool:
        """Say whether all honest members take each other for alive."""
        return all(
            (member := one.node.swim.members.get(other.id)) is not None
            and member.state is MemberState.ALIVE
            for one in self.hosts
            for other in self.hosts
        )

    def check_bounds(self) -> None:
        for host in self.hosts:
            assert not outgrown(host.node)
            assert len(host.node.swim.members) <= len(HONEST) + 1


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_ten_thousand_invented_members_fill_no_list(scene: Scene) -> None:
    for first in range(0, MANY, AT_ONCE):
        nodes = range(1 + first, 1 + first + AT_ONCE)
        claims = (Alive(node, 1 << 32, 1, f"n{node}", (LONG_AGO,), {}) for node in nodes)
        scene.mallory.say(scene.ada, *claims)
        entries = tuple(
            SyncEntry(node + MANY, 1 << 32, 1, MemberState.DEAD, 1, 0, "x", (LONG_AGO,), {})
            for node in nodes
        )
        scene.mallory.frame(scene.ada, SyncDelta(entries, (), is_partial=False))
        scene.world.run(0.02)
    assert len(scene.ada.node.swim.members) == len(HONEST) + 1
    assert len(scene.ada.node.swim._member_list._strangers) == LAN.strangers_max
    assert scene.counts("members_refused/not in the registry") >= 2 * MANY - 100
    scene.check_bounds()
    assert scene.is_well()
    assert scene.mourning.deaths == 0


def test_ten_thousand_invented_facts_have_a_bounded_place(scene: Scene) -> None:
    """Of itself, of others, none of strangers; whom they concern tells its own all the same."""
    scene.mallory.introduce(scene.ada)
    me, boot = scene.mallory.id, scene.mallory.boot
    text = {f"fact {n}": "x" * 4000 for n in range(16)}
    for number in range(1, MANY, AT_ONCE):
        facts = Facts(number, text)
        own = msgspec.structs.replace(facts, signature=scene.mallory.sign(facts.said(me, boot)))
        entries = tuple(
            SyncEntry(node, life, 1, MemberState.ALIVE, 1, 0, "x", (LONG_AGO,), {}, told)
            for node, life, told in (
                (me, boot, own), (number, 1 << 32, facts), (scene.hosts[1].id, 1 << 32, facts)
            )
        )  # fmt: skip
        scene.mallory.frame(scene.ada, SyncDelta(entries, (), is_partial=False))
        scene.world.run(0.02)
    kept = scene.ada.node.swim._state_sync._facts._kept_bytes
    assert 0 < kept <= 2 * FACTS_BYTES_MAX
    scene.check_bounds()
    bob = scene.hosts[1]
    scene.mallory.call(bob, lambda node, now: node.set_facts({"rack": "north"}, now))
    learnt = scene.world.run_until(
        lambda: scene.ada.node.swim.facts_of(bob.id) == {"rack": "north"}, within_s=600
    )
    assert learnt is not None
    assert scene.is_well()


@pytest.mark.slow
def test_ten_thousand_events_reach_nobody_beyond_the_allowance(scene: Scene) -> None:
    me, boot = scene.mallory.id, scene.mallory.boot
    scene.mallory.introduce(scene.ada)
    for first in range(0, MANY, AT_ONCE):
        events = (
            Event(me, boot, 1 + n, 1 + n, f"noise {n}", b"x" * 100)
            for n in range(first, first + AT_ONCE)
        )
        scene.mallory.say(scene.ada, *events)
        scene.world.run(0.02)
    scene.world.run(5.0)
    noise = [told for name, _, told in scene.world.delivered if name == "ada"]
    assert 0 < len(noise) <= 2 * LAN.event_burst_max + 2 * LAN.events_per_s * (MANY / AT_ONCE)
    assert len(noise) < MANY / 4
    assert scene.counts("events_ignored/too many") > MANY / 2
    scene.check_bounds()
    scene.world.send_event("bob", "a real one")
    scene.world.run(10.0)
    assert heard_by(scene, "a real one") == set(HONEST)


def heard_by(scene: Scene, event: str) -> set[str]:
    return {
        name
        for name, _, told in scene.world.delivered
        if isinstance(told, EventDelivered) and told.event.name == event
    }


@pytest.mark.slow
def test_ten_thousand_queries_and_answers_are_counted(scene: Scene) -> None:
    """An application sees as many queries at once as it may, and no answer that nobody asked."""
    me, boot = scene.mallory.id, scene.mallory.boot
    scene.mallory.say(scene.ada, Alive(me, boot, 1, "mallory", (LONG_AGO,), {}))
    for first in range(0, MANY, AT_ONCE):
        queries = (Query(me, boot, n, "q", b"", {}, 2**63) for n in range(first, first + AT_ONCE))
        ada = scene.ada.node
        answers = (
            QueryResponse(
                ada.settings.me, ada.settings.boot, n, me, ResponseKind.ANSWERED, b"y" * 20
            )
            for n in range(AT_ONCE)
        )
        scene.mallory.say(scene.ada, *queries, *answers)
    scene.world.run(1.0)
    heard = scene.ada.node.counts["queries/heard"]
    assert 0 < heard <= LAN.queries_max
    ignored = scene.counts("queries_ignored/")
    assert ignored >= MANY - heard
    assert scene.counts("query_responses_ignored/") >= MANY
    scene.check_bounds()
    assert scene.is_well()


STEPS = (0, 1, 2**16, 2**31)
"""From the member's own number up to one that is far, and still believed."""


def lie(scene: Scene, kind: type[Dead] | type[Suspect], step: int, about: list[Host]) -> None:
    """Tell everybody that these are dead or suspect."""
    swims = [subject.node.swim for subject in about]
    lives = [(swim._local.id, swim.boot, swim.incarnation + step) for swim in swims]
    for host in scene.hosts:
        scene.mallory.say(host, *(kind(*life, scene.mallory.id) for life in lives))


@pytest.mark.parametrize("step", STEPS)
def test_who_is_said_dead_refutes_it_at_once(scene: Scene, step: int) -> None:
    for _ in range(10):
        lie(scene, Dead, step, [scene.ada])
        assert scene.world.run_until(scene.is_well, within_s=REFUTED_S) is not None
    assert scene.mourning.deaths >= 10, "the lies were believed for a moment"
    assert scene.mourning.longest_s <= REFUTED_S
    assert scene.ada.node.swim.incarnation < 2**48


@pytest.mark.parametrize("step", STEPS)
def test_a_suspicion_of_everybody_kills_nobody(scene: Scene, step: int) -> None:
    for _ in range(10):
        lie(scene, Suspect, step, scene.hosts)
        assert scene.world.run_until(scene.is_well, within_s=REFUTED_S) is not None
    assert scene.mourning.deaths == 0


@pytest.mark.parametrize("step", STEPS)
def test_a_covey_in_which_everybody_was_said_dead_finds_itself_again(
    scene: Scene, step: int
) -> None:
    """Then nobody talks to anybody, and only the greetings to the dead bring them together."""
    for _ in range(3):
        lie(scene, Dead, step, scene.hosts)
        assert scene.world.run_until(scene.is_well, within_s=REUNITED_S) is not None
    assert scene.mourning.deaths >= 3 * len(HONEST) * (len(HONEST) - 1)
    assert scene.mourning.mourned == 0
    scene.check_bounds()


@pytest.mark.parametrize("incarnation", [2**62, 2**63, 2**64 - 1])
def test_the_highest_number_of_all_is_believed_of_nobody(scene: Scene, incarnation: int) -> None:
    for host in scene.hosts:
        for subject in scene.hosts:
            boot = subject.node.swim.boot
            scene.mallory.say(host, Dead(subject.id, boot, incarnation, 1))
            scene.mallory.say(host, sender=subject.id, boot=2**64 - 1, incarnation=incarnation)
    scene.world.run(5.0)
    assert scene.mourning.deaths == 0
    assert scene.counts("updates_ignored/implausible") >= 2 * 3 * len(HONEST)
    assert scene.is_well()


def forge(scene: Scene, subject: Host) -> None:
    """Say whatever a member says about itself, in the name of another, to everybody."""
    swim, mallory = subject.node.swim, scene.mallory
    now, then = (swim.boot, swim.incarnation + 1), (next_boot(subject.starts + 9, Random(1)), 1)
    for boot, incarnation in (now, then):
        life = subject.id, boot, incarnation
        lies = (
            Alive(*life, subject.name, (LONG_AGO,), {"x": "y"}),
            Left(*life),
            Asleep(*life, 3600, 3600),
        )
        falsely = [msgspec.structs.replace(lie, signature=mallory.sign(lie.said())) for lie in lies]
        facts = Facts(9, {"x": "y"})
        own = msgspec.structs.replace(facts, signature=mallory.sign(facts.said(subject.id, boot)))
        entries = [
            SyncEntry(*life, state, incarnation, 0, subject.name, (LONG_AGO,), {"x": "y"}, each, 60)
            for state in (MemberState.ALIVE, MemberState.LEFT, MemberState.ASLEEP)
            for each in (facts, own)
        ]
        for host in scene.hosts:
            for lie in (*lies, *falsely):
                mallory.say(host, lie)
            for entry in entries:
                mallory.frame(host, SyncDelta((entry,), (), is_partial=False))
            mallory.say(host, sender=subject.id, boot=then[0], incarnation=1)


def test_nobody_speaks_in_the_name_of_another(scene: Scene) -> None:
    """Not of its addresses and tags, its goodbye, its sleep, its facts, or another life of it."""
    seen = [host.node.swim.members[scene.ada.id] for host in scene.hosts]
    for _ in range(10):
        forge(scene, scene.ada)
        scene.world.run(1.0)
    assert scene.is_well()
    assert scene.mourning.deaths == 0
    for host, before in zip(scene.hosts, seen, strict=True):
        after = host.node.swim.members[scene.ada.id]
        same = after.boot, after.addresses, after.tags, after.path
        assert same == (before.boot, before.addresses, before.tags, before.path)
        assert host.node.swim.facts_of(scene.ada.id) == {}
    assert scene.counts("words_refused/forged") > 0
    assert scene.counts("words_refused/unsigned") > 0
    scene.check_bounds()


def test_old_words_that_are_said_again_lose(scene: Scene) -> None:
    """A signature is good for ever; a later life and a later incarnation make it worth nothing."""
    earlier = scene.ada.node.swim._local.alive
    goodbye = Left(earlier.member, earlier.boot, earlier.incarnation)
    for _ in range(3):
        lie(scene, Suspect, 0, [scene.ada])
        scene.world.run(2.0)
    for host in scene.hosts:
        scene.mallory.say(host, earlier, goodbye)
    scene.world.run(5.0)
    assert scene.is_well()
    for host in scene.hosts:
        assert host.node.swim.members[scene.ada.id].incarnation > earlier.incarnation


@pytest.mark.slow
def test_twenty_thousand_packets_cost_counters_alone(scene: Scene) -> None:
    """Half of them with a good seal and nonsense inside, half with a broken seal."""
    before = Counter(scene.ada.node.counts)
    for turn in range(MANY):
        good = scene.mallory.seal(b"\x00\x03\xc1\xc1\xc1")
        scene.mallory.deliver(scene.ada, good)
        scene.mallory.deliver(scene.ada, good[:-1] + bytes([good[-1] ^ 1]))
        if turn % 20 == 0:
            scene.world.run(0.01)
    counts = scene.ada.node.counts - before
    assert counts["datagrams_dropped/malformed"] == MANY
    assert counts["datagrams_dropped/replayed"] + counts["datagrams_dropped/forged"] == MANY
    scene.check_bounds()
    assert scene.is_well()
    assert scene.mourning.deaths == 0


def test_what_was_recorded_is_opened_once(scene: Scene) -> None:
    recorded: list[bytes] = [scene.mallory.seal(b"") for _ in range(500)]
    for packet in recorded:
        scene.mallory.deliver(scene.ada, packet)
    before = Counter(scene.ada.node.counts)
    changes = scene.ada.node.swim.members.changes
    for _ in range(3):
        for packet in recorded:
            scene.mallory.deliver(scene.ada, packet)
    assert (scene.ada.node.counts - before)["datagrams_dropped/replayed"] == 3 * len(recorded)
    assert scene.ada.node.swim.members.changes == changes


def test_packets_of_another_covey_do_not_open_though_the_keys_are_the_same(scene: Scene) -> None:
    before = Counter(scene.ada.node.counts)
    changes = scene.ada.node.swim.members.changes
    for host in scene.hosts:
        for _ in range(100):
            packet = scene.mallory.seal(b"", host.id, 9 << 32, cluster_id=bytes(16))
            scene.mallory.deliver(scene.ada, packet)
    dropped = scene.ada.node.counts - before
    assert dropped["datagrams_dropped/forged"] + dropped["datagrams_dropped/replayed"] == 400
    assert scene.ada.node.swim.members.changes == changes
