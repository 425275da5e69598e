"""An experiment: one covey of a given size on a given network, some of it crashes, all is measured.

What the user of ``covey simulate`` asks for, as a pure function of its settings: the same seed
gives the same findings. Everybody starts at once, knowing the addresses of the first few. When
all know all, or after a minute, the dust may settle for as long as states are exchanged more
often than usual; then measuring begins. A quarter of the time is quiet, which shows what
the covey costs when nothing happens; then the unlucky crash together, and the rest of the time is
for noticing. Every change of every member list is judged against the truth, which only a simulator
knows. It measures the membership alone, in a membership world (``membership_world.py``).
"""

import statistics
from collections.abc import Callable, Iterator, Mapping

import msgspec

from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.core.tuning import PROFILES
from gossip.membership.model.members import MemberChanged, MemberState
from gossip.sim.membership_world import Kind, MembershipWorld, SimMember
from gossip.sim.network import Conditions
from gossip.sim.rng import stream

SEEDS = 3
"""So many addresses each node is told when it starts."""
START_MAX_S = 60.0
QUIET_SHARE = 0.25
STEP_S = 0.5
BURST_S = 0.5
SECONDS_PER_HOUR, SECONDS_PER_DAY = 3600.0, 86400.0
HEADERS_BYTES = 28
"""IPv4 and UDP headers of a datagram."""

AIR = {
    "lan": Conditions(delay_s=0.001, jitter_s=0.001),
    "local": Conditions(delay_s=0.0001, jitter_s=0.0001),
}
FAR_AIR = Conditions(delay_s=0.03, jitter_s=0.01)
"""What links are like, by profile; FAR_AIR for those that are not for one site."""


class ExperimentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What to simulate."""

    nodes: int
    loss: float = 0.0
    """Chance that a datagram is lost."""
    burst: bool = False
    """Whether a lost datagram silences its link for a while, in which more are lost."""
    profile: str = "lan"
    crash: int = 0
    """How many nodes crash at once."""
    kind: Kind = "host"
    seconds: float = 120.0
    """How long is measured, once all know all and the dust has settled."""
    seed: int = 1


class Detection(msgspec.Struct, frozen=True):
    """When one crash was known; None where nobody, or not everybody, knew it in time."""

    first_s: float | None
    last_s: float | None


class ExperimentResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured."""

    converged_s: float | None
    """From the start until all knew all; None if that took more than START_MAX_S."""
    detections: tuple[Detection, ...]
    knowing: tuple[tuple[float, float], ...]
    """(seconds after the crash, share of all pairs of observer and crashed that knew by then)."""
    false_suspicions_per_node_hour: float
    false_deaths_per_node_hour: float
    falsely_dead: int
    """How many different members somebody declared dead that were not."""
    lost_share: float
    """Which part of all datagrams was lost in fact."""
    packets_per_node_s: float
    """Datagrams sent while nothing happened."""
    bytes_per_node_s: float
    """Of them, with IP and UDP headers, and of the frames on streams."""

    @property
    def bytes_per_node_day(self) -> float:
        """What a node sends a day when nothing happens."""
        return self.bytes_per_node_s * SECONDS_PER_DAY


class DetectionScorer:
    """Compares what members believe with what is so."""

    def __init__(self) -> None:
        self.truth: Mapping[NodeId, SimMember] = {}
        """Everybody, by id; what is so can be seen there."""
        self.false_suspicions = 0
        self.false_deaths = 0
        self.falsely_dead: set[NodeId] = set()
        self.crashed_at: dict[NodeId, Instant] = {}
        self.known_at: dict[NodeId, dict[str, Instant]] = {}

    def changed(self, observer: SimMember, change: MemberChanged, now: Instant) -> None:
        """Note a verdict, true or false."""
        member = change.member
        if member.id in self.crashed_at:
            if member.state is MemberState.DEAD:
                self.known_at.setdefault(member.id, {}).setdefault(observer.name, now)
        elif not self.truth[member.id].is_down:
            self._note_false(change)

    def _note_false(self, change: MemberChanged) -> None:
        state = change.member.state
        if state is change.before:
            return
        if state is MemberState.SUSPECT:
            self.false_suspicions += 1
        elif state is MemberState.DEAD:
            self.false_deaths += 1
            self.falsely_dead.add(change.member.id)

    def forget(self) -> None:
        """Begin anew: what happened while all met does not count."""
        self.false_suspicions = self.false_deaths = 0
        self.falsely_dead.clear()


