"""Path checks: whether packets of full size, and streams, get through to each member.

Probes are small datagrams. On a path that drops large packets, or through a firewall that was
opened for UDP alone, they say for ever that all is well, while no stream can be opened and every
write fails. So each node looks, now and then and at one member at a time, for what probes do not
see::

    ping of full size ──▶ answered: packets of this size pass
                    └───▶ thrice not, while a small one is: the path is *narrow*
    ping by stream ─────▶ answered: streams pass, there and back
                    └───▶ not, while a datagram is: streams are *blocked*

Either verdict needs several checks in a row, because packets are also lost by chance. This is
packet size discovery as in RFC 8899, with its three tries for a size, and with two sizes: there is
no search for a better one (``gossip/core/tuning.py`` says why). To a narrow member we pack less
into a packet, and the runtime cuts segments smaller; of blocked streams, people are told.

A member is looked at again after a long time when all was well, soon when something was not, and
first of all when a stream to it broke. A look costs a packet of full size, so where nothing gives
reason for one, looks are further apart: else those after a start would be a third of all that is
sent. Where nothing passes at all there is nothing to say: whether a
member lives is for probes to find out. And while it is not yet certain that a path is narrow,
nothing is said of streams, which it stops as well.
"""

from collections.abc import Callable

from gossip.core.ids import Boot, NodeId
from gossip.core.machine import Address, Instant
from gossip.core.tuning import Tuning
from gossip.membership.dissemination.outbound import Outbound
from gossip.membership.model.members import Member, MemberState, MemberTable
from gossip.membership.model.messages import FRAMES, Ack, Ping, StreamPing, StreamPong
from gossip.membership.network.reachability import Reachability

TRIES = 3
"""Pings of full size that a check sends before it takes the size for lost (RFC 8899)."""
PATIENCE_S = 10.0
"""A stream may take this long to be dialled and answered: several addresses, each for seconds."""
SOON_S_MAX = 60.0
"""What was found wrong is looked at again after pauses that double, up to this."""
STREAMLESS_CHECKS, NARROW_CHECKS = 2, 3
"""Checks in a row that find the same before it is believed. At 10 % loss, one in 150 checks misses
all answers to full packets by chance."""
FRESH_MEMBERS = 5
"""Up to so many members, each is looked at once in ``path_fresh_s``; of more, less often."""


class Standing:
    """What the checks of one life of a member have found."""

    __slots__ = ("boot", "due_at", "is_doubtful", "narrow", "soon_s", "streamless")

    def __init__(self, boot: Boot, now: Instant) -> None:
        self.boot = boot
        self.due_at = now
        self.narrow = self.streamless = 0
        """How many checks in a row missed answers to full packets, or by stream."""
        self.soon_s = 0.0
        self.is_doubtful = False
        """Whether something was missing at the last look, or a stream broke since."""


