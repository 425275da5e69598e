"""How long is "5s": durations as people write them, in a configuration or an app.

A duration is a number and a unit without a blank: ``500ms``, ``10s``, ``1h``, ``2d``; several may
follow each other, largest first (``1h30m``). A bare number is refused, because half of all readers
would take it for milliseconds.
"""

import re

UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d))+")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")


def read_duration(text: str) -> float:
    """Return the seconds that a duration such as ``1h30m`` stands for; they may be 0.

    Raises ValueError, saying how durations are written.

    >>> read_duration("500ms"), read_duration("1h30m")
    (0.5, 5400.0)
    """
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is no duration; write 500ms, 10s, 5m, 1h or 2d")
    return sum(float(number) * UNITS_S[unit] for number, unit in _PART.findall(text))


def parse_duration(text: str) -> float:
    """Return the seconds between two runs of an app: as ``read_duration`` does, but more than 0.

    Raises ValueError.
    """
    seconds = read_duration(text)
    if not seconds:
        raise ValueError("a duration of nothing would never let go; write at least 1ms")
    return seconds
