"""This node's commands on their way into the log, each carried out once.

A command goes to the leader, and again, under the same sequence, whenever that may have failed: to
another leader, after a silence, after a broken stream. The table of clients in the replicated state
(``clients.py``) sees to it that it counts once. Its outcome comes from the leader, or from the log
itself when this node's own copy comes to it: whichever is first.

A command that runs out of time is *indeterminate* if any copy of it may be in the log, and was not
begun if none can be. So is one that was sent under a number by which nobody knows this node any
more: it is never sent under another, where its first copy would not count.
"""

import msgspec

from gossip.control.bounds import CLIENT_OUTCOMES_MAX
from gossip.control.clients import ClientTable
from gossip.control.commands import (
    Action,
    Command,
    RegisterClient,
    check_command,
    encode_command,
)
from gossip.control.directory import VoterDirectory
from gossip.control.leader_search import LeaderSearch
from gossip.control.messages import ProposeAsk, RedirectAnswer, RedirectReason
from gossip.control.outbound import ControlOutbound
from gossip.control.outcomes import UNSETTLED, ClientResult, CommandOutcome, Declined
from gossip.control.requests import (
    ControlCompleted,
    ControlResult,
    IndeterminateResult,
    UnavailableResult,
    sooner,
)
from gossip.control.state_machine import AppliedCommand
from gossip.core.errors import LimitExceeded
from gossip.core.ids import NodeId
from gossip.core.machine import Instant

RETRY_S = 2.0
"""A command that was sent and not answered is sent again after this; a fsync on an SD card may take
as long."""
REDIRECTED_S = 0.25
"""... and after this, when nobody has taken it."""
PENDING_MAX = CLIENT_OUTCOMES_MAX
"""Commands of one node that are under way, or came after one that is; as many outcomes are kept."""
QUEUED_MAX = 4_096

NO_MAJORITY = (
    "no majority of the voters could be reached, so nothing was done. Keys of `covey kv`, events"
    " and readings go on without it; locks, sessions, barriers, settings and who belongs stand"
    " still until more voters are back (`covey voters` shows them). If they are gone for good:"
    " `covey recover`"
)
TAKES_NOTHING = (
    "the leader took no commands in for all of that time, so nothing was done: its disk takes"
    " nothing, too much waits for a majority, or it hands over. `covey voters` and `covey doctor`"
    " say which; try again when that is over"
)
UNKNOWN_END = (
    "the command was sent, and no answer came in time: it may be carried out yet, or not. Read what"
    " became of it before you repeat it"
)
NOT_UNDERSTOOD = (
    "the leader does not understand this, so nothing was done: it runs an older version; update it"
)
NO_VOTE = (
    "only a node that votes may change who belongs, and this one does not (any more), so nothing"
    " was done; `covey voters` shows who does"
)
WOULD_STALL = (
    "so few voters would be left that nothing could be agreed on any more, so nothing was done."
    " Start voters that are off, or wait until others vote in the place of those that were removed"
    " (`covey voters`, which also replaces one), and try again"
)
FORGOTTEN = (
    "the command was sent, and this node was silent for so long then that nobody remembers whether"
    " it was carried out. Read what became of it before you repeat it"
)

REFUSALS = {
    RedirectReason.INVALID: NOT_UNDERSTOOD,
    RedirectReason.NO_VOTE: NO_VOTE,
    RedirectReason.WOULD_STALL: WOULD_STALL,
}
"""The answers after which nobody else is asked."""


class PendingCommand(msgspec.Struct):
    """One command that is under way."""

    request: int
    action: Action
    until: Instant
    client: int
    """Under which it is sent, each time; 0 for the registration alone, which may count twice."""
    sequence: int
    retry_at: Instant
    copies: int = 0
    """How many copies may be in the log."""
    numbers: list[int] = []
    """Of all questions by which it was sent."""


