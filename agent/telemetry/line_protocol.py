r"""InfluxDB line protocol: what Telegraf and many sensors already write.

    measurement,tag=value,tag=value field=1.5,other=2i,text="two words",on=true 1700000000000000000

A line holds one reading per field. The sensor's name is ``measurement/field``, or just the
measurement when the field is called ``value``. Values keep their types: ``1.5`` is a float,
``2i`` and ``2u`` are whole numbers, ``t`` and ``true`` are truth values, quotes make texts.

A backslash escapes the comma, the equals sign and the blank in names and tags, the quote and
itself in quoted texts, and means itself before anything else. A quote is a character like any
other except at the beginning of a field's value. Only a text may contain a newline; then the
line goes on behind it. Blanks and slashes at the ends do not fit a sensor's name; such names are
refused, with the reason, like any other.
(https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/)
"""

import re

from edge_apps.reading import SENSOR_CHARACTERS_MAX, TAGS_MAX, UNTIMED, BadReading, Reading, Value

NS_PER_UNIT: dict[str, int] = {
    "ns": 1,
    "n": 1,
    "us": 1_000,
    "u": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60 * 1_000_000_000,
    "h": 3600 * 1_000_000_000,
}
"""What a time may count, in the words of InfluxDB's versions 1 and 2."""

DEFAULT_FIELD = "value"
FIELDS_MAX = 1_000
NAME_CHARACTERS_MAX = 2 * SENSOR_CHARACTERS_MAX  # each may be escaped
TRUTHS = dict.fromkeys(("t", "T", "true", "True", "TRUE"), True) | dict.fromkeys(
    ("f", "F", "false", "False", "FALSE"), False
)
TIME_DIGITS_MAX = 19
"""Of nanoseconds until the year 2262. Python reads no number of more than 4,300 digits."""

BLANK = " "
# Characters, then again and again an escape and more characters: there is one way to match each, so
# that failing takes a time that grows with the length. The groups are not possessive: until 3.11.5,
# Python takes a character too few then (gh-106052), and Debian 12 has 3.11.2.
SERIES = re.compile(r"[^ ]++(?:(?<=\\) [^ ]*+)*")
PAIR = re.compile(r"(?!=)([^=\\]*+(?:\\.[^=\\]*+)*)=(.++)", re.DOTALL)
COMMA = re.compile(r"(?<!\\),")
_NAME = r"(?![,= ])[^\\,= ]*+(?:\\.[^\\,= ]*+)*"
_OPEN = r'"[^"\\]*+(?:\\.[^"\\]*+)*'
FIELD = re.compile(rf'({_NAME})=({_OPEN}"|[^" ,][^ ,]*+)(,|(?=[ ]|\Z))', re.DOTALL)
OPEN_TEXT = re.compile(rf"{_NAME}={_OPEN}\\?\Z", re.DOTALL)
FIELD_BEGINS = re.compile(rf" +{_NAME}=")
INTEGER = re.compile(r"([+-]?[0-9]{1,20})i|(\+?[0-9]{1,20})u")
FLOAT = re.compile(r"[+-]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?", re.ASCII)
NO_NUMBERS = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE | re.ASCII)
TIME = re.compile(rf"-?[0-9]{{1,{TIME_DIGITS_MAX}}}")
ESCAPED = re.compile(r"\\([,= ])")
ESCAPED_IN_TEXT = re.compile(r'\\(["\\])')


class OpenText(BadReading):
    """The line ends within a quoted text, which may go on behind a newline."""


def parse_line(line: str, unit_ns: int = 1) -> list[Reading]:
    """Return the readings of one line, one per field; its time counts units of ``unit_ns``.

    Raises BadReading, naming the part.
    """
    series = SERIES.match(line)
    if series is None or len(line) == series.end():
        raise _not_a_line(line)
    measurement, tags = _parse_series(series[0])
    fields, rest = _parse_fields(line, series.end())
    time_ns = _parse_time(rest, unit_ns) if rest else UNTIMED
    return [
        Reading(_sensor(measurement, name), value, time_ns=time_ns, tags=tags)
        for name, value in fields
    ]


