"""Every interval and limit of the gossip protocols, with its unit and its reason.

Two profiles are enough for most coveys: ``LAN`` for devices on one site, ``LOCAL`` for several
agents on one machine, where a lost packet is a bug and nobody wants to wait. The formulas that
depend on the number of members are methods here, so that the numbers of a covey of any size can
be read in one place.

How the numbers hang together, for LAN and up to 32 members. A member that dies is first pinged
after 1.6 s on average (e/(e-1) periods, SWIM section 3.1); the probe is lost at the end of its
period, 1 s later; suspicion lasts 4 s once enough others confirm it; the news is everywhere half a
second after that: about 7 s, and 10 s with little luck. A member that is paused for less than 4 s
is never declared dead, because its first packet afterwards clears it.
"""

import math

import msgspec

PACKET_BYTES_MAX = 1400
"""UDP payload that crosses Ethernet, PPPoE and WireGuard without being fragmented."""

ENVELOPE_BYTES = 53
"""What the envelope adds to a body; see its table."""

BODY_BYTES_MAX = PACKET_BYTES_MAX - ENVELOPE_BYTES
"""What is left of a packet for messages."""

FRAME_BYTES_MAX = 2**20
"""The largest message on a stream."""


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """One set of intervals and limits; the same on all members, or they judge each other oddly."""

    # Probing.
    probe_interval_s: float
    """One probe per this long; it ends with a verdict when the next one begins."""
    probe_timeout_s: float
    """How long a direct ping may take before relays are asked. Above any healthy round trip."""
    probe_relays: int = 3
    """Members asked to ping on our behalf (k in SWIM)."""
    probe_checkers: int = 8
    """How many members, on average, check a new suspect out of turn; see probe.py."""
    relayed_max: int = 256
    """Pings that we do on behalf of others at a time."""
    awareness_max: int = 8
    """The worst health score of our own; interval and timeout stretch by 1 + score."""
    pause_s: float
    """Woken later than asked by this much: we were stopped, and judge nobody by that time."""

    # Suspicion.
    suspicion_periods: float
    """Probe intervals from a confirmed suspicion to death, up to 32 members."""
    suspicion_stretch: float = 6.0
    """An unconfirmed suspicion lasts this much longer (beta in Lifeguard)."""
    confirmations_max: int = 3
    """Further independent accusers that shorten a suspicion to its minimum (K in Lifeguard)."""

    # Rumours.
    gossip_interval_s: float
    """Rumours that wait are sent this often; without rumours nothing is sent."""
    gossip_fanout: int = 3
    """To how many members each time."""
    tellings_min: int = 8
    """Each rumour is told at least this often: with fewer, small coveys miss one in ten."""
    tellings_per_doubling: int = 4
    """... and this often for each doubling of the covey."""
    rumours_max: int = 8192
    """Rumours kept at a time; beyond, the most-told is given up."""

    # Meeting, meeting again, exchanging everything.
    hello_first_s: float
    """The first repetition of an unanswered Hello; doubled each time."""
    hello_slowest_s: float
    """... up to this, and then for ever."""
    hints_max: int = 1024
    """Addresses at which somebody might be."""
    exchange_interval_s: float
    """Full states are exchanged with a random member this often, up to 32 members."""
    exchange_gap_s: float
    """Exchanges that a meeting calls for are at least this far apart."""
    reconnect_interval_s: float
    """Dead and forgotten peers are greeted this often ..."""
    reconnect_rounds: int = 5
    """... each of them once in this many rounds ..."""
    reconnect_burst_max: int = 32
    """... but never more than this many in a round."""

    # Memory.
    members_max: int = 4096
    """Members in the list, of any state."""
    strangers_max: int = 64
    """Of them, those that the registry does not know (it may lag behind a join)."""
    dead_keep_s: float = 24 * 3600.0
    """A dead member stays listed this long; then only its addresses are kept."""
    left_keep_s: float = 3600.0
    """A member that left stays listed this long, and is not looked for afterwards."""
    forgotten_max: int = 1024
    """Addresses of dead members that are no longer listed."""
    leave_linger_s: float
    """How long we go on telling that we leave."""

    def __post_init__(self) -> None:
        assert 0 < self.probe_timeout_s <= self.probe_interval_s / 2, "time for the indirect probe"
        assert self.gossip_interval_s <= self.probe_timeout_s, "news outrun verdicts"
        # A checker needs a period to begin its probe and one to fail it, before the time is up.
        assert self.suspicion_periods >= 3, "confirmations arrive before the minimum has passed"
        assert self.suspicion_stretch >= 1, "the longest suspicion is not below the shortest"
        assert self.pause_s < self.suspicion_periods * self.probe_interval_s, "see Swim.wake"
        assert self.hello_first_s <= self.hello_slowest_s, "back-off goes up"
        assert self.exchange_gap_s <= self.exchange_interval_s, "a gap, not a second interval"
        assert self.reconnect_interval_s * self.reconnect_rounds <= 50, "splits heal within 60 s"
        assert self.members_max > self.strangers_max, "strangers are a part of the list"

    def crowd(self, members: int) -> float:
        """Return how much slower a large covey takes things: 1 up to 32 members, 2 at 1024."""
        return max(1.0, math.log2(max(1, members)) / 5)

    def suspicion_min_s(self, members: int) -> float:
        """Return how long a suspicion lasts that enough others confirmed."""
        return self.suspicion_periods * self.probe_interval_s * self.crowd(members)

    def suspicion_max_s(self, members: int) -> float:
        """Return how long a suspicion lasts that nobody else confirms."""
        return self.suspicion_stretch * self.suspicion_min_s(members)

    def confirmations(self, members: int) -> int:
        """Return how many further accusers make a suspicion certain.

        At most half of the others, so that a second death does not leave too few to confirm.
        """
        return min(self.confirmations_max, (members - 1) // 2)

    def tellings(self, members: int) -> int:
        """Return how often each rumour is told.

        >>> [LAN.tellings(n) for n in (1, 5, 10, 100)]
        [8, 12, 16, 28]
        """
        return max(
            self.tellings_min, self.tellings_per_doubling * math.ceil(math.log2(members + 1))
        )

    def exchange_s(self, members: int) -> float:
        """Return the interval between exchanges of full states."""
        return self.exchange_interval_s * self.crowd(members)


LAN = Tuning(
    probe_interval_s=1.0,
    probe_timeout_s=0.5,
    pause_s=2.0,
    suspicion_periods=4,
    gossip_interval_s=0.2,
    hello_first_s=0.5,
    hello_slowest_s=30.0,
    exchange_interval_s=30.0,
    exchange_gap_s=1.0,
    reconnect_interval_s=10.0,
    leave_linger_s=0.6,
)
"""Devices on one site, wired or wireless."""

LOCAL = Tuning(
    probe_interval_s=0.2,
    probe_timeout_s=0.1,
    pause_s=0.6,
    suspicion_periods=6,
    gossip_interval_s=0.05,
    hello_first_s=0.1,
    hello_slowest_s=5.0,
    exchange_interval_s=5.0,
    exchange_gap_s=0.2,
    reconnect_interval_s=2.0,
    leave_linger_s=0.15,
)
"""Several agents on one machine: demonstrations and tests."""

PROFILES = {"lan": LAN, "local": LOCAL}
"""The names that a configuration file may use."""
