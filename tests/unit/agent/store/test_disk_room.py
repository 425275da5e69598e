"""When a disk is nearly full, and when it has room again."""

import os
from pathlib import Path

import pytest

from agent.store.disk_room import DiskRoom, used_percent


def room(percent_max: float = 95.0) -> tuple[DiskRoom, list[bool]]:
    told: list[bool] = []
    return DiskRoom(Path("/nowhere"), percent_max, told.append), told


def test_one_percent_less_is_room_again() -> None:
    watched, told = room()
    for used in (95.0, 95.1, 99.9, 94.1, 95.2, 94.0, 94.9, 95.0):
        watched.look(used)
    assert told == [True, False], "at the mark, and below it by less, nothing changes"
    assert watched.used_percent == 95.0


def test_a_mark_of_all_is_none() -> None:
    watched, told = room(100.0)
    watched.look(100.0)
    assert not told
    assert not watched.is_short


def test_what_is_kept_for_root_is_not_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fields = list(os.statvfs(tmp_path))
    # f_blocks, f_bfree, f_bavail: a tenth is kept for root, and all that others may use is used.
    fields[2:5] = [1000, 100, 0]
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(fields))
    assert used_percent(tmp_path) == 100.0
    fields[2:5] = [1000, 550, 450]
    assert used_percent(tmp_path) == 50.0