def looks_like_line(text: str) -> bool:
    """Tell line protocol from other forms: its second part has an equals sign behind a name.

    >>> looks_like_line("m,room=a t=1"), looks_like_line("room 21.5")
    (True, False)
    """
    series = SERIES.match(text)
    return series is not None and bool(FIELD_BEGINS.match(text, series.end()))


def _not_a_line(line: str) -> BadReading:
    return BadReading(
        f"write MEASUREMENT[,TAG=VALUE] FIELD=VALUE[,FIELD=VALUE] [TIME], not {line[:60]!r}"
    )


def _sensor(measurement: str, field: str) -> str:
    return measurement if field == DEFAULT_FIELD else f"{measurement}/{field}"


def _parse_series(text: str) -> tuple[str, dict[str, str]]:
    measurement, *pairs = text.split(",") if "\\" not in text else COMMA.split(text)
    if len(measurement) > NAME_CHARACTERS_MAX:
        raise BadReading(f"measurement {measurement[:40]!r}...: it is too long for a sensor's name")
    if len(pairs) > TAGS_MAX:
        raise BadReading(f"tags of {measurement[:40]!r}: at most {TAGS_MAX}")
    tags = {}
    for pair in pairs:
        parts = PAIR.fullmatch(pair)
        if parts is None or _has_unescaped_equals(parts[2]):
            raise BadReading(f"tag {pair[:40]!r}: write NAME=VALUE, and escape blanks with '\\'")
        name = _unescape(parts[1])
        if name in tags:
            raise BadReading(f"tag {name[:40]!r} is there twice")
        tags[name] = _unescape(parts[2])
    return _unescape(measurement), tags


def _has_unescaped_equals(text: str) -> bool:
    return "=" in text and "=" in ESCAPED.sub("", text)


def _parse_fields(line: str, at: int) -> tuple[list[tuple[str, Value]], str]:
    """Return the fields that begin behind a blank, and what stands behind them."""
    at = len(line) - len(line[at:].lstrip(BLANK))
    fields: list[tuple[str, Value]] = []
    comma = ","
    while comma:
        found = FIELD.match(line, at)
        if found is None:
            raise _no_field(line, at)
        name = _unescape(found[1])
        fields.append((name, _parse_value(name, found[2])))
        if len(fields) > FIELDS_MAX:
            raise BadReading(f"more than {FIELDS_MAX} fields: divide the line")
        comma, at = found[3], found.end()
    return fields, line[at:].strip(BLANK)


def _no_field(line: str, at: int) -> BadReading:
    if at == len(line):
        return _not_a_line(line)
    if OPEN_TEXT.match(line, at):
        return OpenText(f"field {line[at : at + 40]!r}: its text lacks the closing quote")
    return BadReading(
        f"field {line[at : at + 40]!r}: write NAME=VALUE, and put texts in double quotes"
    )


def _parse_value(name: str, text: str) -> Value:
    if text[0] == '"':
        text = text[1:-1]
        return ESCAPED_IN_TEXT.sub(r"\1", text) if "\\" in text else text
    if FLOAT.fullmatch(text) or NO_NUMBERS.fullmatch(text):
        return float(text)
    if whole := INTEGER.fullmatch(text):
        return int(whole[1] or whole[2])
    if text in TRUTHS:
        return TRUTHS[text]
    raise BadReading(
        f'field {name[:40]!r}: {text[:40]!r} is no value; write 1.5, 2i, true or "text"'
    )


def _parse_time(text: str, unit_ns: int) -> int:
    if not TIME.fullmatch(text):
        unit = next(name for name, size_ns in NS_PER_UNIT.items() if size_ns == unit_ns)
        raise BadReading(
            f"time {text[:40]!r}: write a whole number of {unit} since 1970, and nothing behind it"
        )
    if text[0] == "-" and int(text):
        raise BadReading(f"time {text}: only times since 1970 are taken")
    return int(text) * unit_ns


def _unescape(text: str) -> str:
    return ESCAPED.sub(r"\1", text) if "\\" in text else text
