"""One connection of an HTTP client: bytes to requests, one at a time, and answers to bytes.

A client may send its next request before it has the answer (pipelining, RFC 9112, 9.3.2): nothing
more is read from it until the answer is out. Nor is while a body waits to be read.

h11 knows HTTP. It is passed by for requests and answers that are as plain as can be
(``plain.py``), and hears of such a request after all when what follows is not.
"""

import asyncio
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote

import h11

from agent.http.asgi import ASGIApp, Headers, Scope
from agent.http.exchange import AnswerStart, Exchange, last_words
from agent.http.plain import HEAD_BYTES_MAX, PHRASES, PlainRequest, PlainRequests, write_plain
from agent.http.request import WHOLE_BODY
from agent.http.upgrade import UPGRADE, UpgradedProtocol

VERSIONS = (b"1.0", b"1.1")
UNREAD_BYTES_MAX = 64 * 1024
"""Of a body that nobody reads, more or less: then no more is read from the client."""
NOT_HTTP = b"This is no HTTP/1.1 request that could be understood."


class Connection(asyncio.Protocol):
    """One client's connection. What it sends is answered by the application, in its order."""

    def __init__(self, application: ASGIApp, connections: "set[Connection]") -> None:
        """``connections``: the open ones; this one puts itself there."""
        self._application = application
        self.connections = connections
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport
        self.known: dict[str, Any] = {}
        """What is known of the client besides; it stands in the scope of each request."""
        self.exchange: Exchange | None = None
        """What is answered just now, or was last."""
        self.answering: asyncio.Task[None] | None = None
        self._conn = h11.Connection(h11.SERVER, HEAD_BYTES_MAX)
        self._is_h11_idle = True
        """Whether h11 has nothing to do with what is under way, or knows nothing yet."""
        self._reader = PlainRequests()
        self._plain = b""
        """The request that is answered just now, if h11 knows nothing of it."""
        self._plain_scope: Scope = {}
        """What is known of it; of the next one, too, if it begins alike."""
        self._client: tuple[str, int] | None = None
        self._scheme = "http"
        self._taker: UpgradedProtocol | None = None
        """Who has it since it was upgraded."""
        self._is_paused = False
        self._writable = asyncio.Event()
        self._writable.set()

    # --- asyncio's ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):  # of a Unix socket it is a name, mostly an empty one
            self._client = str(peer[0]), int(peer[1])
        if transport.get_extra_info("sslcontext"):
            self._scheme = "https"
        self.connections.add(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Tell whoever answers."""
        self.connections.discard(self)
        if self._taker is not None:
            self._taker.connection_lost()
        if self.exchange is not None:
            self.exchange.disconnect()
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """Take in what has come."""
        if self._taker is not None:
            self._taker.data_received(data)
            return
        if self._awaits_anything and (plain := self._reader.read(data)) is not None:
            self._plain = data
            self._take_plain(plain)
            return
        self._leave_to_h11()
        self._is_h11_idle = False
        self._conn.receive_data(data)
        self._read()

    def pause_writing(self) -> None:
        """Have answers wait: the client does not keep up."""
        self._writable.clear()
        if self._taker is not None:
            self._taker.pause_writing()

    def resume_writing(self) -> None:
        """Go on."""
        self._writable.set()
        if self._taker is not None:
            self._taker.resume_writing()

    # --- the exchange's ----------------------------------------------------------------------

    @property
    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self.transport.is_closing()

    def send_continue(self) -> None:
        """Ask for the body that the client holds back (RFC 9110, 15.2.1)."""
        go_on = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
        self._write(self._conn.send(go_on) or b"")

    def send(self, head: AnswerStart | None, body: bytes, *, is_end: bool) -> None:
        """Put a part of the answer on its way, in one write; ``head`` with the first."""
        if self._plain and head is not None and is_end:
            data = write_plain(*head, body)
            if data is not None:
                self._write(data)
                return
        self._leave_to_h11()
        events: list[h11.Event] = []
        if head is not None:
            reason = PHRASES.get(head.status, b"")
            events.append(
                h11.Response(status_code=head.status, headers=head.headers, reason=reason)
            )
        if body:
            events.append(h11.Data(data=body))
        if is_end:
            events.append(h11.EndOfMessage())
        self._write(b"".join(self._conn.send(event) or b"" for event in events))

    def _write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    def resume_reading(self) -> None:
        """Let more come."""
        if self._is_paused:
            self._is_paused = False
            self.transport.resume_reading()

    async def drained(self) -> None:
        """Return when enough of what was sent has left."""
        if not self._writable.is_set():
            await self._writable.wait()

    def close(self) -> None:
        """Close it once all is sent."""
        self.transport.close()

    # --- of its own --------------------------------------------------------------------------

    @property
    def awaits_request(self) -> bool:
        """Whether nothing is asked just now."""
        return self.exchange is None or self.exchange.is_answered

    def shut_down(self) -> None:
        """End it: at once when nothing is asked, else after the answer."""
        if self._taker is not None:
            self._taker.shut_down()
        elif self.exchange is None or self.exchange.is_answered:
            self.transport.close()
        else:
            self.exchange.keeps_alive = False

    def upgrade(self, protocol: str, taker: UpgradedProtocol) -> None:
        """Say that it goes on as another protocol, and hand it over."""
        assert self.exchange is not None, "somebody has asked for it"
        headers = [(b"connection", b"upgrade"), (b"upgrade", protocol.encode("ascii"))]
        head = h11.InformationalResponse(
            status_code=101, headers=headers, reason=PHRASES[HTTPStatus.SWITCHING_PROTOCOLS]
        )
        self._write(self._conn.send(head) or b"")
        self.exchange.hand_over()
        self._taker = taker
        early, _ = self._conn.trailing_data
        taker.begin(self.transport)
        self.resume_reading()
        if early:
            taker.data_received(early)

    def answer_complete(self) -> None:
        """Go on with the next request, which may be here already."""
        assert self.exchange is not None, "somebody was answered"
        self._plain = b""
        is_over = not self._is_h11_idle and self._conn.our_state is h11.MUST_CLOSE
        if is_over or not self.exchange.keeps_alive:
            self.transport.close()
        if self.transport.is_closing():
            return
        self.resume_reading()
        if self._is_h11_idle:
            return
        if self._conn.our_state is h11.DONE and self._conn.their_state is h11.DONE:
            self._conn.start_next_cycle()
            self._read()

    def malformed(self, status: int) -> None:
        """Say that this is no HTTP, where that can still be said, and end."""
        if self._conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.send(last_words(status, NOT_HTTP), NOT_HTTP, is_end=True)
        if self.exchange is not None:
            self.exchange.disconnect()
        self.transport.close()

    @property
    def _awaits_anything(self) -> bool:
        """Whether what comes next is the beginning of a request."""
        if self._plain:
            return False
        if not self._is_h11_idle:
            conn = self._conn
            is_idle = conn.our_state is h11.IDLE and conn.their_state is h11.IDLE
            self._is_h11_idle = is_idle and not conn.trailing_data[0]
        return self._is_h11_idle

    def _leave_to_h11(self) -> None:
        """Let h11 know of the request that is answered just now, as if it had read it."""
        if self._plain:
            self._is_h11_idle = False
            self._conn.receive_data(self._plain)
            self._plain = b""
            while not isinstance(self._conn.next_event(), h11.EndOfMessage):
                pass

    def _read(self) -> None:
        while not self.transport.is_closing():
            try:
                event = self._conn.next_event()
            except h11.RemoteProtocolError as error:
                self.malformed(error.error_status_hint)
                return
            if event is h11.NEED_DATA:
                return
            if event is h11.PAUSED:
                self._pause_reading()
                return
            if isinstance(event, h11.Request):
                if (flaw := _flaw(event)) is not None:
                    self.malformed(flaw)
                    return
                self._take_request(event)
            elif isinstance(event, h11.Data):
                self._take_body(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                self._take_end()
            else:  # the client has ended its side
                return

    def _take_request(self, request: h11.Request) -> None:
        headers = [(name.lower(), value) for name, value in request.headers.raw_items()]
        waits_for_continue = self._conn.they_are_waiting_for_100_continue
        version = request.http_version.decode("ascii")
        scope = self._scope(request.method, request.target, headers, version)
        if _is_upgradable(version, dict(headers)):
            scope["extensions"] = {UPGRADE: self.upgrade}
        self._answer(scope, waits_for_continue=waits_for_continue)

    def _take_plain(self, request: PlainRequest) -> None:
        if self._plain_scope.get("headers") is not request.headers:
            self._plain_scope = self._scope(request.method, request.target, request.headers)
        scope = {**self._plain_scope, "extensions": {WHOLE_BODY: request.body}}
        exchange = self._answer(scope)
        exchange.feed(request.body)
        exchange.feed_end()

    def _answer(self, scope: Scope, *, waits_for_continue: bool = False) -> Exchange:
        self.exchange = Exchange(
            scope, self, waits_for_continue=waits_for_continue, on_end=self.answer_complete
        )
        self.answering = self.loop.create_task(
            self.exchange.run(self._application), name="http-request"
        )
        return self.exchange

    def _scope(self, method: bytes, target: bytes, headers: Headers, version: str = "1.1") -> Scope:
        raw_path, _, query = target.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
            "method": method.decode("ascii"),
            "scheme": self._scheme,
            "path": unquote(raw_path.decode("ascii")),
            "raw_path": raw_path,
            "root_path": "",
            "query_string": query,
            "headers": headers,
            "client": self._client,
            "server": None,
            **self.known,
        }

    def _take_body(self, data: bytes) -> None:
        assert self.exchange is not None, "a body belongs to a request"
        if self.exchange.is_answered:
            return  # nobody asks for the rest of it
        self.exchange.feed(data)
        if self.exchange.unread_bytes > UNREAD_BYTES_MAX:
            self._pause_reading()

    def _take_end(self) -> None:
        assert self.exchange is not None, "an end belongs to a request"
        self.exchange.feed_end()
        if self._conn.our_state is h11.DONE and self._conn.their_state is h11.DONE:
            self._conn.start_next_cycle()  # it was answered before it had ended

    def _pause_reading(self) -> None:
        if not self._is_paused:
            self._is_paused = True
            self.transport.pause_reading()


def _is_upgradable(version: str, headers: dict[bytes, bytes]) -> bool:
    """Tell whether a request asks to go on as another protocol as RFC 9110 (7.8) has it."""
    options = {option.strip() for option in headers.get(b"connection", b"").lower().split(b",")}
    has_body = b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"
    return version == "1.1" and b"upgrade" in headers and b"upgrade" in options and not has_body


def _flaw(request: h11.Request) -> HTTPStatus | None:
    """Return why a request that can be read is not taken: two readers could take it for two things.

    With two lengths (RFC 9112, 6.3) a proxy in front may see another end of it; of two passwords
    each reader heeds another one; and what is larger than may come piece by piece is so at once.
    """
    if request.http_version not in VERSIONS:
        return HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
    names = [name for name, _ in request.headers]
    if b"transfer-encoding" in names and b"content-length" in names:
        return HTTPStatus.BAD_REQUEST
    if names.count(b"authorization") > 1:
        return HTTPStatus.BAD_REQUEST
    size_bytes = len(request.target) + sum(
        len(name) + len(value) for name, value in request.headers
    )
    return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if size_bytes > HEAD_BYTES_MAX else None
