"""Room for many hosts on one machine: the kernel's table of neighbours, larger for a while.

All namespaces share one table of a thousand entries for each family. Thirty hosts that know each
other fill it, a hundred are ten thousand entries: then the kernel forgets addresses as fast as it
learns them, and what is tested or measured is the table.
"""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

ENTRIES = {"gc_thresh1": 8192, "gc_thresh2": 16384, "gc_thresh3": 32768}
SETTINGS = Path("/proc/sys/net")


@contextlib.contextmanager
def many_neighbours() -> Iterator[None]:
    """Let the kernel remember more neighbours meanwhile; a setting nobody may write stays.

    What is high enough is left alone, so of several test runs at once the one that raised it puts
    it back. Few hosts need no room, so the others do not miss it then.
    """
    before: dict[Path, str] = {}
    for family, name in itertools.product(("ipv4", "ipv6"), ENTRIES):
        setting = SETTINGS / family / "neigh" / "default" / name
        with contextlib.suppress(OSError):
            now = setting.read_text()
            if int(now) < ENTRIES[name]:
                setting.write_text(str(ENTRIES[name]))
                before[setting] = now
    try:
        yield
    finally:
        for setting, text in before.items():
            setting.write_text(text)
