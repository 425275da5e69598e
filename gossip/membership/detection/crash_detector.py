"""Evidence of a death: a host that lives says that nobody is there any more.

Silence takes long to judge, because it has so many reasons. But when a process dies and its host
does not, then the host says so: it ends the streams of the process at once, and refuses datagrams
to its port (ICMP "port unreachable"). Both are *hints*, and all that a hint does is to shorten the
way to a verdict that silence would reach too. A hint begins a *check*::

    LOOKING ──refused n times, stream gone, silent──▶ ACCUSING ──silent, and seconded──▶ CONVICTED
       └──answered, or one of the two missing──▶ over     └──answered, or alone──▶ over

The member is pinged at once and again every few hundredths of a second; when that is refused, it
is also asked by stream. When nothing but refusals comes back, and the stream ended or cannot be
opened either, we accuse it after 0.4 probe timeouts, tell those who watch it as well
(``observers.py``), and go on asking, now with the accusation in each ping and through relays too.
After another full timeout without a packet of it, and if somebody else found the same by pings of
its own, it is dead, and the news go out at once and in all directions.

Why that is safe. A host whose process died has two ways to say so, and uses both; a firewall that
rejects datagrams has one of them, and the member behind it goes on. So neither refusals nor the end
of a stream accuse anybody alone. ICMP is neither sealed nor signed, either. The runtime lets pass
only refusals that quote a datagram of ours, each of them once; whoever sees our packets can still
forge them, and can end streams too. So no number of hints outweighs one packet: whatever the member
sends begins the count anew, and an answer, by datagram or by stream, to what we asked after a
refusal proves that refusals about this member lie, or are about something else. Those are then not
believed for a time that doubles. A forger would have to suppress all packets of the member, to
several others, for longer than any healthy round trip; and then the first one to get through
refutes the death. Accusations by evidence begin no shorter suspicion with anybody who has not
looked for itself.
"""

import math
from collections.abc import Callable, Iterable

from gossip.core.ids import Boot, NodeId
from gossip.core.machine import Address, Instant
from gossip.membership.detection.observers import Observers
from gossip.membership.detection.shared_parts import SharedParts
from gossip.membership.detection.updates import MemberUpdates
from gossip.membership.model.members import Member, MemberState
from gossip.membership.model.messages import (
    FRAMES,
    REFUSAL,
    Ack,
    Datagram,
    Dead,
    Ping,
    PingRequest,
    StreamPing,
    StreamPong,
    Suspect,
)
from gossip.membership.model.rate_limit import Throttle

CHECKS_MAX = 64
REFUSAL_BACKOFFS_MAX = 1024
UNREFUSED_PACE = 4
"""How much slower a member is pinged of which no refusal has come yet."""
LOOKING_TIMEOUTS, ALONE_TIMEOUTS, LASTING_TIMEOUTS = 2.0, 2.0, 8.0
"""When a check gives up: without an accusation, accusing without a second, and in any case."""
CHANCE_S = 5.0
"""Whether chance makes us a checker of an accused member is drawn once in this time."""


class CrashCheck:
    """How far we have come with one member that may be gone."""

    __slots__ = (
        "accused_at",
        "awaits_refusal",
        "begun_at",
        "boot",
        "due_at",
        "incarnation",
        "numbers",
        "path",
        "refusals",
        "relays",
        "seconders",
        "silent_since",
        "stream_asked",
        "stream_gone",
        "was_refused",
    )

    def __init__(self, member: Member, now: Instant) -> None:
        self.boot: Boot = member.boot
        self.incarnation = member.incarnation
        self.path = member.addresses_by_preference[0]
        self.begun_at = self.silent_since = self.due_at = now
        self.refusals = 0
        self.awaits_refusal = True
        """Whether something went there since the last refusal: each packet counts once."""
        self.was_refused = False
        self.stream_asked = False
        self.stream_gone = False
        """Whether a stream to it ended, or could not be opened, since we last heard it."""
        self.numbers: set[int] = set()
        self.relays: dict[NodeId, None] = {}
        self.accused_at: Instant | None = None
        self.seconders: set[NodeId] = set()

    def refused(self) -> None:
        """Count a refusal of what was sent since the one before."""
        self.refusals += self.awaits_refusal
        self.awaits_refusal = False
        self.was_refused = True

    def begin_anew(self, now: Instant) -> None:
        """Take back all that was found: a packet of the member arrived."""
        self.silent_since = now
        self.refusals = 0
        self.awaits_refusal = False
        self.stream_asked = self.stream_gone = False
        self.accused_at = None
        self.seconders.clear()

    def is_about(self, member: Member) -> bool:
        """Say whether the member is still what this check is about."""
        same = (member.boot, member.incarnation) == (self.boot, self.incarnation)
        return same and member.is_live and member.addresses_by_preference[:1] == (self.path,)


