"""The air between the nodes: what is lost, late, doubled, and who cannot hear whom.

A network decides; it moves nothing. For each datagram it returns the delays after which copies
of it arrive: none when it is lost, two when it is doubled. Reordering needs no rule of its own,
it follows from jitter. Cuts are directed, because real links fail in one direction more often
than textbooks admit: a full transmit queue, a firewall, an antenna.

Every chance is drawn for every datagram, also when its probability is zero. So masking one kind
of trouble leaves all the other draws where they were.
"""

import math
import random
from collections import Counter
from collections.abc import Iterable

import msgspec

from gossip.core.machine import Instant

# What TCP does about a lost segment takes about this long, again for each further loss.
RETRANSMISSION_S = 0.2
RETRANSMISSIONS_MAX = 16
EVERYBODY_ELSE = -1


class Conditions(msgspec.Struct, frozen=True):
    """What the links are like. Probabilities are per datagram and per direction."""

    loss: float = 0.0
    """Chance that a datagram vanishes."""
    burst: float = 0.0
    """Chance that a datagram begins a silence of its link: loss comes in clumps on Wi-Fi."""
    burst_s: float = 0.5
    """Mean length of such a silence."""
    delay_s: float = 0.001
    """Least time from sender to receiver."""
    jitter_s: float = 0.001
    """Mean of what comes on top of it, exponentially distributed."""
    duplicate: float = 0.0
    """Chance that a second copy arrives on its own way."""
    late: float = 0.0
    """Chance that a copy is held up for up to ``late_s``."""
    late_s: float = 5.0


CALM = Conditions()


