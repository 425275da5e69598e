"""The plain form: `name value [time]`, which people type and scripts echo."""

import re
from datetime import datetime

from edge_apps.reading import UNTIMED, BadReading, Reading, Value

NS_PER_S = 1_000_000_000
# Seconds with more digits lie thousands of years ahead: they were meant as milliseconds or finer.
SECONDS_DIGITS_MAX = 11
SECONDS = re.compile(r"(?P<whole>[0-9]+)(?:\.(?P<fraction>[0-9]*))?")
# What Python's own int() and float() take is more than anybody means: 1_000, digits of any script.
WHOLE = re.compile(r"[+-]?[0-9]+")
WHOLE_DIGITS_MAX = 40
NUMBER = re.compile(
    r"[+-]?(?:(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:e[+-]?[0-9]++)?|nan|inf|infinity)",
    re.IGNORECASE | re.ASCII,
)
COMMA_NUMBER = re.compile(r"[+-]?[0-9]*,[0-9]+")
BLANKS = re.compile(r"[ \t]+")

TRUTHS = {"true": True, "false": False}


def parse_plain(line: str) -> list[Reading]:
    """Parse ``name value [time]``, divided by blanks. A value that is no number is a short text.

    Raises BadReading.
    """
    parts = BLANKS.split(line)
    if not 2 <= len(parts) <= 3:
        raise BadReading(f"write NAME VALUE [TIME], with blanks between them, not {line[:60]!r}")
    time_ns = parse_time(parts[2]) if len(parts) == 3 else UNTIMED
    return [Reading(parts[0], parse_value(parts[1]), time_ns=time_ns)]


def parse_value(text: str) -> Value:
    """Return the number, truth value or text that a word stands for. Raises BadReading.

    >>> parse_value("3"), parse_value("3.0"), parse_value("true"), parse_value("open")
    (3, 3.0, True, 'open')
    """
    if WHOLE.fullmatch(text) and len(text) <= WHOLE_DIGITS_MAX:
        return int(text)
    if NUMBER.fullmatch(text):
        return float(text)
    if text.lower() in TRUTHS:
        return TRUTHS[text.lower()]
    if COMMA_NUMBER.fullmatch(text):
        raise BadReading(
            f"value {text[:40]}: a number has a decimal point: {text[:40].replace(',', '.')}; "
            "to publish it as a text, use --text, or JSON with the value in quotes"
        )
    return text


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
    if since.days < 0:
        raise BadReading(f"time {text[:40]}: only times since 1970 are taken")
    return (since.days * 86_400 + since.seconds) * NS_PER_S + since.microseconds * 1_000


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text.isascii() else None
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