class RefusalBackoff:
    """How long refusals about one life of a member are not believed."""

    __slots__ = ("boot", "length_s", "until")

    def __init__(self, boot: Boot, length_s: float, until: Instant) -> None:
        self.boot = boot
        self.length_s = length_s
        self.until = until


class CrashDetector:
    """Follows hints that a process is gone, until they are contradicted or beyond doubt."""

    def __init__(
        self,
        shared: SharedParts,
        updates: MemberUpdates,
        observers: Observers,
        number: Callable[[], int],
    ) -> None:
        self._local = shared.local
        self._members = shared.members
        self._updates = updates
        self._outbound = shared.outbound
        self._counts = shared.counts
        self._awareness = shared.awareness
        self._order = shared.order
        self._reachability = shared.reachability
        self._observers = observers
        self._tuning = shared.tuning
        self._rng = shared.rng
        self._number = number
        self._checks: dict[NodeId, CrashCheck] = {}
        self._refusal_backoffs: dict[NodeId, RefusalBackoff] = {}
        self._begun = Throttle(shared.tuning.probe_timeout_s, REFUSAL_BACKOFFS_MAX)
        self._drawn = Throttle(CHANCE_S, REFUSAL_BACKOFFS_MAX)

    # Hints, and what speaks against them.

    def port_unreachable(self, address: Address, now: Instant) -> None:
        """Take in that a host refused a datagram of ours."""
        member = self._at(address)
        if member is None:
            self._counts["crash_reports/of nobody alive"] += 1
        elif self._is_refusal_ignored(member, now):
            self._counts["crash_reports/not believed"] += 1
        else:
            self._counts["crash_reports/heard"] += 1
            check = self._checks.get(member.id)
            # Once somebody is accused, the updates about it reach its port from everywhere.
            if check is None and (not _is_suspect(member) or self._is_checker_of(member, now)):
                check = self._begin(member, now)
            if check is not None:
                check.refused()

    def stream_closed(self, peer: NodeId, now: Instant) -> None:
        """Take in that a stream to a member has ended, and not by us."""
        member = self._members.get(peer)
        if member is not None and member.is_live and peer not in self._checks:
            self._begin(member, now)
        self.stream_failed(peer)

    def stream_failed(self, peer: NodeId) -> bool:
        """Take in that a stream broke, or could not be opened; say whether a check asked for it."""
        check = self._checks.get(peer)
        if check is None:
            return False
        check.stream_gone = True
        return check.stream_asked

    def confirmed_by_other(self, update: Suspect, now: Instant) -> None:
        """Take in that somebody else has evidence; look for ourselves, if it is our turn."""
        member = self._members.get(update.member)
        assert update.evidence == REFUSAL, "silence is not what we look for here"
        if member is None or update.accuser == self._local.id:
            return
        check = self._checks.get(member.id)
        if check is None and self._is_checker_of(member, now):
            check = self._begin(member, now)
        if check is not None and (update.boot, update.incarnation) == (
            check.boot,
            check.incarnation,
        ):
            check.seconders.add(update.accuser)

    def on_report(self, sender: NodeId, now: Instant) -> None:
        """Take in that a packet came from a member: whatever is there lives."""
        check = self._checks.get(sender)
        if check is not None:
            check.begin_anew(now)

    def ack(self, message: Ack, sender: NodeId, now: Instant) -> bool:
        """Take in an answer to a ping of ours; say whether it was one of a check."""
        for node, check in self._checks.items():
            if message.number in check.numbers and (sender == node or sender in check.relays):
                break
        else:
            return False
        if sender == node:
            self._reachability.reached(node, now)
        self._contradict(node, check, now)
        return True

    def pong(self, message: StreamPong, sender: NodeId, now: Instant) -> None:
        """Take in an answer that came by stream; it may be one to a check."""
        check = self._checks.get(sender)
        if check is None or message.number not in check.numbers or message.alive.member != sender:
            self._counts["acks/unexpected"] += 1
            return
        self._contradict(sender, check, now)
        self._updates.apply(message.alive, None, now)

    def _contradict(self, node: NodeId, check: CrashCheck, now: Instant) -> None:
        self._counts["crash_checks/contradicted"] += 1
        if check.was_refused and check.boot == self._members[node].boot:
            self._ignore_refusals(node, check.boot, now)
        del self._checks[node]

    def restart(self) -> None:
        """Forget all checks: we were stopped, and answers may have been lost."""
        self._checks.clear()

    # Time.

    def deadline(self) -> Instant:
        """Return when ``wake`` is next due; infinity without a check."""
        if not self._checks:
            return math.inf
        return min((check.due_at for check in self._checks.values()), default=math.inf)

    def wake(self, now: Instant) -> None:
        """Go on with the checks that are due."""
        for node in [node for node, check in self._checks.items() if check.due_at <= now]:
            self._go_on(self._members.get(node), node, now)

    def _go_on(self, member: Member | None, node: NodeId, now: Instant) -> None:
        check = self._checks[node]
        rtt_s = self._reachability.expected_rtt_s(node)
        timeout_s = self._awareness.stretch(self._tuning.timeout_s(rtt_s))
        if member is None or not check.is_about(member):
            del self._checks[node]
            return
        if check.accused_at is None and self._is_enough(check, timeout_s, now):
            self._accuse(member, check, now)
        elif self._is_confirmed(check, timeout_s, now):
            self._declare_dead(member, now)
            return
        elif _is_hopeless(check, timeout_s, now):
            self._counts["crash_checks/given up"] += 1
            self._order.probe_next(node)
            del self._checks[node]
            return
        if check.refusals and check.numbers and not (check.stream_asked or check.stream_gone):
            self._ask_by_stream(member, check)
        self._ping(member, check)
        pace = 1 if check.refusals else UNREFUSED_PACE
        check.due_at = now + pace * self._tuning.refused_ping_share * timeout_s

    def _is_enough(self, check: CrashCheck, timeout_s: float, now: Instant) -> bool:
        lasted_s = now - check.silent_since
        needed = self._tuning.refusals_needed
        refused = check.stream_gone and check.refusals >= needed
        return refused and lasted_s >= self._tuning.accuse_timeouts * timeout_s

    def _is_confirmed(self, check: CrashCheck, timeout_s: float, now: Instant) -> bool:
        if check.accused_at is None:
            return False
        needed = min(1, self._tuning.confirmations(len(self._members.live_ids)))
        lasted_s = now - check.accused_at
        return (
            len(check.seconders) >= needed and lasted_s >= self._tuning.confirm_timeouts * timeout_s
        )

    # What we do about it.

    def _begin(self, member: Member, now: Instant) -> CrashCheck | None:
        if not member.has_address or self._is_refusal_ignored(member, now):
            return None
        if len(self._checks) >= CHECKS_MAX or not self._begun.allows(member.id, now):
            self._counts["crash_checks/put off"] += 1
            return None
        assert member.id != self._local.id, "we know that we are here"
        self._counts["crash_checks/begun"] += 1
        check = self._checks[member.id] = CrashCheck(member, now)
        return check

    def _ping(self, member: Member, check: CrashCheck) -> None:
        number = self._number()
        check.numbers.add(number)
        check.awaits_refusal = True
        messages: list[Datagram] = [Ping(number, member.id)]
        accusation = self._updates.update_of(self._members[member.id])
        if isinstance(accusation, Suspect):
            messages.insert(0, accusation)
        # Plain: updates are told a limited number of times, and not to a closed port.
        self._outbound.send_plain(check.path, *messages)

    def _ask_by_stream(self, member: Member, check: CrashCheck) -> None:
        """Ask in the other way: one of the two answers, or both are closed.

        Not before a ping of the check had the time to be answered: that is cheaper.
        """
        number = self._number()
        check.numbers.add(number)
        check.stream_asked = True
        accusation = self._updates.update_of(member)
        suspect = accusation if isinstance(accusation, Suspect) else None
        self._outbound.send_frame(member.id, FRAMES.encode(StreamPing(number, suspect)))

    def _ask_relays(self, member: Member, check: CrashCheck) -> None:
        able = [
            other
            for other in self._members.live
            if other.id not in (member.id, self._local.id)
            and other.state is MemberState.ALIVE
            and other.has_address
        ]
        number = self._number()
        check.numbers.add(number)
        for relay in self._rng.sample(able, min(self._tuning.probe_relays, len(able))):
            check.relays[relay.id] = None
            self._outbound.send(
                relay.addresses_by_preference[0], PingRequest(number, member.id, check.path)
            )

    def _accuse(self, member: Member, check: CrashCheck, now: Instant) -> None:
        self._counts["crash_checks/accused"] += 1
        check.accused_at = now
        me = self._local.id
        accusation = Suspect(member.id, member.boot, member.incarnation, me, REFUSAL)
        self._updates.apply(accusation, None, now)
        self._send_report(self._observers.watchers_of(member.id), accusation)
        # Not before: the accusation rides along, and keeps the relays from asking others in turn.
        self._ask_relays(member, check)

    def _declare_dead(self, member: Member, now: Instant) -> None:
        self._counts["crash_checks/convicted"] += 1
        del self._checks[member.id]
        me = self._local.id
        self._updates.apply(
            Dead(member.id, member.boot, member.incarnation, me, REFUSAL), None, now
        )
        # A certain death is told at once: updates of it ride on these packets.
        others = [other for other in self._members.live_ids if other != me]
        count = self._tuning.transmit_limit(len(others) + 1) // 2
        self._send_report(self._rng.sample(others, min(count, len(others))))

    def _send_report(self, nodes: Iterable[NodeId], *messages: Datagram) -> None:
        for node in nodes:
            for address in self._members[node].addresses_by_preference[:1]:
                self._outbound.send(address, *messages)

    # What we think of hints.

    def _at(self, address: Address) -> Member | None:
        """Return who is there, if it is where we would send: other addresses prove nothing."""
        for member in self._members.live:
            if member.has_address and member.addresses_by_preference[0] == address:
                return None if member.id == self._local.id else member
        return None

    def _is_checker_of(self, member: Member, now: Instant) -> bool:
        if member.id == self._local.id or not member.is_live:
            return False
        if member.id in self._observers.watched:
            return True
        if not self._drawn.allows((member.id, member.boot, member.incarnation), now):
            return False
        others = max(1, len(self._members.live_ids) - 2)
        return self._rng.random() * others < self._tuning.probe_checkers

    def _is_refusal_ignored(self, member: Member, now: Instant) -> bool:
        known = self._refusal_backoffs.get(member.id)
        return known is not None and known.boot == member.boot and now < known.until

    def _ignore_refusals(self, node: NodeId, boot: Boot, now: Instant) -> None:
        self._counts["crash_reports/proved wrong"] += 1
        before = self._refusal_backoffs.pop(node, None)
        length_s = self._tuning.refusal_backoff_first_s
        if before is not None and before.boot == boot:
            length_s = min(2 * before.length_s, self._tuning.refusal_backoff_longest_s)
        self._refusal_backoffs[node] = RefusalBackoff(boot, length_s, now + length_s)
        if len(self._refusal_backoffs) > REFUSAL_BACKOFFS_MAX:
            del self._refusal_backoffs[next(iter(self._refusal_backoffs))]


def _is_suspect(member: Member) -> bool:
    return member.state is MemberState.SUSPECT


def _is_hopeless(check: CrashCheck, timeout_s: float, now: Instant) -> bool:
    """Say whether more asking leads nowhere; silence alone is for the ordinary probes."""
    if now - check.begun_at >= LASTING_TIMEOUTS * timeout_s:
        return True
    if check.accused_at is not None:
        return now - check.accused_at >= ALONE_TIMEOUTS * timeout_s
    patience = LOOKING_TIMEOUTS if check.refusals else 1.0
    return now - check.silent_since >= patience * timeout_s