class Network:
    """Links between hosts, known by name. Counts what it does to traffic."""

    def __init__(self, rng: random.Random, conditions: Conditions = CALM) -> None:
        self.conditions = conditions
        self.counts: Counter[str] = Counter()
        self._rng = rng
        self._cuts: set[tuple[str, str]] = set()
        self._sides: dict[str, int] = {}
        self._blocked: set[tuple[str, str]] = set()
        self._rejecting: set[str] = set()
        self._streamless: set[tuple[str, str]] = set()
        self._widths: dict[tuple[str, str], int] = {}
        self._silent_until: dict[tuple[str, str], Instant] = {}
        self._far_s: dict[tuple[str, str], float] = {}
        self._held_until: dict[str, Instant] = {}

    def cut(self, source: str, target: str) -> None:
        """Let nothing pass from source to target any more; the way back stays open."""
        self._cuts.add((source, target))

    def mend(self, source: str, target: str) -> None:
        """Undo ``cut``."""
        self._cuts.discard((source, target))

    def lengthen(self, one: str, other: str, delay_s: float) -> None:
        """Let everything between the two take that much longer, in each direction."""
        self._far_s[one, other] = self._far_s[other, one] = delay_s

    def block(self, one: str, other: str) -> None:
        """Let a firewall between the two drop datagrams, and let streams pass."""
        self._blocked |= {(one, other), (other, one)}

    def unblock(self, one: str, other: str) -> None:
        """Undo ``block``."""
        self._blocked -= {(one, other), (other, one)}

    def block_streams(self, one: str, other: str) -> None:
        """Let a firewall between the two drop streams, and let datagrams pass."""
        self._streamless |= {(one, other), (other, one)}

    def unblock_streams(self, one: str, other: str) -> None:
        """Undo ``block_streams``."""
        self._streamless -= {(one, other), (other, one)}

    def narrow(self, one: str, other: str, bytes_max: int) -> None:
        """Drop datagrams of more bytes between the two; streams find their way."""
        self._widths[one, other] = self._widths[other, one] = bytes_max

    def widen(self, one: str, other: str) -> None:
        """Undo ``narrow``."""
        del self._widths[one, other], self._widths[other, one]

    def fits(self, source: str, target: str, size_bytes: int) -> bool:
        """Tell whether a datagram of this size gets through."""
        return size_bytes <= self._widths.get((source, target), size_bytes)

    def reject(self, name: str) -> None:
        """Let a firewall on a host refuse every datagram for it; streams pass, and its own do."""
        self._rejecting.add(name)

    def admit(self, name: str) -> None:
        """Undo ``reject``."""
        self._rejecting.discard(name)

    def rejects(self, name: str) -> bool:
        """Tell whether a firewall on a host refuses datagrams."""
        return name in self._rejecting

    def hold(self, name: str, until: Instant) -> None:
        """Let nothing into a host or out of it before that instant. It is late then, not lost."""
        self._held_until[name] = max(until, self._held_until.get(name, until))

    def release_at(self, name: str, now: Instant) -> Instant | None:
        """Return when what goes into a host or out of it moves on; None: at once."""
        until = self._held_until.get(name, now)
        return until if until > now else None

    def partition(self, sides: Iterable[Iterable[str]]) -> None:
        """Split the hosts into sides that do not hear each other.

        Hosts that no side names form one more side together.
        """
        self._sides = {name: number for number, side in enumerate(sides) for name in side}

    def join_sides(self) -> None:
        """Undo ``partition``; one-way cuts stay."""
        self._sides = {}

    def heal(self) -> None:
        """Undo every cut and partition and end every silence and hold; the conditions stay."""
        self._cuts.clear()
        self._held_until.clear()
        self._silent_until.clear()
        self.join_sides()

    def hears(self, source: str, target: str) -> bool:
        """Tell whether anything sent by source can reach target."""
        sides = self._sides
        if sides and sides.get(source, EVERYBODY_ELSE) != sides.get(target, EVERYBODY_ELSE):
            return False
        return (source, target) not in self._cuts

    def connected(self, one: str, other: str) -> bool:
        """Tell whether a stream between the two can move: that takes both directions."""
        both = self.hears(one, other) and self.hears(other, one)
        return both and (one, other) not in self._streamless

    def datagram_delays(self, source: str, target: str, now: Instant) -> list[float]:
        """Return after how many seconds each copy of a datagram arrives."""
        self.counts["datagrams/sent"] += 1
        lost, doubled = self._is_lost(source, target, now), self._doubles()
        first_s, second_s = self._delay(), self._delay()
        if lost is not None:
            self.counts[f"datagrams/{lost}"] += 1
            return []
        far_s = self._far_s.get((source, target), 0.0) if self._far_s else 0.0
        if not doubled:
            return [first_s + far_s]
        self.counts["datagrams/duplicated"] += 1
        return [first_s + far_s, second_s + far_s]

    def frame_delay(self, source: str, target: str) -> float:
        """Return how long a frame travels; loss shows as retransmission, never as a gap."""
        delay = self.conditions.delay_s + self._rng.expovariate(1.0) * self.conditions.jitter_s
        delay += self._far_s.get((source, target), 0.0)
        for _ in range(RETRANSMISSIONS_MAX):
            if self._rng.random() >= self.conditions.loss:
                break
            delay += RETRANSMISSION_S
        return delay

    def _is_lost(self, source: str, target: str, now: Instant) -> str | None:
        """Return the reason for which a datagram is lost; None when it passes."""
        random, air = self._rng.random, self.conditions
        vanishes, silence = random() < air.loss, random() < air.burst
        length_s = -math.log(1.0 - random()) * air.burst_s
        if (self._sides or self._cuts) and not self.hears(source, target):
            return "cut"
        if self._blocked and (source, target) in self._blocked:
            return "blocked"
        if silence:
            self._silent_until[source, target] = now + length_s
        if self._silent_until and self._silent_until.get((source, target), now) > now:
            return "lost_in_burst"
        return "lost" if vanishes else None

    def _doubles(self) -> bool:
        return self._rng.random() < self.conditions.duplicate

    def _delay(self) -> float:
        random, air = self._rng.random, self.conditions
        held, held_s = random() < air.late, random() * air.late_s
        # Exponential, as Random.expovariate does it, which is too slow to call for each packet.
        delay = air.delay_s - math.log(1.0 - random()) * air.jitter_s
        return delay + held_s if held else delay
