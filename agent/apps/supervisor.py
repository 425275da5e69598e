"""One app's process: started, watched, restarted, and surely ended.

The process leads a group of its own, so that what it starts ends with it. Its stdin is a pipe
that the agent holds and never writes to: when the agent dies, by whatever means, the pipe ends
and the app goes too (``edge_apps/runner.py`` watches it).

A crash is followed by a pause that doubles from one second to one minute; an app that ran
well for a while begins again with the short one.
"""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from agent.apps.log import AppLog
from agent.apps.states import TRANSITIONS, AppEvent, AppState
from agent.loop import watched
from agent.programs.child import OUTPUT_END_S, AsThisUser, ChildProcess, Launch, Starter, start

OUTPUT_BYTES = 64 * 1024
OUTPUT_BYTES_PER_S_MAX = 1024 * 1024


class RestartTuning(NamedTuple):
    """When a crashed app is started again, and how long a stopped one may take."""

    pause_first_s: float = 1.0
    pause_max_s: float = 60.0
    healthy_s: float = 60.0  # having run this long, a crash counts as the first again
    failing_after: int = 5  # crashes in a row that make an app FAILING
    stop_grace_s: float = 10.0  # from SIGTERM to SIGKILL


class Supervisor:
    """Keeps one app running between ``start`` and ``stop``.

    Both are safe to call in any state and return when it is so: the process has been started,
    or is gone. ``counts`` gets ``apps/started``, ``apps/completed``, ``apps/crashed`` and
    ``apps/killed`` (needed SIGKILL). ``on_move`` is called after each change of the state.
    """

    def __init__(
        self,
        launch: Launch,
        log: AppLog,
        counts: Counter[str],
        tuning: RestartTuning | None = None,
        wall_clock: Callable[[], float] = time.time,
        on_move: Callable[[], None] = lambda: None,
        starter: Starter | None = None,
    ) -> None:
        self.state = AppState.STOPPED
        self.changed_at = wall_clock()
        self.pid: int | None = None
        self.restarts = 0
        self.last_end = ""
        self._launch = launch
        self._log = log
        self._counts = counts
        self._tuning = tuning or RestartTuning()
        self._wall_clock = wall_clock
        self._on_move = on_move
        self._starter = starter or AsThisUser()
        self._failures = 0
        self._command = asyncio.Lock()  # start and stop take turns
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()  # set by a start during the pause after a crash
        self._settled = asyncio.Event()  # the first start attempt has been made
        self._life: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the app, at once if it was waiting to be started again."""
        async with self._command:
            if self.state is AppState.RUNNING:
                return
            self._failures = 0
            self._settled.clear()
            if self._life is not None and not self._life.done():
                self._hurry.set()
            else:
                self._stop.clear()
                self._life = watched.start("app-supervisor", self._live)
            await self._settled.wait()

    async def stop(self) -> None:
        """End the app: SIGTERM, and SIGKILL for what is left after the grace."""
        async with self._command:
            self._stop.set()
            if self._life is not None:
                await self._life
                self._life = None
            if self.state is AppState.FINISHED:
                self._move(AppEvent.STOP)

    async def _live(self) -> None:
        """Start the process again and again until it completes or is stopped."""
        while True:
            self._move(AppEvent.START)
            event = await self._run_or_crash()
            self._move(event)
            if event in (AppEvent.ENDED, AppEvent.COMPLETED):
                return
            if await self._pause():
                self._move(AppEvent.STOP)
                return
            self.restarts += 1

    async def _run_or_crash(self) -> AppEvent:
        """Run one process; a failure of ours on the way counts as a crash, and is no end."""
        try:
            return await self._run_once()
        except Exception as error:  # noqa: BLE001 - whatever it is, the app is to be started again
            watched.report("app-supervisor", error)
            self.last_end = f"was lost: {error}"
            return AppEvent.ENDED if self.state is AppState.STOPPING else self._crashed(0.0)

    async def _run_once(self) -> AppEvent:
        """Run one process from start to end; return what that means for the app."""
        began = time.monotonic()
        try:
            process = await self._spawn()
        except OSError as error:
            self.last_end = f"could not be started: {error}"
            self._log.record(self.last_end)
            return self._crashed(0.0)
        finally:
            self._settled.set()
        copying = watched.start("app-output", partial(self._copy_output, process))
        try:
            stopped = await self._watch(process)
        finally:
            await self._clear_up(process, copying)
        status = await process.wait()
        return self._judge(status, time.monotonic() - began, stopped=stopped)

    async def _spawn(self) -> ChildProcess:
        process = await start(self._starter, self._launch, merged=True)
        self.pid = process.pid
        self._counts["apps/started"] += 1
        self._log.record(f"started, process {process.pid}")
        return process

    async def _watch(self, process: ChildProcess) -> bool:
        """Wait for the end of the process, ending it when told to; say whether we were told."""
        ended = asyncio.create_task(process.wait(), name="app end")
        told = asyncio.create_task(self._stop.wait(), name="app stop")
        try:
            await asyncio.wait({ended, told}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                return False
            self._move(AppEvent.STOP)
            process.signal_group(signal.SIGTERM)
            await asyncio.wait({ended}, timeout=self._tuning.stop_grace_s)
            if not ended.done():
                self._counts["apps/killed"] += 1
                self._log.record(f"did not stop within {self._tuning.stop_grace_s:g} s: killed")
                process.signal_group(signal.SIGKILL)
                await ended
            return True
        finally:
            ended.cancel()
            told.cancel()

    async def _clear_up(self, process: ChildProcess, copying: asyncio.Task[None]) -> None:
        """End what the app left behind: its children, and our readers of its output.

        The group outlives its leader as long as it has members, so its number still means it.
        """
        process.signal_group(signal.SIGKILL)
        await process.wait()
        self.pid = None
        await asyncio.wait({copying}, timeout=OUTPUT_END_S)
        copying.cancel()
        process.close()

    async def _copy_output(self, process: ChildProcess) -> None:
        while data := await process.stdout.read(OUTPUT_BYTES):
            self._log.feed(data)
            # An app that prints without end waits for us, and not the agent's loop for it.
            await asyncio.sleep(len(data) / OUTPUT_BYTES_PER_S_MAX)

    def _judge(self, status: int, ran_s: float, *, stopped: bool) -> AppEvent:
        self.last_end = _describe(status)
        if stopped:
            self._log.record("stopped")
            return AppEvent.ENDED
        if status == 0:
            self._counts["apps/completed"] += 1
            self._log.record("completed")
            return AppEvent.COMPLETED
        return self._crashed(ran_s)

    def _crashed(self, ran_s: float) -> AppEvent:
        self._counts["apps/crashed"] += 1
        self._failures = 1 if ran_s >= self._tuning.healthy_s else self._failures + 1
        self._log.record(f"{self.last_end} after {ran_s:.0f} s; again in {self._pause_s():g} s")
        if self._failures >= self._tuning.failing_after:
            return AppEvent.CRASHED_AGAIN
        return AppEvent.CRASHED

    def _pause_s(self) -> float:
        doublings = min(self._failures - 1, 30)
        return min(self._tuning.pause_max_s, self._tuning.pause_first_s * 2.0**doublings)

    async def _pause(self) -> bool:
        """Wait until the next start is due; say whether the app was stopped meanwhile."""
        self._hurry.clear()
        waits = {
            asyncio.create_task(event.wait(), name="app pause")
            for event in (self._stop, self._hurry)
        }
        await asyncio.wait(waits, timeout=self._pause_s(), return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        return self._stop.is_set()

    def _move(self, event: AppEvent) -> None:
        self.state = TRANSITIONS[self.state, event]
        self.changed_at = self._wall_clock()
        self._on_move()


def _describe(status: int) -> str:
    """Say how a process ended, in words."""
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"ended by signal {-status}"
