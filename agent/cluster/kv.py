"""The shared keys, as the rest of the agent uses them.

A thin service over the driver: it turns arguments into requests of ``gossip/kv`` and refusals
into errors for people. What "ok", "indeterminate", "unavailable" and "partial" mean is told in
``gossip/kv/requests.py``; they are results, not errors, because something may have happened.
"""

from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

from agent.exits import NO, UNREACHABLE, USAGE, AgentError
from agent.runtime.driver import Driver
from gossip.kv.changes import Change
from gossip.kv.limits import REQUEST_TIMEOUT_S
from gossip.kv.records import Version
from gossip.kv.requests import (
    Delete,
    Get,
    GetResult,
    List,
    ListResult,
    Put,
    PutResult,
    Rejected,
    Request,
    Result,
    Update,
    Watch,
    WatchEvent,
)
from gossip.kv.restored_key import RestoreKey

R = TypeVar("R", PutResult, GetResult, ListResult)


class Kv:
    """Put, get, delete, list and watch keys. All raise InvalidRequest for what cannot succeed."""

    def __init__(self, driver: Driver, *, fsync: bool = False) -> None:
        """``fsync`` is what a write promises that does not say it (``[state] durability``)."""
        self._driver = driver
        self.fsync = fsync

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        w: int | None = None,
        context: bytes | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
        if_unchanged: bool = False,
        fsync: bool | None = None,
        ttl_s: float | None = None,
    ) -> PutResult:
        """Write a value; "ok" when ``w`` owners have it on disk. Raises AgentError if refused.

        ``if_unchanged``: only over what ``context`` names, or over nothing without one. ``fsync``:
        such an owner counts once it is synced there; None is what the configuration says.
        ``ttl_s``: how long it lives; None: as its space says, 0: for ever.
        """
        is_synced = self.is_synced(fsync)
        put = Put(key, value, w, context, timeout_s, if_unchanged, is_synced, ttl_s)
        return await self._ask(put, PutResult)

    async def update(
        self,
        key: str,
        change: Change,
        *,
        w: int | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
        fsync: bool | None = None,
    ) -> PutResult:
        """Change a counter, set, map, max or min. Raises AgentError if refused."""
        return await self._ask(Update(key, change, w, timeout_s, self.is_synced(fsync)), PutResult)

    async def get(
        self, key: str, *, r: int | None = None, timeout_s: float = REQUEST_TIMEOUT_S
    ) -> GetResult:
        """Read a key from ``r`` owners; no values if it does not exist."""
        return await self._ask(Get(key, r, timeout_s), GetResult)

    async def delete(
        self,
        key: str,
        *,
        w: int | None = None,
        context: bytes | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
        fsync: bool | None = None,
    ) -> PutResult:
        """Delete a key, or the versions in ``context``. Raises AgentError if refused."""
        return await self._ask(Delete(key, w, context, timeout_s, self.is_synced(fsync)), PutResult)

    def is_synced(self, fsync: bool | None) -> bool:  # noqa: FBT001 - it is the question
        """Tell whether a write is to be synced that says so, or does not, or says nothing."""
        return self.fsync if fsync is None else fsync

    async def list(
        self,
        prefix: str = "",
        *,
        after: str = "",
        limit: int = 100,
        r: int | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> ListResult:
        """Read one page of the keys that begin with a prefix."""
        return await self._ask(List(prefix, after, limit, r, timeout_s), ListResult)

    async def restore(
        self, key: str, versions: tuple[Version, ...], *, timeout_s: float = REQUEST_TIMEOUT_S
    ) -> PutResult:
        """Put versions out of a backup in place of nothing. Raises AgentError if refused.

        With status NO where the key has other values.
        """
        return await self._ask(RestoreKey(key, versions, None, timeout_s), PutResult)

    async def watch(
        self, *, prefix: str | None = None, key: str | None = None, since: bytes | None = None
    ) -> AsyncGenerator[WatchEvent]:
        """Yield changes of a key, or of all keys with a prefix, until the iterator is closed.

        ``since`` is a token of an earlier watch of the same, to go on from.
        """
        events = self._driver.watch(Watch(prefix, key, since))
        try:
            async for event in events:
                yield event
        finally:
            events.close()

    def begin(self, request: Request, settle: Callable[[Result | AgentError], None]) -> int:
        """Begin what is asked, for many at once: no task waits for it. Returns its number.

        ``settle`` gets the result, or why there is none; it is called later, and once. Raises
        InvalidRequest, LimitExceeded or AgentError; then it is not called.
        """

        def settled(result: Result | AgentError) -> None:
            settle(_refusal(result) if isinstance(result, Rejected) else result)

        return self._driver.begin(request, settled)

    def drop(self, number: int) -> None:
        """Wait no more for what was begun; a write is still carried out."""
        self._driver.drop(number)

    async def _ask(self, request: Request, expected: type[R]) -> R:
        result = await self._driver.request(request)
        if isinstance(result, Rejected):
            raise _refusal(result)
        assert isinstance(result, expected), "each request has its own kind of result"
        return result


def _refusal(result: Rejected) -> AgentError:
    """Split the reason at its semicolon: what happened, what to do."""
    message, _, hint = result.reason.partition("; ")
    status = UNREACHABLE if result.unreachable else NO if result.mismatch else USAGE
    return AgentError(message, hint, status)
