"""One request on a connection and its answer: both ends of ASGI."""

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple, Protocol

from agent.http.asgi import ASGIApp, Headers, Message, Scope

logger = logging.getLogger(__name__)

FAILED = b"Internal Server Error"
CLOSE = b"connection", b"close"


class AnswerStart(NamedTuple):
    """How an answer begins."""

    status: int
    headers: Headers


class OpenConnection(Protocol):
    """What an exchange needs of its connection."""

    @property
    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""

    def send_continue(self) -> None:
        """Ask for the body that the client holds back."""

    def send(self, head: AnswerStart | None, body: bytes, *, is_end: bool) -> None:
        """Put a part of the answer on its way, in one write; ``head`` with the first."""

    def resume_reading(self) -> None:
        """Let more of the request come."""

    async def drained(self) -> None:
        """Return when enough of what was sent has left."""

    def close(self) -> None:
        """Close it once all is sent."""


class Exchange:
    """A request that is being answered."""

    def __init__(
        self,
        scope: Scope,
        connection: OpenConnection,
        *,
        waits_for_continue: bool,
        on_end: Callable[[], None],
    ) -> None:
        """``waits_for_continue``: the client wants to be told before it sends the body."""
        self.scope = scope
        self.has_more = True
        """Whether more of the request is to come."""
        self.is_answered = False
        self.keeps_alive = True
        self._connection = connection
        self._waits_for_continue = waits_for_continue
        self._on_end = on_end
        self._body = bytearray()
        self._news = asyncio.Event()
        self._is_gone = False
        self._head: AnswerStart | None = None  # waits for the first part of the body
        self._has_begun = False
        self._is_handed_over = False

    @property
    def unread_bytes(self) -> int:
        """How much of the body has come, and was not read."""
        return len(self._body)

    def feed(self, data: bytes) -> None:
        """Take in a part of the body."""
        self._body += data
        self._news.set()

    def feed_end(self) -> None:
        """Take in that the body is whole."""
        self.has_more = False
        self._news.set()

    def disconnect(self) -> None:
        """Take in that the client is gone."""
        self._is_gone = True
        self._news.set()

    def hand_over(self) -> None:
        """Take in that the connection is no longer HTTP's: nothing more is answered on it."""
        self._has_begun = self._is_handed_over = True

    async def run(self, application: ASGIApp) -> None:
        """Have it answered; what the application leaves open is closed."""
        try:
            await application(self.scope, self._receive, self._send)
        except Exception:
            logger.exception("what answers HTTP requests failed")
            self._break_off()
        else:
            if not self.is_answered:
                self._break_off()

    def _break_off(self) -> None:
        """Say that it failed, while that can be said; else the connection says it by its end."""
        if not self._has_begun and not self._is_gone and not self._connection.is_closing:
            self._connection.send(last_words(500, FAILED), FAILED, is_end=True)
        self._connection.close()

    async def _receive(self) -> Message:
        if self._waits_for_continue and not self._connection.is_closing:
            self._waits_for_continue = False
            self._connection.send_continue()
        if not self._is_gone and not self.is_answered:
            self._connection.resume_reading()
            await self._news.wait()
            self._news.clear()
        if self._is_gone or self.is_answered:
            return {"type": "http.disconnect"}
        body, self._body = bytes(self._body), bytearray()
        return {"type": "http.request", "body": body, "more_body": self.has_more}

    async def _send(self, message: Message) -> None:
        if self._is_handed_over:
            return  # a refusal that comes too late; the connection's end says it
        await self._connection.drained()
        if self._is_gone:
            return
        if message["type"] == "http.response.start":
            assert self._head is None, "an answer has one head"
            self._head = self._response(message["status"], list(message["headers"]))
            return
        assert self._head is not None, "the head comes first"
        assert not self.is_answered, "nothing comes after the end"
        head = None if self._has_begun else self._head
        self._has_begun = True
        self._waits_for_continue = False
        body = message.get("body", b"") if self.scope["method"] != "HEAD" else b""
        if not message.get("more_body", False):
            self.is_answered = True
            self._news.set()
        self._connection.send(head, body, is_end=self.is_answered)
        if self.is_answered:
            self._on_end()

    def _response(self, status: int, headers: Headers) -> AnswerStart:
        if CLOSE in self.scope["headers"] or not self.keeps_alive:
            headers.append(CLOSE)
        return AnswerStart(status, headers)


def last_words(status: int, body: bytes) -> AnswerStart:
    """Return the head of an answer of plain words after which the connection ends."""
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        CLOSE,
    ]
    return AnswerStart(status, headers)
