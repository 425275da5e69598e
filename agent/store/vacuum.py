"""Gives the space of deleted rows back to the file system, a little at a time.

SQLite keeps freed pages for rows to come. That is right for a while and wrong for ever: an outage
of a week leaves a file of a gigabyte on a small card. So when more than half of a file is free,
its end is cut off, in steps that hold up the writer for a few milliseconds each; what still lies
at the end is moved to free places before.

Files of earlier versions cannot shrink in steps. They are made anew once, when little is left in
them: then that is quick.
"""

import sqlite3

FREE_PAGES_KEPT = 1024
"""4 MiB: less is not worth the writes, and will be used again."""
STEP_PAGES = 512
LIVE_PAGES_MAX = 2048
"""So many are written anew at once: 8 MiB."""
AUTO_VACUUM_NONE = 0


def give_back(connection: sqlite3.Connection) -> bool:
    """Cut one step off the end of a file of which much is free; tell whether there is more."""
    if not is_mostly_free(connection):
        return False
    for _ in range(STEP_PAGES):
        # It yields a row without columns for each page, and the sqlite3 module takes the first one
        # for the end: whatever number is given, one page is what each call cuts off.
        connection.execute("PRAGMA incremental_vacuum(1)")
    return is_mostly_free(connection)


def make_able_to_shrink(connection: sqlite3.Connection) -> None:
    """Make a file of an earlier version anew, if most of it is free; outside of a transaction."""
    (mode,) = connection.execute("PRAGMA auto_vacuum").fetchone()
    if mode != AUTO_VACUUM_NONE or not is_mostly_free(connection):
        return
    pages, free = _pages(connection)
    if pages - free <= LIVE_PAGES_MAX:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("VACUUM")


def is_mostly_free(connection: sqlite3.Connection) -> bool:
    """Tell whether so much of a file is free that it should shrink."""
    pages, free = _pages(connection)
    return free > max(FREE_PAGES_KEPT, pages // 2)


def _pages(connection: sqlite3.Connection) -> tuple[int, int]:
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    return int(pages), int(free)
