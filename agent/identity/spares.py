"""Second copies of files that exist only once, for the day on which the disk returns noise.

An identity cannot be told again by anybody: without ``node.key`` a device is a stranger. So each of
its files has a spare in a directory beside it, with a digest of its own. A start compares:

========================  ==========================  =====================================
the file                  the spare                   then
========================  ==========================  =====================================
sound                     missing, or damaged         a spare is made
like its spare                                        all is well
missing, or damaged       sound                       the file is restored, and the user told
another, and not newer    sound                       it was damaged: the same
another, sound and newer  sound                       it was replaced: so is the spare
missing, or damaged       missing, or damaged         an error says what to do
========================  ==========================  =====================================

One that is sealed, and whose key this process was not given, is left alone, and so is its
counterpart: the service's own start can tell which of them is sound.

*Sound* is what can be read as what it should be. A flipped bit in a name can be read, too: that is
what the spare is compared for. Damage does not change when a file was written; people do.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from agent import exits
from agent.exits import AgentError
from agent.files.directories import make_directory
from agent.files.private_files import DIRECTORY_MODE, remove_wiping, replace_wiping

DIRECTORY = "spare"
DIGEST_BYTES = 16

IsSound = Callable[[bytes], bool]

log = logging.getLogger(__name__)


def replace_with_spare(path: Path, data: bytes) -> None:
    """Replace a file, and then its spare. Raises OSError when the file could not be replaced."""
    replace_wiping(path, data)
    _keep(path, data)


def remove_with_spare(path: Path) -> None:
    """Remove a file, and first its spare, so that no start restores it. Raises OSError."""
    for each in (place_of(path), path):
        with suppress(FileNotFoundError):
            remove_wiping(each)


def read_spare(path: Path) -> bytes | None:
    """Return what the spare of a file holds; None when there is none, or it is damaged."""
    try:
        data = place_of(path).read_bytes()
    except OSError:
        return None
    digest, content = data[:DIGEST_BYTES], data[DIGEST_BYTES:]
    return content if digest == _digest(content) else None


def unasked(_: bytes) -> bool:
    """Take what is readable for proved."""
    return True


class FileCheck(NamedTuple):
    """How to tell that what a file of one name holds, or its spare, is sound."""

    is_readable: IsSound
    is_proved: IsSound
    """Asked of a file that is another than its spare: which of the two to believe."""
    is_closed: IsSound
    """Whether this process cannot tell, for want of a key."""

    def is_sound(self, data: bytes | None) -> bool:
        """Say whether it can be read, and proves right."""
        return data is not None and self.is_readable(data) and self.is_proved(data)


def mend(directory: Path, files: Mapping[str, FileCheck]) -> None:
    """Restore the files of a directory that are damaged, and make the spares that are missing.

    ``files`` are those that may be there, in the order in which they are mended. One without a
    spare that is not there is not missed. Where most are sound and others than their spares,
    somebody put another set in place. Raises AgentError for one that is beyond repair.
    """
    others = sum(_is_another(directory / name, check) for name, check in files.items())
    for name, check in files.items():
        _mend_one(directory / name, check, is_new=others > len(files) // 2)


def _is_another(path: Path, check: FileCheck) -> bool:
    found, spare = read(path), read_spare(path)
    return spare is not None and found != spare and check.is_sound(found)


def _mend_one(path: Path, check: FileCheck, *, is_new: bool) -> None:
    found, spare = read(path), read_spare(path)
    copies = [each for each in (found, spare) if each is not None]
    if not copies or any(map(check.is_closed, copies)):
        return
    if found is not None and found == spare and check.is_readable(found):
        return
    has_spare = check.is_sound(spare)
    is_kept = not has_spare or is_new or _was_replaced(path)
    if found is not None and check.is_sound(found) and is_kept:
        _keep(path, found)
    elif spare is None or not has_spare:
        raise AgentError(
            f"{path} cannot be read, and there is no sound spare of it; it was not changed.",
            hint="Restore it from a backup, or move the data directory away and join again. A "
            "card that does this once does it again: replace it.",
            status=exits.BAD_CONFIG,
        )
    else:
        what = "is missing" if found is None else "was damaged"
        log.error("%s %s; it was restored from its spare. Check this device's disk.", path, what)
        try:
            replace_wiping(path, spare)
        except OSError as error:
            raise AgentError(
                f"{path} {what}, and cannot be restored: {error.strerror}.",
                hint="Make room, or make the disk writable; its spare is sound.",
                status=exits.NOT_PERMITTED,
            ) from None


def _was_replaced(path: Path) -> bool:
    """Tell whether a file was written after its spare."""
    return path.exists() and path.stat().st_mtime_ns > place_of(path).stat().st_mtime_ns


def read(path: Path) -> bytes | None:
    """Return a file's content, None if there is none, or none that the disk gives."""
    try:
        return path.read_bytes()
    except PermissionError:
        raise
    except OSError:
        return None


def _keep(path: Path, data: bytes) -> None:
    """Write a spare. That it cannot be written is no reason to go without the file itself."""
    spare = place_of(path)
    try:
        make_directory(spare.parent, DIRECTORY_MODE)
        replace_wiping(spare, with_digest(data))
    except OSError as error:
        log.warning("no spare was made of %s: %s", path, error)


def place_of(path: Path) -> Path:
    """Return where the spare of a file is."""
    return path.parent / DIRECTORY / path.name


def with_digest(data: bytes) -> bytes:
    """Return what the spare of a file with this content holds."""
    return _digest(data) + data


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=DIGEST_BYTES).digest()
