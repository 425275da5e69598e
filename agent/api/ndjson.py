"""Answers that do not end: one JSON value a line, until one side hangs up.

A stream ends in one of four ways: the source ends; the client goes away, which Starlette
notices; the agent stops, for which ``OpenStreams.close`` exists, because an HTTP server that waits
for its open answers would otherwise never stop; or the source fails, and then the last line is
the error in the usual form, because the status, 200, has long been sent. However it ends, the
source is closed. Each client has so many: a stream holds a connection for as long as it likes.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from agent.api import server_sent
from agent.api.errors import TooManyStreams, error_of
from agent.api.request_bodies import client_of
from agent.http.asgi import Receive, Scope, Send
from agent.http.response import StreamingResponse

MEDIA_TYPE = "application/x-ndjson"
STREAMS_MAX = 32
"""Of one app, or of one site of the network; who may open the agent's own socket may have more."""

_END = object()


class OpenStreams:
    """The open streams of one application."""

    def __init__(self) -> None:
        self._closing = asyncio.Event()
        self._of: Counter[str] = Counter()

    @contextmanager
    def place_for(self, client: str) -> Iterator[None]:
        """Count one more stream of this client while it lasts. Raises TooManyStreams."""
        if client and self._of[client] >= STREAMS_MAX:
            raise TooManyStreams(STREAMS_MAX)
        self._of[client] += 1
        try:
            yield
        finally:
            self._of[client] -= 1
            self._of += Counter()  # forgets who has none

    def close(self) -> None:
        """End all streams, and each that is begun from now on."""
        self._closing.set()

    def respond(
        self,
        source: AsyncIterator[Any],
        describe: Callable[[Any], Any] = lambda value: value,
        media_type: str = MEDIA_TYPE,
    ) -> "NdjsonResponse":
        """Return an answer that sends what the source yields, each value as one line or event.

        ``describe`` turns a value into what JSON can hold.
        """
        return NdjsonResponse(source, describe, self._closing, self.place_for, media_type)


class NdjsonResponse(StreamingResponse):
    """One stream. It owns its source."""

    def __init__(
        self,
        source: AsyncIterator[Any],
        describe: Callable[[Any], Any],
        closing: asyncio.Event,
        place_for: Callable[[str], AbstractContextManager[None]],
        media_type: str = MEDIA_TYPE,
    ) -> None:
        super().__init__(self._lines(), media_type=media_type)
        self._encode = FRAMINGS[media_type]
        self._source = source
        self._describe = describe
        self._closing = closing
        self._place_for = place_for
        self._waiting: set[asyncio.Future[Any]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream, and clean up after it. Raises TooManyStreams."""
        try:
            with self._place_for(client_of(scope)):
                await super().__call__(scope, receive, send)
        finally:
            for future in self._waiting:
                future.cancel()
            await asyncio.gather(*self._waiting, return_exceptions=True)
            await _close(self._source)

    async def _lines(self) -> AsyncIterator[bytes]:
        closing = asyncio.ensure_future(self._closing.wait())
        self._waiting.add(closing)
        try:
            while (value := await self._next(closing)) is not _END:
                yield self._encode(self._describe(value))
        except Exception as error:  # noqa: BLE001  whatever it is, the client is told
            yield self._encode(error_of(error))

    async def _next(self, closing: "asyncio.Future[Any]") -> Any:
        """Return the next value; ``_END`` after the last one, or when the agent stops."""
        following = asyncio.ensure_future(_value_or_end(self._source))
        self._waiting.add(following)
        await asyncio.wait({following, closing}, return_when=asyncio.FIRST_COMPLETED)
        if not following.done():
            return _END
        self._waiting.discard(following)
        return following.result()


async def _value_or_end(source: AsyncIterator[Any]) -> Any:
    return await anext(source, _END)


async def _close(source: Any) -> None:
    """Close an asynchronous generator, or a subscription, whose ``close`` does not wait."""
    if hasattr(source, "aclose"):
        await source.aclose()
    elif hasattr(source, "close"):
        source.close()


def line(value: Any) -> bytes:
    """Return a value as one line of JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


FRAMINGS: dict[str, Callable[[Any], bytes]] = {
    MEDIA_TYPE: line,
    server_sent.MEDIA_TYPE: server_sent.event_of,
}
"""How a value of a stream is written, by the stream's media type."""
