r"""Readings as JSON: an object, a list of objects, or an object a line.

A list is taken apart by the braces, without being understood: decoding eight megabytes of it in
one go would hold up everything else in the agent. Each object is then decoded by itself.
"""

import re
from collections.abc import Iterator
from math import isfinite

import msgspec

from agent.telemetry.plain_lines import parse_time
from edge_apps.reading import UNTIMED, BadReading, Reading, Value

ITEM_BYTES_MAX = 128 * 1024
"""One object; with all the tags that a reading may have it has less."""

FIELDS = "the fields are sensor, value, unit, time or time_ns, tags"
_TEXT = rb'"[^"\\]*+(?:\\.[^"\\]*+)*"'
_FLAT = rb'\{[^"{}]*+(?:%b[^"{}]*+)*\}' % _TEXT
ITEM = re.compile(
    rb'\s*+(\{[^"{}]*+(?:(?:%b|%b)[^"{}]*+)*\})\s*+([,\]])' % (_TEXT, _FLAT), re.DOTALL
)
LIST_BEGINS = re.compile(rb"\s*+\[")
EMPTY_LIST = re.compile(rb"\s*+\]")
BLANK = re.compile(rb"\s*+")


COMPLAINTS = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"Object missing required field `(.*)`", "there is no {0}"),
        (r"Object contains unknown field `(.*)`", "a reading has no {0}"),
        (r"Expected `(?:.*\| )?\w+`, got `(\w+)`$", "this is {0}, and no object"),
        (r"Expected .*, got `(\w+)` - at `\$\.tags\[", "the value of a tag cannot be {0}"),
        (r"Expected .*, got `(\w+)` - at `\$\.(\w+)", "{1} cannot be {0}"),
        (r"Expected .* at `\$\.(\w+)", "{0} is not as it should be"),
        (r"JSON is malformed: .*\(byte (\d+)\)", "this is no JSON, from byte {0} on"),
        (r"Input data was truncated", "the object has no end"),
        (r"Invalid UTF-8", "it is no UTF-8"),
        (r"Number out of range", "a number is out of range"),
    )
)
"""What the decoder says, and what people are told instead."""
NAME_SHOWN_MAX = 40
KINDS = {
    "array": "a list", "bool": "true or false", "float": "a fraction", "int": "a number",
    "null": "null", "object": "an object", "str": "a text",
}  # fmt: skip


class JsonReading(msgspec.Struct, forbid_unknown_fields=True):
    """A reading as JSON: seconds since 1970 or RFC 3339, or nanoseconds; left out for "now"."""

    sensor: str
    value: Value
    unit: str = ""
    time: int | float | str | None = None
    time_ns: int | None = None
    tags: dict[str, str] = {}
    taken_ns: int = 0


_DECODER = msgspec.json.Decoder(JsonReading)


def parse_json(text: bytes | str) -> Reading:
    """Parse one JSON object. Raises BadReading, naming the field."""
    try:
        draft = _DECODER.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadReading(f"{_in_words(error)}; {FIELDS}") from None
    time_ns = _time_ns(draft)
    return Reading(draft.sensor, draft.value, draft.unit, time_ns, draft.tags, draft.taken_ns)


def _in_words(error: Exception) -> str:
    """Say what is wrong with an object, for people who have never heard of our decoder."""
    told = str(error)
    for pattern, words in COMPLAINTS:
        if found := pattern.match(told):
            return words.format(
                *(KINDS.get(part, part[:NAME_SHOWN_MAX]) for part in found.groups(""))
            )
    return "this is no object of JSON that a reading could be"


def is_list(body: bytes) -> bool:
    """Say whether this is a JSON list and not a single object."""
    return LIST_BEGINS.match(body) is not None


def items_of(body: bytes) -> Iterator[bytes]:
    """Yield the objects of a JSON list. Raises BadReading where it is none any more."""
    begins = LIST_BEGINS.match(body)
    assert begins is not None, "is_list was asked"
    at, number = begins.end(), 0
    if EMPTY_LIST.match(body, at):
        return
    comma = b","
    while comma == b",":
        number += 1
        found = ITEM.match(body, at, at + ITEM_BYTES_MAX)
        if found is None:
            raise BadReading(f"reading {number} of the list, at byte {at}, is no complete object")
        yield found[1]
        comma, at = found[2], found.end()
    if BLANK.fullmatch(body, at) is None:
        raise BadReading(f"there is something behind the list, at byte {at}")


def _time_ns(draft: JsonReading) -> int:
    if draft.time_ns is not None:
        if draft.time is not None:
            raise BadReading(f"reading of {draft.sensor[:40]!r}: give time or time_ns, not both")
        if draft.time_ns < 0:
            raise BadReading(f"time_ns of {draft.sensor[:40]!r}: nanoseconds since 1970")
        return draft.time_ns
    time = draft.time
    if time is None:
        return UNTIMED
    if isinstance(time, float):
        if not isfinite(time):
            raise BadReading("time: write seconds since 1970")
        return parse_time(f"{time:.6f}")  # a float of today's seconds resolves microseconds
    return parse_time(str(time))
