"""Directories of secrets that are there whole, or not at all.

An identity is several files that only make sense together: a key without its certificate is a
riddle for whoever finds it after a power cut. So they are written into a sibling directory,
synced, and put in place by one rename, which the file system does entirely or not at all.
Whatever is in here is for the owner's eyes: directories 0700, files 0600, and created that way
rather than changed afterwards, so that there is no moment in between.
"""

import os
import secrets
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent import exits
from agent.exits import AgentError
from agent.files.directories import ABOVE_MODE, make_directory

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600


def write_private(path: Path, data: bytes) -> None:
    """Create a file that only its owner can read, and wait until it is on the disk.

    Raises FileExistsError rather than follow or overwrite what is there.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_private(path: Path, data: bytes) -> None:
    """Replace a private file in one step: a reader sees the old or the new, never a part.

    Raises OSError; the old one is then untouched, and nothing lies beside it.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write_private(fresh, data)
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def replace_wiping(path: Path, data: bytes) -> None:
    """Replace a private file as ``replace_private`` does, and overwrite what it held.

    What it held keeps a name until it is overwritten, ``.NAME.clear``, for whoever comes after a
    crash (``wipe_remains``). Raises OSError; the file is then untouched.
    """
    aside = _aside(path)
    with suppress(OSError):
        aside.hardlink_to(path)
        sync_directory(path.parent)
    try:
        replace_private(path, data)
    finally:
        with suppress(OSError):
            wipe(aside, path)


def remove_wiping(path: Path) -> None:
    """Remove a file, and overwrite what it held: gone in one step, then wiped. Raises OSError."""
    aside = _aside(path)
    path.rename(aside)
    sync_directory(path.parent)
    wipe(aside)


def wipe_remains(path: Path) -> None:
    """Overwrite and remove what was left beside a file by whoever was cut off.

    Only where nobody else can be writing it: at the start. Raises OSError for one that stays, when
    all the others are gone.
    """
    refused = None
    for left in remains(path):
        try:
            _wipe_any(left, path)
        except OSError as error:
            refused = error
    if path.parent.exists():
        sync_directory(path.parent)
    if refused is not None:
        raise refused


def _wipe_any(left: Path, in_use: Path) -> None:
    """Wipe a file, and remove what is none: nothing of ours, but in the way of our names."""
    if left.is_symlink():
        left.unlink()
    elif left.is_dir():
        discard(left)
    else:
        wipe(left, in_use)


def remains(path: Path) -> list[Path]:
    """Return what lies beside a file of somebody who was cut off, or has just now to end."""
    return sorted(path.parent.glob(f".{path.name}.*"))


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.clear")


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable: a rename is not, until its directory is synced."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def wipe(path: Path, in_use: Path | None = None) -> None:
    """Overwrite a file with zeros, and remove it. Raises OSError.

    It reaches the blocks that the file has. Where it is another name of the file ``in_use``, only
    the name is removed.
    """
    handle = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(handle, "wb") as file:
        status = os.fstat(file.fileno())
        if in_use is None or not _is_at(in_use, status):
            file.write(bytes(status.st_size))
            file.flush()
            os.fsync(file.fileno())
    path.unlink()


def _is_at(path: Path, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), status)
    except FileNotFoundError:
        return False


def discard(directory: Path) -> None:
    """Overwrite and remove what is in a directory of secrets, and the directory.

    It loses its name first, so that nobody takes what is half overwritten for whole. What the disk
    refuses to overwrite is removed all the same.
    """
    doomed = directory.with_name(f"{directory.name}.discarded")
    with suppress(OSError):
        directory.rename(doomed)
        for path in doomed.glob("*"):
            with suppress(OSError):
                wipe(path)
    for each in (doomed, directory):
        shutil.rmtree(each, ignore_errors=True)


def make_private_directory(path: Path) -> None:
    """Make a directory that only its owner can enter. Raises FileExistsError if it is there."""
    make_directory(path.parent, ABOVE_MODE)
    path.mkdir(mode=DIRECTORY_MODE)
    path.chmod(DIRECTORY_MODE)


def put_in_place(staged: Path, target: Path) -> None:
    """Rename a finished directory to its final name. Raises OSError when that name is taken."""
    sync_directory(staged)
    staged.rename(target)
    sync_directory(target.parent)


@contextmanager
def staged_directory(target: Path) -> Iterator[Path]:
    """Yield a new private directory beside ``target``; it becomes ``target`` on success.

    When the block raises, or the rename does, nothing of it is left. Raises AgentError when the
    file system refuses.
    """
    staged = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        make_private_directory(staged)
        yield staged
        put_in_place(staged, target)
    except OSError as error:
        raise cannot_make(target, error) from None
    finally:
        discard(staged)


def cannot_make(directory: Path, error: OSError) -> AgentError:
    """Return the error for a directory of secrets that could not be made."""
    return AgentError(
        f"cannot make {directory}: {error.strerror}; nothing was left behind.",
        hint="Check that the disk has space and that this user may write there, or choose "
        "another place with --dir PATH.",
        status=exits.NOT_PERMITTED,
    )


def closed(file: Path) -> AgentError:
    """Return the error for a file of ``data/DIRECTORY/`` that this user may not read.

    Somebody else made it, or its own mode keeps its owner out, as after a ``chmod`` too many.
    """
    directory = file.parent
    data = shlex.quote(str(directory.parent))
    if all(map(_is_ours, (file, directory, directory.parent))):
        return AgentError(
            f"{file} belongs to this user, and its mode or that of its directory lets nobody read "
            "it; nothing was changed.",
            hint=f"Open it to its owner: `chmod -R u+rwX {data}`.",
            status=exits.NOT_PERMITTED,
        )
    return AgentError(
        f"{file} belongs to another user, and this one may not read it; nothing was changed.",
        hint="Run as that user. Where root made it in a service's directory, give it to the "
        f"service: `sudo chown -R --reference={data} {data}`.",
        status=exits.NOT_PERMITTED,
    )


def _is_ours(path: Path) -> bool:
    """Say whether a path belongs to this user, as far as it lets itself be looked at."""
    try:
        return path.lstat().st_uid == os.geteuid()
    except OSError:  # a directory above it is closed, and is asked itself
        return True
