"""The watch over the loop: what stands still is noticed, measured, and put down to its cause."""

import asyncio
import doctest
import logging
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.exits import UNHEALTHY
from agent.loop import stalls
from agent.loop.stalls import MACHINE, OTHER, Stall, StallWatch, cause_of
from tests.support.patience import GIVE_UP_S

HERE = f"{Path(__file__).resolve().parent}/"
RUNNERS: list[Callable[..., None]] = [asyncio.run]
try:
    import uvloop

    RUNNERS.append(uvloop.run)
except ImportError:
    pass


def stand_still(watch: "Sampled") -> None:
    """Hold the loop, asleep, until the watch has looked at it several times."""
    seen = len(watch.samples)
    while len(watch.samples) < seen + 4:
        time.sleep(0.03)


class Sampled(StallWatch):
    """Tells how often it looked while the loop did not answer."""

    def __init__(self) -> None:
        super().__init__((HERE,))
        self.samples: list[str] = []

    def _frame(self):  # type: ignore[no-untyped-def]
        frame = super()._frame()
        if frame is not None and frame.f_code.co_name == "stand_still":
            self.samples.append("seen")
        return frame


async def stand_still_until_told(watch: "Sampled") -> None:
    """A neighbour may have the processor meanwhile: then the machine is blamed, and rightly."""
    while not any("stand_still" in key for key in watch.counts):
        stand_still(watch)
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("run", RUNNERS)
def test_a_loop_that_stands_still_is_noticed_with_its_cause(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    watch = Sampled()

    async def main() -> None:
        watch.start()
        await stand_still_until_told(watch)
        watch.stop()

    with caplog.at_level(logging.INFO, "agent.loop.stalls"):
        run(main())
    cause = "loop/test_stalls.py:stand_still"
    assert watch.counts[f"loop_stalls/{cause}"] >= 1
    assert watch.counts[f"loop_stalled_ms/{cause}"] >= 20
    worst = next(stall for stall in watch.recent if stall.cause == cause)
    assert watch.worst is not None
    assert watch.worst.lasted_s >= worst.lasted_s >= stalls.STALL_S
    assert f"stood still for {worst.lasted_s * 1000:.0f} ms in {cause}" in caplog.text


def test_an_idle_loop_is_not_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch looks, sees a loop that waits in the kernel, and asks it nothing."""
    watch = StallWatch()
    looked = threading.Event()
    looks = [0]
    frame = watch._frame

    def count() -> object:
        looks[0] += 1
        if looks[0] >= 20:
            looked.set()
        return frame()

    monkeypatch.setattr(watch, "_frame", count)
    asked: list[object] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        watch.start()
        answered = await loop.run_in_executor(None, looked.wait, 60)
        assert answered
        watch.stop()

    def wait(causes: object) -> bool:
        asked.append(causes)
        return True

    monkeypatch.setattr(watch, "_wait_for_life", wait)
    asyncio.run(main())
    assert len(asked) < looks[0] / 2, "at its beginning and end the loop may have been at work"


def test_the_cause_is_the_innermost_function_of_ours() -> None:
    found: list[str] = []

    class Selector(selectors.BaseSelector):
        def register(self, *_: object) -> selectors.SelectorKey:
            found.append(cause_of(sys._getframe(), (f"{Path(stalls.__file__).parent}/",)))
            found.append(cause_of(sys._getframe(), (HERE,)))
            raise KeyError

        def unregister(self, *_: object) -> selectors.SelectorKey:
            return self.register()

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            return []

        def get_map(self) -> dict[object, selectors.SelectorKey]:  # type: ignore[override]
            return {}

    with pytest.raises(KeyError):
        Selector().register(0, 0)
    assert found[0] == "loop/test_stalls.py:register", "nothing there is ours: the innermost of all"
    assert found[1] == "loop/test_stalls.py:register"
    assert cause_of(None) == OTHER


def test_places_are_bounded_and_each_is_logged_once_in_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch = StallWatch()
    with caplog.at_level(logging.INFO, "agent.loop.stalls"):
        for number in range(stalls.CAUSES_MAX + 50):
            watch._record(Stall(0.03, f"agent/x.py:f{number}", 100.0))
        for _ in range(10):
            watch._record(Stall(0.5, MACHINE, 101.0))
    assert len([key for key in watch.counts if key.startswith("loop_stalls/")]) <= 65
    assert watch.counts[f"loop_stalls/{OTHER}"] == 60
    assert watch.total == stalls.CAUSES_MAX + 60
    assert (watch.worst_s, watch.worst_since(100.5)) == (0.5, Stall(0.5, MACHINE, 101.0))
    assert watch.worst_since(200.0) is None
    assert len(caplog.messages) == stalls.CAUSES_MAX + 1


def test_a_loop_that_is_closed_ends_the_watch() -> None:
    watch = StallWatch()

    async def main() -> None:
        watch.start()

    asyncio.run(main())
    watch.stop()
    watch.stop()


def test_the_example() -> None:
    assert doctest.testmod(stalls).attempted > 0
    assert doctest.testmod(stalls).failed == 0


STUCK = """
import asyncio, logging, re, sys, time
from agent.loop import stalls
stalls.STUCK_S, stalls.COUNTED_S, stalls.WINDING_S = 0.3, 0.02, 0.05
stalls.IDLE_INTERVAL_S = 0.05  # it looks more often than a loop may be stuck, as always
logging.basicConfig()

async def main():
    watch = stalls.StallWatch()
    watch.start()
    await asyncio.sleep(0.01)
    {how}

asyncio.run(main())
"""
ENDS = {
    "in Python": ("while True: pass", UNHEALTHY),
    "asleep": ("time.sleep(3600)", UNHEALTHY),
    "in C, with Python's lock": ("re.match('(a*)*b', 'a' * 60)", -signal.SIGPROF),
}
"""How a loop may be stuck, and what ends its process."""


@pytest.mark.parametrize(("how", "status"), ENDS.values(), ids=ENDS)
def test_a_stuck_loop_ends_its_process(how: str, status: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STUCK.format(how=how)],
        check=False, capture_output=True, text=True, timeout=GIVE_UP_S,
    )  # fmt: skip
    assert done.returncode == status
    assert "in main" in done.stderr, "it says where"


def test_a_pause_of_the_whole_process_is_no_stuck_loop() -> None:
    """A debugger, a container that is paused, a machine that swaps: it goes on afterwards."""
    how = "print('ready', flush=True); [await asyncio.sleep(0.01) for _ in range(100)]"
    with subprocess.Popen(
        [sys.executable, "-c", STUCK.format(how=how)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.0)  # three times as long as a loop may be stuck here
        process.send_signal(signal.SIGCONT)
        assert process.wait(GIVE_UP_S) == 0
