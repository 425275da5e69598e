"""A disk whose power can be cut: what was not synced is gone, as on a device whose plug is pulled.

SIGKILL loses nothing that a process wrote, for the kernel still has it. Here ext4 lies on a file,
and is told to stop as it is, without its journal being written out (``EXT4_IOC_SHUTDOWN`` with
``NOLOGFLUSH``, Linux 4.10 and newer): then it is mounted again, as after a boot.
"""

import contextlib
import fcntl
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from tests.live.harness.agents import AgentProcess
from tests.live.harness.network import run
from tests.live.harness.waiting import eventually

SHUTDOWN, WITHOUT_THE_JOURNAL = 0x8004587D, 2
"""_IOR('X', 125, __u32), and a flag of it: fs/ext4/ext4.h."""
UNMOUNTED_WITHIN_S = 10.0


def can_cut_disks() -> bool:
    """Tell whether there is what it takes."""
    return shutil.which("mkfs.ext4") is not None and Path("/dev/loop-control").exists()


@contextlib.contextmanager
def shared_mounts(folder: Path) -> Iterator[None]:
    """Have what is mounted below a folder, and taken away, be so on all hosts of a network.

    Each has a mount namespace of its own, which would keep a disk that is gone elsewhere in use.
    """
    run("mount", "--bind", str(folder), str(folder))
    run("mount", "--make-shared", str(folder))
    try:
        yield
    finally:
        run("umount", "--lazy", str(folder))


class CutDisk:
    """A disk of its own at a folder, which is made if need be; use it as a context manager."""

    def __init__(self, folder: Path, mebibytes: int) -> None:
        self.folder = folder
        self._image = folder.with_suffix(".ext4")
        folder.mkdir(parents=True, exist_ok=True)
        with self._image.open("wb") as file:
            file.truncate(mebibytes * 2**20)
        run("mkfs.ext4", "-q", "-F", str(self._image))
        self._mount()

    def _mount(self) -> None:
        run("mount", "-o", "loop", str(self._image), str(self.folder))

    def cut(self) -> None:
        """Stop the disk; all that is asked of it fails from now on."""
        disk = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(disk, SHUTDOWN, struct.pack("I", WITHOUT_THE_JOURNAL))
        finally:
            os.close(disk)

    def boot(self) -> None:
        """Have the disk back, as it was synced; nobody may use it meanwhile."""

        def unmount() -> bool:
            run("umount", str(self.folder))
            return True

        eventually(unmount, bool, UNMOUNTED_WITHIN_S, "nobody uses the disk any more")
        self._mount()

    def __enter__(self) -> Self:
        """Return the disk itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the disk."""
        run("umount", "--lazy", str(self.folder))
        self._image.unlink()


def cut_power(agents: list[AgentProcess], disks: dict[str, CutDisk]) -> None:
    """Pull the plug of these agents, and give them their disks back; they do not run."""
    for agent in agents:
        disks[agent.name].cut()
    for agent in agents:
        agent.kill()
    for agent in agents:
        disks[agent.name].boot()
