"""What is read and written without h11 is what h11 would read and write."""

import random

import h11
import pytest

from agent.http.plain import (
    HEAD_BYTES_MAX,
    PHRASES,
    PlainRequest,
    PlainRequests,
    read_plain,
    write_plain,
)

GET = b"GET /api/v1/control/a%20b?stale=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a b \r\n\r\n"
PUT = (
    b"PUT /k HTTP/1.1\r\nhost: x:80\r\nContent-Length: 5\r\nConnection: Keep-Alive\r\n"
    b"accept:*/*\r\n\r\nhello"
)
PIECES = (
    b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b":", b"\0", b"\xff", b"0", b"5", b"+5",
    b"Host: y\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"HTTP/1.0", b"HTTP/1.1",
    b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n",
    b"Upgrade: h2c\r\n", b"HEAD", b"GET", b"/", b"?", b"#", b"X: \r\n", b" X: y\r\n", b"X : y\r\n",
)  # fmt: skip
MUTATIONS = 20_000


def read_by_h11(data: bytes) -> PlainRequest:
    """Return the whole request that is there and nothing more. Raises what h11 raises."""
    conn = h11.Connection(h11.SERVER, HEAD_BYTES_MAX)
    conn.receive_data(data)
    request, body = conn.next_event(), b""
    assert isinstance(request, h11.Request)
    assert request.http_version == b"1.1"
    while isinstance(event := conn.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert conn.trailing_data == (b"", False)
    assert conn.our_state is h11.SEND_RESPONSE
    conn.send(h11.Response(status_code=200, headers=[(b"content-length", b"0")]))
    conn.send(h11.EndOfMessage())
    conn.start_next_cycle()  # it may go on
    return PlainRequest(request.method, request.target, list(request.headers), body)


@pytest.mark.parametrize("data", [GET, PUT], ids=["get", "put"])
def test_plain_requests_are_read(data: bytes) -> None:
    assert read_plain(data) == read_by_h11(data)


def test_a_head_that_comes_again_is_not_read_again() -> None:
    requests = PlainRequests()
    first, second = requests.read(PUT), requests.read(PUT.replace(b"hello", b"there"))
    assert first is not None
    assert second == first._replace(body=b"there")
    assert second.headers is first.headers
    assert requests.read(PUT + b"!") is None, "its body is not what the head says"
    other = requests.read(GET)
    assert other == read_by_h11(GET)
    assert requests.read(PUT) == first


@pytest.mark.parametrize("seed", range(4))
def test_what_is_read_of_altered_requests_h11_reads_alike(seed: int) -> None:
    rng = random.Random(seed)
    read = 0
    for _ in range(MUTATIONS // 4):
        data = rng.choice([GET, PUT])
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(data) + 1)
            data = data[:at] + rng.choice(PIECES) + data[at + rng.choice([0, 0, 1, 4]) :]
        if (plain := read_plain(data)) is not None:
            read += 1
            assert plain == read_by_h11(data), data
    assert read > MUTATIONS // 100, "not all of it was odd"


@pytest.mark.parametrize(
    "data",
    [
        GET[:-2],
        GET + b"G",
        PUT[:-1],
        PUT + b"!",
        GET.replace(b"GET", b"HEAD"),
        GET.replace(b"HTTP/1.1", b"HTTP/1.0"),
        GET.replace(b"Host: x\r\n", b""),
        GET.replace(b"Host: x\r\n", b"Host: x\r\nHost: x\r\n"),
        GET.replace(b"Host: x", b"Host: x\r\nConnection: close"),
        PUT.replace(b"Content-Length", b"Transfer-Encoding: chunked\r\nContent-Length"),
        PUT.replace(b"Content-Length: 5", b"Content-Length: 5\r\nContent-Length: 6"),
        PUT.replace(b"Content-Length: 5", b"Content-Length: +5"),
        PUT.replace(b"accept", b"expect: 100-continue\r\naccept"),
        GET.replace(b"Host", b" Host"),
        GET.replace(b"\r\n", b"\n"),
        GET.replace(b"Bearer", b"a" * HEAD_BYTES_MAX),
    ],
)
def test_what_is_odd_is_left_to_h11(data: bytes) -> None:
    assert read_plain(data) is None


def test_an_answer_is_what_h11_would_write() -> None:
    for status in (200, 201, 404, 503):
        headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
        conn = h11.Connection(h11.SERVER)
        conn.receive_data(GET)
        while not isinstance(conn.next_event(), h11.EndOfMessage):
            pass
        events: tuple[h11.Event, ...] = (
            h11.Response(status_code=status, headers=headers, reason=PHRASES[status]),
            h11.Data(data=b"{}"),
            h11.EndOfMessage(),
        )
        written = b"".join(conn.send(event) or b"" for event in events)
        assert write_plain(status, headers, b"{}") == written


@pytest.mark.parametrize(
    ("status", "header"),
    [
        (204, (b"x", b"y")),
        (304, (b"x", b"y")),
        (100, (b"x", b"y")),
        (200, (b"connection", b"close")),
        (200, (b"transfer-encoding", b"chunked")),
        (200, (b"x", b"y\r\nset-cookie: z")),
        (200, (b"x", b"y\nz")),
        (200, (b"x y", b"z")),
        (200, (b"x", b"")),
    ],
)
def test_an_answer_that_is_odd_is_left_to_h11(status: int, header: tuple[bytes, bytes]) -> None:
    assert write_plain(status, [(b"content-length", b"2"), header], b"{}") is None


def test_an_answer_whose_length_is_not_told_is_left_to_h11() -> None:
    assert write_plain(200, [], b"{}") is None
    assert write_plain(200, [(b"content-length", b"3")], b"{}") is None
