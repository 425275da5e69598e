"""The sessions that this node renews, for programs on it.

A holder must know by its own clock when it cannot be sure any more: its time to live runs from
when the last renewal *that was answered* was sent, less a margin, on a clock that goes on during
suspend. The leader's runs later, so whoever stops by its own deadline stops in time.
"""

import math

import msgspec

from gossip.control.commands import CloseSession, ExpireSession
from gossip.control.directory import VoterDirectory
from gossip.control.leader_search import LeaderSearch
from gossip.control.messages import SESSIONS_ASKED_MAX, RenewAnswer, RenewAsk
from gossip.control.outbound import ControlOutbound
from gossip.control.requests import SessionConfirmed, SessionLost
from gossip.control.sessions import SessionTable
from gossip.control.state_machine import AppliedCommand
from gossip.core.ids import NodeId
from gossip.core.machine import Instant

RENEWALS_PER_TTL = 3
MARGIN_SHARE = 0.1
"""Of the time to live, kept for clocks that run at different speeds and for stopping."""
REDIRECTED_S = 0.25
RETRY_SHARE, RETRY_S_MAX = 0.1, 2.0
"""A renewal that was not answered is sent again after this share of the time to live, and after so
long at most, as a command is: however long a session lives, its holder waits to hear of it."""
WAITED_S = 30.0
"""An answer that comes later than this is not taken: a repetition's has come, or no leader's."""


class KeptSession(msgspec.Struct):
    """One session that is renewed from here; one that ``is_driven``, only when somebody asks."""

    number: int
    ttl_s: float
    sure_until: Instant
    renew_at: Instant
    is_driven: bool = False
    asked: int = 0
    """The number of the last question about it; 0: it was answered, or nobody was there to ask."""
    is_late: bool = False
    """Whether it was due to be renewed and has not been since."""

    @property
    def retry_s(self) -> float:
        """After how many seconds a question that nobody has answered is asked again."""
        return min(self.ttl_s * RETRY_SHARE, RETRY_S_MAX)


class SentRenewal(msgspec.Struct, frozen=True):
    """A question about sessions that is under way."""

    sessions: tuple[int, ...]
    sent_at: Instant
    target: NodeId


