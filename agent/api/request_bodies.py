"""Reads what comes in with a request: bodies with a limit, and the values after the ``?``.

The limit is enforced while reading, because ``Content-Length`` may be missing or a lie. All
complaints are ``BadRequest`` and say how the value is written. They name parameters in backticks,
so that the command line can put its own spelling there (``agent/cli/api_words.py``).
"""

import asyncio
import json
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote_to_bytes

from agent.access.caller import Caller
from agent.api.callers import CALLER, NOBODY
from agent.api.errors import BadRequest, NotEncodedSo, TooLarge
from agent.api.large_bodies import BYTES_PER_S_WANTED, LargeBodies, Place
from agent.api.pace import Pace
from agent.exits import TIMED_OUT, AgentError
from agent.http.request import ClientDisconnect, Request
from agent.loop.slices import slices
from agent.net.origin import origin_of
from gossip.kv.requests import ALL

JSON_BYTES_MAX = 64 * 1024
# What a value may have (gossip's limit on values is checked by the state plane, which names it),
# with room to say so: a value that is a little too large gets the precise complaint.
VALUE_BYTES_MAX = 512 * 1024
READINGS_BYTES_MAX = 8 * 1024 * 1024
GZIP_CHUNK_BYTES = 64 * 1024

SMALL_BYTES_MAX = 64 * 1024
"""A body of readings, or a value, with more than that waits for a place among the large ones."""
BYTES_PER_S_MIN, PAUSE_S = 1024, 30.0
"""Who sends less, for so long, is not waited for: a body costs a connection, and memory."""

DIGITS_MAX = 20
COPIES_MAX = 16
COPIES_WORDS = {"one": 1, "quorum": None, "all": ALL}
GLOBS_MAX, GLOBS_CHARACTERS_MAX = 64, 4096

TRUE_WORDS = frozenset({"1", "true", "yes"})
FALSE_WORDS = frozenset({"", "0", "false", "no"})


async def read_body(request: Request, limit_bytes: int, place: Place | None = None) -> bytes:
    """Return the body. Raises TooLarge as soon as it is, BadRequest, AgentError."""
    announced_bytes = int(request.headers.get("content-length", "0"))
    if announced_bytes > limit_bytes:
        raise TooLarge(limit_bytes)
    if request.known_body is not None and announced_bytes <= SMALL_BYTES_MAX:
        return request.known_body
    if place is not None and announced_bytes > SMALL_BYTES_MAX:
        await place.take()
    parts: list[bytes] = []
    size_bytes = 0
    pace = Pace(BYTES_PER_S_MIN, PAUSE_S, _now_s())
    async for part in _parts_of(request, pace, place):
        size_bytes += len(part)
        if size_bytes > limit_bytes:
            raise TooLarge(limit_bytes)
        parts.append(part)
        if place is not None and size_bytes > SMALL_BYTES_MAX and await place.take():
            pace.restart(_now_s())
    return b"".join(parts)


def _now_s() -> float:
    return asyncio.get_running_loop().time()


async def _parts_of(request: Request, pace: Pace, place: Place | None) -> AsyncIterator[bytes]:
    """Yield the parts of a body as they come. Raises BadRequest, AgentError."""
    stream = request.stream()
    try:
        while True:
            part = await _next_part(stream, pace, place)
            if part is None:
                return
            yield part
    except ClientDisconnect:
        raise BadRequest("the client hung up within its request; nothing was done") from None
    except TimeoutError:
        raise _too_slow(request, place) from None


async def _next_part(stream: AsyncIterator[bytes], pace: Pace, place: Place | None) -> bytes | None:
    """Return what comes next, None at the end. Raises TimeoutError for who is too slow."""
    async with asyncio.timeout_at(pace.slow_at) as limit:
        if place is not None:
            place.reading, place.is_lost = limit, False
        try:
            part = await anext(stream, None)
        finally:
            if place is not None:
                place.reading = None
    size_bytes, now = len(part or b""), _now_s()
    pace.record(size_bytes, now)
    if place is not None:
        place.pace.record(size_bytes, now)
    return part


def _too_slow(request: Request, place: Place | None) -> AgentError:
    if place is not None and place.is_lost:
        request.app.state.counts["api_bodies/gave_way"] += 1
        why = f"the request came with less than {BYTES_PER_S_WANTED // 1024} KiB/s, and others wait"
    else:
        request.app.state.counts["api_bodies/too_slow"] += 1
        why = f"the request fell {PAUSE_S:g} s behind {BYTES_PER_S_MIN // 1024} KiB/s"
    return AgentError(f"{why}; nothing was done", "send it again, or in smaller parts", TIMED_OUT)


@asynccontextmanager
async def readings_of(request: Request, bodies: LargeBodies) -> AsyncIterator[bytes]:
    """Yield a body of readings, unpacked; a large one keeps its place until the end.

    Raises TooLarge, NotEncodedSo, BadRequest, AgentError.
    """
    place = Place(bodies, client_of(request.scope))
    try:
        yield await _read_readings(request, place)
    finally:
        place.give_back()


@asynccontextmanager
async def value_of(request: Request, bodies: LargeBodies) -> AsyncIterator[bytes]:
    """Yield a body that is a value; a large one keeps its place until the end.

    Raises TooLarge, BadRequest, AgentError.
    """
    place = Place(bodies, client_of(request.scope))
    try:
        yield await read_body(request, VALUE_BYTES_MAX, place)
    finally:
        place.give_back()


