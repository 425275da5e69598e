"""The watch over the event loop: notices when it stands still, for how long, and in whose code.

While one callback runs, no ping is answered and no timer fires. A loop that stands still for a
second has its device declared dead by the others, and nothing in the loop itself can say why. So a
thread looks at it from outside, twice a second, and fifty times while it has work:

    idle ──(the loop waits in the kernel)──► idle
      │ it runs something: ask for a sign of life
      ▼
    asked ──(the sign comes within 20 ms)──► idle
      │ it does not: look every 10 ms where the loop is
      ▼
    stalled ──(the sign comes)──► told: how long, and the place that was seen most

An idle loop is not woken by this. The cause of a stall is the innermost function of Covey's own on
the loop's stack. A call that holds Python's lock stops this thread too; it then wakes up late, and
finds the loop right behind that call. When a stall would have been none but for the time that the
loop waited for a processor, no code is to blame: the machine was busy, or the process stopped.

A loop that does not turn for half a minute will not turn again: the process is ended, with the
stacks of all threads in the log, and whoever watches over it starts it anew. Time in which this
thread did not run either does not count, so that neither a pause nor a busy machine ends an agent.
A call that holds Python's lock keeps this thread from ending anything. It uses up processor time,
which the kernel measures: half a minute of it without a look from here raises SIGPROF.

Each stall of 520 ms or more is noticed, and while the loop is busy each of 40; of shorter ones,
down to 20 ms, some. Told is how long it was at least. To look more often at an idle loop would cost
as much as the idle agent does: waking a thread is what is dear, not the look.
"""

import asyncio
import asyncio.base_events
import asyncio.runners
import faulthandler
import logging
import os
import selectors
import signal
import sys
import threading
import time
from collections import Counter, deque
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from agent.exits import UNHEALTHY

STALL_S = 0.02
IDLE_INTERVAL_S, BUSY_INTERVAL_S = 0.5, 0.02
BUSY_FOR_S = 0.5
"""How long a loop that was seen at work is looked at more often."""
SAMPLE_S = 0.01
WARNED_S = 0.1
LOG_INTERVAL_S = 60.0
NS_PER_S = 1_000_000_000
STUCK_S = 30.0
"""As in the unit's WatchdogSec, which needs systemd."""
COUNTED_S = 0.1
"""As so much counts at most what passed between two looks."""
WINDING_S = 1.0
"""How often the kernel's measure begins anew."""
REMEMBERED = 256
CAUSES_MAX = 64

MACHINE = "machine"
"""The cause when the process was not given a processor."""
OTHER = "other"
"""The cause of stalls in more places than anybody would look at."""

HERE = Path(__file__).resolve().parents[1]
OURS = tuple(f"{HERE / package}/" for package in ("agent", "edge_apps", "gossip"))
IDLE_FILES = frozenset(
    {selectors.__file__, asyncio.runners.__file__, asyncio.base_events.__file__, threading.__file__}
)
"""Where the stack of a loop that waits ends: in Python's selector, or where uvloop was called."""

log = logging.getLogger(__name__)


class Stall(NamedTuple):
    """A time when the loop stood still: how long at least, where, and when (monotonic) it ended."""

    lasted_s: float
    cause: str
    ended_at: float


