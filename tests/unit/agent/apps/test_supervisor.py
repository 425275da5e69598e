"""One app's process: real processes, small ones, and the events they give."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from agent.apps.log import AppLog
from agent.apps.states import AppState
from agent.apps.supervisor import RestartTuning, Supervisor
from agent.programs.child import Launch
from tests.support.patience import GIVE_UP_S

QUICK = RestartTuning(pause_first_s=0.01, pause_max_s=0.05, failing_after=3, stop_grace_s=0.3)
PATIENT = RestartTuning(pause_first_s=600, pause_max_s=600)
SLEEP = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SLEEP


class Bench:
    """A supervisor of ``python -c SCRIPT`` with its log and counters."""

    def __init__(self, directory: Path, script: str, tuning: RestartTuning = QUICK) -> None:
        self.counts: Counter[str] = Counter()
        self.log = AppLog(directory / "app.log", self.counts, lambda: 0.0)
        launch = Launch("app", (sys.executable, "-S", "-c", script), dict(os.environ), directory)
        self.app = Supervisor(launch, self.log, self.counts, tuning)

    @property
    def state(self) -> str:
        return self.app.state  # read anew: mypy would remember the last comparison

    def printed(self) -> str:
        return "\n".join(self.log.tail(100))

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(GIVE_UP_S):
            while not holds():  # noqa: ASYNC110 - processes raise no events
                await asyncio.sleep(0.01)


def play(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(2 * GIVE_UP_S):
            await scenario()

    asyncio.run(limited())


def exists(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_starts_and_stops(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path, SLEEP)
        await bench.app.start()
        await bench.app.start()  # again changes nothing
        pid = bench.app.pid
        assert pid
        assert bench.state == AppState.RUNNING
        await bench.until(lambda: "up" in bench.printed())
        await bench.app.stop()
        assert bench.state == AppState.STOPPED
        assert bench.app.pid is None
        assert not exists(pid)
        assert bench.app.last_end == "ended by SIGTERM"
        assert bench.counts == {"apps/started": 1}
        await bench.app.stop()
        await bench.app.start()
        assert bench.state == AppState.RUNNING
        await bench.app.stop()

    play(scenario)


def test_an_app_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path, STUBBORN)
        await bench.app.start()
        await bench.until(lambda: "up" in bench.printed())
        await bench.app.stop()
        assert bench.app.last_end == "ended by SIGKILL"
        assert bench.counts["apps/killed"] == 1
        assert "did not stop within" in bench.printed()

    play(scenario)


def test_crashes_are_restarted_and_shown(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path, "raise SystemExit('no sensor')")
        await bench.app.start()
        await bench.until(lambda: bench.state == AppState.FAILING)
        assert bench.app.restarts >= QUICK.failing_after - 1
        assert bench.app.last_end == "ended with exit status 1"
        assert "no sensor" in bench.printed()
        await bench.app.stop()
        assert bench.state == AppState.STOPPED
        assert bench.counts["apps/crashed"] == bench.counts["apps/started"]

    play(scenario)


def test_the_pause_doubles_up_to_its_limit_and_begins_again_after_a_good_run(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, "", RestartTuning(pause_first_s=1, pause_max_s=10, healthy_s=60))
    app = bench.app
    pauses = []
    for ran_s in (0.1, 0.1, 0.1, 0.1, 0.1, 61.0, 0.1):
        app._crashed(ran_s)
        pauses.append(app._pause_s())
    assert pauses == [1, 2, 4, 8, 10, 1, 2]


def test_start_and_stop_during_the_pause(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path, "raise SystemExit(1)", PATIENT)
        await bench.app.start()
        await bench.until(lambda: bench.state == AppState.WAITING)
        await bench.app.start()  # does not wait for ten minutes
        assert bench.counts["apps/started"] == 2
        await bench.until(lambda: bench.state == AppState.WAITING)
        await bench.app.stop()
        assert bench.state == AppState.STOPPED

    play(scenario)


def test_an_app_that_completes_stays_finished(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path, "print('done')")
        await bench.app.start()
        await bench.until(lambda: bench.state == AppState.FINISHED)
        assert "done" in bench.printed()
        await bench.app.start()
        await bench.until(lambda: bench.counts["apps/completed"] == 2)
        await bench.app.stop()
        assert bench.state == AppState.STOPPED

    play(scenario)


def test_a_command_that_cannot_be_started_is_a_crash(tmp_path: Path) -> None:
    async def scenario() -> None:
        counts: Counter[str] = Counter()
        log = AppLog(tmp_path / "x.log", counts, lambda: 0.0)
        launch = Launch("app", (str(tmp_path / "none"),), {}, tmp_path)
        app = Supervisor(launch, log, counts, PATIENT)
        await app.start()
        assert "could not be started" in app.last_end
        await app.stop()
        assert app.state is AppState.STOPPED

    play(scenario)


def test_children_of_an_app_end_with_it(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, time;"
        "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)']);"
        "print('child', child.pid, flush=True); time.sleep(600)"
    )

    async def scenario() -> None:
        bench = Bench(tmp_path, script)
        await bench.app.start()
        await bench.until(lambda: "child" in bench.printed())
        child = int(bench.printed().split("child ")[1].split()[0])
        assert exists(child)
        await bench.app.stop()
        await bench.until(lambda: not exists(child))

    play(scenario)
