"""Readings as lines of text: what shells, scripts and Telegraf pipe in.

Three forms; ``detect`` tells them apart:

``plain``   ``attic/temperature 21.5`` and optionally a Unix time in seconds or in RFC 3339
``json``    ``{"sensor": "attic/temperature", "value": 21.5, "unit": "C", "time": ..., "tags": {}}``
``influx``  ``weather,room=attic temperature=21.5,humidity=40i 1700000000000000000``

One bad line never hides the others: parsing yields an outcome per reading or bad line, and the
caller accepts what is good and reports what is not, with the line's number and what to change.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from math import isfinite
from typing import Literal

import msgspec

from agent.telemetry import influx
from edge_apps.reading import BadReading, Reading, Value, check

Format = Literal["plain", "json", "influx"]
FORMATS: tuple[Format, ...] = ("plain", "json", "influx")

NS_PER_S = 1_000_000_000
# Seconds with more digits lie thousands of years ahead: they were meant as milliseconds or finer.
SECONDS_DIGITS_MAX = 11
SECONDS = re.compile(r"(?P<whole>[0-9]+)(?:\.(?P<fraction>[0-9]*))?")

TRUTHS = {"true": True, "false": False}


class BadLine(msgspec.Struct, frozen=True):
    """A line that holds no acceptable reading: its number, counted from 1, and what to change."""

    number: int
    problem: str

    def __str__(self) -> str:
        return f"line {self.number}: {self.problem}"


Outcome = Reading | BadLine


def parse(
    lines: Iterable[str], form: Format | None = None, precision: influx.Precision = "ns"
) -> Iterator[Outcome]:
    """Yield the readings and the bad lines, in order. Blank lines and ``#`` comments say nothing.

    Without ``form``, the first line that says something decides for all. ``precision`` is the
    unit of the times in line protocol; the other forms say it themselves.
    """
    for number, raw in enumerate(lines, 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        form = form or detect(line)
        try:
            parsed = influx.parse_line(line, precision) if form == "influx" else PARSERS[form](line)
            good = [check(reading) for reading in parsed]
        except BadReading as error:
            yield BadLine(number, str(error))
        else:
            yield from good


def detect(line: str) -> Format:
    """Tell which form a line has.

    Only JSON begins with a brace. Line protocol has an unescaped ``=`` in its second part, where
    a plain line has a number or a word.

    >>> detect("t 1"), detect('{"sensor": "t"}'), detect("m,room=a t=1")
    ('plain', 'json', 'influx')
    """
    if line.startswith("{"):
        return "json"
    parts = influx.split(line, " ")
    return "influx" if len(parts) > 1 and len(influx.split(parts[1], "=")) > 1 else "plain"


# ---- name value [time] --------------------------------------------------------------------------


def parse_plain(line: str) -> list[Reading]:
    """Parse ``name value [time]``, divided by blanks. A value that is no number is a short text.

    Raises BadReading.
    """
    parts = line.split()
    if not 2 <= len(parts) <= 3:
        raise BadReading(f"write NAME VALUE [TIME], with blanks between them, not {line[:60]!r}")
    time_ns = parse_time(parts[2]) if len(parts) == 3 else 0
    return [Reading(parts[0], parse_value(parts[1]), time_ns=time_ns)]


def parse_value(text: str) -> Value:
    """Return the number, truth value or text that a word stands for.

    >>> parse_value("3"), parse_value("3.0"), parse_value("true"), parse_value("open")
    (3, 3.0, True, 'open')
    """
    if text.lower() in TRUTHS:
        return TRUTHS[text.lower()]
    for number in (int, float):
        try:
            return _number(number, text)
        except ValueError:
            continue
    return text


def _number(kind: Callable[[str], int | float], text: str) -> int | float:
    if "_" in text:  # Python would read 1_000 as a number; nobody else does
        raise ValueError(text)
    return kind(text)


def parse_time(text: str) -> int:
    """Return nanoseconds since 1970 for seconds (``1700000000.5``) or RFC 3339 with its zone.

    Raises BadReading.
    """
    seconds = SECONDS.fullmatch(text)
    if seconds:
        return _seconds_to_ns(seconds["whole"], seconds["fraction"] or "")
    moment = _moment(text)
    if moment is None or moment.tzinfo is None:
        raise BadReading(
            f"time {text[:40]!r}: write seconds since 1970, or 2026-01-31T12:00:00Z with its zone"
        )
    since = moment - datetime.fromtimestamp(0, moment.tzinfo)
    return (since.days * 86_400 + since.seconds) * NS_PER_S + since.microseconds * 1_000


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _seconds_to_ns(whole: str, fraction: str) -> int:
    """Convert without going through a float, which has no room for nanoseconds."""
    if len(whole) > SECONDS_DIGITS_MAX:
        raise BadReading(f"time {whole[:40]}: write seconds since 1970, not {_unit(whole)}")
    return int(whole) * NS_PER_S + int(fraction[:9].ljust(9, "0"))


def _unit(digits: str) -> str:
    return {13: "milliseconds", 16: "microseconds", 19: "nanoseconds"}.get(
        len(digits), "a finer unit"
    )


# ---- JSON lines ---------------------------------------------------------------------------------


class JsonReading(msgspec.Struct, forbid_unknown_fields=True):
    """A reading as JSON: time in seconds since 1970 or as RFC 3339, left out for "now"."""

    sensor: str
    value: Value
    unit: str = ""
    time: int | float | str | None = None
    tags: dict[str, str] = {}


_JSON = msgspec.json.Decoder(JsonReading)


def parse_json(line: str) -> list[Reading]:
    """Parse one JSON object. Raises BadReading, naming the field."""
    try:
        return [from_json(_JSON.decode(line))]
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise BadReading(f"{error}; the fields are sensor, value, unit, time, tags") from None


def from_json(draft: JsonReading) -> Reading:
    """Return the reading that a decoded JSON object describes. Raises BadReading."""
    return Reading(draft.sensor, draft.value, draft.unit, _json_time(draft.time), draft.tags)


def _json_time(time: int | float | str | None) -> int:  # noqa: PYI041 - msgspec tells them apart
    if time is None:
        return 0
    if isinstance(time, float):
        if not isfinite(time):
            raise BadReading("time: write seconds since 1970")
        return parse_time(f"{time:.6f}")  # a float of today's seconds resolves microseconds
    return parse_time(str(time))


PARSERS: dict[Format, Callable[[str], list[Reading]]] = {
    "plain": parse_plain,
    "json": parse_json,
}