class StallWatch:
    """Watches the loop on which ``start`` is called. What it found is read on that loop, too.

    ``counts`` has ``loop_stalls/CAUSE`` and ``loop_stalled_ms/CAUSE``.
    """

    def __init__(self, ours: tuple[str, ...] = OURS) -> None:
        self.counts: Counter[str] = Counter()
        self.recent: deque[Stall] = deque(maxlen=REMEMBERED)
        self.worst: Stall | None = None
        self._ours = ours
        self._ending = False
        self._sleep = threading.Lock()  # acquired for good: taking it again sleeps, releasing wakes
        self._sleep.acquire()
        self._log_after: dict[str, float] = {}
        self._wound_at = 0.0
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch the loop that runs here."""
        self._loop = asyncio.get_running_loop()
        self._watched = threading.get_ident()
        self._queue_times = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
        self._cpu_clock = time.pthread_getcpuclockid(self._watched)
        faulthandler.register(signal.SIGPROF, all_threads=True, chain=True)
        self._wind(time.monotonic())
        self._thread = threading.Thread(target=self._watch, name="loop-watch", daemon=True)
        self._thread.start()

    @property
    def total(self) -> int:
        """How many stalls there were."""
        return sum(n for key, n in self.counts.items() if key.startswith("loop_stalls/"))

    @property
    def worst_s(self) -> float:
        """How long the longest stall lasted; 0 without any."""
        return self.worst.lasted_s if self.worst else 0.0

    def worst_since(self, instant: float) -> Stall | None:
        """Return the longest of the remembered stalls that ended after this monotonic time."""
        since = [stall for stall in self.recent if stall.ended_at >= instant]
        return max(since, default=None)

    def stop(self) -> None:
        """Watch no more. Harmless when called twice."""
        if self._thread is not None:
            self._ending = True
            self._sleep.release()
            self._thread.join()
            self._thread = None
            signal.setitimer(signal.ITIMER_PROF, 0)
            faulthandler.unregister(signal.SIGPROF)

    # ---- in the watching thread -----------------------------------------------------------------

    def _watch(self) -> None:
        interval_s, busy_until = IDLE_INTERVAL_S, 0.0
        while True:
            began, cpu_s = time.monotonic(), time.clock_gettime(self._cpu_clock)
            due = began + interval_s
            if self._sleep.acquire(timeout=interval_s):
                return
            now = time.monotonic()
            self._wind(now)
            # This thread itself may have been kept from looking, by whoever held Python's lock.
            late_s = now - due
            frame = self._frame()
            if late_s < STALL_S and _is_idle(frame):
                interval_s = BUSY_INTERVAL_S if now < busy_until else IDLE_INTERVAL_S
                continue
            causes = Counter([cause_of(frame, self._ours)])
            del frame  # it would keep alive whatever the loop worked with
            queued_s = self._queued_s()
            if not self._wait_for_life(causes):
                return
            ended = time.monotonic()
            interval_s, busy_until = BUSY_INTERVAL_S, ended + BUSY_FOR_S
            if late_s >= STALL_S:
                lasted_s = ended - due
                starved = time.clock_gettime(self._cpu_clock) - cpu_s < STALL_S
            else:
                lasted_s = ended - now
                starved = lasted_s - (self._queued_s() - queued_s) < STALL_S
            if lasted_s >= STALL_S:
                cause = MACHINE if starved else causes.most_common(1)[0][0]
                self._report(Stall(lasted_s, cause, ended))

    def _wait_for_life(self, causes: Counter[str]) -> bool:
        """Wait until the loop turns again, noting where it is; false when this is the end."""
        alive = threading.Event()
        try:
            self._loop.call_soon_threadsafe(alive.set)
        except RuntimeError:  # the loop is closed
            return False
        stuck_s, looked_at = 0.0, time.monotonic()
        while not alive.wait(SAMPLE_S):
            causes[cause_of(self._frame(), self._ours)] += 1
            if self._ending:
                return False
            now = time.monotonic()
            stuck_s += min(now - looked_at, COUNTED_S)
            looked_at = now
            self._wind(now)
            if stuck_s >= STUCK_S:
                _end_process(causes.most_common(1)[0][0])
        return True

    def _wind(self, now: float) -> None:
        """Have the kernel end the process if this thread is kept from looking again."""
        if now - self._wound_at >= WINDING_S:
            self._wound_at = now
            signal.setitimer(signal.ITIMER_PROF, STUCK_S)

    def _queued_s(self) -> float:
        """Return how long the loop's thread waited for a processor since it began, if known."""
        try:
            return int(self._queue_times.read_bytes().split()[1]) / NS_PER_S
        except (OSError, IndexError, ValueError):
            return 0.0  # a kernel that does not count it

    def _frame(self) -> FrameType | None:
        return sys._current_frames().get(self._watched)  # noqa: SLF001 - there is no other way

    def _report(self, stall: Stall) -> None:
        with suppress(RuntimeError):  # the loop is closed, and nobody is left to be told
            self._loop.call_soon_threadsafe(self._record, stall)

    # ---- on the loop ----------------------------------------------------------------------------

    def _record(self, stall: Stall) -> None:
        """Count a stall, and say so once in a while for each place."""
        known = f"loop_stalls/{stall.cause}" in self.counts or len(self.counts) < 2 * CAUSES_MAX
        cause = stall.cause if known else OTHER
        self.counts[f"loop_stalls/{cause}"] += 1
        self.counts[f"loop_stalled_ms/{cause}"] += round(stall.lasted_s * 1000)
        self.recent.append(stall)
        if self.worst is None or stall.lasted_s > self.worst.lasted_s:
            self.worst = stall
        if stall.ended_at >= self._log_after.get(cause, 0.0):
            self._log_after[cause] = stall.ended_at + LOG_INTERVAL_S
            short = logging.DEBUG if cause == MACHINE else logging.INFO
            log.log(short if stall.lasted_s < WARNED_S else logging.WARNING, "%s", describe(stall))


def _end_process(cause: str) -> None:
    """End a process whose event loop is stuck, without any of its manners."""
    log.critical(
        "the event loop is stuck in %s, and the agent ends itself; what was acknowledged is on "
        "disk. Where it is now:",
        cause,
    )
    faulthandler.dump_traceback(all_threads=True)
    os._exit(UNHEALTHY)


def describe(stall: Stall) -> str:
    """Say it in a sentence.

    >>> describe(Stall(0.25, "agent/cluster/kv.py:list", 0.0))
    'the event loop stood still for 250 ms in agent/cluster/kv.py:list'
    """
    where = (
        "because the machine was busy or the process was stopped"
        if stall.cause == MACHINE
        else f"in {stall.cause}"
    )
    return f"the event loop stood still for {stall.lasted_s * 1000:.0f} ms {where}"


def cause_of(frame: FrameType | None, ours: tuple[str, ...] = OURS) -> str:
    """Return the innermost function of ours on a stack, as ``agent/cluster/kv.py:list``.

    Where nothing is ours, the innermost of all, with the last two parts of its file's name.
    """
    innermost = frame
    while frame is not None:
        code = frame.f_code
        for root in ours:
            if code.co_filename.startswith(root):
                beginning = len(root) - len(Path(root).name) - 1
                return f"{code.co_filename[beginning:]}:{code.co_name}"
        frame = frame.f_back
    if innermost is None:
        return OTHER
    code = innermost.f_code
    return f"{'/'.join(Path(code.co_filename).parts[-2:])}:{code.co_name}"


def _is_idle(frame: FrameType | None) -> bool:
    return frame is None or frame.f_code.co_filename in IDLE_FILES
