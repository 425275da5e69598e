"""Tells glibc's malloc how to serve a small process with some threads that rarely work.

By default it gives each thread an arena of its own, whose free memory no other thread may use, and
raises the size from which on memory is mapped alone, and thus given back, to that of the largest
that was ever freed. A stream has a buffer of 256 KiB, of which it uses a few: with its pages among
small objects, they stay. Python's own objects of up to 512 bytes are none of malloc's business.
"""

import ctypes

# Of mallopt(3), and <malloc.h>.
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
SETTINGS = {ARENA_MAX: 1, MMAP_THRESHOLD: 128 * 1024, TRIM_THRESHOLD: 128 * 1024}


def keep_small() -> bool:
    """Set it for this process, before it has threads; tell whether all was taken.

    Another C library has no such settings, and is left as it is.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    taken = [mallopt(name, value) for name, value in SETTINGS.items()]
    return all(taken)
