r"""Makes texts of others fit to be shown: the one place that escapes.

Names, values, payloads and error texts come from other members, sensors, brokers and apps. Shown
as they are, they could move the cursor, hide or reorder what stands beside them, retitle the
window, or end a line and forge the next one. So whatever goes to a terminal, a pipe, the journal
or a log passes through here, and every character that is not printable (``str.isprintable``: C0 and
C1 controls, bidi overrides, line and paragraph separators, lone surrogates) becomes an escape that
Python and JSON readers know: ``\x1b``, ``\u202e``.
"""

import re
from typing import Any

WIDE = frozenset({"W", "F"})
"""East Asian widths that take two columns (UAX 11)."""
NO_COLUMN = frozenset({"Mn", "Me"})
CONTINUED = "    "
"""Before every line of a text but its first: no text of others begins a line of a log."""
ELLIPSIS = "…"

HARD_BLANK = "\N{NO-BREAK SPACE}"
"""Stands for a blank at which no line ends. It is not printable, so that no text has one."""
ROOM_MIN = 20

_COMMAND = re.compile(r"`[^`]*`")
_UNPRINTABLE = re.compile(r"[^ -~]")


def one_line(text: str) -> str:
    r"""Return a text in which every character is seen and none does anything.

    >>> print(one_line("ash\x1b[2J\n"), one_line("\u202e\x9b"), one_line("Süd 南"))
    ash\x1b[2J\n \u202e\x9b Süd 南
    """
    if text.isprintable():
        return text
    return _UNPRINTABLE.sub(_escape, text)


def with_tabs(text: str) -> str:
    """Return a text as ``one_line`` does, with its tabs."""
    return "\t".join(map(one_line, text.split("\t")))


def lines_below(text: str) -> str:
    r"""Return a text of several lines, such as a stack trace, all but the first indented.

    >>> print(lines_below("broken\nTraceback:\x07"))
    broken
        Traceback:\x07
    """
    return f"\n{CONTINUED}".join(map(one_line, text.split("\n")))


def json_text(value: Any, *, indent: int | None = None) -> str:
    r"""Return a value as JSON that is safe to look at, and means the same.

    Outside of its strings JSON is printable, so that what has to be escaped is within them.

    >>> print(json_text({"name": "a\x9b\n", "town": "Zürich"}))
    {"name": "a\u009b\n", "town": "Zürich"}
    """
    import json  # late: most commands show no JSON

    text = json.dumps(value, ensure_ascii=False, indent=indent)
    if text.isprintable():
        return text
    return _UNPRINTABLE.sub(_escape_for_json, text)


def columns(text: str) -> int:
    """Return how many columns a printable text takes on a terminal.

    >>> columns("ash"), columns("南"), columns("e\u0301")
    (3, 2, 1)
    """
    if text.isascii():
        return len(text)
    return sum(map(_columns_of, text))


def shortened(text: str, room: int) -> str:
    """Return a printable text that takes at most ``room`` columns, an ellipsis where it was cut.

    >>> shortened("greenhouse", 6), shortened("attic", 6)
    ('green…', 'attic')
    """
    if columns(text) <= room:
        return text
    kept, used = "", 0
    for character in text:
        used += _columns_of(character)
        if used > room - 1:
            break
        kept += character
    return kept + ELLIPSIS if room > 0 else ""


def padded(text: str, width: int) -> str:
    """Return a printable text, filled up with blanks to so many columns."""
    return text + " " * (width - columns(text))


def folded(text: str, room: int, indent: str = "") -> list[str]:
    """Return a printable text in lines of at most ``room`` columns, all but the first indented.

    A command in backticks stays on one line, so that it can be copied.

    >>> folded("start it with `covey run`, then look", 22, "  ")
    ['start it with', '  `covey run`, then', '  look']
    """
    from textwrap import wrap

    whole = _COMMAND.sub(lambda command: command[0].replace(" ", HARD_BLANK), text)
    wrapped = wrap(
        whole,
        max(room, ROOM_MIN),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(HARD_BLANK, " ") for line in wrapped] or [""]


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    if character.isprintable():
        return character
    return character.encode("unicode_escape", "surrogatepass").decode()


def _escape_for_json(found: re.Match[str]) -> str:
    import json

    character = found[0]
    if character.isprintable() or character == "\n":  # within strings it is `\n` already
        return character
    return json.dumps(character)[1:-1]


def _columns_of(character: str) -> int:
    # Here, not above: an agent that runs for months may never need the table of all characters.
    from unicodedata import category, east_asian_width

    if category(character) in NO_COLUMN:
        return 0
    return 2 if east_asian_width(character) in WIDE else 1
