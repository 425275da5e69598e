"""A reading: one measured value, the unit of everything that telemetry carries.

A reading is *drafted* by an app or a command, and becomes *accepted* when the agent has it on
disk under an id. The draft is what this file describes; ids are given by the outbox.
"""

import math
import re
import time
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from numbers import Integral, Real
from typing import TYPE_CHECKING, Never, cast

import msgspec

from edge_apps.texts import flaw

SENSOR_CHARACTERS_MAX = 128
UNIT_CHARACTERS_MAX = 32
TAGS_MAX = 64
TAG_NAME_CHARACTERS_MAX = 128
TAG_CHARACTERS_MAX = 1024  # Telegraf's tags hold paths, labels and whole command lines
TEXT_VALUE_CHARACTERS_MAX = 1024
NAMES_REMEMBERED = 1_000
INTEGER_MAX = 2**63 - 1
NS_PER_S = 1_000_000_000
UNTIMED = -1
"""In place of a time: when the agent accepts the reading. 0 is a time, the beginning of 1970."""

# A sensor's name becomes levels of an MQTT topic: no wildcards, no blanks, no empty level, and
# no `$` at the start, which is the broker's where the template begins with the sensor.
SENSOR_PATTERN = re.compile(r"(?!\$)[^\s+#/]+(/[^\s+#/]+)*")

Value = float | int | bool | str


class BadReading(ValueError):
    """A reading that cannot be accepted; the message says what to change."""


class Reading(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One measured value.

    ``sensor`` names what was measured, in levels divided by ``/``; ``value`` is a number, a
    truth value or a short text; ``unit`` is free text such as ``C`` or ``%``; ``time_ns`` is
    Unix time in nanoseconds, ``UNTIMED`` for "when the agent accepts it"; ``tags`` are short
    texts. ``taken_ns`` is ``boot_time_ns()`` of the moment when it was taken, for a reading that is
    timed by this device's own clock: should that turn out to be wrong, it can be corrected. 0 when
    its source gave the time.

    No cycle can lead through it, so the collector need not look at it (``gc=False``).
    """

    sensor: str
    value: Value
    unit: str = ""
    time_ns: int = UNTIMED
    tags: dict[str, str] = {}
    taken_ns: int = 0


if TYPE_CHECKING:

    class Checked(Reading, frozen=True):
        """A reading that an outbox may accept: ``check`` and ``check_line`` say so, nobody else."""

        def __init__(self, cannot_be_made: Never) -> None: ...

else:
    # A NewType in all but name, which costs nothing either: mypy cannot make one of a Struct.
    Checked = Reading


def boot_time_ns() -> int:
    """Return the nanoseconds since the kernel's start, sleep included: a clock that nobody sets."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def draft(
    sensor: object,
    value: object,
    unit: object,
    time_s: object,
    tags: object,
    taken_ns: int = 0,
) -> Checked:
    """Return a checked reading of whatever a program measured. Raises BadReading.

    Numbers of other kinds (numpy's, Decimal, Fraction) become Python's own.
    """
    told = f"reading of {sensor!r:.60}"
    if not isinstance(sensor, str) or not isinstance(unit, str):
        raise BadReading(f"{told}: the sensor's name and the unit are texts")
    if not isinstance(tags, Mapping) or not all(
        isinstance(text, str) for pair in tags.items() for text in pair
    ):
        raise BadReading(f"{told}: tags are a mapping of texts to texts")
    time_ns = _time_ns(time_s, told)
    value = _plain(value, told)
    return check(Reading(str(sensor), value, str(unit), time_ns, dict(tags), taken_ns))


def _time_ns(time_s: object, told: str) -> int:
    try:
        time_ns = int(float(time_s) * NS_PER_S)  # type: ignore[arg-type]  # what is none raises
    except (TypeError, ValueError, OverflowError):
        raise BadReading(f"{told}: its time is {time_s!r:.40}, not seconds since 1970") from None
    if time_ns < 0:
        raise BadReading(f"{told}: only times since 1970 are taken")
    return time_ns


