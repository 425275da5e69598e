"""The control plane, as the rest of the agent uses it: transactions, locks, sessions, watches.

A thin service over the driver: it turns arguments into requests of ``gossip/control`` and refusals
into errors for people. Whatever a majority had to agree on and could not is an error here that
says whether nothing was done, or nobody knows.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing, suppress
from typing import NamedTuple, TypeVar

from agent.exits import NOT_FOUND, UNHEALTHY, USAGE, AgentError
from agent.runtime.driver import Driver
from gossip.consensus.status import ConsensusStatus
from gossip.control import outcomes
from gossip.control.barriers import Barrier, BarrierChange
from gossip.control.commands import (
    AcquireLock,
    Action,
    CloseSession,
    EnterBarrier,
    LeaveBarrier,
    OpenSession,
    ProclaimValue,
    ReleaseLock,
    Transact,
)
from gossip.control.keys import KeyEntry
from gossip.control.locks import Lock, LockChange
from gossip.control.lookups import (
    BarriersResult,
    KeysResult,
    LocksResult,
    Lookup,
    ReadBarriers,
    ReadKeys,
    ReadLocks,
    ReadSessions,
    SessionsResult,
)
from gossip.control.outcomes import (
    BarrierResult,
    Declined,
    EndedResult,
    LockResult,
    ReleasedResult,
    SessionResult,
    TransactionResult,
)
from gossip.control.requests import (
    TIMEOUT_S,
    ControlRead,
    ControlStatus,
    ControlWrite,
    IndeterminateResult,
    UnavailableResult,
)
from gossip.control.sessions import ControlSession
from gossip.control.transactions import (
    Compare,
    EntriesResult,
    GetKey,
    GetRange,
    Operation,
)
from gossip.control.watchers import ControlEvent, ControlWatch, WatchEnded, WatchKind

C = TypeVar(
    "C", TransactionResult, SessionResult, EndedResult, LockResult, ReleasedResult, BarrierResult
)
L = TypeVar("L", KeysResult, LocksResult, SessionsResult, BarriersResult)

CLOSED_AT_ONCE_MAX = 64
LOOK_S = 5.0
"""How long ``is_agreed`` waits for an answer: a question that is lost is asked again after two."""
APPLIED_LOOK_S = 0.05
STATUSES = {
    outcomes.NO_SESSION: NOT_FOUND,
    outcomes.NOT_HELD: NOT_FOUND,
    outcomes.OTHER_PERMITS: USAGE,
    outcomes.OTHER_COUNT: USAGE,
    outcomes.INVALID: USAGE,
    outcomes.TOO_LARGE: USAGE,
}
"""With which status a command is declined; all others pass, with time or after a deletion."""


class NotHeld(AgentError):
    """A session is not inside the barrier that it is to leave, or does not hold the lock."""


class OpenedSession(NamedTuple):
    """A session that was opened here, and for how long it is sure to be there, from now on."""

    session: int
    sure_for_s: float


class Agreement:
    """Asks the control plane. All raise InvalidRequest for what cannot succeed, and AgentError."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._calls = driver.control

    def status(self) -> ControlStatus:
        """Return how things stand at this node."""
        node, now = self._driver.node, self._driver.now()
        return node.with_control(lambda plane: plane.status(now), now)

    async def is_agreed(self, within_s: float = LOOK_S) -> bool:
        """Tell whether a majority follows a leader; ask, where that was not heard of lately."""
        status = self.status()
        if status.has_majority and status.leader is not None:
            return True
        self._calls.look_for_leader()
        try:
            await self._read(ReadLocks(limit=1), LocksResult, timeout_s=within_s)
        except AgentError:
            return False
        return True

    def consensus(self) -> ConsensusStatus | None:
        """Return how the agreement stands, if this node takes part in it."""
        node, now = self._driver.node, self._driver.now()
        raft = node.with_control(lambda plane: plane.part.raft, now)
        return raft.status() if raft is not None else None

    async def until_applied(self, revision: int, within_s: float = TIMEOUT_S) -> bool:
        """Wait until this node's copy has come to a revision; tell whether it did."""
        until = self._driver.now() + within_s
        while self.status().applied_index < revision:
            if self._driver.now() >= until:
                return False
            await asyncio.sleep(APPLIED_LOOK_S)
        return True

    async def transact(
        self,
        compares: tuple[Compare, ...],
        then: tuple[Operation, ...],
        otherwise: tuple[Operation, ...] = (),
        timeout_s: float = TIMEOUT_S,
    ) -> tuple[int, TransactionResult]:
        """Compare, then or else; return the revision and the results."""
        return await self._write(Transact(compares, then, otherwise), TransactionResult, timeout_s)

    async def read(
        self,
        operations: tuple[GetKey | GetRange, ...],
        *,
        stale: bool = False,
        timeout_s: float = TIMEOUT_S,
    ) -> tuple[int, tuple[EntriesResult, ...]]:
        """Read keys, all at one revision, which is returned."""
        index, found = await self._read(
            ReadKeys(operations), KeysResult, stale=stale, timeout_s=timeout_s
        )
        return index, found.results

    async def all_under(self, prefix: str, *, stale: bool = False) -> tuple[int, list[KeyEntry]]:
        """Read all keys that begin with a prefix, page by page; the last one's revision."""
        entries: list[KeyEntry] = []
        revision, after, more = 0, "", True
        while more:
            page = GetRange(prefix, after)
            revision, (found,) = await self.read((page,), stale=stale)
            entries += found.entries
            more = found.more
            after = entries[-1].key if entries else ""
        return revision, entries

    async def follow(self, prefix: str) -> AsyncGenerator[tuple[int, list[KeyEntry]], None]:
        """Yield what our copy has under a prefix, now and after each change. It does not end."""
        while True:
            async with aclosing(self.watch(ControlWatch(prefix, is_prefix=True))) as events:
                yield await self.all_under(prefix, stale=True)
                async for event in events:
                    yield await self.all_under(prefix, stale=True)
                    if isinstance(event, WatchEnded):
                        break

    async def locks(
        self, prefix: str = "", after: str = "", limit: int = 1000, *, stale: bool = False
    ) -> tuple[int, LocksResult]:
        """Read one page of the locks that somebody holds or waits for."""
        return await self._read(
            ReadLocks(prefix, after, limit), LocksResult, stale=stale, timeout_s=TIMEOUT_S
        )

    async def lock(self, name: str) -> tuple[int, Lock | None]:
        """Read one lock; None while nobody wants it."""
        index, found = await self._read(ReadLocks(name, limit=1), LocksResult, timeout_s=TIMEOUT_S)
        is_it = found.locks and found.locks[0].name == name
        return index, found.locks[0] if is_it else None

    async def sessions(self, after: int = 0, limit: int = 1000) -> tuple[int, SessionsResult]:
        """Read one page of the open sessions."""
        return await self._read(ReadSessions(after, limit), SessionsResult, timeout_s=TIMEOUT_S)

    async def session(self, number: int) -> ControlSession:
        """Read one session. Raises AgentError if it is not there."""
        found = (await self.sessions(number - 1, 1))[1].sessions if number > 0 else ()
        if not found or found[0].number != number:
            raise _declined(Declined.no_session(number))
        return found[0]

    async def open_session(
        self, ttl_s: float, lock_delay_s: float, label: str = ""
    ) -> OpenedSession:
        """Open a session that lives as long as ``renew_session`` is called for it.

        Time counts from before the first word of it was sent: whoever holds it never believes in
        it longer than the leader does.
        """
        sent_at = self._driver.now()
        me = self._driver.node.settings.me
        action = OpenSession(me, round(ttl_s * 1000), round(lock_delay_s * 1000), label)
        _, opened = await self._write(action, SessionResult, min(TIMEOUT_S, ttl_s))
        self._calls.keep(opened.session, ttl_s, sent_at)
        return OpenedSession(opened.session, await self._calls.renew(opened.session))

    async def renew_session(self, number: int) -> float:
        """Renew a session; return for how many seconds it is sure to be there. Raises AgentError.

        One that an earlier life of this agent opened is taken over, if it is there still.
        """
        if not self._calls.is_kept(number):
            session = await self.session(number)
            if session.node != self._driver.node.settings.me:
                raise AgentError(
                    f"session {number:x} was opened at another node; it was not renewed",
                    "renew it there",
                    USAGE,
                )
            self._calls.keep(number, session.ttl_ms / 1000, self._driver.now())
        sure_for_s = await self._calls.renew(number)
        if sure_for_s <= 0:
            raise AgentError(
                f"session {number:x} is lost: it has ended, or nobody confirmed it in time",
                "stop what relies on it, and open another one",
                NOT_FOUND,
            )
        return sure_for_s

    async def close_session(self, number: int) -> bool:
        """End a session: what it holds is free at once. False if it had ended before."""
        self._calls.release(number)
        _, ended = await self._write(CloseSession(number), EndedResult, TIMEOUT_S)
        return ended.ended

    async def sessions_labelled(self, begins: str) -> list[ControlSession]:
        """Read all open sessions whose label begins so."""
        theirs: list[ControlSession] = []
        after, more = 0, True
        while more:
            _, found = await self.sessions(after)
            theirs += [each for each in found.sessions if each.label.startswith(begins)]
            after, more = found.sessions[-1].number if found.sessions else 0, found.more
        return theirs

    async def close_sessions(self, numbers: Iterable[int]) -> int:
        """End sessions; return how many had not ended. Raises AgentError; some are over then."""
        ended, left = 0, list(numbers)
        while left:
            now, left = left[:CLOSED_AT_ONCE_MAX], left[CLOSED_AT_ONCE_MAX:]
            ended += sum(await asyncio.gather(*map(self.close_session, now)))
        return ended

    async def acquire(
        self, name: str, session: int, *, permits: int, value: bytes, wait_s: float
    ) -> LockResult:
        """Take a lock, or a place in its queue; wait there so long for it. Asking again is safe.

        ``token`` 0 and ``position`` 0: the session is not in the queue, because it did not wish to
        wait (``wait_s`` 0).
        """
        action = AcquireLock(name, session, permits, wait_s > 0, value)
        index, stands = await self._write(action, LockResult, TIMEOUT_S)
        if stands.token or not stands.position:
            return stands
        try:
            standings = self._standings(name, session, index)
            async with asyncio.timeout(wait_s), aclosing(standings):
                async for stands in standings:
                    if stands.token or not stands.position:
                        break
        except TimeoutError:
            pass
        return stands

    async def _standings(
        self, name: str, session: int, after: int
    ) -> AsyncGenerator[LockResult, None]:
        """Yield how a session stands at a lock, each time that changes. Raises AgentError."""
        watch = ControlWatch(name, kind=WatchKind.LOCKS, after=after)
        async with aclosing(self.watch(watch)) as events:
            async for event in events:
                if isinstance(event, WatchEnded):
                    # Our copy was far behind, and took over a state instead of changes.
                    lock = (await self.lock(name))[1]
                    yield lock.standing(session) if lock else LockResult(0)
                    continue
                for change in event.changes:
                    assert isinstance(change, LockChange), "locks are watched"
                    yield change.lock.standing(session) if change.lock else LockResult(0)

    async def release(self, name: str, session: int) -> bool:
        """Let go of a lock, or leave its queue; tell whether it was held."""
        action = ReleaseLock(name, session)
        return (await self._write(action, ReleasedResult, TIMEOUT_S))[1].held

    async def proclaim(self, name: str, session: int, value: bytes) -> int:
        """Say something else about oneself as the holder of a lock; return the token."""
        action = ProclaimValue(name, session, value)
        return (await self._write(action, LockResult, TIMEOUT_S))[1].token

    async def barriers(
        self, prefix: str = "", after: str = "", limit: int = 1000
    ) -> tuple[int, BarriersResult]:
        """Read one page of the barriers that somebody is inside of."""
        return await self._read(
            ReadBarriers(prefix, after, limit), BarriersResult, timeout_s=TIMEOUT_S
        )

    async def enter_barrier(
        self, name: str, session: int, count: int, wait_s: float
    ) -> Barrier | None:
        """Enter a barrier and wait so long for it to open; return it. Asking again is safe.

        None, or a barrier without this session: it ended meanwhile.
        """
        await self._write(EnterBarrier(name, session, count), BarrierResult, TIMEOUT_S)

        def is_over(barrier: Barrier | None) -> bool:
            return barrier is None or barrier.is_open or session not in barrier.inside

        return await self._barrier_when(name, is_over, wait_s)

    async def leave_barrier(self, name: str, session: int, wait_s: float) -> Barrier | None:
        """Leave a barrier and wait so long for all to have left; return it. Asking again is safe.

        None, or one that is not open: all have left.
        """
        with suppress(NotHeld):
            await self._write(LeaveBarrier(name, session), BarrierResult, TIMEOUT_S)

        def is_over(barrier: Barrier | None) -> bool:
            return barrier is None or not barrier.is_open

        return await self._barrier_when(name, is_over, wait_s)

    async def _barrier_when(
        self, name: str, is_over: Callable[[Barrier | None], bool], wait_s: float
    ) -> Barrier | None:
        """Return a barrier once it is as somebody waits for, or as it is after so long."""
        index, barrier = await self._barrier(name)
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while not is_over(barrier):
                    watch = ControlWatch(name, kind=WatchKind.BARRIERS, after=index)
                    async with aclosing(self.watch(watch)) as events:
                        async for event in events:
                            if isinstance(event, WatchEnded):
                                break  # our copy took over a state instead of changes: look again
                            (change,) = event.changes
                            assert isinstance(change, BarrierChange), "barriers are watched"
                            index, barrier = event.revision, change.barrier
                            if is_over(barrier):
                                return barrier
                    index, barrier = await self._barrier(name)
        return barrier

    async def _barrier(self, name: str) -> tuple[int, Barrier | None]:
        index, found = await self.barriers(name, limit=1)
        is_it = found.barriers and found.barriers[0].name == name
        return index, found.barriers[0] if is_it else None

    async def watch(self, watch: ControlWatch) -> AsyncGenerator[ControlEvent | WatchEnded, None]:
        """Yield changes, revision by revision; ``WatchEnded`` comes last, instead of a gap."""
        events = self._calls.watch(watch)
        try:
            async for event in events:
                yield event
        finally:
            events.close()

    async def _write(self, action: Action, kind: type[C], timeout_s: float) -> tuple[int, C]:
        done = await self._calls.request(ControlWrite(action, timeout_s))
        result: object = done.result
        if isinstance(result, Declined):
            raise _declined(result)
        return done.index, expected(result, kind)

    async def _read(
        self,
        lookup: Lookup,
        kind: type[L],
        *,
        timeout_s: float,
        stale: bool = False,
    ) -> tuple[int, L]:
        done = await self._calls.request(ControlRead(lookup, stale, timeout_s))
        return done.index, expected(done.result, kind)


R = TypeVar("R", bound=object)


def expected(result: object, kind: type[R]) -> R:
    """Return what a request came to. Raises AgentError where it came to nothing."""
    match result:
        case UnavailableResult(reason=reason):
            raise _in_two("unavailable", reason)
        case IndeterminateResult(reason=reason):
            raise _in_two("indeterminate", reason)
    assert isinstance(result, kind), "each request has its own kind of result"
    return result


def _in_two(word: str, reason: str) -> AgentError:
    """Split a reason at the end of its first sentence: what happened, what to do."""
    message, _, hint = reason.partition(". ")
    return AgentError(f"{word}: {message}", hint, UNHEALTHY)


def _declined(outcome: Declined) -> AgentError:
    message, _, hint = outcome.reason.partition("; ")
    kind = NotHeld if outcome.code == outcomes.NOT_HELD else AgentError
    return kind(message, hint, STATUSES.get(outcome.code, UNHEALTHY))
