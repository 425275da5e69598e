"""Locks with fencing tokens; and with several permits, semaphores; and with a word, elections.

One noun, three uses. A lock has ``permits`` (1 unless somebody asks for more), holders, and a queue
of those who wait, served in the order of the log. Who leads is who holds a lock with one permit,
and what it says about itself is its ``value``, which everybody can watch.

**The token** of a holder is the index of the log entry that gave it the lock: it grows with each
holder of that name and, as indexes are never used twice, over the whole covey. At any point of the
log at most ``permits`` sessions hold a lock. That is all a lock can promise: a holder that was
paused learns late that it lost it. So whatever the lock protects must be shown the token and refuse
one that is smaller than the largest it has seen (Kleppmann 2016; Chubby's sequencers, Burrows 2006
section 2.4). Keys of the control plane do so by ``Compare(lock, TOKEN, EQUAL, token)``.

**Lock delay** helps where nobody checks tokens: a permit whose holder was lost, rather than let go,
stays shut for the delay that the session asked for, so that what is under way can come to an end.
No clock is read here: the leader measures the delay and puts its end into the log.
"""

from collections.abc import Callable, Iterator

import msgspec

from gossip.control.bounds import ENTRY_BYTES, Space
from gossip.control.outcomes import (
    FULL,
    NOT_HELD,
    OTHER_PERMITS,
    Declined,
    LockResult,
    ReleasedResult,
)


class LockHolder(msgspec.Struct, frozen=True, array_like=True):
    """Who holds a permit of a lock, by which fencing token, and what it says about itself."""

    session: int
    token: int
    value: bytes = b""


class LockWaiter(msgspec.Struct, frozen=True, array_like=True):
    """Who waits for a lock, and since which index."""

    session: int
    since: int
    value: bytes = b""


class LockDelay(msgspec.Struct, frozen=True, array_like=True):
    """A permit that is shut because its holder was lost at this index."""

    since: int
    delay_ms: int


class Lock(msgspec.Struct, frozen=True, array_like=True):
    """One lock that somebody holds, or that is shut for a while."""

    name: str
    permits: int
    holders: tuple[LockHolder, ...] = ()
    waiters: tuple[LockWaiter, ...] = ()
    delays: tuple[LockDelay, ...] = ()

    @property
    def size_bytes(self) -> int:
        """What it takes of the space."""
        values = sum(len(each.value) for each in self.holders)
        values += sum(len(each.value) for each in self.waiters)
        count = 1 + len(self.holders) + len(self.waiters) + len(self.delays)
        return ENTRY_BYTES * count + len(self.name.encode()) + values

    @property
    def free(self) -> int:
        """How many permits nobody holds and nothing shuts."""
        return self.permits - len(self.holders) - len(self.delays)

    def holder(self, session: int) -> LockHolder | None:
        """Return the permit of a session."""
        return next((each for each in self.holders if each.session == session), None)

    def standing(self, session: int) -> LockResult:
        """Say how a session stands here."""
        held = self.holder(session)
        if held is not None:
            return LockResult(held.token)
        for place, waiter in enumerate(self.waiters, 1):
            if waiter.session == session:
                return LockResult(0, place)
        return LockResult(0)


class LockChange(msgspec.Struct, frozen=True):
    """A lock changed; None: nobody holds it or waits for it any more."""

    name: str
    lock: Lock | None


