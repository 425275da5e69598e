"""A mark on the disk while an agent runs, by which the next start knows how the last one ended.

A process that is killed loses nothing: what it wrote is with the kernel. A power cut takes the last
second of what is synced later (``database.py``), and other owners may have gone on with what this
node had acknowledged. So the mark names the run of the kernel that it was made under. Where it is
found under another one, or where it was *doubted* because a file is gone, or because the disk
failed to sync it, its copies are to be compared with theirs before they are believed. So they are
where ``data.db`` is another file than the one that was in use (by its number in the file system): a
directory that was copied is of an earlier moment as soon as the one that it was copied from ran on.
An orderly end notes the file, too. So they are
where the others know more of this node than it does itself: its whole disk is of an earlier moment,
or a copy of another's. Then nothing counts any more that it has promised, either
(``consensus_store.py``): no comparison tells what that was.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from agent.files.private_files import replace_private, sync_directory
from agent.store.commit_note import running_kernel
from agent.store.errors import translate

DOUBTED, VOID, ENDED, FILE = b"doubted", b"void", b"ended", b" file "
DATABASE = "data.db"


class CleanShutdownMark:
    """The mark in one data directory. All of it takes a moment of the disk's."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._doubt = b""

    @property
    def is_bad(self) -> bool:
        """Whether the last run may have lost what it had acknowledged; ask before ``begin``.

        Raises StorageError when there is no file descriptor to look with.
        """
        try:
            found = self._path.read_bytes()
        except FileNotFoundError:
            return False
        except OSError:
            return True
        try:
            return found not in (running_kernel(), self._running(), self._ended())
        except OSError as error:
            raise translate(error, self._path) from error

    @property
    def is_copied(self) -> bool:
        """Whether this disk is a copy of another one, as far as the mark tells; see ``is_bad``."""
        try:
            *_, file = self._path.read_bytes().split(FILE)
        except OSError:
            return False
        return file.isdigit() and file != self._file()

    def _file(self) -> bytes:
        """Return the number of the database in its file system, 0 where there is none."""
        try:
            return b"%d" % self._path.with_name(DATABASE).stat().st_ino
        except FileNotFoundError:
            return b"0"

    def _running(self) -> bytes:
        return running_kernel() + FILE + self._file()

    def _ended(self) -> bytes:
        return ENDED + FILE + self._file()

    @property
    def is_void(self) -> bool:
        """Whether it is known that promises are missing here: the others said so, or the disk.

        Ask before ``begin``. Raises StorageError.
        """
        try:
            return self._path.read_bytes() == VOID
        except FileNotFoundError:
            return False
        except OSError as error:
            raise translate(error, self._path) from error

    def begin(self) -> None:
        """Note that an agent runs. Raises StorageError."""
        self._replace(self._running)

    def doubt(self, *, is_void: bool = False) -> None:
        """Have the next start compare what is here, however this run ends. Raises StorageError.

        ``is_void``: and count no promise of this disk any more. Where the disk does not even take
        that, the end of this run notes nothing, at least.
        """
        self._doubt = VOID if is_void or self._doubt == VOID else DOUBTED
        self._replace(lambda: self._doubt)

    def end(self) -> None:
        """Note that all is on the disk, unless it is in doubt. Raises StorageError."""
        if self._doubt or self.is_bad:
            return
        try:
            with suppress(OSError):  # where there is no room for it, none is as good a sign
                replace_private(self._path, self._ended())
                return
            self._path.unlink(missing_ok=True)
            sync_directory(self._path.parent)
        except OSError as error:
            raise translate(error, self._path) from error

    def _replace(self, content: Callable[[], bytes]) -> None:
        try:
            replace_private(self._path, content())
        except OSError as error:
            raise translate(error, self._path) from error