class Proposals:
    """Manages the commands of this node."""

    def __init__(
        self,
        outbound: ControlOutbound,
        directory: VoterDirectory,
        search: LeaderSearch,
        nonce: int,
    ) -> None:
        self._outbound = outbound
        self._directory = directory
        self._search = search
        self._nonce = nonce
        self._client = 0
        self._sequence = 0
        self._registration: PendingCommand | None = None
        self._pending: dict[int, PendingCommand] = {}
        self._queued: list[tuple[int, Action, Instant]] = []
        self._asked: dict[int, tuple[PendingCommand, NodeId]] = {}
        self._is_leader_busy = False
        """Whether the last answer that came was of a leader that takes nothing in."""
        self._due: Instant | None = None
        """No later than when something is due; looked up anew when it has come."""

    def __len__(self) -> int:
        return len(self._pending) + len(self._queued)

    # What the application wants.

    def begin(self, request: int, action: Action, timeout_s: float, now: Instant) -> None:
        """Send a command on its way. Raises InvalidRequest or LimitExceeded."""
        check_command(action)
        encode_command(Command(action, 2**63, 2**63, 2**63))
        if len(self._queued) >= QUEUED_MAX:
            raise LimitExceeded(
                f"{QUEUED_MAX} commands wait on this node; wait for some to complete"
            )
        self._queued.append((request, action, now + timeout_s))
        self._due = sooner(self._due, now + timeout_s)
        self._fill(now)

    def _fill(self, now: Instant) -> None:
        """Begin as many commands as may be under way at a time."""
        if not self._client:
            self._register(now)
            return
        while self._queued and self._sequence - self._oldest() < PENDING_MAX - 1:
            request, action, until = self._queued.pop(0)
            self._sequence += 1
            command = PendingCommand(request, action, until, self._client, self._sequence, now)
            self._pending[self._sequence] = command
            self._send(command, now)

    def _oldest(self) -> int:
        """Return the sequence before which everything is settled."""
        # They are put in in the order of their sequences.
        return next(iter(self._pending), self._sequence + 1)

    def _register(self, now: Instant) -> None:
        """Become known first: whoever is not cannot repeat anything safely."""
        if self._registration is None:
            until = now + RETRY_S
            self._registration = PendingCommand(0, RegisterClient(self._nonce), until, 0, 0, now)
            self._send(self._registration, now)

    def _end_registration(self) -> None:
        assert self._registration is not None, "it is under way"
        for number in self._registration.numbers:
            self._asked.pop(number, None)
        self._registration = None

    def _send(self, command: PendingCommand, now: Instant) -> None:
        target = self._search.leader(now)
        command.retry_at = now + (RETRY_S if target is not None else REDIRECTED_S)
        self._due = sooner(self._due, min(command.until, command.retry_at))
        if target is None:
            return
        assert bool(command.client) == bool(command.sequence), (
            "no client, no dedup: it counts twice"
        )
        assert command.client in (0, self._client), "it was ended when its client was forgotten"
        parts = (command.client, command.sequence, self._oldest())
        data = encode_command(Command(command.action, *parts))
        command.copies += 1
        number = self._outbound.ask(ProposeAsk(data), target)
        command.numbers.append(number)
        self._asked[number] = (command, target)

    # What comes back.

    def asked(self, number: int) -> NodeId | None:
        """Return whom a question under way was sent to."""
        sent = self._asked.get(number)
        return sent[1] if sent else None

    def answered(self, number: int, index: int, outcome: CommandOutcome, now: Instant) -> bool:
        """Take in an outcome from the leader; False if nobody asked."""
        asked = self._asked.pop(number, None)
        if asked is None:
            return False
        self._directory.answered()
        self._is_leader_busy = False
        is_unsettled = isinstance(outcome, Declined) and outcome.code == UNSETTLED
        if not (is_unsettled and self._has_other_copies(asked[0], now)):
            self._came_to(asked[0], index, outcome, now)
        return True

    def applied(self, applied: AppliedCommand, now: Instant) -> None:
        """Our own copy came to a command."""
        if not applied.client:
            action, ours = applied.action, self._registration
            if ours is not None and isinstance(action, RegisterClient) and action == ours.action:
                self._came_to(ours, applied.index, applied.outcome, now)
        elif applied.client == self._client and applied.sequence in self._pending:
            outcome = applied.outcome
            if isinstance(outcome, Declined) and outcome.code == UNSETTLED:
                return  # which copy that was says the leader's answer
            self._came_to(self._pending[applied.sequence], applied.index, outcome, now)

    def replaced(self, clients: ClientTable, now: Instant) -> None:
        """A snapshot has taken the place of our copy: look up what it says of our commands."""
        for command in list(self._pending.values()):
            known = clients.outcome(self._client, command.sequence)
            if known is not None:
                self._came_to(command, known.index, known.outcome, now)

    def _came_to(
        self, command: PendingCommand, index: int, outcome: CommandOutcome, now: Instant
    ) -> None:
        if command is self._registration:
            if isinstance(outcome, ClientResult):
                self._client = outcome.client
                self._end_registration()
                self._fill(now)
            return
        if self._pending.get(command.sequence) is not command:
            return
        if isinstance(outcome, Declined) and outcome.code in Declined.NEVER_RUN:
            self._forgotten(command, now)
            return
        self._finish(command, index, outcome, now)

    def _has_other_copies(self, command: PendingCommand, now: Instant) -> bool:
        """One copy was declined, for good; tell whether another one may yet be carried out."""
        command.copies -= 1
        if command.copies and self._is_open(command):
            self._retry_soon(command, now)
        return command.copies > 0

    def _forgotten(self, declined: PendingCommand, now: Instant) -> None:
        """We are not known any more: begin again as another client, with what was never taken.

        The copy that was declined changed nothing. Of any other copy nobody can tell.
        """
        declined.copies -= 1
        self._client = 0
        self._nonce += 1
        pending = list(self._pending.values())
        never_taken = [each for each in pending if not each.copies]
        self._queued[:0] = [(each.request, each.action, each.until) for each in never_taken]
        for command in pending:
            self._forget(command)
            if command.copies:
                result = IndeterminateResult(FORGOTTEN)
                self._outbound.emit(ControlCompleted(command.request, 0, result))
        self._fill(now)

    def redirected(self, number: int, answer: RedirectAnswer, now: Instant) -> bool:
        """Somebody did not take a command; False if nobody asked."""
        asked = self._asked.pop(number, None)
        if asked is None:
            return False
        command, target = asked
        command.copies -= 1
        assert command.copies >= 0, "nobody refuses what was not sent"
        self._is_leader_busy = answer.reason is RedirectReason.BUSY
        if not self._is_leader_busy:
            self._directory.failed(target)
        refusal = REFUSALS.get(answer.reason)
        if refusal is not None and command.sequence and not command.copies:
            self._finish(command, 0, UnavailableResult(refusal), now)
        elif self._is_open(command):
            self._retry_soon(command, now)
        return True

    def _is_open(self, command: PendingCommand) -> bool:
        return command is self._registration or self._pending.get(command.sequence) is command

    def unreachable(self, peer: NodeId, now: Instant) -> None:
        """What was sent to a peer may be lost; or it may be in the log."""
        if self._directory.leader == peer:
            self._directory.failed(peer)
            self._is_leader_busy = False
        for command, target in self._asked.values():
            if target == peer and self._is_open(command):
                self._retry_soon(command, now)

    def _retry_soon(self, command: PendingCommand, now: Instant) -> None:
        command.retry_at = min(command.retry_at, now + REDIRECTED_S)
        self._due = sooner(self._due, command.retry_at)

    def leader_changed(self, now: Instant) -> None:
        """Somebody else leads: what the one before has not answered goes there, too."""
        self._is_leader_busy = False
        for command in self._open():
            self._send(command, now)

    def _open(self) -> list[PendingCommand]:
        registration = [self._registration] if self._registration else []
        return [*registration, *self._pending.values()]

    def _finish(
        self, command: PendingCommand, index: int, result: ControlResult, now: Instant
    ) -> None:
        self._forget(command)
        self._outbound.emit(ControlCompleted(command.request, index, result))
        self._fill(now)

    def _forget(self, command: PendingCommand) -> None:
        del self._pending[command.sequence]
        for number in command.numbers:
            self._asked.pop(number, None)

    def cancel(self, request: int) -> bool:
        """Tell nobody what becomes of a command; it goes on. False if there is none."""
        queued = [each for each in self._queued if each[0] != request]
        was_queued = len(queued) < len(self._queued)
        self._queued = queued
        found = next((each for each in self._pending.values() if each.request == request), None)
        if found is not None:
            self._forget(found)
        return was_queued or found is not None

    # What the clock brings.

    def wake(self, now: Instant) -> None:
        """Give up what is out of time, and repeat what was not answered."""
        if self._due is None or now < self._due:
            return
        for command in [each for each in self._pending.values() if each.until <= now]:
            result = IndeterminateResult(UNKNOWN_END) if command.copies else self._not_begun()
            self._finish(command, 0, result, now)
        late = [request for request, _, until in self._queued if until <= now]
        self._queued = [each for each in self._queued if each[2] > now]
        for request in late:
            self._outbound.emit(ControlCompleted(request, 0, self._not_begun()))
        if self._registration is not None and not self._queued:
            self._end_registration()
        for command in self._open():
            if command.retry_at <= now:
                self._retry(command, now)
        self._due = self._next_due()

    def _not_begun(self) -> UnavailableResult:
        """Return why what is out of time is in nobody's log."""
        return UnavailableResult(TAKES_NOTHING if self._is_leader_busy else NO_MAJORITY)

    def _retry(self, command: PendingCommand, now: Instant) -> None:
        last = self._asked.get(command.numbers[-1]) if command.numbers else None
        if last is not None:
            # It was taken, and then nothing was heard: perhaps another one leads by now.
            self._directory.failed(last[1])
        self._send(command, now)

    def deadline(self) -> Instant | None:
        """Return when ``wake`` is next due."""
        return self._due

    def _next_due(self) -> Instant | None:
        dues = [min(each.until, each.retry_at) for each in self._pending.values()]
        dues += [until for _, _, until in self._queued]
        if self._registration is not None:
            dues.append(self._registration.retry_at)
        return min(dues, default=None)
