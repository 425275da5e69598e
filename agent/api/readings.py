"""Routes of telemetry: readings in as JSON; a look back, a stream, the outbox.

A request is accepted as a whole or not at all: the answer is either the ids of all its readings
or the first that are wrong, and then nothing was stored, so a client may repeat the corrected
request without creating duplicates. Lines, of which the good ones are taken, are those of
``influx.py``.
"""

import datetime as dt
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import msgspec

from agent.api.errors import BadRequest, TooLarge
from agent.api.interfaces import AgentServices
from agent.api.long_lists import listing
from agent.api.ndjson import OpenStreams
from agent.api.request_bodies import flag, globs, integer, readings_of
from agent.http.request import Request
from agent.http.response import JSONResponse, Response
from agent.loop.late import load
from agent.telemetry.dead_letters import DeadLetter
from agent.telemetry.outbox import Accepted, Receipt
from agent.telemetry.service import Overrun
from edge_apps.reading import BadReading, Reading

NS_PER_S = 1_000_000_000
RECENT_DEFAULT = 100
RECENT_MAX = 10_000
LETTERS_MAX = 1_000


async def post_readings(request: Request) -> Response:
    """Accept a JSON list, one JSON object, or one object a line: all of it, or nothing."""
    async with readings_of(request, request.app.state.large_bodies) as body:
        return await _accept_all(request, body)


async def _accept_all(request: Request, body: bytes) -> Response:
    agent: AgentServices = request.app.state.agent
    await load("agent.telemetry.intake")
    from agent.telemetry.intake import LISTED_READINGS_MAX, read_listed

    try:
        readings, taken = await read_listed(body)
    except BadReading as error:
        raise BadRequest(
            f"the readings are not understood: {error}",
            'send [{"sensor": "attic/temperature", "value": 21.5}], or such objects on lines',
        ) from None
    if len(readings) > LISTED_READINGS_MAX:
        raise TooLarge(LISTED_READINGS_MAX, "readings")
    if taken.bad:
        request.app.state.counts["readings_refused/bad"] += taken.bad
        raise BadRequest(
            f"bad readings: {taken.bad} of {taken.bad + len(readings)}; none was accepted: "
            f"{taken.problems}",
            "correct or leave out those, and send all again",
        )
    receipt: Receipt = await agent.telemetry.accept(readings)
    return JSONResponse({"accepted": receipt.count, "first": receipt.first, "last": receipt.last})


async def get_readings(request: Request) -> Response:
    """Answer with the newest readings; with ``follow=1`` stream those that come as well."""
    agent: AgentServices = request.app.state.agent
    pattern = (globs(request, "sensor") or ("*",))[0]
    following = flag(request, "follow")
    default = 0 if following else RECENT_DEFAULT
    limit = integer(request, "limit", least=0, most=RECENT_MAX, default=default) or 0
    if following:
        streams: OpenStreams = request.app.state.streams
        return streams.respond(_recent_and_new(agent, pattern, limit), describe)
    found = await agent.telemetry.recent(pattern, limit) if limit else []
    return await listing("readings", map(describe, found))


async def get_outbox(request: Request) -> Response:
    """Answer with what waits for the broker, how the uplink is, and the newest dead letters."""
    agent: AgentServices = request.app.state.agent
    limit = integer(request, "limit", least=0, most=LETTERS_MAX, default=10) or 0
    letters = agent.telemetry.dead_letters(limit) if limit else []
    return await listing(
        "newest_dead_letters",
        map(_describe_letter, letters),
        **msgspec.to_builtins(agent.telemetry.stats()),
        uplink=msgspec.to_builtins(agent.uplink.status()),
    )


async def _recent_and_new(
    agent: AgentServices, pattern: str, limit: int
) -> AsyncIterator[Accepted | Overrun]:
    """Yield the newest readings, and then what is accepted; nothing twice, nothing left out."""
    async with aclosing(agent.telemetry.follow(pattern)) as new:
        last = 0
        for reading in await agent.telemetry.recent(pattern, limit) if limit else []:
            last = reading.position
            yield reading
        async for one in new:
            if isinstance(one, Overrun) or one.position > last:
                yield one


def _describe_letter(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "sensor": letter.reading.sensor,
        "reason": letter.reason,
        "time": format_time(letter.buried_at_ns),
    }


def describe(one: Accepted | Overrun) -> dict[str, Any]:
    """Return an accepted reading as JSON, or the number of those that a slow reader missed."""
    if isinstance(one, Overrun):
        return {"missed": one.missed}
    clock = {"clock": one.clock} if one.clock else {}
    return {"id": one.id, **describe_reading(one.reading), **clock}


def describe_reading(reading: Reading) -> dict[str, Any]:
    """Return what was measured, as JSON."""
    return {
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


ROUTES = (
    ("POST", "/api/v1/readings", post_readings),
    ("GET", "/api/v1/readings", get_readings),
    ("GET", "/api/v1/outbox", get_outbox),
)
