"""Sessions: what a client holds as long as it is there, and loses when it is not.

A session is in the log; its renewals are not (they would wear out the flash), they live in the
leader's memory (``renewals.py``). When a leader finds that a session was not renewed for its time
to live, it puts the end of it into the log, and only there it ends: keys that belong to it are
deleted, locks are freed, queues and barriers left, all at one revision.

The number of a session is the index at which it was opened, so that none is ever given twice.
"""

from collections import Counter
from collections.abc import Iterator

import msgspec

from gossip.control.bounds import (
    ENTRY_BYTES,
    LABEL_SESSIONS_MAX,
    LOCK_DELAY_MS_DEFAULT,
    SESSIONS_MAX,
    Space,
)
from gossip.control.outcomes import FULL, TOO_MANY, Declined, SessionResult


class ControlSession(msgspec.Struct, frozen=True, array_like=True):
    """One session. ``node`` is who renews it, for people; nothing is decided by it."""

    number: int
    node: int
    ttl_ms: int
    lock_delay_ms: int = LOCK_DELAY_MS_DEFAULT
    label: str = ""

    @property
    def size_bytes(self) -> int:
        """What it takes of the space."""
        return ENTRY_BYTES + len(self.label.encode())


class SessionTable:
    """Manages the sessions that are open."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._sessions: dict[int, ControlSession] = {}
        self._labelled: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[ControlSession]:
        return iter(self._sessions.values())

    def __contains__(self, number: int) -> bool:
        return number in self._sessions

    def get(self, number: int) -> ControlSession | None:
        """Return a session that is open; None if it is not."""
        return self._sessions.get(number)

    def open(self, session: ControlSession) -> SessionResult | Declined:
        """Open a session, if there is room for it."""
        if len(self._sessions) >= SESSIONS_MAX:
            return Declined(TOO_MANY, f"{SESSIONS_MAX} sessions are open; close some first")
        if session.label and self._labelled[session.label] >= LABEL_SESSIONS_MAX:
            whose = f"{LABEL_SESSIONS_MAX} sessions labelled {session.label!r:.80}"
            return Declined(TOO_MANY, f"{whose} are open; close some first")
        if not self._space.fits(session.size_bytes):
            return Declined(FULL, "the control plane is full; delete something first")
        self.restore(session)
        return SessionResult(session.number, session.ttl_ms)

    def restore(self, session: ControlSession) -> None:
        """Take a session in that is open already, in the order of their numbers."""
        self._sessions[session.number] = session
        self._labelled[session.label] += 1
        self._space.add(session.size_bytes)

    def end(self, number: int) -> ControlSession | None:
        """Remove a session and return it; None if it was not there."""
        session = self._sessions.pop(number, None)
        if session is not None:
            self._space.add(-session.size_bytes)
            self._labelled[session.label] -= 1
            if not self._labelled[session.label]:
                del self._labelled[session.label]
        return session
