"""Requests and answers with nothing out of the ordinary, in a tenth of the time that h11 takes.

Most requests are: one method of five, a path, headers that each come once, a body whose length is
told, all of it there at once and nothing behind it. What is read here h11 would read alike; what is
odd in any way, or merely not whole, is left to it (``connection.py``). A test holds the two against
each other.
"""

import re
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


def read_plain(data: bytes) -> PlainRequest | None:
    """Return the request that these bytes are, or None where h11 has to look."""
    end = data.find(HEAD_END, 0, HEAD_BYTES_MAX)
    if end < 0:
        return None
    first, *lines = data[:end].split(b"\r\n")
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
    body = data[end + len(HEAD_END) :]
    if not length.isdigit() or len(length) > LENGTH_DIGITS_MAX or int(length) != len(body):
        return None
    return PlainRequest(line[1], line[2], headers, body)


def write_plain(status: int, headers: Headers, body: bytes) -> bytes | None:
    """Return a whole answer as it goes over the wire, or None where h11 has to write it."""
    told = dict(headers)
    if told.get(LENGTH) != b"%d" % len(body) or CONNECTION in told or b"transfer-encoding" in told:
        return None
    lines = [b"%b: %b" % each for each in headers]
    if status < FIRST_FINAL or status in WITHOUT_BODY or None in map(HEADER.fullmatch, lines):
        return None
    first = b"HTTP/1.1 %d %b" % (status, PHRASES.get(status, b""))
    return b"\r\n".join((first, *lines, b"", body))
