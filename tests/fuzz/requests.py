"""Requests at the HTTP API, as whoever reaches its socket may send them.

The routes run in this process, against the tests' fake agent, called as ``agent/http/`` calls them.
What must hold: every request gets an answer, none of them says 500, and each refusal is an error of
our own form, with a code and a message.
"""

import asyncio
import gzip
import json
import random
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from agent.access.caller import local_caller
from agent.api.app import create
from agent.api.callers import CALLER
from agent.api.routes import ROUTES
from agent.http.asgi import ASGIApp
from agent.telemetry.outbox import Receipt
from edge_apps.reading import BadReading, Reading
from tests.fuzz.hostile import Mutator
from tests.fuzz.parsers import LINES, WORDS, spoil_blindly, spoil_json, spoil_text
from tests.support.fake_agent import FakeAgent, FakeTelemetry
from tests.support.patience import GIVE_UP_S

BODIES: dict[str, tuple[bytes, ...]] = {
    "/api/v1/tokens": (b'{"ttl_s": 60, "uses": 2}',),
    "/api/v1/access": (b'{"name": "a", "role": "reader", "prefixes": ["x/"], "ttl_s": 60}',),
    "/api/v1/sleep": (b'{"duration_s": 600}',),
    "/api/v1/events": (
        b'{"name": "door", "payload": "open"}',
        b'{"name":"d","payload_base64":"/w=="}',
    ),
    "/api/v1/queries": (b'{"name": "log", "filters": {"room": "attic"}, "timeout_s": 2.5}',),
    "/api/v1/readings": (b'[{"sensor": "a/b", "value": 21.5, "time_ns": 1, "tags": {"r": "x"}}]',),
    "/api/v1/write": LINES,
    "/write": (*LINES, gzip.compress(LINES[0])),
    "/api/v2/write": (*LINES, gzip.compress(LINES[0])),
    "/query": (b"q=CREATE+DATABASE+%22telegraf%22",),
    "/api/v1/keys/rotate": (b'{"force": true}',),
}
QUERIES = (
    "limit=10", "follow=0", "state=alive", "name=door", "precision=ms", "sensor=*", "r=2", "w=2",
    "timeout=2.5", "prefix=a", "after=b", "key=k", "a=ada", "b=bob", "lines=5", "failed=1",
)  # fmt: skip
NAMES = ("ada", "000000000000000a", "system", "b-1-9", "room/1", "x" * 600, "..", "%00", "ä", "")
HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"content-length", b"1"),  # what is no number, or too long for one, h11 refuses
    (b"content-length", b"9" * 20),
    (b"content-type", b"\xff\xfe"),
    (b"accept", b"application/json"),
    (b"content-encoding", b"gzip"),
    (b"content-encoding", b"\xff"),
    (b"covey-context", b"AAAA"),
    (b"covey-context", b"\xff"),
    (b"covey-context", b"*" * 30_000),
)
ENDLESS = "follow=1"
GZIP = b"\x1f\x8b"
PATIENCE_S = GIVE_UP_S


class Failed(AssertionError):
    """A request was answered with 500, not at all, or without words."""


class Telemetry(FakeTelemetry):
    """Refuses what an outbox refuses."""

    async def accept(self, readings: Sequence[Reading]) -> Receipt:
        if not readings:
            raise BadReading("no readings: send at least one")
        return await super().accept(readings)


class Requests:
    """One application and the requests that a seed makes of it."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(f"requests {seed}")
        self._mutator = Mutator(self.rng)
        agent = FakeAgent()
        agent.telemetry = Telemetry()
        self._application = create(agent.services())

    def send(self) -> None:
        """Send one request. Raises Failed."""
        method, path = self.rng.choice(ROUTES)
        body = self._body(path)
        for name in ("{name}", "{key:key}", "{id}"):
            path = path.replace(name, self.rng.choice(NAMES))
        query, headers = self._query(), self.rng.sample(HEADERS, self.rng.choice([0, 0, 0, 1, 2]))
        status, answer = asyncio.run(
            exchange(self._application, method, path, query, headers, body)
        )
        told = f"{method} {path[:80]}?{query[:200]!r} {headers} {body[:200]!r}: {status}"
        if status is None or (status >= 500 and status != 503):
            raise Failed(told)
        if status >= 400 and not _message(json.loads(answer)):
            raise Failed(told)

    def _body(self, path: str) -> bytes:
        good = self.rng.choice(BODIES.get(path, (b"", b"on", b'{"facts": {"a": "b"}}')))
        if not good or self.rng.random() < 0.1:
            return good
        spoil = spoil_text if path.endswith("write") or good[:1] not in b"{[" else spoil_json
        if good[:2] == GZIP:
            spoil = spoil_blindly
        return spoil(self._mutator, good)

    def _query(self) -> bytes:
        """Return parameters, some of them spoilt; never one that makes the answer endless."""
        parts = self.rng.sample(QUERIES, self.rng.randrange(4))
        spoilt = [
            part.split("=")[0] + "=" + self.rng.choice([*WORDS, *NAMES])
            if self.rng.random() < 0.5
            else part
            for part in parts
        ]
        chosen = [part for part in spoilt if not part.startswith(ENDLESS)]
        return "&".join(quote(part, safe="=*:", errors="surrogatepass") for part in chosen).encode()


def _message(answer: dict[str, Any]) -> str:
    """Return an error's words: in our own form, or in those of InfluxDB 1 and 2."""
    error = answer.get("error", answer)
    words: str = error if isinstance(error, str) else error["message"]
    return words


async def exchange(
    application: ASGIApp,
    method: str,
    path: str,
    query: bytes,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
) -> tuple[int | None, bytes]:
    """Make one request of an application; return the status and the answer's bytes."""
    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": quote(path.encode(errors="surrogatepass")).encode(),
        "root_path": "",
        "query_string": query,
        "headers": [(b"host", b"covey"), *headers],
        "client": None,
        "server": None,
        CALLER: local_caller(0),
    }
    waiting = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        return waiting.pop() if waiting else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    try:
        async with asyncio.timeout(PATIENCE_S):
            await application(scope, receive, send)
    except TimeoutError:
        raise Failed(f"no end to {method} {path[:80]}?{query[:200]!r}") from None
    except Exception as error:  # noqa: BLE001 - what stands in front of the application
        return 500, repr(error).encode()
    status = next((message["status"] for message in sent if "status" in message), None)
    return status, b"".join(message.get("body", b"") for message in sent)
