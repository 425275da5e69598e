"""Every interval and limit of the gossip protocols, with its unit and its reason.

There are four profiles: ``LAN`` for devices on one site, ``WAN`` for sites far apart, ``METERED``
for links on which every byte is paid for, and ``LOCAL`` for several agents on one machine, where a
lost packet is a bug and nobody wants to wait. All members of a covey use the same. The formulas
that depend on the number of members are methods here, so that the numbers of a covey of any size
can be read in one place.

How the numbers hang together, for LAN and up to 32 members. A member that dies is first pinged
after 1.6 s on average (e/(e-1) periods, SWIM section 3.1); the probe is lost at the end of its
period, 1 s later; suspicion lasts 3.5 s once enough others confirm it; the news is everywhere half
a second after that: about 6.5 s, and 9 s with little luck. (memberlist waits half a second longer,
and declares healthy members dead under loss all the same: what saves them here is that any packet
of theirs clears them, and that updates are told more often.) A member that is paused for less than
4 s is never declared dead, because its first packet afterwards clears it. A process that is killed
on a host that stays up is known to all after about a second, because the host says so:
``crash_detector.py``.
"""

import math

import msgspec

PATH_BYTES = 1280
"""The largest IP packet that we send, by datagram and by stream: the least that IPv6 asks of every
link (RFC 8200 section 5), what VPNs offer at least, and what QUIC relies on (RFC 9000 section 14).
So PPPoE (1492), WireGuard (1420) and tunnels in tunnels need no search for their size."""

NARROW_PATH_BYTES = 576
"""The same, on a path that turned out to drop larger packets: what every host takes (RFC 791)."""

IP_AND_UDP_BYTES = 40 + 8
"""The headers of a datagram by IPv6; IPv4's are 20 less."""

PACKET_BYTES_MAX = PATH_BYTES - IP_AND_UDP_BYTES
"""The largest datagram, in bytes of UDP payload."""

NARROW_PACKET_BYTES = NARROW_PATH_BYTES - IP_AND_UDP_BYTES
"""The same, on a narrow path."""