class SessionKeeper:
    """Renews sessions until they are released or lost."""

    def __init__(
        self, outbound: ControlOutbound, directory: VoterDirectory, search: LeaderSearch
    ) -> None:
        self._outbound = outbound
        self._directory = directory
        self._search = search
        self._kept: dict[int, KeptSession] = {}
        self._asked: dict[int, SentRenewal] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def keep(
        self, session: int, ttl_s: float, sent_at: Instant, *, is_driven: bool = False
    ) -> None:
        """Renew a session that was asked for at ``sent_at``; if it ``is_driven``, by ``renew``."""
        sure_until = sent_at + ttl_s * (1 - MARGIN_SHARE)
        renew_at = math.inf if is_driven else sent_at + ttl_s / RENEWALS_PER_TTL
        self._kept[session] = KeptSession(session, ttl_s, sure_until, renew_at, is_driven)

    def renew(self, session: int, now: Instant) -> bool:
        """Renew a session that is driven by who holds it; False if it is not kept here.

        While a renewal is under way already, that one counts: it was sent earlier, and promises
        less.
        """
        kept = self._kept.get(session)
        if kept is not None and kept.renew_at == math.inf:
            kept.renew_at = now
            self.wake(now)
        return session in self._kept

    def release(self, session: int) -> None:
        """Renew a session no more."""
        self._kept.pop(session, None)

    def sure_until(self, session: int) -> Instant | None:
        """Return until when a session is there for sure; None if it is not kept here."""
        kept = self._kept.get(session)
        return kept.sure_until if kept else None

    def wake(self, now: Instant) -> None:
        """Renew what is due; give up what is not sure any more."""
        self._asked = {n: each for n, each in self._asked.items() if now - each.sent_at < WAITED_S}
        for kept in [each for each in self._kept.values() if each.sure_until <= now]:
            self._lose(kept.number, is_certain=False)
        due = [each for each in self._kept.values() if each.renew_at <= now]
        for start in range(0, len(due), SESSIONS_ASKED_MAX):
            self._renew(due[start : start + SESSIONS_ASKED_MAX], now)

    def _renew(self, sessions: list[KeptSession], now: Instant) -> None:
        unanswered = [self._asked[k.asked].target for k in sessions if k.asked in self._asked]
        for target in dict.fromkeys(unanswered):
            self._directory.failed(target)  # perhaps another one leads by now
        leader, number = self._search.leader(now), 0
        if leader is not None:
            numbers = tuple(kept.number for kept in sessions)
            number = self._outbound.ask(RenewAsk(numbers), leader)
            self._asked[number] = SentRenewal(numbers, now, leader)
        for kept in sessions:
            kept.asked, kept.is_late, kept.renew_at = number, True, now + kept.retry_s

    def answered(self, number: int, answer: RenewAnswer) -> bool:
        """Take in which sessions are renewed; False if nobody asked."""
        sent = self._asked.pop(number, None)
        if sent is None:
            return False
        renewed = set(answer.renewed)
        for session in sent.sessions:
            kept = self._kept.get(session)
            if kept is None:
                continue
            if session in renewed:
                self._confirm(kept, sent.sent_at)
            else:
                self._lose(session, is_certain=True)
        return True

    def _confirm(self, kept: KeptSession, sent_at: Instant) -> None:
        kept.asked, kept.is_late = 0, False
        kept.sure_until = max(kept.sure_until, sent_at + kept.ttl_s * (1 - MARGIN_SHARE))
        if kept.is_driven:
            kept.renew_at = math.inf
            self._outbound.emit(SessionConfirmed(kept.number, kept.sure_until))
        else:
            kept.renew_at = max(kept.renew_at, sent_at + kept.ttl_s / RENEWALS_PER_TTL)

    def asked(self, number: int) -> NodeId | None:
        """Return whom a question under way was sent to."""
        sent = self._asked.get(number)
        return sent.target if sent else None

    def redirected(self, number: int, now: Instant) -> bool:
        """Somebody else leads; False if nobody asked."""
        sent = self._asked.pop(number, None)
        if sent is None:
            return False
        self._directory.failed(sent.target)
        self._retry_soon({number}, now)
        return True

    def unreachable(self, peer: NodeId, now: Instant) -> None:
        """What was sent to a peer may be lost."""
        if self._directory.leader == peer:
            self._directory.failed(peer)
        self._retry_soon({n for n, sent in self._asked.items() if sent.target == peer}, now)

    def _retry_soon(self, numbers: set[int], now: Instant) -> None:
        """Ask again soon what these questions were the last about."""
        for kept in self._kept.values():
            if kept.asked in numbers:
                kept.renew_at = min(kept.renew_at, now + REDIRECTED_S)

    def leader_changed(self, now: Instant) -> None:
        """Another one leads, which gives all sessions their full time: be heard there soon."""
        for kept in self._kept.values():
            if kept.renew_at < math.inf:
                soon_s = REDIRECTED_S if kept.is_late else kept.retry_s
                kept.renew_at = min(kept.renew_at, now + soon_s)

    def applied(self, applied: AppliedCommand, sessions: SessionTable) -> None:
        """Our own copy of the log came to a command: perhaps to the end of a session."""
        action = applied.action
        if not isinstance(action, CloseSession | ExpireSession):
            return
        if action.session in self._kept and action.session not in sessions:
            self._lose(action.session, is_certain=True)

    def _lose(self, session: int, *, is_certain: bool) -> None:
        del self._kept[session]
        label = "control_sessions/ended" if is_certain else "control_sessions/unsure"
        self._outbound.counts[label] += 1
        self._outbound.emit(SessionLost(session, is_certain))

    def deadline(self) -> Instant | None:
        """Return when ``wake`` is next due."""
        if not self._kept:
            return None
        dues = [min(each.sure_until, each.renew_at) for each in self._kept.values()]
        return min(dues, default=None)
