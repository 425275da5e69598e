"""Answers that do not end: one JSON value a line, until one side hangs up.

A stream ends in one of four ways: the source ends; the client goes away, which Starlette
notices and turns into a cancellation; the agent stops, for which ``Streams.close`` exists,
because an HTTP server that waits for its open answers would otherwise never stop; or the source
fails, and then the last line is the error in the usual form, because the status, 200, has long
been sent.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import StreamingResponse

from agent.api.errors import error_of

MEDIA_TYPE = "application/x-ndjson"


class Streams:
    """The open streams of one application."""

    def __init__(self) -> None:
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End all streams after the line that they are sending."""
        self._closing.set()

    def respond(self, values: AsyncIterator[Any]) -> StreamingResponse:
        """Return an answer that sends these values, each as one line."""
        return StreamingResponse(self._lines(values), media_type=MEDIA_TYPE)

    async def _lines(self, values: AsyncIterator[Any]) -> AsyncIterator[bytes]:
        """Yield lines; the source is closed however this ends."""
        closing = asyncio.create_task(self._closing.wait(), name="stream: agent stops")
        # A first empty line sends the headers at once: the client knows that it is listening.
        yield b"\n"
        try:
            async for value in self._until(closing, values):
                yield line(value)
        except Exception as error:  # noqa: BLE001  whatever it is, the client is told
            yield line(error_of(error))
        finally:
            closing.cancel()
            if isinstance(values, contextlib.AbstractAsyncContextManager) or hasattr(
                values, "aclose"
            ):
                await values.aclose()

    async def _until(
        self, closing: "asyncio.Task[bool]", values: AsyncIterator[Any]
    ) -> AsyncIterator[Any]:
        """Yield from the source until it ends or ``closing`` is done."""
        while True:
            following = asyncio.ensure_future(anext(values, _END))
            try:
                await asyncio.wait({following, closing}, return_when=asyncio.FIRST_COMPLETED)
                if not following.done():
                    return
                value = following.result()
            finally:
                await _cancelled(following)
            if value is _END:
                return
            yield value


_END = object()


async def _cancelled(task: "asyncio.Future[Any]") -> None:
    """Cancel a task if it still runs, and see it end: its source may then be closed."""
    if not task.done():
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def line(value: Any) -> bytes:
    """Return a value as one line of JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