ENVELOPE_BYTES = 61
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
    probe_patience: float = 4.0
    """... but for a member that is known to be far away: this many of its round trips ..."""
    probe_patience_share: float = 0.7
    """... up to this share of the interval; the rest is for the relays."""
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

    # Evidence; see crash_detector.py. All of it is counted in probe timeouts, which know the
    # network.
    refusals_needed: int = 3
    """Refused pings, with no packet in between, that make an accusation."""
    refused_ping_share: float = 0.1
    """A refused ping is repeated after this share of the timeout."""
    accuse_timeouts: float = 0.4
    """Refusals go on for this long before they are an accusation ..."""
    confirm_timeouts: float = 1.0
    """... and for this much longer before they are a death, if somebody else found the same."""
    refusal_backoff_first_s: float = 10.0
    """Refusals about a member that was there are ignored this long, then twice as long ..."""
    refusal_backoff_longest_s: float = 3600.0
    """... up to this."""
    observers_per_member: int = 3
    """Members whose end we watch over an open stream."""
    observers_settle_s: float = 3.0
    """Joins and deaths come in bursts; whom we watch is looked up this long after the first."""
    stream_alone_s: float = 600.0
    """A member that only a stream still reaches counts as alive this long."""

    # Paths; see path_checks.py.
    path_check_s: float
    """Members are looked at for blocked streams and narrow paths this far apart, up to 32 ..."""
    path_fresh_s: float
    """... each of them once in this time, up to five; of more, less often."""
    path_rounds: int = 6
    """... and one that gives no reason for a look in one round of so many."""

    # Suspicion.
    suspicion_periods: float
    """Probe intervals from a confirmed suspicion to death, up to 32 members."""
    suspicion_stretch: float = 6.0
    """An unconfirmed suspicion lasts this much longer (beta in Lifeguard)."""
    confirmations_max: int = 3
    """Further independent accusers that shorten a suspicion to its minimum (K in Lifeguard)."""

    # Members that come and go; see flap_damping.py.
    flapping_from: float = 2.5
    """Returns from the dead, counted with decay, that make a member flap: 3 in five minutes."""
    flapping_until: float = 1.0
    """It flaps until they have decayed to this."""
    flapping_most: float = 6.0
    """More are not counted, so that the decay ends in a known time."""
    flapping_half_life_s: float = 600.0
    """They halve in this time."""
    flapping_notice_s: float = 60.0
    """People are told of a flapping member at most this often."""
    flapping_patience: float = 3.0
    """Suspicions of a member that was declared dead wrongly last up to this much longer."""

    # Announced sleep.
    sleep_grace_s: float = 120.0
    """A sleeper is dead this long after the announced time, if nothing was heard of it."""

    # Updates.
    gossip_interval_s: float
    """Updates that wait are sent this often; without updates nothing is sent."""
    gossip_fanout: int = 3
    """To how many members each time."""
    transmits_min: int = 8
    """Each update is told at least this often: with fewer, small coveys miss one in ten."""
    transmits_per_doubling: int = 4
    """... and this often for each doubling of the covey."""
    updates_max: int = 8192
    """Updates kept at a time; beyond, the most-told is given up."""

    # Meeting, meeting again, exchanging everything.
    hello_first_s: float
    """The first repetition of an unanswered Hello; doubled each time."""
    hello_slowest_s: float
    """... up to this, and then for ever."""
    candidates_max: int = 1024
    """Addresses at which somebody might be."""
    exchange_interval_s: float
    """States are exchanged with a random member this often, up to 32 members."""
    exchange_gap_s: float
    """Exchanges that a meeting calls for are at least this far apart."""
    reconnect_interval_s: float
    """Dead and forgotten peers are greeted this often ..."""
    reconnect_rounds: int = 5
    """... each of them once in this many rounds ..."""
    reconnect_burst_max: int = 32
    """... but never more than this many in a round."""
    healed_s: float = 60.0
    """Two halves of a split know each other again this long after it is over."""

    # Events and queries; rounds are gossip intervals.
    events_kept_max: int = 512
    """Events remembered, so that none is delivered twice, and those that wait to be told."""
    event_hold_rounds: int = 5
    """An event waits so long for earlier ones, to be delivered behind them."""
    event_burst_max: int = 64
    """Events that a node sends at once ..."""
    events_per_s: float = 10.0
    """... and how many more each second; others believe twice that."""
    event_transmit_s: float = 5.0
    """An event is no update any more after this time ..."""
    event_recent_s: float = 30.0
    """... but whoever missed it still finds it for this long."""
    event_patience_s: float = 5.0
    """How long a newcomer tries to learn the covey's Lamport time."""
    event_sync_rounds: int = 10
    """Recent events are compared with a random member this often."""
    queries_max: int = 64
    """Queries of our own at a time, and those of others that we are answering."""
    query_timeout_max_s: float = 60.0
    """The longest that a query may wait for answers."""
    query_rounds: int = 3
    """An answer without receipt is repeated after this many rounds, then ever less often."""
    query_relays: int = 2
    """... and through so many other members."""

    # Memory.
    members_max: int = 4096
    """Members in the list, of any state."""
    strangers_max: int = 64
    """Besides, so many are remembered whose registry may still be on its way here."""
    dead_keep_s: float = 24 * 3600.0
    """A dead member stays listed this long; then only its addresses are kept."""
    left_keep_s: float = 3600.0
    """A member that left stays listed this long; it is looked for until ``healed_s`` are over."""
    forgotten_max: int = 1024
    """Addresses of dead members that are no longer listed."""
    facts_bytes_max: int = 8 * 2**20
    """The facts of all members together; see facts.py."""
    leave_linger_s: float
    """How long we go on telling that we leave."""

    def __post_init__(self) -> None:
        assert 0 < self.probe_timeout_s <= self.probe_interval_s / 2, "time for the indirect probe"
        most_patient_s = self.probe_patience_share * self.probe_interval_s
        assert self.probe_timeout_s <= most_patient_s < self.probe_interval_s, "relays need time"
        assert self.gossip_interval_s <= self.probe_timeout_s, "news outrun verdicts"
        # A checker needs a period to begin its probe and one to fail it, before the time is up.
        assert self.suspicion_periods >= 3, "confirmations arrive before the minimum has passed"
        assert self.suspicion_stretch >= 1, "the longest suspicion is not below the shortest"
        refusals_timeouts = self.refused_ping_share * (self.refusals_needed - 1)
        assert refusals_timeouts < self.accuse_timeouts, "enough refusals come in time"
        # Whoever lives has answered by then: a healthy round trip is below one timeout.
        assert self.accuse_timeouts + self.confirm_timeouts > 1, "answers outrun declared deaths"
        assert self.refusal_backoff_first_s <= self.refusal_backoff_longest_s, "the backoff grows"
        assert self.pause_s < self.suspicion_periods * self.probe_interval_s, "see Swim.wake"
        assert self.hello_first_s <= self.hello_slowest_s, "back-off goes up"
        assert self.exchange_gap_s <= self.exchange_interval_s, "a gap, not a second interval"
        most_s = self.reconnect_interval_s * self.reconnect_rounds
        assert most_s <= self.healed_s - 2 * self.exchange_gap_s, "each is greeted in time"
        assert 1 <= self.flapping_until < self.flapping_from <= self.flapping_most, "it ends"
        assert self.flapping_half_life_s >= self.flapping_notice_s > 0, "notices are for the time"
        assert self.flapping_patience >= 1, "nobody is suspected for a shorter time"
        # One lost exchange must not kill a member that woke up while updates were lost.
        assert self.sleep_grace_s >= 2 * self.exchange_interval_s, "whoever wakes is found in time"
        assert self.event_burst_max < self.events_kept_max, "one node does not push out the others"
        assert self.event_transmit_s < self.event_recent_s, "what is transmitted is remembered"
        assert self.event_sync_rounds > self.event_hold_rounds, "broadcasts come first"

    def timeout_s(self, rtt_s: float | None) -> float:
        """Return how long a direct ping may take to a member at this round trip.

        >>> [LAN.timeout_s(rtt_s) for rtt_s in (None, 0.001, 0.15, 2.0)]
        [0.5, 0.5, 0.6, 0.7]
        """
        patience_s = self.probe_patience * rtt_s if rtt_s is not None else 0.0
        most_s = self.probe_patience_share * self.probe_interval_s
        return min(max(self.probe_timeout_s, patience_s), most_s)

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

    def transmit_limit(self, members: int) -> int:
        """Return how often each update is told.

        >>> [LAN.transmit_limit(n) for n in (1, 5, 10, 100)]
        [8, 12, 16, 28]
        """
        return max(
            self.transmits_min, self.transmits_per_doubling * math.ceil(math.log2(members + 1))
        )

    def exchange_s(self, members: int) -> float:
        """Return the interval between exchanges of states."""
        return self.exchange_interval_s * self.crowd(members)