class Experiment:
    """One run. Iterate over ``run`` to its end; ``findings`` are there afterwards."""

    def __init__(self, settings: ExperimentSettings) -> None:
        assert 0 <= settings.crash < settings.nodes, "somebody has to be left to notice"
        assert settings.seconds > 0, "measuring takes time"
        self.settings = settings
        self._scorer = DetectionScorer()
        self._world = MembershipWorld(
            settings.seed,
            conditions=_conditions(settings),
            tuning=PROFILES[settings.profile],
            known_max=SEEDS,
            changed=self._scorer.changed,
        )
        self._scorer.truth = self._world.by_id
        self._converged_s: float | None = None
        self._quiet: tuple[float, float] = (0.0, 0.0)

    def run(self) -> Iterator[float]:
        """Let it happen; yield now and then how much of it is done, from 0 to 1."""
        settings, world = self.settings, self._world
        yield 0.0
        world.add(settings.nodes)
        self._converged_s = world.run_until(world.is_whole, within_s=START_MAX_S)
        settle_s = world.tuning.exchange_interval_s
        whole_s = settle_s + settings.seconds
        yield from self._pass_time(settle_s, whole_s, 0.0)
        self._scorer.forget()
        sent = self._sent()
        quiet_s = self._quiet_s()
        yield from self._pass_time(quiet_s, whole_s, settle_s)
        packets, size = (after - before for after, before in zip(self._sent(), sent, strict=True))
        spent = settings.nodes * quiet_s
        self._quiet = packets / spent, size / spent
        if settings.crash:
            self._crash()
            yield from self._pass_time(settings.seconds - quiet_s, whole_s, settle_s + quiet_s)

    def findings(self) -> ExperimentResult:
        """Return what was measured; the run must be over."""
        scorer, settings = self._scorer, self.settings
        quiet_s = self._quiet_s()
        left = settings.nodes - settings.crash
        node_s = settings.nodes * quiet_s + left * (settings.seconds - quiet_s)
        node_hours = node_s / SECONDS_PER_HOUR
        return ExperimentResult(
            converged_s=self._converged_s,
            detections=tuple(self._detection(node) for node in scorer.crashed_at),
            knowing=tuple(self._knowing()),
            false_suspicions_per_node_hour=scorer.false_suspicions / node_hours,
            false_deaths_per_node_hour=scorer.false_deaths / node_hours,
            falsely_dead=len(scorer.falsely_dead),
            lost_share=self._lost_share(),
            packets_per_node_s=self._quiet[0],
            bytes_per_node_s=self._quiet[1],
        )

    def _quiet_s(self) -> float:
        return self.settings.seconds * (QUIET_SHARE if self.settings.crash else 1.0)

    def _pass_time(self, seconds: float, whole_s: float, before_s: float) -> Iterator[float]:
        begun = self._world.now
        until = begun + seconds
        while self._world.now < until:
            self._world.run(min(STEP_S, until - self._world.now))
            yield min(1.0, (before_s + self._world.now - begun) / whole_s)

    def _crash(self) -> None:
        world, settings = self._world, self.settings
        names = stream(settings.seed, "crash").sample(world.up(), settings.crash)
        for name in names:
            self._scorer.crashed_at[world.sim_members[name].id] = world.now
        world.crash(*names, kind=settings.kind)

    def _sent(self) -> tuple[int, int]:
        """Return the datagrams and the bytes that were sent so far."""
        packets = self._world.datagrams_sent
        return packets, packets * HEADERS_BYTES + self._world.bytes_sent

    def _lost_share(self) -> float:
        counts = self._world.network.counts
        lost = counts["datagrams/lost"] + counts["datagrams/lost_in_burst"]
        return lost / max(1, counts["datagrams/sent"])

    def _times(self, node: NodeId) -> list[float]:
        """Return after how many seconds each observer that is still there knew of a crash."""
        crashed_at = self._scorer.crashed_at[node]
        return sorted(at - crashed_at for at in self._scorer.known_at.get(node, {}).values())

    def _detection(self, node: NodeId) -> Detection:
        times = self._times(node)
        observers = self.settings.nodes - self.settings.crash
        return Detection(
            times[0] if times else None, times[-1] if len(times) == observers else None
        )

    def _knowing(self) -> Iterator[tuple[float, float]]:
        crashed = self._scorer.crashed_at
        pairs = len(crashed) * (self.settings.nodes - len(crashed))
        times = sorted(each for node in crashed for each in self._times(node))
        for number, at_s in enumerate(times, 1):
            yield at_s, number / pairs


def run(
    settings: ExperimentSettings, progress: Callable[[float], None] | None = None
) -> ExperimentResult:
    """Run an experiment to its end; ``progress`` hears how much of it is done."""
    experiment = Experiment(settings)
    for done in experiment.run():
        if progress is not None:
            progress(done)
    return experiment.findings()


def median_and_max(times: list[float | None]) -> tuple[float | None, float | None]:
    """Return both; None counts as later than everything.

    >>> median_and_max([3.0, None, 1.0]), median_and_max([None, 2.0]), median_and_max([])
    ((3.0, None), (None, None), (None, None))
    """
    known = sorted(time for time in times if time is not None)
    late = len(times) - len(known)
    middle = statistics.median([*known, *[float("inf")] * late]) if times else float("inf")
    return None if middle == float("inf") else middle, known[-1] if known and not late else None


def _conditions(settings: ExperimentSettings) -> Conditions:
    air = AIR.get(settings.profile, FAR_AIR)
    if settings.burst:
        return msgspec.structs.replace(air, burst=settings.loss, burst_s=BURST_S)
    return msgspec.structs.replace(air, loss=settings.loss)
