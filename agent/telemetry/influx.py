"""InfluxDB line protocol: what Telegraf and many sensors already write.

    measurement,tag=value,tag=value field=1.5,other=2i,text="two words",on=true 1700000000000000000

A line holds one reading per field. The sensor's name is ``measurement/field``, or just the
measurement when the field is called ``value``. Values keep their types: ``1.5`` is a float,
``2i`` and ``2u`` are whole numbers, ``t`` and ``true`` are truth values, quotes make texts.

A backslash escapes the comma, the equals sign and the blank in names and tags, the quote and
itself in quoted texts, and means itself before anything else. Blanks and slashes at the ends
do not fit a sensor's name; such names are refused, with the reason, like any other.
(https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/)
"""

from typing import Literal

from edge_apps.reading import BadReading, Reading, Value

Precision = Literal["ns", "us", "ms", "s"]
NS_PER_UNIT: dict[Precision, int] = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}

DEFAULT_FIELD = "value"
TRUTHS = dict.fromkeys(("t", "T", "true", "True", "TRUE"), True) | dict.fromkeys(
    ("f", "F", "false", "False", "FALSE"), False
)
INTEGER_SUFFIXES = ("i", "u")
TIME_DIGITS_MAX = 19
"""Of nanoseconds until the year 2262. Python reads no number of more than 4,300 digits."""
ESCAPABLE = ",= "
ESCAPABLE_IN_TEXT = '"\\'


def parse_line(line: str, precision: Precision = "ns") -> list[Reading]:
    """Return the readings of one line, one per field. Raises BadReading, naming the part."""
    parts = [part for part in split(line, " ") if part]
    if not 2 <= len(parts) <= 3:
        raise BadReading(
            "write MEASUREMENT[,TAG=VALUE] FIELD=VALUE[,FIELD=VALUE] [TIME]; "
            f"there are {len(parts)} parts in {line[:60]!r}"
        )
    measurement, tags = _parse_series(parts[0])
    time_ns = _parse_time(parts[2], precision) if len(parts) == 3 else 0
    return [
        Reading(_sensor(measurement, field), value, time_ns=time_ns, tags=tags)
        for field, value in map(_parse_field, split(parts[1], ","))
    ]


def split(text: str, divider: str) -> list[str]:
    r"""Split at a character, except where it is escaped or inside a quoted text.

    A quote opens a text only right behind an equals sign; elsewhere it is a character.

    >>> split(r'a\ b "c" d="e f"', " ")
    ['a\\ b', '"c"', 'd="e f"']
    """
    parts, start, at, quoted = [], 0, 0, False
    while at < len(text):
        character = text[at]
        if character == "\\":
            at += 1
        elif character == '"' and (quoted or text[at - 1 : at] == "="):
            quoted = not quoted
        elif character == divider and not quoted:
            parts.append(text[start:at])
            start = at + 1
        at += 1
    return [*parts, text[start:]]


def _sensor(measurement: str, field: str) -> str:
    return measurement if field == DEFAULT_FIELD else f"{measurement}/{field}"


def _parse_series(text: str) -> tuple[str, dict[str, str]]:
    measurement, *pairs = split(text, ",")
    tags = {}
    for pair in pairs:
        name, *rest = split(pair, "=")
        if len(rest) != 1 or not name or not rest[0]:
            raise BadReading(f"tag {pair[:40]!r}: write NAME=VALUE, and escape blanks with '\\'")
        tags[_unescape(name, ESCAPABLE)] = _unescape(rest[0], ESCAPABLE)
    return _unescape(measurement, ESCAPABLE), tags


def _parse_field(text: str) -> tuple[str, Value]:
    name, *rest = split(text, "=")
    if len(rest) != 1 or not name or not rest[0]:
        raise BadReading(f"field {text[:40]!r}: write NAME=VALUE, and put texts in double quotes")
    name = _unescape(name, ESCAPABLE)
    return name, _parse_value(name, rest[0])


def _parse_value(name: str, text: str) -> Value:
    if text[0] == '"':
        if len(text) < 2 or text[-1] != '"':
            raise BadReading(f"field {name!r}: its text lacks the closing quote")
        return _unescape(text[1:-1], ESCAPABLE_IN_TEXT)
    if text in TRUTHS:
        return TRUTHS[text]
    try:
        return _integer(text[:-1]) if text.endswith(INTEGER_SUFFIXES) else _float(text)
    except ValueError:
        raise BadReading(
            f'field {name!r}: {text[:40]!r} is no value; write 1.5, 2i, true or "text"'
        ) from None


def _integer(digits: str) -> int:
    if "_" in digits:  # Python would read 1_000 as a number; nobody else does
        raise ValueError(digits)
    return int(digits)


def _float(digits: str) -> float:
    if "_" in digits:
        raise ValueError(digits)
    return float(digits)


def _parse_time(text: str, precision: Precision) -> int:
    digits = text.removeprefix("-")
    if not digits.isascii() or not digits.isdigit() or len(digits) > TIME_DIGITS_MAX:
        raise BadReading(f"time {text[:40]!r}: write a whole number of {precision} since 1970")
    return int(text) * NS_PER_UNIT[precision]


def _unescape(text: str, escapable: str) -> str:
    if "\\" not in text:
        return text
    out, at = [], 0
    while at < len(text):
        if text[at] == "\\" and text[at + 1 : at + 2] and text[at + 1] in escapable:
            at += 1
        out.append(text[at])
        at += 1
    return "".join(out)
