"""What SQLite is told about its page caches, in processes of their own: it stays told."""

import ctypes
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.store import page_caches
from tests.support.patience import GIVE_UP_S

OF_CONNECTIONS = """
import ctypes
from agent.store import page_caches
took = {told}
import sqlite3
used = ctypes.CDLL(page_caches.find_spec("_sqlite3").origin).sqlite3_memory_used
used.restype = ctypes.c_int64
connections = [sqlite3.connect({file!r}) for _ in range({connections})]
for each in connections:
    each.execute("SELECT count(*) FROM sqlite_schema").fetchone()
print(took, used())
"""
CONNECTIONS, PAGE_BYTES = 10, 4096


def memory(file: Path, told: str) -> tuple[bool, int]:
    """Return whether SQLite took what it was told, and the bytes that it uses then."""
    program = OF_CONNECTIONS.format(told=told, file=str(file), connections=CONNECTIONS)
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=GIVE_UP_S,
    )
    took, used_bytes = done.stdout.split()
    return took == "True", int(used_bytes)


def test_a_connection_takes_no_room_for_what_it_has_not_read(tmp_path: Path) -> None:
    _, usual_bytes = memory(tmp_path / "some.db", "None")
    took, told_bytes = memory(tmp_path / "some.db", "page_caches.keep_small()")
    assert took, "SQLite is a library that can be spoken to, wherever this is tested"
    assert usual_bytes - told_bytes > CONNECTIONS * 15 * PAGE_BYTES


def test_it_comes_too_late_for_who_has_loaded_sqlite(tmp_path: Path) -> None:
    took, _ = memory(tmp_path / "some.db", "__import__('sqlite3') and page_caches.keep_small()")
    assert not took


def test_an_sqlite_that_is_part_of_python_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: SimpleNamespace())
    assert not page_caches.keep_small()