class PathCheck:
    """One look at one member."""

    __slots__ = (
        "begun_at",
        "datagrams_pass",
        "due_at",
        "ends_at",
        "full",
        "full_passes",
        "judges_streams",
        "number",
        "path",
        "small",
        "streams_pass",
        "target",
        "tries",
    )

    def __init__(
        self, target: NodeId, path: Address, number: int, now: Instant, *, known_narrow: bool
    ) -> None:
        self.target, self.path, self.number = target, path, number
        self.judges_streams = known_narrow
        """Whether the path's size is known to be all right for streams."""
        self.begun_at = self.due_at = now
        self.ends_at = now + PATIENCE_S
        self.tries = 0
        self.full: set[int] = set()
        self.small: set[int] = set()
        self.full_passes = self.datagrams_pass = False
        self.streams_pass: bool | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to wait for."""
        tried = self.full_passes or self.tries > TRIES
        awaits_stream = self.streams_pass is None and (
            self.judges_streams or self.full_passes or not self.datagrams_pass
        )
        return tried and not awaits_stream


class PathChecks:
    """Looks at one member after the other, and tells ``Reachability`` what it found."""

    def __init__(
        self,
        me: NodeId,
        members: MemberTable,
        reachability: Reachability,
        outbound: Outbound,
        tuning: Tuning,
        number: Callable[[], int],
        now: Instant,
    ) -> None:
        self._me = me
        self._members = members
        self._reachability = reachability
        self._outbound = outbound
        self._counts = outbound.counts
        self._tuning = tuning
        self._number = number
        self._standings: dict[NodeId, Standing] = {}
        self._check: PathCheck | None = None
        self._next_at = now + tuning.path_check_s
        self._rounds = 0
        """So many times there was nobody who gave reason for a look."""

    # Time.

    def deadline(self) -> Instant:
        """Return when ``wake`` is next due."""
        check = self._check
        return self._next_at if check is None else min(check.due_at, check.ends_at)

    def wake(self, now: Instant) -> None:
        """Go on with the check under way, or begin one that is due."""
        check = self._check
        if check is not None:
            if check.ends_at <= now or check.is_over:
                self._end(check, now)
            elif check.due_at <= now:
                self._send_pings(check, now)
        elif self._next_at <= now:
            self._next_at = now + self._pace_s()
            member = self._next(now)
            if member is not None:
                self._begin(member, now)

    def restart(self, now: Instant) -> None:
        """Drop the check under way: we were stopped, and answers may have been lost."""
        self._check = None
        self._next_at = now + self._pace_s()

    def _pace_s(self) -> float:
        return self._tuning.path_check_s * self._tuning.crowd(len(self._members.live_ids))

    def _next(self, now: Instant) -> Member | None:
        """Return who is due: first whoever gives reason for it, then who has been for longest.

        One without a reason has its turn in one round of several.
        """
        alive = [
            member
            for member in self._members.others(self._me)
            if member.state is MemberState.ALIVE and member.has_address
        ]
        if len(self._standings) > len(alive):
            kept = {member.id for member in alive}
            self._standings = {n: s for n, s in self._standings.items() if n in kept}
        due = [member for member in alive if self._standing(member, now).due_at <= now]
        doubtful = [member for member in due if self._standings[member.id].is_doubtful]
        if not doubtful:
            self._rounds += 1
            if self._rounds % self._tuning.path_rounds:
                return None
        return min(doubtful or due, key=lambda m: self._standings[m.id].due_at, default=None)

    def _standing(self, member: Member, now: Instant) -> Standing:
        known = self._standings.get(member.id)
        if known is None or known.boot != member.boot:
            known = self._standings[member.id] = Standing(member.boot, now)
            self._emit_status(member, known)
        return known

    # One check.

    def _begin(self, member: Member, now: Instant) -> None:
        self._counts["path_checks/begun"] += 1
        known_narrow = self._standings[member.id].narrow >= NARROW_CHECKS
        path, number = member.addresses_by_preference[0], self._number()
        check = PathCheck(member.id, path, number, now, known_narrow=known_narrow)
        self._check = check
        self._outbound.send_frame(member.id, FRAMES.encode(StreamPing(check.number)))
        self._send_pings(check, now)

    def _send_pings(self, check: PathCheck, now: Instant) -> None:
        """Ask with a full packet; from the second time on, also with a small one."""
        check.tries += 1
        check.due_at = now + self._timeout_s(check.target)
        if check.full_passes or check.tries > TRIES:
            check.due_at = check.ends_at
            self._check_due(check, now)
            return
        if check.tries > 1:
            number = self._number()
            check.small.add(number)
            self._outbound.send_plain(check.path, Ping(number, check.target))
        number = self._number()
        check.full.add(number)
        self._outbound.send_full(check.path, Ping(number, check.target))

    def _timeout_s(self, target: NodeId) -> float:
        return self._tuning.timeout_s(self._reachability.expected_rtt_s(target))

    def ack(self, message: Ack, sender: NodeId, now: Instant) -> bool:
        """Take in an answer by datagram; say whether it was one to a check."""
        check = self._check
        if check is None or check.target != sender:
            return False
        is_full = message.number in check.full
        if not (is_full or message.number in check.small):
            return False
        self._reachability.reached(sender, now)
        check.datagrams_pass = True
        check.full_passes = check.full_passes or is_full
        self._check_due(check, now)
        return True

    def pong(self, message: StreamPong, sender: NodeId, now: Instant) -> bool:
        """Take in an answer by stream; say whether it was one to a check."""
        check = self._check
        if check is None or (check.target, check.number) != (sender, message.number):
            return False
        check.streams_pass = True
        self._check_due(check, now)
        return True

    def stream_failed(self, peer: NodeId, now: Instant) -> bool:
        """Take in that a stream broke, or could not be opened; say whether a check asked for it."""
        check = self._check
        if check is not None and check.target == peer and check.streams_pass is None:
            check.streams_pass = False
            self._check_due(check, now)
            return True
        if (standing := self._standings.get(peer)) is not None:
            standing.due_at = min(standing.due_at, now)
            standing.is_doubtful = True
        return False

    def _check_due(self, check: PathCheck, now: Instant) -> None:
        if check.is_over:
            check.due_at = now

    def _end(self, check: PathCheck, now: Instant) -> None:
        """Count what was found, and believe it when it was found often enough."""
        self._check = None
        self._next_at = now + self._pace_s()
        member = self._members.get(check.target)
        standing = self._standings.get(check.target)
        if member is None or standing is None or standing.boot != member.boot:
            return
        if check.streams_pass:
            standing.streamless = 0
        if check.full_passes:
            standing.narrow = 0
        if check.datagrams_pass and not check.full_passes:
            standing.narrow = min(standing.narrow + 1, NARROW_CHECKS)
        judges = check.judges_streams or check.full_passes
        if check.datagrams_pass and judges and not check.streams_pass:
            standing.streamless = min(standing.streamless + 1, STREAMLESS_CHECKS)
        is_well = bool(check.full_passes and check.streams_pass)
        standing.is_doubtful = not is_well
        self._counts[f"path_checks/{'well' if is_well else 'something missing'}"] += 1
        fresh_s = self._fresh_s()
        soon_s = max(self._tuning.path_check_s, 2 * standing.soon_s)
        standing.soon_s = 0.0 if is_well else min(soon_s, SOON_S_MAX, fresh_s)
        pause_s = standing.soon_s if self._is_sure(standing) else self._tuning.path_check_s
        standing.due_at = now + (fresh_s if is_well else pause_s)
        self._emit_status(member, standing)

    @staticmethod
    def _is_sure(standing: Standing) -> bool:
        """Say whether what is missing was missing often enough."""
        streams_seem_fine = standing.streamless in (0, STREAMLESS_CHECKS)
        return streams_seem_fine and standing.narrow in (0, NARROW_CHECKS)

    def _fresh_s(self) -> float:
        return self._tuning.path_fresh_s * max(1.0, len(self._members.live_ids) / FRESH_MEMBERS)

    def _emit_status(self, member: Member, standing: Standing) -> None:
        is_narrow = standing.narrow >= NARROW_CHECKS
        blocked = standing.streamless >= STREAMLESS_CHECKS
        self._reachability.found_path(member.id, streams_blocked=blocked, narrow=is_narrow)
        self._outbound.narrow(member.addresses_by_preference, is_narrow=is_narrow)
