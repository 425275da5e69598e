"""Routes of files: bodies that are streamed either way, never whole in memory.

A body is a file's bytes, as they are. A range of them is asked for as HTTP does it (RFC 9110, 14),
one at a time. What goes wrong in the midst of an answer ends its connection before all of the
announced bytes are there, so that no client takes a part for the whole.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, NamedTuple

from agent.api.callers import caller_of
from agent.api.errors import BadRequest, error_body, respond
from agent.api.interfaces import AgentServices
from agent.api.long_lists import listing
from agent.api.name_scope import check_shared_key, may_use_shared_key
from agent.api.request_bodies import integer, read_object
from agent.blocks.file_stat import FileStat
from agent.blocks.named_files import NamedFile, Upload
from agent.exits import NOT_FOUND, TIMED_OUT, USAGE, AgentError, word_of
from agent.http.request import ClientDisconnect, Request
from agent.http.response import JSONResponse, Response, StreamingResponse
from gossip.bodies.block_limits import BLOCKS_MAX
from gossip.bodies.file_records import FileRecord
from gossip.core.ids import format_node_id
from gossip.kv.limits import LIST_ENTRIES_MAX

BINARY = "application/octet-stream"
PAUSE_S = 30.0
"""A client that sends nothing for so long is not waited for."""
LIST_ENTRIES_DEFAULT = 100
MARK_CHARACTERS_MAX = 100
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
MOVE = frozenset({"move_to"})
RANGE_NOT_SATISFIABLE, PARTIAL_CONTENT = 416, 206


class Span(NamedTuple):
    """From which byte up to which."""

    start: int
    end: int


async def put_file(request: Request) -> Response:
    """Make the body the file of this name; with ``upload`` go on with one that broke off."""
    agent: AgentServices = request.app.state.agent
    name = _name(request)
    mark, wanted = request.query_params.get("mark", ""), request.query_params.get("upload")
    if len(mark) > MARK_CHARACTERS_MAX:
        raise BadRequest(f"`mark`: at most {MARK_CHARACTERS_MAX} characters")
    upload = await _upload(request, name, mark, wanted) if wanted else None
    record = await agent.blocks.files.put(name, _body(request), mark=mark, upload=upload)
    return JSONResponse(describe(NamedFile(name, record)))


async def _upload(request: Request, name: str, mark: str, wanted: str) -> Upload:
    """Return what is gone on with, up to the block that the body begins with."""
    agent: AgentServices = request.app.state.agent
    first = integer(request, "from", least=0, most=BLOCKS_MAX, default=0)
    assert first is not None, "it has a default"
    for upload in await agent.blocks.files.uploads(mark, lambda found: found == name):
        if upload.file.hex() == wanted:
            if first > len(upload.digests):
                raise BadRequest(f"`from={first}`: {len(upload.digests)} blocks are there")
            return upload._replace(digests=upload.digests[:first])
    raise AgentError("there is no such upload", "begin anew, without `upload`", NOT_FOUND)


async def _body(request: Request) -> AsyncIterator[bytes]:
    """Yield the parts of a body as they come. Raises BadRequest, AgentError."""
    stream = request.stream()
    try:
        while True:
            async with asyncio.timeout(PAUSE_S):
                part = await anext(stream, None)
            if part is None:
                return
            yield part
    except ClientDisconnect:
        raise BadRequest("the client hung up within its request; nothing is visible") from None
    except TimeoutError:
        raise AgentError(
            f"nothing came for {PAUSE_S:g} s; nothing is visible", "send it again", TIMED_OUT
        ) from None


async def list_uploads(request: Request) -> Response:
    """Answer with the uploads of a mark that were not ended, and which blocks they have.

    Those of names that are not for this caller are not there for it.
    """
    agent: AgentServices = request.app.state.agent
    mark = request.query_params.get("mark", "")
    found = await agent.blocks.files.uploads(mark, partial(may_use_shared_key, caller_of(request)))
    uploads = []
    for each in found:
        digests = [digest.hex() for digest in each.digests]
        uploads.append({"upload": each.file.hex(), "name": each.record.name, "blocks": digests})
    return JSONResponse({"uploads": uploads})


async def get_file(request: Request) -> Response:
    """Answer with a file's bytes, or with a range of them."""
    agent: AgentServices = request.app.state.agent
    record = await agent.blocks.files.find(_name(request))
    asked = request.headers.get("range")
    span = _span(asked, record.size_bytes) if asked else Span(0, record.size_bytes)
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": f'"{record.file.hex()}"',
        "Covey-Digest": record.digest.hex(),
    }
    if span is None:
        headers["Content-Range"] = f"bytes */{record.size_bytes}"
        message = f"the file has {record.size_bytes} bytes, and none of them is in this range"
        told = error_body(word_of(USAGE), message, "`GET /api/v1/file-stat/NAME` says how many")
        return respond(RANGE_NOT_SATISFIABLE, told, headers)
    headers["Content-Length"] = str(span.end - span.start)
    if asked:
        headers["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{record.size_bytes}"
    parts = agent.blocks.files.read(record, span.start, span.end)
    return StreamingResponse(parts, PARTIAL_CONTENT if asked else 200, headers, BINARY)


def _span(text: str, size_bytes: int) -> Span | None:
    """Return the range that is asked for, None if nothing of it is there. Raises BadRequest."""
    found = RANGE.fullmatch(text.strip())
    if found is None or found[0] == "bytes=-":
        raise BadRequest("`Range`: one range of bytes is taken", "bytes=FIRST-LAST")
    first, last = found[1], found[2]
    if not first:
        span = Span(max(0, size_bytes - int(last)), size_bytes)
    else:
        span = Span(int(first), min(int(last) + 1, size_bytes) if last else size_bytes)
    return span if span.start < span.end else None


async def list_files(request: Request) -> Response:
    """Answer with one page of names, and what is known of each file."""
    agent: AgentServices = request.app.state.agent
    limit = integer(request, "limit", most=LIST_ENTRIES_MAX, default=LIST_ENTRIES_DEFAULT)
    assert limit is not None, "it has a default"
    prefix = request.query_params.get("prefix", "")
    check_shared_key(request, prefix)
    page = await agent.blocks.files.page(prefix, request.query_params.get("after", ""), limit)
    stats = await agent.blocks.stats.of(page.files)
    entries = (
        describe(file) | summarise(stat) for file, stat in zip(page.files, stats, strict=True)
    )
    return await listing("files", entries, next=page.next, outcome=page.outcome)


async def stat_file(request: Request) -> Response:
    """Answer with what is known of one file, and who has which of its blocks."""
    agent: AgentServices = request.app.state.agent
    name = _name(request)
    file = NamedFile(name, await agent.blocks.files.find(name))
    [stat] = await agent.blocks.stats.of([file])
    names = {entry.id: entry.name for entry in agent.registry.nodes}

    def called(node: int) -> str:
        return names.get(node, format_node_id(node))

    blocks = [
        {"owners": [*map(called, block.owners)], "held": sorted(map(called, block.held))}
        for block in stat.blocks
    ]
    silent = sorted(map(called, stat.silent))
    return JSONResponse(describe(file) | summarise(stat) | {"silent": silent, "placed": blocks})


async def move_file(request: Request) -> Response:
    """Give a file another name."""
    agent: AgentServices = request.app.state.agent
    old = _name(request)
    new = (await read_object(request, MOVE)).get("move_to")
    if not isinstance(new, str):
        raise BadRequest("`move_to` is the new name")
    check_shared_key(request, new)
    return JSONResponse(describe(NamedFile(new, await agent.blocks.files.move(old, new))))


async def remove_file(request: Request) -> Response:
    """Remove a file."""
    agent: AgentServices = request.app.state.agent
    name = _name(request)
    return JSONResponse(describe(NamedFile(name, await agent.blocks.files.remove(name))))


def describe(file: NamedFile) -> dict[str, Any]:
    """Return what is known of a file without asking anybody."""
    record: FileRecord = file.record
    return {
        "name": file.name,
        "size_bytes": record.size_bytes,
        "digest": record.digest.hex(),
        "written_ms": record.written_ms,
        "blocks": record.blocks,
        "id": record.file.hex(),
    }


def summarise(stat: FileStat) -> dict[str, Any]:
    """Return how many of a file's blocks lack a copy, and how many nobody who answered has."""
    return {"short": stat.short, "missing": stat.missing}


def _name(request: Request) -> str:
    """Return the name that is asked for. Raises AgentError if it is not for this caller."""
    name: str = request.path_params["name"]
    check_shared_key(request, name)
    return name


ROUTES = (
    ("GET", "/api/v1/files", list_files),
    ("GET", "/api/v1/files/{name:key}", get_file),
    ("PUT", "/api/v1/files/{name:key}", put_file),
    ("POST", "/api/v1/files/{name:key}", move_file),
    ("DELETE", "/api/v1/files/{name:key}", remove_file),
    ("GET", "/api/v1/file-stat/{name:key}", stat_file),
    ("GET", "/api/v1/file-uploads", list_uploads),
)
