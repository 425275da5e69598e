"""Finds the name that was probably meant, for whoever mistyped one."""

from collections.abc import Iterable
from itertools import islice

CANDIDATES_MAX = 256
"""So many are compared: with more, a mistyped name would cost the agent milliseconds."""
CHARACTERS_MAX = 80


def closest(word: str, known: Iterable[str]) -> str:
    """Return the known name that is most like ``word``; empty if none is like it.

    >>> closest("beach", ["ash", "beech"]), closest("Ash", ["ash"]), closest("elm", ["ash"])
    ('beech', 'ash', '')
    """
    from difflib import get_close_matches

    if len(word) > CHARACTERS_MAX:
        return ""
    names = {name.casefold(): name for name in islice(known, CANDIDATES_MAX)}
    found = get_close_matches(word.casefold(), names, n=1)
    return names[found[0]] if found else ""


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return a hint that asks for the closest known name, with ``otherwise`` behind it.

    >>> did_you_mean("beach", ["ash", "beech"], "`covey members` lists them")
    "did you mean 'beech'? `covey members` lists them"
    """
    meant = closest(word, known)
    return f"did you mean {meant!r}? {otherwise}".rstrip() if meant else otherwise
