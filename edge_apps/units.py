"""How long is "5s": durations as people write them in an app or in its configuration.

The notation is that of Covey's configuration file. The runtime has its own reader of it, with
error messages that point into that file; an app must not import the runtime, and this is all
that it needs.
"""

import re

UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

_PART = r"(\d+(?:\.\d+)?)(ms|s|m|h|d)"


def parse_duration(text: str) -> float:
    """Return the seconds that ``text`` stands for, more than 0.

    Raises ValueError, saying how durations are written.

    >>> parse_duration("500ms"), parse_duration("1h30m")
    (0.5, 5400.0)
    """
    if not re.fullmatch(f"(?:{_PART})+", text):
        raise ValueError(f"{text!r} is no duration; write 500ms, 5s, 10m, 1h or 2d")
    seconds = sum(float(number) * UNITS_S[unit] for number, unit in re.findall(_PART, text))
    if not seconds:
        raise ValueError("a duration of nothing would never let go; write at least 1ms")
    return seconds