class LockTable:
    """Manages the locks. Sessions are the caller's to check."""

    def __init__(self, space: Space, changed: Callable[[LockChange], None]) -> None:
        self._space = space
        self._changed = changed
        self._locks: dict[str, Lock] = {}
        self._of_session: dict[int, set[str]] = {}

    def __len__(self) -> int:
        return len(self._locks)

    def __iter__(self) -> Iterator[Lock]:
        return (self._locks[name] for name in sorted(self._locks))

    def get(self, name: str) -> Lock | None:
        """Return a lock; None while nobody wants it."""
        return self._locks.get(name)

    def has_token(self, name: str, token: int) -> bool:
        """Tell whether somebody holds this lock by this token."""
        lock = self._locks.get(name)
        return lock is not None and any(each.token == token for each in lock.holders)

    def acquire(
        self, name: str, session: int, permits: int, value: bytes, index: int, *, wait: bool
    ) -> LockResult | Declined:
        """Give a session the lock, or a place in its queue if it wants to wait.

        Who holds it already, or waits, stays where it is: asking again does no harm.
        """
        lock = self._locks.get(name) or Lock(name, permits)
        if lock.permits != permits:
            return Declined(
                OTHER_PERMITS, f"lock {name!r} is in use with {lock.permits} permits, not {permits}"
            )
        standing = lock.standing(session)
        if standing != LockResult(0):
            return standing
        if not wait and (lock.free < 1 or lock.waiters):
            return LockResult(0)
        waiter = LockWaiter(session, index, value)
        wanted = _replace(lock, waiters=(*lock.waiters, waiter))
        if not self._fits(wanted):
            return Declined(FULL, "the control plane is full; delete something first")
        self._of_session.setdefault(session, set()).add(name)
        self._set(_granted(wanted, index))
        return self._locks[name].standing(session)

    def release(self, name: str, session: int, index: int) -> ReleasedResult | Declined:
        """Take a session out of a lock: as a holder, or out of the queue."""
        lock = self._locks.get(name)
        standing = lock.standing(session) if lock else LockResult(0)
        if lock is None or standing == LockResult(0):
            return Declined(NOT_HELD, f"the session neither holds lock {name!r} nor waits for it")
        self._part(lock, session, index, delay_ms=0)
        return ReleasedResult(standing.token > 0)

    def proclaim(self, name: str, session: int, value: bytes) -> LockResult | Declined:
        """Let a holder say something else about itself."""
        lock = self._locks.get(name)
        held = lock.holder(session) if lock else None
        if lock is None or held is None:
            return Declined(NOT_HELD, f"the session does not hold lock {name!r}")
        told = LockHolder(session, held.token, value)
        holders = tuple(told if each is held else each for each in lock.holders)
        changed = _replace(lock, holders=holders)
        if not self._fits(changed):
            return Declined(FULL, "the control plane is full; delete something first")
        self._set(changed)
        return LockResult(held.token)

    def end_session(self, session: int, index: int, delay_ms: int) -> None:
        """Take a session out of all locks; those it held stay shut for ``delay_ms``."""
        for name in sorted(self._of_session.get(session, ())):
            self._part(self._locks[name], session, index, delay_ms)

    def end_delay(self, name: str, since: int, index: int) -> bool:
        """Open a permit that was shut since this index. False if it is not."""
        lock = self._locks.get(name)
        ended = next((each for each in lock.delays if each.since == since), None) if lock else None
        if lock is None or ended is None:
            return False
        delays = tuple(each for each in lock.delays if each is not ended)
        self._set(_granted(_replace(lock, delays=delays), index))
        return True

    def restore(self, lock: Lock) -> None:
        """Take a lock in as it is."""
        sessions = [each.session for each in lock.holders]
        for session in (*sessions, *(each.session for each in lock.waiters)):
            self._of_session.setdefault(session, set()).add(lock.name)
        self._set(lock)

    def _part(self, lock: Lock, session: int, index: int, delay_ms: int) -> None:
        held = lock.holder(session)
        holders = tuple(each for each in lock.holders if each.session != session)
        waiters = tuple(each for each in lock.waiters if each.session != session)
        # One session holds one permit at most, so no index occurs twice among a lock's delays.
        shut = (LockDelay(index, delay_ms),) if held and delay_ms else ()
        left = Lock(lock.name, lock.permits, holders, waiters, (*lock.delays, *shut))
        names = self._of_session[session]
        names.discard(lock.name)
        if not names:
            del self._of_session[session]
        self._set(_granted(left, index))

    def _fits(self, lock: Lock) -> bool:
        before = self._locks.get(lock.name)
        return self._space.fits(lock.size_bytes - (before.size_bytes if before else 0))

    def _set(self, lock: Lock) -> None:
        """Put a lock in the place of what it was; forget it when nobody wants it."""
        assert lock.free >= 0, "no more permits are given than there are"
        assert lock.free == 0 or not lock.waiters, "nobody waits for a permit that is free"
        before = self._locks.pop(lock.name, None)
        if before is not None:
            self._space.add(-before.size_bytes)
        is_wanted = bool(lock.holders or lock.waiters or lock.delays)
        if is_wanted:
            self._locks[lock.name] = lock
            self._space.add(lock.size_bytes)
        self._changed(LockChange(lock.name, lock if is_wanted else None))


def _replace(
    lock: Lock,
    holders: tuple[LockHolder, ...] | None = None,
    waiters: tuple[LockWaiter, ...] | None = None,
    delays: tuple[LockDelay, ...] | None = None,
) -> Lock:
    return Lock(
        lock.name,
        lock.permits,
        lock.holders if holders is None else holders,
        lock.waiters if waiters is None else waiters,
        lock.delays if delays is None else delays,
    )


def _granted(lock: Lock, index: int) -> Lock:
    """Give the free permit to who has waited longest.

    An entry of the log frees or asks for one permit of a lock at most, so one is all there is to
    give, and no two holders of a lock have the same token.
    """
    if lock.free < 1 or not lock.waiters:
        return lock
    first, *others = lock.waiters
    assert all(each.token < index for each in lock.holders), "tokens of a lock only grow"
    holders = (*lock.holders, LockHolder(first.session, index, first.value))
    return Lock(lock.name, lock.permits, holders, tuple(others), lock.delays)