LAN = Tuning(
    probe_interval_s=1.0,
    probe_timeout_s=0.5,
    pause_s=2.0,
    path_check_s=10.0,
    path_fresh_s=600.0,
    suspicion_periods=3.5,
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
    path_check_s=1.0,
    path_fresh_s=60.0,
    path_rounds=3,
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

WAN = Tuning(
    probe_interval_s=5.0,
    probe_timeout_s=2.5,
    pause_s=5.0,
    path_check_s=15.0,
    path_fresh_s=1800.0,
    suspicion_periods=4,
    gossip_interval_s=0.5,
    gossip_fanout=4,
    hello_first_s=1.0,
    hello_slowest_s=60.0,
    exchange_interval_s=60.0,
    exchange_gap_s=2.0,
    reconnect_interval_s=10.0,
    leave_linger_s=1.5,
)
"""Sites far apart, mobile networks, satellites: round trips of up to two seconds are healthy."""

METERED = Tuning(
    probe_interval_s=30.0,
    probe_timeout_s=5.0,
    probe_relays=2,
    probe_checkers=4,
    pause_s=10.0,
    observers_per_member=0,
    path_check_s=600.0,
    path_fresh_s=86400.0,
    suspicion_periods=4,
    gossip_interval_s=2.0,
    gossip_fanout=2,
    hello_first_s=5.0,
    hello_slowest_s=900.0,
    exchange_interval_s=600.0,
    exchange_gap_s=10.0,
    reconnect_interval_s=60.0,
    healed_s=360.0,
    stream_alone_s=1800.0,
    event_transmit_s=60.0,
    event_recent_s=120.0,
    event_patience_s=30.0,
    sleep_grace_s=1200.0,
    leave_linger_s=3.0,
)
"""Every byte is paid for: who dies is known after minutes, and a healed split after six."""

PROFILES = {"lan": LAN, "wan": WAN, "metered": METERED, "local": LOCAL}
"""The names that a configuration file may use."""
