"""Many operations on shared keys in one request, each with an outcome of its own.

There is no atomicity: what fails stops none of the others, and what was done stays done. The
operations on one key are carried out in their order, each once the one before it is ``ok``; those
on different keys side by side. Where all or nothing is wanted: ``POST /api/v1/txn``.

What each costs the owners is what it costs alone. What is saved is the way there: a request, its
check, its answer.
"""

import asyncio
import base64
import binascii
from collections import defaultdict
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec

from agent.api.durability import wants_fsync
from agent.api.errors import BadRequest, TooLarge, error_of
from agent.api.interfaces import AgentServices
from agent.api.kv import describe_value, written
from agent.api.kv_changes import read_change
from agent.api.large_bodies import Place
from agent.api.long_lists import listing
from agent.api.name_scope import check_shared_key
from agent.api.request_bodies import (
    COPIES_WORDS,
    SMALL_BYTES_MAX,
    client_of,
    copies,
    number,
    read_body,
)
from agent.exits import UNHEALTHY, AgentError
from agent.http.request import Request
from agent.http.response import Response
from gossip.core.errors import InvalidRequest, LimitExceeded
from gossip.kv.limits import REQUEST_TIMEOUT_S, REQUEST_TIMEOUT_S_MAX
from gossip.kv.requests import GetResult, PutResult

KEY = "batch"
BODY_BYTES_MAX = 4 * 1024 * 1024
OPERATIONS_MAX = 1_000
AT_ONCE = 64
"""Keys of one batch that are worked on at the same time: others ask as well."""
ANSWER_BYTES_MAX = 8 * 1024 * 1024
"""Of values in an answer; a get behind that is refused, and asked again in another batch."""
WORDS = ("value", "value_base64", "change", "context", "only_if", "ttl", "w", "r")
TAKES: dict[str, frozenset[str]] = {
    "get": frozenset({"r"}),
    "put": frozenset({"value", "value_base64", "context", "only_if", "ttl", "w"}),
    "delete": frozenset({"context", "w"}),
    "update": frozenset({"change", "w"}),
}

Copies = Annotated[int, msgspec.Meta(ge=1, le=16)] | Literal["one", "quorum", "all"] | None


