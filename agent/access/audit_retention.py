"""Keeps the table of the audit log within its bounds, in the writer's transactions.

How much is there is counted as it grows, and not looked up each time: with ten thousand entries,
that would cost several times what it takes to write one.
"""

import sqlite3
from collections.abc import Iterable

CHANGES_MAX, REFUSALS_MAX = 10_000, 2_000
TRIM_EVERY = 64
"""Of so many entries one looks for those that are too many."""
DETAILS_CHARACTERS_MAX = 32 * 2**20
"""Of all changes together."""


class AuditRetention:
    """Removes the oldest entries; used in the writer thread alone."""

    def __init__(self) -> None:
        self._characters: int | None = None
        """So many at most the details of all changes have; None: nobody has looked yet."""

    def inserted(self, last: int, details: Iterable[str], writer: sqlite3.Connection) -> None:
        """Make room after entries with these details were written behind the number ``last``.

        Those of refusals are empty. Undone writes stay counted: then one looks too early, no more.
        """
        count, characters = 0, 0
        for detail in details:
            count += 1
            characters += len(detail)
        if self._characters is not None:
            self._characters += characters
        if last // TRIM_EVERY == (last + count) // TRIM_EVERY:
            return
        for kind, most in ((0, CHANGES_MAX), (1, REFUSALS_MAX)):
            writer.execute(
                "DELETE FROM entries WHERE is_refusal = ? AND number <= (SELECT number FROM entries"
                " WHERE is_refusal = ? ORDER BY number DESC LIMIT 1 OFFSET ?)",
                (kind, kind, most),
            )
        if self._characters is None or self._characters > DETAILS_CHARACTERS_MAX:
            self._characters = _bound_details(writer)


def _bound_details(writer: sqlite3.Connection) -> int:
    """Remove the oldest changes until the details of all fit; return what they have then."""
    writer.execute(
        "DELETE FROM entries WHERE is_refusal = 0 AND number <= (SELECT number FROM (SELECT"
        " number, sum(length(detail)) OVER (ORDER BY number DESC) AS size FROM entries WHERE"
        " is_refusal = 0) WHERE size > ? ORDER BY number DESC LIMIT 1)",
        (DETAILS_CHARACTERS_MAX,),
    )
    query = "SELECT coalesce(sum(length(detail)), 0) FROM entries WHERE is_refusal = 0"
    (characters,) = writer.execute(query).fetchone()
    return int(characters)
