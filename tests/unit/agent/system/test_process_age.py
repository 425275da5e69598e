"""How long a process took to its first work, as the kernel and its own clock tell."""

import subprocess
import sys
import time

import pytest

from agent.system import process_age

ASK = """
import time
from agent.system.process_age import first_work_s
first_s = first_work_s()
time.sleep(0.2)
print(first_s, first_work_s())
"""


def test_it_is_measured_once_from_the_call_of_the_process() -> None:
    called = time.monotonic()
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True)
    took_s = time.monotonic() - called
    first_s, again_s = map(float, done.stdout.split())
    assert 0.0 < first_s < took_s - 0.1, "a tick of the kernel is a hundredth of a second"
    assert again_s == first_s


def test_where_nobody_says_it_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_age, "began", str)
    assert process_age.first_work_s.__wrapped__() == 0.0