def _plain(value: object, told: str) -> Value:
    """Return a value as one of the four types that a reading has."""
    if type(value) in (float, int, bool, str):
        return cast("Value", value)
    try:
        if callable(item := getattr(value, "item", None)):  # a scalar of numpy, or one like it
            value = item()
        if isinstance(value, bool | str):
            return value if isinstance(value, bool) else str.__str__(value)
        if isinstance(value, Integral):
            return int(value)
        if isinstance(value, Real | Decimal):
            return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadReading(f"{told}: its value cannot be read: {error}") from None
    kind = type(value).__name__
    raise BadReading(f"{told}: a value is a number, a truth value or a text, not of type {kind}")


def check(reading: Reading) -> Checked:
    """Return the reading if an outbox may accept it. Raises BadReading, naming the field."""
    sensor, value, tags = reading.sensor, reading.value, reading.tags
    _check_names(sensor, reading.unit, *tags)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise BadReading(f"value of {sensor}: {value} is no measurement; leave the reading out")
    elif isinstance(value, str):
        _check_text(sensor, value)
    elif abs(value) > INTEGER_MAX:
        raise BadReading(f"value of {sensor}: whole numbers have at most 64 bits")
    if not UNTIMED <= reading.time_ns <= INTEGER_MAX:  # it is the number before the first time
        raise BadReading(f"time of {sensor}: nanoseconds since 1970, up to the year 2262")
    if not 0 <= reading.taken_ns <= INTEGER_MAX:
        raise BadReading(f"taken_ns of {sensor}: nanoseconds since the kernel's start")
    if tags:
        texts = "".join(tags.values())
        if len(texts) > TAG_CHARACTERS_MAX or not texts.isascii():
            _check_tags(sensor, tags)
    return cast("Checked", reading)


def check_line(readings: list[Reading]) -> list[Checked]:
    """Return the readings of one line, which share all but sensor and value. Raises BadReading.

    What they share, their tags above all, is looked at once.
    """
    first, *others = readings
    check(first)
    for other in others:
        assert other.tags is first.tags, "whose tags are others has to be looked at, too"
        check(Reading(other.sensor, other.value, time_ns=other.time_ns))
    return cast("list[Checked]", readings)


@lru_cache(maxsize=NAMES_REMEMBERED)
def _check_names(sensor: str, unit: str, *tags: str) -> None:
    """Check what repeats from reading to reading; which names are good is remembered.

    Names are texts that MQTT carries in a header; what only a payload holds may be any text.
    """
    if found := flaw("".join((sensor, unit, *tags))):
        raise BadReading(
            f"reading of {sensor[:40]!a}: its sensor, its unit or a tag's name holds "
            f"{found}, which MQTT does not carry; was it read in the wrong encoding?"
        )
    if len(sensor) > SENSOR_CHARACTERS_MAX or not SENSOR_PATTERN.fullmatch(sensor):
        raise BadReading(
            f"sensor {sensor[:40]!r}: use 1 to {SENSOR_CHARACTERS_MAX} characters in "
            "levels divided by '/', without blanks, '+', '#' or a '$' at the start"
        )
    if len(unit) > UNIT_CHARACTERS_MAX:
        raise BadReading(f"unit of {sensor}: at most {UNIT_CHARACTERS_MAX} characters")
    if len(tags) > TAGS_MAX:
        raise BadReading(f"tags of {sensor}: at most {TAGS_MAX}")
    for name in tags:
        if not 0 < len(name) <= TAG_NAME_CHARACTERS_MAX:
            raise BadReading(
                f"tag {name[:40]!r} of {sensor}: its name has 1 to {TAG_NAME_CHARACTERS_MAX} "
                "characters"
            )


def _check_text(sensor: str, value: str) -> None:
    if len(value) > TEXT_VALUE_CHARACTERS_MAX:
        raise BadReading(
            f"value of {sensor}: texts have at most {TEXT_VALUE_CHARACTERS_MAX} characters"
        )
    _check_encoding(sensor, value)


def _check_tags(sensor: str, tags: dict[str, str]) -> None:
    for name, text in tags.items():
        if len(text) > TAG_CHARACTERS_MAX:
            raise BadReading(
                f"tag {name!r} of {sensor}: its value has at most {TAG_CHARACTERS_MAX} characters"
            )
        _check_encoding(sensor, text)


def _check_encoding(sensor: str, text: str) -> None:
    """Python also reads bytes that are no UTF-8, into texts that nothing can store or send."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadReading(f"reading of {sensor!a}: a text is not UTF-8") from None
