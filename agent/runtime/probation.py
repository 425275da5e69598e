"""What comes from others is on probation while it is taken in: nothing ends the agent for ever.

``gossip/core/trials.py`` says why. The note of what is being taken in has to outlive whatever
happens: an exception, a crash of a C library, the watchdog. It is a page of memory that belongs to
a file in the runtime directory (``mmap``): the kernel keeps it when the process ends, and writing
it costs a copy of a few bytes. It is not forced to any disk, for after a power cut nothing is to
blame.

    begin: name written ──(taken in)──► name wiped
                 │ the process ends
                 ▼ the next start finds the name
           one more blame for it ──(the second)──► set aside: passed over, counted, shown

A name is blamed by whatever ends the process at that moment, also SIGKILL: it takes the same name
twice, and names are of one publication, one event or one write, so nothing harmless is set aside by
chance. Another version of Covey forgets all of it, since it may well take the same in.

Not covered: what is taken in well and does its harm later, out of a timer or the database.
"""

import logging
import mmap
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

from agent._version import __version__
from agent.config.logs import OUR_INTERVAL_S, RateLimitedLog
from agent.config.paths import Paths
from agent.files.private_files import replace_private
from agent.text.escaping import one_line
from gossip.core.errors import CoveyError

PAGE_BYTES = 4096
LENGTH_BYTES = 2
NAME_BYTES_MAX = 512
BLAMES_MAX = 2
REMEMBERED_MAX = 64
"""Names in the file; of more, those that were blamed first are forgotten."""

log = logging.getLogger(__name__)


class Blames(msgspec.Struct):
    """How often each name was to blame, the newest last, under one version of Covey."""

    version: str
    blames: dict[str, int]


class Probation:
    """Takes in what others tell. Everything happens on one thread."""

    def __init__(self, paths: Paths, version: str = __version__) -> None:
        """Find out what the last life ended with.

        Without a place for the note, on a full disk, things are taken in all the same.
        """
        self.counts: Counter[str] = Counter()
        self._file = paths.set_aside
        self._quiet = RateLimitedLog(log, OUR_INTERVAL_S)
        self._page = _open_page(paths.on_trial)
        self._blames = _read(self._file, version)
        if name := self._noted():
            self._blame(name)
        self._wipe()

    @property
    def set_aside(self) -> list[str]:
        """What is not taken in any more."""
        return [name for name, times in self._blames.blames.items() if times >= BLAMES_MAX]

    def take(self, what: str, take: Callable[[], None]) -> bool:
        """Call ``take`` unless ``what`` was set aside; say whether it was called."""
        name = what.encode(errors="replace")[:NAME_BYTES_MAX]
        if self._blames.blames and self._times(name) >= BLAMES_MAX:
            self.counts[f"set_aside/{what.partition(' ')[0]}"] += 1
            self._quiet.warning("aside", "passed over %s: it ended this agent twice", what)
            return False
        page = self._page
        page[LENGTH_BYTES : LENGTH_BYTES + len(name)] = name
        page[:LENGTH_BYTES] = len(name).to_bytes(LENGTH_BYTES)
        try:
            take()
        except CoveyError:  # it was refused, as it should be
            self._wipe()
            raise
        self._wipe()
        return True

    def close(self) -> None:
        """Take in nothing more."""
        self._page.close()

    def _times(self, name: bytes) -> int:
        return self._blames.blames.get(name.decode(errors="replace"), 0)

    def _noted(self) -> str:
        size = int.from_bytes(self._page[:LENGTH_BYTES])
        name = self._page[LENGTH_BYTES : LENGTH_BYTES + min(size, NAME_BYTES_MAX)]
        return name.decode(errors="replace")

    def _wipe(self) -> None:
        self._page[:LENGTH_BYTES] = bytes(LENGTH_BYTES)

    def _blame(self, name: str) -> None:
        blames = self._blames.blames
        times = blames.pop(name, 0) + 1
        blames[name] = times
        if len(blames) > REMEMBERED_MAX:
            del blames[next(iter(blames))]
        try:
            replace_private(self._file, msgspec.json.encode(self._blames))
        except OSError as error:
            log.warning("%s cannot be written, and a restart forgets this: %s", self._file, error)
        kind = name.partition(" ")[0]
        self.counts[f"ended_by/{kind}"] += 1
        told = "it is passed over from now on" if times >= BLAMES_MAX else "it is tried once more"
        log.error("the agent ended while it took in %s; %s", one_line(name), told)


def _open_page(path: Path) -> mmap.mmap:
    try:
        return _page_of(path)
    except OSError as error:
        log.warning("what others tell is taken in without a note of it: %s: %s", path, error)
        return mmap.mmap(-1, PAGE_BYTES)


def _page_of(path: Path) -> mmap.mmap:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        # Its blocks too: a page that finds no room on a full disk would end us by SIGBUS.
        os.posix_fallocate(handle, 0, PAGE_BYTES)
        return mmap.mmap(handle, PAGE_BYTES)
    finally:
        os.close(handle)


def _read(path: Path, version: str) -> Blames:
    """Return what is known; nothing where there is no file, a damaged one, or another version's."""
    try:
        known = msgspec.json.decode(path.read_bytes(), type=Blames)
    except FileNotFoundError:
        return Blames(version, {})
    except (OSError, msgspec.DecodeError) as error:
        log.warning("%s cannot be read, and nothing is set aside any more: %s", path, error)
        return Blames(version, {})
    return known if known.version == version else Blames(version, {})
