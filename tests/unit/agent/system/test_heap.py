"""What malloc is told, in a process of its own: it stays told."""

import ctypes
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from agent.system import heap
from tests.support.patience import GIVE_UP_S

GROWN_BY = """
import threading
from agent.system import heap
took = heap.keep_small()
work = [threading.Thread(target=lambda: bytearray(64 * 1024)) for _ in range(4)]
for each in work:
    each.start()
for each in work:
    each.join()
print(took, sum(int(line.split("-")[0], 16) % 2**26 == 0 for line in open("/proc/self/maps")))
"""
"""An arena of a thread begins at a multiple of 64 MiB."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt(3) is glibc's")
def test_threads_share_one_arena() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GROWN_BY],
        capture_output=True,
        text=True,
        check=True,
        timeout=GIVE_UP_S,
    )
    assert done.stdout.split() == ["True", "0"]


def test_another_c_library_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: SimpleNamespace())
    assert not heap.keep_small()
