"""Requests and answers with nothing out of the ordinary, in a tenth of the time that h11 takes.

Most requests are: one method of five, a path, headers that each come once, a body whose length is
told, all of it there at once and nothing behind it. What is read here h11 would read alike; what is
odd in any way, or merely not whole, is left to it (``connection.py``). A test holds the two against
each other.

Who asks often sends the same line and headers again: they are read once, and only compared then.
"""

import re
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple

from agent.http.asgi import Headers

HEAD_BYTES_MAX = 16 * 1024
"""Of a request's line and headers."""
HEAD_END = b"\r\n\r\n"
LINE = re.compile(rb"(GET|POST|PUT|PATCH|DELETE) (/[!-~]*) HTTP/1\.1")
NAME = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
VALUE = rb"[!-~](?:[ -~]*[!-~])?"
FIELD = re.compile(rb"(%b):[ \t]*(%b)[ \t]*" % (NAME, VALUE))
HEADER = re.compile(rb"%b: %b" % (NAME, VALUE))
LENGTH_DIGITS_MAX = 9
OF_FRAMING = frozenset({b"transfer-encoding", b"upgrade", b"expect"})
"""What is more than a body of a known length is none of ours."""
LENGTH, CONNECTION = b"content-length", b"connection"

PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}
WITHOUT_BODY = frozenset({204, 304})
FIRST_FINAL = 200


class PlainRequest(NamedTuple):
    """A whole request; names of headers are in lower case."""

    method: bytes
    target: bytes
    headers: Headers
    body: bytes


class PlainHeaders(NamedTuple):
    """The line and the headers of a request, and how many bytes of a body follow."""

    method: bytes
    target: bytes
    headers: Headers
    body_bytes: int


class PlainRequests:
    """Reads the requests of one connection."""

    def __init__(self) -> None:
        self._raw = b""
        self._head: PlainHeaders | None = None
        """What ``_raw`` says, which is the last that was read."""

    def read(self, data: bytes) -> PlainRequest | None:
        """Return the request that these bytes are, or None where h11 has to look.

        The headers of one that begins as the one before are the same list.
        """
        end = data.find(HEAD_END, 0, HEAD_BYTES_MAX)
        if end < 0:
            return None
        raw = data[:end]
        if raw != self._raw:
            self._raw, self._head = raw, _read_head(raw)
        head = self._head
        if head is None or len(data) - end - len(HEAD_END) != head.body_bytes:
            return None
        return PlainRequest(head.method, head.target, head.headers, data[end + len(HEAD_END) :])


def read_plain(data: bytes) -> PlainRequest | None:
    """Return the request that these bytes are, or None where h11 has to look."""
    return PlainRequests().read(data)


def _read_head(raw: bytes) -> PlainHeaders | None:
    first, *lines = raw.split(b"\r\n")
    line = LINE.fullmatch(first)
    fields = [FIELD.fullmatch(each) for each in lines]
    if line is None or None in fields:
        return None
    headers = [(field[1].lower(), field[2]) for field in fields if field is not None]
    told = dict(headers)
    if len(told) < len(headers) or b"host" not in told or not OF_FRAMING.isdisjoint(told):
        return None
    if told.get(CONNECTION, b"keep-alive").lower() != b"keep-alive":
        return None
    length = told.get(LENGTH, b"0")
    if not length.isdigit() or len(length) > LENGTH_DIGITS_MAX:
        return None
    return PlainHeaders(line[1], line[2], headers, int(length))


def write_plain(status: int, headers: Headers, body: bytes) -> bytes | None:
    """Return a whole answer as it goes over the wire, or None where h11 has to write it."""
    told = dict(headers)
    if told.get(LENGTH) != b"%d" % len(body) or CONNECTION in told or b"transfer-encoding" in told:
        return None
    lines = [_line(*each) for each in headers]
    if status < FIRST_FINAL or status in WITHOUT_BODY or None in lines:
        return None
    first = b"HTTP/1.1 %d %b" % (status, PHRASES.get(status, b""))
    return b"\r\n".join((first, *filter(None, lines), b"", body))


@lru_cache(maxsize=256)
def _line(name: bytes, value: bytes) -> bytes | None:
    """Return a header of an answer, None for what is none: most are the same each time."""
    line = b"%b: %b" % (name, value)
    return None if HEADER.fullmatch(line) is None else line