def client_of(scope: Mapping[str, Any]) -> str:
    """Return who asks, as far as can be told: an app, a site of the network, "" for who is here."""
    caller: Caller = scope.get(CALLER, NOBODY)
    app = caller.app
    if app or not scope.get("client"):
        return f"app {app}" if app else ""
    return origin_of(scope["client"][0])


async def _read_readings(request: Request, place: Place) -> bytes:
    """Read and unpack a body.

    What is packed has the same limit as what comes out of it: a gzip of 8 MiB may hold eight
    gigabytes of zeros, and is given up as soon as the limit is passed.
    """
    body = await read_body(request, READINGS_BYTES_MAX, place)
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("identity", ""):
        return body
    if encoding not in ("gzip", "x-gzip"):
        raise NotEncodedSo(encoding)
    await place.take()
    parts: list[bytes] = []
    size_bytes = 0
    try:
        async for chunks in slices(unzipped(body)):
            size_bytes += sum(map(len, chunks))
            if size_bytes > READINGS_BYTES_MAX:
                raise TooLarge(READINGS_BYTES_MAX)
            parts += chunks
    except (zlib.error, EOFError) as error:
        raise BadRequest(f"the body is no gzip: {error}", "send it again, whole") from None
    return b"".join(parts)


def unzipped(packed: bytes) -> Iterator[bytes]:
    """Yield what a gzip holds, in small chunks; it may have several members (RFC 1952, 2.2).

    Raises zlib.error for what is no gzip, EOFError for one that is cut.
    """
    view = memoryview(packed)
    while view:
        unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        at = 0
        while not unpacker.eof:
            given = unpacker.unconsumed_tail or view[at : at + GZIP_CHUNK_BYTES]
            if not unpacker.unconsumed_tail:
                at += len(given)
            chunk = unpacker.decompress(given, GZIP_CHUNK_BYTES)
            if not given and not chunk and not unpacker.eof:
                raise EOFError("it ends too soon")
            yield chunk
        view = view[at - len(unpacker.unused_data) :]


async def read_object(
    request: Request, known: frozenset[str], limit_bytes: int = JSON_BYTES_MAX
) -> dict[str, Any]:
    """Return a JSON object with no other than the known keys; an empty body is ``{}``."""
    body = await read_body(request, limit_bytes)
    try:
        value = json.loads(body.decode() or "{}")
        if b"\\u" in body:
            # "\\ud800" is JSON, and half a character: nothing could send, store or answer it.
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}", "send an object in UTF-8") from None
    if not isinstance(value, dict):
        raise BadRequest("the body is not a JSON object", f"its keys are {_listed(known)}")
    if unknown := value.keys() - known:
        raise BadRequest(f"unknown: {_listed(unknown)}", f"the keys are {_listed(known)}")
    return value


def truth_of(asked: Mapping[str, Any], name: str, *, default: bool | None = None) -> bool:
    """Return a truth value of a JSON object. Raises BadRequest; also without one and a default."""
    value = asked.get(name, default)
    if not isinstance(value, bool):
        raise BadRequest(f"`{name}`: true or false")
    return value


def globs(request: Request, name: str) -> tuple[str, ...]:
    """Return the globs of a query parameter, none where it is not given. Raises BadRequest.

    They are bounded: each is compiled, and tried on everything.
    """
    found = tuple(request.query_params.getlist(name))
    if len(found) > GLOBS_MAX or sum(map(len, found)) > GLOBS_CHARACTERS_MAX:
        raise BadRequest(
            f"`{name}`: at most {GLOBS_MAX} globs of {GLOBS_CHARACTERS_MAX} characters together",
            "ask for all of them (*), or in several requests",
        )
    return found


def check_is_text(request: Request) -> None:
    """Raise BadRequest unless the path and what stands after the ``?`` are UTF-8.

    They are read leniently, each wrong byte as U+FFFD: two keys would become one.
    """
    target: bytes = request.scope.get("raw_path", b"") + b"?" + request.scope["query_string"]
    if b"%" not in target and target.isascii():
        return
    try:
        unquote_to_bytes(target).decode()
    except UnicodeDecodeError:
        raise BadRequest(
            "a name in the request is not UTF-8; nothing was done",
            "write it in UTF-8, each byte as %XX",
        ) from None


def integer(
    request: Request, name: str, *, least: int = 1, most: int = 2**31, default: int | None = None
) -> int | None:
    """Return the whole number ``?name=``; the default when it is missing."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX) or not (
        least <= int(text) <= most
    ):
        raise BadRequest(f"`{name}={text[:40]}`: a whole number from {least} to {most} is needed")
    return int(text)


def copies(request: Request, name: str) -> int | None:
    """Return how many owners ``?name=`` asks for, None for most of them. Raises BadRequest."""
    text = request.query_params.get(name)
    if text in COPIES_WORDS:
        return COPIES_WORDS[text]
    return integer(request, name, most=COPIES_MAX)


def number(request: Request, name: str, *, most: float, default: float) -> float:
    """Return the positive number ``?name=``; the default when it is missing."""
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= most:
        raise BadRequest(f"`{name}`: {text[:40]} is no number above 0 and at most {most:g}")
    return value


def flag(request: Request, name: str) -> bool:
    """Return the truth value ``?name=``; false when it is missing."""
    text = request.query_params.get(name, "").lower()
    if text not in TRUE_WORDS | FALSE_WORDS:
        raise BadRequest(f"`{name}={text[:40]}`: write 1 or 0")
    return text in TRUE_WORDS


def _listed(names: "frozenset[str] | set[str]") -> str:
    return ", ".join(sorted(names)) or "none"
