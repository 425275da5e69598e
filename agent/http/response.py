"""Answers: bytes, JSON, and streams, each an ASGI application that sends itself."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any

from agent.http.asgi import Headers, Receive, Scope, Send

NO_CONTENT = 204
ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class Response:
    """An answer whose bytes are known."""

    media_type: str | None = None

    def __init__(
        self,
        content: bytes | str = b"",
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
        background: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """``background`` runs once the answer is sent."""
        self.status_code = status_code
        self.body = content.encode() if isinstance(content, str) else content
        self.background = background
        self.raw_headers = _encoded(headers, media_type or self.media_type)
        if status_code != NO_CONTENT:
            self.raw_headers.append((b"content-length", b"%d" % len(self.body)))

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send it."""
        await send(self._start())
        await send({"type": "http.response.body", "body": self.body})
        if self.background is not None:
            await self.background()

    def _start(self) -> dict[str, Any]:
        return {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }


class JSONResponse(Response):
    """An answer in JSON (RFC 8259)."""

    media_type = "application/json"

    def __init__(
        self,
        content: Any,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        background: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(ENCODER.encode(content), status_code, headers, background=background)


class StreamingResponse(Response):
    """An answer that is sent as it comes, until its source ends or the client is gone."""

    def __init__(
        self,
        content: AsyncIterator[bytes],
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
    ) -> None:
        super().__init__(b"", status_code, headers, media_type)
        self.raw_headers.pop()  # nobody knows how long it gets
        self._content = content

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send it until one side ends it."""
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(_until_gone(receive))
        both = sending, leaving
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
        if not sending.cancelled():
            sending.result()  # raises what went wrong

    async def _send(self, send: Send) -> None:
        await send(self._start())
        # The head goes out before the first part is there: whoever asked knows that it is heard.
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        async for part in self._content:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _encoded(headers: Mapping[str, str] | None, media_type: str | None) -> Headers:
    encoded = [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in (headers.items() if headers else ())
    ]
    if media_type is not None and all(name != b"content-type" for name, _ in encoded):
        encoded.append((b"content-type", _content_type(media_type)))
    return encoded


@lru_cache(maxsize=64)
def _content_type(media_type: str) -> bytes:
    charset = "; charset=utf-8" if media_type.startswith("text/") else ""
    return (media_type + charset).encode("latin-1")
