"""Tells SQLite to take room for a page when it reads one, and not for twenty beforehand.

An agent has two connections to each of its files, and most of them never read twenty pages:
together they took 0.8 MiB for nothing. What a cache may grow to is said in ``opening.py``.
"""

import ctypes
from importlib.util import find_spec

# Of <sqlite3.h>; https://sqlite.org/c3ref/c_config_covering_index_scan.html
OK, CONFIG_PAGECACHE = 0, 7


def keep_small() -> bool:
    """Set it for this process, before anything imports ``sqlite3``; tell whether it was taken.

    Importing it initializes the library, which takes nothing from then on. Where SQLite is built
    into Python and cannot be spoken to, it is left as it is.
    """
    found = find_spec("_sqlite3")
    try:
        config = ctypes.CDLL(found.origin if found else None).sqlite3_config
    except (OSError, AttributeError):
        return False
    taken: int = config(CONFIG_PAGECACHE, None, 0, 0)
    return taken == OK
