"""What a client may do with one connection, in bytes: h11 reads them, the rest is ours."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from agent.http.asgi import ASGIApp, Receive, Scope, Send
from agent.http.connection import UNREAD_BYTES_MAX, Connection
from agent.http.request import ClientDisconnect, Request
from agent.http.response import JSONResponse, Response, StreamingResponse
from tests.support.patience import GIVE_UP_S

HEAD = b"%b / HTTP/1.1\r\nHost: x\r\n"
GET = HEAD % b"GET" + b"\r\n"


class Client:
    """The other end of a connection that an application serves."""

    def __init__(
        self,
        connection: Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.connection = connection
        self.writer = writer
        self._reader = reader

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> str:
        return (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()

    async def answer(self) -> tuple[int, bytes]:
        """Read an answer whose length is told."""
        head = await self.head()
        size_bytes = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        return int(head.split()[1]), await self._reader.readexactly(size_bytes)

    async def rest(self) -> bytes:
        return await self._reader.read()


@asynccontextmanager
async def connected(application: ASGIApp) -> AsyncIterator[Client]:
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    _, connection = await loop.connect_accepted_socket(lambda: Connection(application, set()), ours)
    reader, writer = await asyncio.open_unix_connection(sock=theirs)
    async with asyncio.timeout(GIVE_UP_S):
        yield Client(connection, reader, writer)
    writer.close()


def answering(handler: Callable[[Request], Awaitable[Response]]) -> ASGIApp:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        response: ASGIApp = await handler(Request(scope, receive))
        await response(scope, receive, send)

    return application


async def echo(request: Request) -> Response:
    body = b"".join([part async for part in request.stream()])
    return Response(request.path.encode() + b" " + body)


async def refuse(_request: Request) -> Response:
    return Response("no", 403)


def run(story: Awaitable[None]) -> None:
    async def told() -> None:
        await story

    asyncio.run(told())


def test_requests_that_are_sent_at_once_are_answered_one_after_the_other() -> None:
    asked: list[str] = []
    free = asyncio.Event()

    async def handler(request: Request) -> Response:
        asked.append(request.path)
        await free.wait()
        return await echo(request)

    async def story() -> None:
        async with connected(answering(handler)) as client:
            paths = [b"/%d" % number for number in range(3)]
            await client.send(b"".join(GET.replace(b"/ ", path + b" ") for path in paths))
            while not asked:  # noqa: ASYNC110 - a test
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.01)
            assert asked == ["/0"]
            free.set()
            assert [(await client.answer())[1] for _ in paths] == [path + b" " for path in paths]

    run(story())


def test_what_comes_while_a_plain_request_is_answered_waits_whole_or_not() -> None:
    free = asyncio.Event()

    async def handler(request: Request) -> Response:
        await free.wait()
        return await echo(request)

    async def story() -> None:
        async with connected(answering(handler)) as client:
            later = HEAD.replace(b" / ", b" /later ") % b"PUT" + b"Content-Length: 3\r\n\r\nab"
            await client.send(GET)
            await asyncio.sleep(0.01)
            await client.send(later)
            await asyncio.sleep(0.01)
            free.set()
            assert await client.answer() == (200, b"/ ")
            await client.send(b"c")
            assert await client.answer() == (200, b"/later abc")
            await client.send(GET)
            assert await client.answer() == (200, b"/ ")

    run(story())


@pytest.mark.parametrize("handler", [echo, refuse], ids=["read", "unread"])
def test_after_a_body_comes_the_next_request_whether_it_was_read_or_not(
    handler: Callable[[Request], Awaitable[Response]],
) -> None:
    async def story() -> None:
        async with connected(answering(handler)) as client:
            length = HEAD % b"PUT" + b"Content-Length: 300000\r\n\r\n"
            chunked = HEAD % b"PUT" + b"Transfer-Encoding: chunked\r\n\r\n"
            long = b"a" * 300_000
            for head, body, read in (
                (length, long, long),
                (chunked, b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
            ):
                await client.send(head)
                if handler is refuse:
                    assert (await client.answer())[0] == 403
                await client.send(body)
                if handler is echo:
                    assert await client.answer() == (200, b"/ " + read)
            await client.send(GET)
            assert (await client.answer())[0] == (200 if handler is echo else 403)

    run(story())


def test_a_body_that_nobody_reads_does_not_fill_the_memory() -> None:
    async def handler(_request: Request) -> Response:
        await asyncio.sleep(GIVE_UP_S)
        return Response()

    async def story() -> None:
        async with connected(answering(handler)) as client:
            client.writer.write(
                HEAD % b"PUT" + b"Content-Length: 9000000\r\n\r\n" + b"a" * 9_000_000
            )
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.writer.drain(), 0.1)
            exchange = client.connection.exchange
            assert exchange is not None
            assert UNREAD_BYTES_MAX < exchange.unread_bytes < 10 * UNREAD_BYTES_MAX

    run(story())


def test_who_waits_with_the_body_is_told_to_go_on_by_who_reads_it() -> None:
    async def story() -> None:
        asking = HEAD % b"PUT" + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        async with connected(answering(echo)) as client:
            await client.send(asking)
            assert (await client.head()).startswith("http/1.1 100 continue")
            await client.send(b"abc")
            assert await client.answer() == (200, b"/ abc")
        async with connected(answering(refuse)) as client:
            await client.send(asking)
            assert await client.answer() == (403, b"no")

    run(story())


def test_head_is_get_without_a_body() -> None:
    async def story() -> None:
        async with connected(answering(echo)) as client:
            await client.send(HEAD % b"HEAD" + b"\r\n" + GET)
            assert "content-length: 2\r\n" in await client.head()
            assert await client.answer() == (200, b"/ ")

    run(story())


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (HEAD % b"GET" + b"Connection: close\r\n\r\n", "connection: close"),
        (b"GET / HTTP/1.0\r\n\r\n", "connection: close"),
    ],
)
def test_who_wants_no_second_answer_is_left_after_the_first(request_: bytes, says: str) -> None:
    async def story() -> None:
        async with connected(answering(echo)) as client:
            await client.send(request_)
            assert says in await client.head()
            assert await client.rest() == b"/ "

    run(story())


@pytest.mark.parametrize(
    ("garbage", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", "400"),
        (b"GET / HTTP/1.1\r\n\r\n", "400"),  # no Host
        (HEAD % b"PUT" + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", "400"),
        (HEAD % b"PUT" + b"Transfer-Encoding: gzip\r\n\r\n", "501"),
        (HEAD % b"PUT" + b"Transfer-Encoding: chunked\r\n\r\nx\r\n", "400"),  # in the body
        (HEAD % b"GET" + b"A: " + b"a" * 70_000, "431"),
        (HEAD % b"GET" + b"A: " + b"a" * 17_000 + b"\r\n\r\n", "431"),
        (
            HEAD % b"POST" + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "400",
        ),
        (HEAD % b"GET" + b"Authorization: Bearer a\r\nauthorization: Bearer b\r\n\r\n", "400"),
        (b"GET /echo HTTP/1.9\r\nHost: a\r\n\r\n", "505"),
        (b"GET /echo HTTP/2.0\r\nHost: a\r\n\r\n", "505"),
    ],
)
def test_what_is_no_http_ends_the_connection(garbage: bytes, status: str) -> None:
    async def story() -> None:
        async with connected(answering(echo)) as client:
            await client.send(garbage)
            assert status in await client.head()
            assert (await client.rest()).startswith(b"This is no HTTP")

    run(story())


def test_an_answer_that_fails_says_so_as_long_as_it_can() -> None:
    async def nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise RuntimeError

    async def half(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError

    async def story() -> None:
        async with connected(nothing) as client:
            await client.send(GET)
            assert "500" in await client.head()
            assert await client.rest() == b"Internal Server Error"
        async with connected(half) as client:
            await client.send(GET)
            assert (await client.rest()).endswith(b"4\r\nhalf\r\n"), (
                "no chunk says that it is whole"
            )

    run(story())


def test_a_stream_begins_before_its_first_part_and_ends_with_its_reader() -> None:
    ended = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            await asyncio.sleep(GIVE_UP_S)
            yield b""
        finally:
            ended.set()

    async def handler(_request: Request) -> Response:
        return StreamingResponse(endless())

    async def story() -> None:
        async with connected(answering(handler)) as client:
            await client.send(GET)
            assert "transfer-encoding: chunked" in await client.head()
            client.writer.close()
            await ended.wait()

    run(story())


def test_who_hangs_up_within_a_body_is_noticed() -> None:
    gone = asyncio.Event()

    async def handler(request: Request) -> Response:
        with pytest.raises(ClientDisconnect):
            await echo(request)
        gone.set()
        return JSONResponse({})

    async def story() -> None:
        async with connected(answering(handler)) as client:
            await client.send(HEAD % b"PUT" + b"Content-Length: 3\r\n\r\nab")
            client.writer.close()
            await gone.wait()

    run(story())


def test_shutting_down_waits_for_an_answer_and_for_nothing_else() -> None:
    free = asyncio.Event()

    async def handler(_request: Request) -> Response:
        await free.wait()
        return Response("done")

    async def story() -> None:
        async with connected(answering(handler)) as client:
            client.connection.shut_down()
            assert await client.rest() == b""
        async with connected(answering(handler)) as client:
            await client.send(GET)
            while client.connection.awaits_request:  # noqa: ASYNC110 - a plain value
                await asyncio.sleep(0.001)
            client.connection.shut_down()
            free.set()
            assert "connection: close" in await client.head()
            assert await client.rest() == b"done"

    run(story())