class BatchOperation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One operation; which of its words go with which ``op``, ``TAKES`` says."""

    op: Literal["get", "put", "delete", "update"]
    key: str
    value: str | None = None
    value_base64: str | None = None
    change: dict[str, Any] | None = None
    context: str | None = None
    only_if: Literal["context", "absent"] | None = None
    ttl: float | None = None
    w: Copies = None
    r: Copies = None


class _Batch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    operations: list[BatchOperation]


_decode = msgspec.json.Decoder(_Batch).decode


async def change_keys(request: Request) -> Response:
    """Carry out many operations; answer with what became of each, in their order.

    A change of a typed value goes to the key ``batch``, as to any other.
    """
    timeout_s = number(request, "timeout", most=REQUEST_TIMEOUT_S_MAX, default=REQUEST_TIMEOUT_S)
    fsync = wants_fsync(request)
    place = Place(request.app.state.large_values, client_of(request.scope))
    try:
        body = await read_body(request, BODY_BYTES_MAX, place)
        if b'"operations"' not in body:
            return await _change_one(request, body)
        operations = await _read(request, body)
        batch = _RunningBatch(request.app.state.agent, operations, timeout_s, fsync=fsync)
        return await listing("results", await batch.run())
    finally:
        place.give_back()


async def _change_one(request: Request, body: bytes) -> Response:
    """Change the typed value of the key that is called as this route is."""
    check_shared_key(request, KEY)
    try:
        asked = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is no batch: {error}", "nothing was done") from None
    agent: AgentServices = request.app.state.agent
    w, fsync = copies(request, "w"), wants_fsync(request)
    timeout_s = number(request, "timeout", most=REQUEST_TIMEOUT_S_MAX, default=REQUEST_TIMEOUT_S)
    change = read_change(asked)
    return written(await agent.kv.update(KEY, change, w=w, timeout_s=timeout_s, fsync=fsync))


async def _read(request: Request, body: bytes) -> list[BatchOperation]:
    """Return the operations, each of which this caller may ask for. Raises AgentError."""
    try:
        if len(body) > SMALL_BYTES_MAX:
            batch = await asyncio.to_thread(_decode, body)
        else:
            batch = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is no batch: {error}", "nothing was done") from None
    if len(batch.operations) > OPERATIONS_MAX:
        raise TooLarge(OPERATIONS_MAX, "operations")
    for operation in batch.operations:
        check_shared_key(request, operation.key)
        _check_words(operation)
    return batch.operations


def _check_words(operation: BatchOperation) -> None:
    given = {word for word in WORDS if getattr(operation, word) is not None}
    if unknown := sorted(given - TAKES[operation.op]):
        taken = ", ".join(sorted(TAKES[operation.op]))
        raise BadRequest(f"a {operation.op} takes no `{unknown[0]}`; nothing was done", taken)


class _RunningBatch:
    """The operations of one request, under way."""

    def __init__(
        self,
        agent: AgentServices,
        operations: list[BatchOperation],
        timeout_s: float,
        *,
        fsync: bool | None,
    ) -> None:
        self._kv, self._timeout_s, self._fsync = agent.kv, timeout_s, fsync
        self._operations = operations
        self._results: list[dict[str, Any]] = [{} for _ in operations]
        self._answer_bytes = 0

    async def run(self) -> list[dict[str, Any]]:
        by_key: defaultdict[str, list[int]] = defaultdict(list)
        for at, operation in enumerate(self._operations):
            by_key[operation.key].append(at)
        left = iter(by_key.values())
        async with asyncio.TaskGroup() as group:
            for _ in range(min(AT_ONCE, len(by_key))):
                group.create_task(self._work(left))
        return self._results

    async def _work(self, left: Iterator[list[int]]) -> None:
        """Take one key after the other, as long as there are any."""
        for places in left:
            stopped = False
            for at in places:
                self._results[at] = await self._result(self._operations[at], stopped=stopped)
                stopped = self._results[at]["outcome"] != "ok"

    async def _result(self, operation: BatchOperation, *, stopped: bool) -> dict[str, Any]:
        told: dict[str, Any] = {"key": operation.key}
        if stopped:
            return told | {"outcome": "skipped"}
        try:
            return told | await self._carry_out(operation)
        except (AgentError, InvalidRequest, LimitExceeded) as error:
            return told | {"outcome": "refused", **error_of(error)}

    async def _carry_out(self, operation: BatchOperation) -> dict[str, Any]:
        key, w = operation.key, _copies(operation.w)
        how: dict[str, Any] = {"timeout_s": self._timeout_s, "fsync": self._fsync}
        match operation.op:
            case "get":
                r = _copies(operation.r)
                return self._found(await self._kv.get(key, r=r, timeout_s=self._timeout_s))
            case "delete":
                context = _decoded(operation.context, "context")
                return _described(await self._kv.delete(key, w=w, context=context, **how))
            case "update":
                change = read_change(operation.change or {})
                return _described(await self._kv.update(key, change, w=w, **how))
            case "put":
                return _described(await self._put(operation))

    async def _put(self, operation: BatchOperation) -> PutResult:
        context = _decoded(operation.context, "context")
        if operation.only_if and (operation.only_if == "context") != (context is not None):
            raise BadRequest("`only_if`: `context` goes with one, `absent` without")
        return await self._kv.put(
            operation.key,
            _value(operation),
            w=_copies(operation.w),
            context=context,
            timeout_s=self._timeout_s,
            fsync=self._fsync,
            if_unchanged=operation.only_if is not None,
            ttl_s=operation.ttl,
        )

    def _found(self, found: GetResult) -> dict[str, Any]:
        """Describe what was read, as far as there is room for it."""
        self._answer_bytes += sum(len(value.data) for value in found.values)
        if self._answer_bytes > ANSWER_BYTES_MAX:
            limit = f"the answer would have more than {ANSWER_BYTES_MAX} bytes of values"
            raise AgentError(limit, "get this key in another batch", UNHEALTHY)
        return {
            "outcome": found.outcome,
            "values": [describe_value(value) for value in found.values],
            "context": base64.urlsafe_b64encode(found.context).decode(),
            "answered": found.answered,
            "needed": found.needed,
        }


def _described(result: PutResult) -> dict[str, Any]:
    return {
        "outcome": result.outcome,
        "acks": result.acks,
        "needed": result.needed,
        "context": base64.urlsafe_b64encode(result.context).decode(),
        "versions": result.versions,
    }


def _copies(given: int | str | None) -> int | None:
    return COPIES_WORDS[given] if isinstance(given, str) else given


def _value(operation: BatchOperation) -> bytes:
    if (operation.value is None) == (operation.value_base64 is None):
        raise BadRequest("a put takes one of `value` and `value_base64`")
    if operation.value is None:
        return _decoded(operation.value_base64, "value_base64") or b""
    try:
        return operation.value.encode()
    except UnicodeEncodeError:
        raise BadRequest("`value` is text in UTF-8; this one has half a character") from None


def _decoded(text: str | None, name: str) -> bytes | None:
    """Return base64 of either alphabet as bytes."""
    if text is None:
        return None
    try:
        return base64.b64decode(text.encode().translate(URL_SAFE), validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError):
        raise BadRequest(f"`{name}` is no base64") from None


URL_SAFE = bytes.maketrans(b"-_", b"+/")

ROUTES = (("POST", "/api/v1/kv/batch", change_keys),)
