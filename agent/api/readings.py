"""Routes of telemetry: readings in, as JSON or line protocol; a look back, a stream, the outbox.

A request is accepted as a whole or not at all: the answer is either the ids of all its readings
or the first lines that are wrong, and then nothing was stored, so a client may repeat the
corrected request without creating duplicates.
"""

import datetime as dt
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from itertools import islice
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent.api.bodies import READINGS_BYTES_MAX, flag, integer, read_body
from agent.api.errors import BadRequest
from agent.api.facade import AgentFacade
from agent.api.streams import Streams
from agent.store.outbox import Accepted, Receipt
from agent.telemetry.influx import NS_PER_UNIT, Precision
from agent.telemetry.lines import BadLine, Outcome, from_json, parse
from agent.telemetry.lines import JsonReading as LineReading
from agent.telemetry.service import Overrun
from edge_apps.reading import BadReading, Reading, check

NS_PER_S = 1_000_000_000
RECENT_DEFAULT = 100
RECENT_MAX = 10_000
BAD_LINES_TOLD = 5


class PostedReading(LineReading, kw_only=True):
    """A reading as apps and programs send it: the time may also be given in nanoseconds."""

    time_ns: int = 0


_DECODER = msgspec.json.Decoder(list[PostedReading] | PostedReading)
_LINE_DECODER = msgspec.json.Decoder(PostedReading)


async def post_readings(request: Request) -> Response:
    """Accept a JSON list, one JSON object, or one object a line."""
    body = await read_body(request, READINGS_BYTES_MAX)
    return await _accept(request, list(_parse_json(body)))


async def post_lines(request: Request) -> Response:
    """Accept InfluxDB's line protocol, as Telegraf sends it."""
    body = await read_body(request, READINGS_BYTES_MAX)
    precision = _precision(request)
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8: {error}") from None
    return await _accept(request, list(parse(text.splitlines(), "influx", precision)))


async def get_readings(request: Request) -> Response:
    """Answer with the newest readings; with ``follow=1`` stream those that come as well."""
    agent: AgentFacade = request.app.state.agent
    pattern = request.query_params.get("sensor", "*")
    following = flag(request, "follow")
    default = 0 if following else RECENT_DEFAULT
    limit = integer(request, "limit", least=0, most=RECENT_MAX, default=default) or 0
    if following:
        streams: Streams = request.app.state.streams
        return streams.respond(_recent_and_new(agent, pattern, limit), describe)
    found = agent.telemetry.recent(pattern, limit) if limit else []
    return JSONResponse({"readings": [describe(one) for one in found]})


async def get_outbox(request: Request) -> Response:
    """Answer with what waits for the broker, how the uplink is, and the newest dead letters."""
    agent: AgentFacade = request.app.state.agent
    limit = integer(request, "limit", least=0, most=RECENT_MAX, default=10) or 0
    letters = [
        {
            "id": letter.id,
            "sensor": letter.reading.sensor,
            "reason": letter.reason,
            "time": format_time(letter.buried_at_ns),
        }
        for letter in (agent.telemetry.dead_letters(limit) if limit else [])
    ]
    return JSONResponse(
        {
            **msgspec.to_builtins(agent.telemetry.stats()),
            "uplink": msgspec.to_builtins(agent.uplink.status()),
            "newest_dead_letters": letters,
        }
    )


async def _recent_and_new(
    agent: AgentFacade, pattern: str, limit: int
) -> AsyncIterator[Accepted | Overrun]:
    """Yield the newest readings, and then what is accepted; nothing twice, nothing left out."""
    new = agent.telemetry.follow(pattern)
    last = 0
    # The generator subscribes when it is asked for the first time; what comes between the look
    # back and that moment would be lost, if anything could run in between. Nothing can.
    for reading in agent.telemetry.recent(pattern, limit) if limit else []:
        last = reading.position
        yield reading
    async with aclosing(new):  # type: ignore[type-var]
        async for one in new:
            if isinstance(one, Overrun) or one.position > last:
                yield one


def describe(one: Accepted | Overrun) -> dict[str, Any]:
    """Return an accepted reading as JSON, or the number of those that a slow reader missed."""
    if isinstance(one, Overrun):
        return {"missed": one.missed}
    reading = one.reading
    return {
        "id": one.id,
        "sensor": reading.sensor,
        "value": reading.value,
        "unit": reading.unit,
        "time": format_time(reading.time_ns),
        "time_ns": reading.time_ns,
        "tags": reading.tags,
    }


def format_time(time_ns: int) -> str:
    """Write Unix nanoseconds as RFC 3339 with milliseconds.

    >>> format_time(1_700_000_000_123_456_789)
    '2023-11-14T22:13:20.123Z'
    """
    seconds, rest_ns = divmod(time_ns, NS_PER_S)
    moment = dt.datetime.fromtimestamp(seconds, dt.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest_ns // 1_000_000:03d}Z"


def _precision(request: Request) -> Precision:
    text = request.query_params.get("precision", "ns")
    for precision in NS_PER_UNIT:
        if text == precision:
            return precision
    raise BadRequest(f"`precision={text[:20]}`: one of {', '.join(NS_PER_UNIT)}")


def _parse_json(body: bytes) -> Iterable[Outcome]:
    """Yield readings and complaints; the number of a complaint is the item's, from 1."""
    try:
        posted = _DECODER.decode(body)
        items = posted if isinstance(posted, list) else [posted]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        lines = body.splitlines()
        if body.lstrip().startswith(b"[") or len(lines) < 2:
            raise BadRequest(
                f"the readings are not understood: {error}",
                'send [{"sensor": "attic/temperature", "value": 21.5}], or such objects on lines',
            ) from None
        yield from _parse_json_lines(lines)
        return
    yield from (_checked(number, item) for number, item in enumerate(items, 1))


def _parse_json_lines(lines: list[bytes]) -> Iterable[Outcome]:
    for number, text in enumerate(lines, 1):
        if text.strip():
            try:
                yield _checked(number, _LINE_DECODER.decode(text))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                yield BadLine(number, str(error))


def _checked(number: int, item: PostedReading) -> Outcome:
    try:
        if item.time is None:
            return check(Reading(item.sensor, item.value, item.unit, item.time_ns, item.tags))
        return check(from_json(item))
    except BadReading as error:
        return BadLine(number, str(error))


async def _accept(request: Request, outcomes: list[Outcome]) -> Response:
    """Hand the readings to the outbox, unless one of them is bad."""
    agent: AgentFacade = request.app.state.agent
    bad = [outcome for outcome in outcomes if isinstance(outcome, BadLine)]
    if bad:
        request.app.state.counts["readings_refused/bad"] += len(bad)
        told = "; ".join(str(line) for line in islice(bad, BAD_LINES_TOLD))
        raise BadRequest(
            f"{len(bad)} of {len(outcomes)} readings are bad, and none was accepted: {told}",
            "correct or leave out those, and send all again",
        )
    readings = [outcome for outcome in outcomes if isinstance(outcome, Reading)]
    receipt: Receipt = await agent.telemetry.accept(readings)
    return JSONResponse({"accepted": receipt.count, "first": receipt.first, "last": receipt.last})


ROUTES = (
    ("POST", "/api/v1/readings", post_readings),
    ("POST", "/api/v1/write", post_lines),
    ("GET", "/api/v1/readings", get_readings),
    ("GET", "/api/v1/outbox", get_outbox),
)
