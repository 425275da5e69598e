"""A small disk of its own, for an agent to fill."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.live.harness.network import run


@contextlib.contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[None]:
    """Mount a disk of this size at a folder, which is made if need be, for as long as that."""
    folder.mkdir(parents=True, exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "covey-test", str(folder))
    try:
        yield
    finally:
        run("umount", "--lazy", str(folder))


def fill(folder: Path, name: str = "filling") -> Path:
    """Leave no byte free on the disk of a folder; return what takes the room."""
    filling = folder / name
    with contextlib.suppress(OSError), filling.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    assert shutil.disk_usage(folder).free < 4096
    return filling


def fill_to(folder: Path, percent: float, name: str = "filling") -> Path:
    """Have so much of the disk of a folder in use; return what takes the room."""
    filling, found = folder / name, shutil.disk_usage(folder)
    more_bytes = int(found.total * percent / 100) - found.used
    assert more_bytes > 0, "there is less room than that"
    filling.write_bytes(bytes(more_bytes))
    return filling
