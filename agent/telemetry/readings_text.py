"""Readings as lines of text: what shells, scripts and Telegraf pipe in.

Three forms; ``detect`` tells them apart:

``plain``   ``attic/temperature 21.5`` and optionally a Unix time in seconds or in RFC 3339
``json``    ``{"sensor": "attic/temperature", "value": 21.5, "unit": "C", "time": ..., "tags": {}}``
``influx``  ``weather,room=attic temperature=21.5,humidity=40i 1700000000000000000``

One bad line never hides the others: parsing yields what each line holds or what is wrong with it,
and the caller accepts what is good and reports what is not, with the line's number and what to
change. Lines end with a newline and nothing else; a carriage return before it is tolerated. What
Unicode also calls the end of a line is text.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

from agent.telemetry import line_protocol
from agent.telemetry.plain_lines import parse_plain
from agent.telemetry.readings_json import parse_json
from edge_apps.reading import TEXT_VALUE_CHARACTERS_MAX, BadReading, Checked, Reading, check_line

Format = Literal["plain", "json", "influx"]
FORMATS: tuple[Format, ...] = ("plain", "json", "influx")

LINE_BYTES_MAX = 128 * 1024
"""A line is parsed in one go, and nothing else happens in the agent meanwhile."""
JOINS_MAX = 8
"""How often a line with texts over several lines is tried before it is given up."""

JOINED_CHARACTERS_MAX = 2 * LINE_BYTES_MAX
"""And how much is read for it, over all tries: each begins at the beginning of the line."""

BLANKS = " \t\r"
BLANKS_AND_SIGNATURE = BLANKS + "\ufeff"
"""Some editors and shells begin a text with a byte order mark. It is no part of it."""


class GoodLine(NamedTuple):
    """A line with the readings that it holds, and its number, counted from 1."""

    number: int
    readings: list[Checked]


class BadLine(NamedTuple):
    """A line that holds no acceptable reading: its number, and what to change."""

    number: int
    problem: str

    def __str__(self) -> str:
        return f"line {self.number}: {self.problem}"


Parsed = GoodLine | BadLine


def split_lines(body: bytes) -> Iterator[bytes]:
    """Yield the lines of a body, without making all of them at once."""
    start = 0
    while (end := body.find(b"\n", start)) >= 0:
        yield body[start:end]
        start = end + 1
    if start < len(body):
        yield body[start:]


def parse(lines: Iterable[bytes], form: Format | None = None, unit_ns: int = 1) -> Iterator[Parsed]:
    """Yield what each line holds, in order. Blank lines and ``#`` comments hold no readings.

    Without ``form``, the first line that says something decides for all. The times of line
    protocol count units of ``unit_ns``; the other forms say theirs themselves.
    """
    source = _LineSource(lines)
    for raw in source:
        number = source.number
        try:
            line = _text(raw).lstrip(BLANKS if number > 1 else BLANKS_AND_SIGNATURE)
            if not line or line.startswith("#"):
                yield GoodLine(number, [])
                continue
            form = form or detect(line)
            yield GoodLine(number, check_line(_READERS[form](line, source, unit_ns)))
        except BadReading as error:
            yield BadLine(number, str(error))


def detect(line: str) -> Format:
    """Tell which form a line has.

    Only JSON begins with a brace. Line protocol has an unescaped ``=`` in its second part, where
    a plain line has a number or a word.

    >>> detect("t 1"), detect('{"sensor": "t"}'), detect("m,room=a t=1")
    ('plain', 'json', 'influx')
    """
    if line.startswith("{"):
        return "json"
    return "influx" if line_protocol.looks_like_line(line) else "plain"


class _LineSource:
    """Lines with their numbers, of which some may be given back."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self.number = 0
        self._lines = iter(lines)
        self._back: deque[bytes] = deque()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        line = self._back.popleft() if self._back else next(self._lines)
        self.number += 1
        return line

    def give_back(self, lines: list[bytes]) -> None:
        self._back.extendleft(reversed(lines))
        self.number -= len(lines)


def _read_json(line: str, _source: _LineSource, _unit_ns: int) -> list[Reading]:
    return [parse_json(line.rstrip(BLANKS))]


def _read_plain(line: str, _source: _LineSource, _unit_ns: int) -> list[Reading]:
    return parse_plain(line.rstrip(BLANKS))


def _read_influx(line: str, source: _LineSource, unit_ns: int) -> list[Reading]:
    """Parse line protocol, also when a text in it goes on over the next lines.

    A text that is never closed costs its own line alone: what follows is read as lines again.
    """
    try:
        return line_protocol.parse_line(line.rstrip(BLANKS), unit_ns)
    except line_protocol.OpenText as error:
        problem = error
    taken: list[bytes] = []
    characters = len(line)
    for _ in range(JOINS_MAX):
        try:
            line = f"{line}\n{_up_to_quote(source, taken)}"
            characters += len(line)
            if characters > JOINED_CHARACTERS_MAX:
                break
            return line_protocol.parse_line(line.rstrip(BLANKS), unit_ns)
        except line_protocol.OpenText:
            continue
        except BadReading:
            break
    source.give_back(taken)
    raise problem


_READERS: dict[Format, Callable[[str, _LineSource, int], list[Reading]]] = {
    "plain": _read_plain,
    "json": _read_json,
    "influx": _read_influx,
}


def _up_to_quote(source: _LineSource, taken: list[bytes]) -> str:
    """Take lines up to one with a quote in it, and return them. Raises BadReading without one."""
    more: list[str] = []
    length = 0
    for raw in source:
        taken.append(raw)
        more.append(_text(raw))
        if b'"' in raw:
            return "\n".join(more)
        length += 1 + len(more[-1])
        if length > TEXT_VALUE_CHARACTERS_MAX:
            break
    raise BadReading("no line closes the text")


def _text(raw: bytes) -> str:
    if len(raw) > LINE_BYTES_MAX:
        raise BadReading(f"the line has more than {LINE_BYTES_MAX} bytes; it was left out")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise BadReading(
            f"byte {error.start + 1} of the line is not UTF-8; convert the text, as with iconv"
        ) from None
