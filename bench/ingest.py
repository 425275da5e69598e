"""How long the event loop stands still while much arrives, or is asked for, at once.

A whole agent runs in this process, and a heart beats on its loop a thousand times a second. What
comes in, and who asks, comes from another process over the agent's Unix socket. Each figure is of
the time between two beats, less the pause between them: what a ping would have waited. Because
neighbours on the machine delay a beat as well, the same is told in the loop's own processor time.
"""

import asyncio
import gc
import gzip
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from agent.agent import Agent
from agent.config.loader import load
from agent.config.paths import Paths
from bench.report import finish, table
from edge_apps.client import ApiError, Client

MIB = 1024 * 1024
BODY_BYTES = 8 * MIB
BEAT_S = 0.001
COUNTED = "loop_stalls/"
SETTINGS = "[network]\nmdns = false\n[telemetry]\nwaiting_max = 9000000\n"
REQUEST_S = 600.0
KIBIBYTES_PER_MEBIBYTE = 1024

CPU = (
    b"cpu,cpu=cpu0,host=greenhouse-7 usage_user=2.1,usage_system=0.4,usage_idle=97.5"
    b" 1700000000000000000\n"
)
ITEM = b'{"sensor":"greenhouse/temperature","value":21.5,"unit":"C","tags":{"bay":"2"}}'


class Load(NamedTuple):
    """One request: what is sent where, and with what headers."""

    name: str
    method: str
    target: str
    body: bytes | None = None
    headers: dict[str, str] = {}  # noqa: RUF012 - nobody changes it


def filled(line: bytes, size_bytes: int = BODY_BYTES) -> bytes:
    """Return so many bytes of whole lines."""
    return line * (size_bytes // len(line))


def listed(items: int) -> bytes:
    """Return a JSON list of so many readings."""
    return b"[" + b",".join([ITEM] * items) + b"]"


READINGS = "/api/v1/readings"
PACKED = {"Content-Encoding": "gzip"}
LOADS = (
    Load("8 MiB of Telegraf's lines", "POST", "/write", filled(CPU)),
    Load("8 MiB of the shortest lines", "POST", "/write", filled(b"m v=1\n")),
    Load("8 MiB of bad lines", "POST", "/write", filled(b"m\n")),
    Load("8 MiB of blank lines", "POST", "/write", filled(b"\n")),
    Load("8 MiB in a gzip", "POST", "/write", gzip.compress(filled(CPU)), PACKED),
    Load("10,000 readings as JSON", "POST", READINGS, listed(10_000)),
    Load("100,000 readings as JSON, refused", "POST", READINGS, listed(100_000)),
    Load("10,000 readings listed", "GET", f"{READINGS}?limit=10000"),
    Load("a search that finds nothing", "GET", f"{READINGS}?sensor=nobody"),
    Load("metrics", "GET", "/metrics"),
    Load("doctor", "GET", "/api/v1/doctor"),
)


class Beats(NamedTuple):
    """What was measured while a request was answered."""

    lasted_s: float
    late_s: list[float]
    worked_s: list[float]

    @property
    def p99_ms(self) -> float:
        """Of the lateness."""
        return statistics.quantiles(self.late_s, n=100)[98] * 1000 if len(self.late_s) > 1 else 0.0

    @property
    def worst_ms(self) -> float:
        """The latest beat."""
        return max(self.late_s, default=0.0) * 1000

    @property
    def worst_worked_ms(self) -> float:
        """The most that the loop's thread worked between two beats."""
        return max(self.worked_s, default=0.0) * 1000


async def beat(late_s: list[float], worked_s: list[float]) -> None:
    """Note how late each beat is, and how long the loop's thread worked between two."""
    while True:
        began, worked = time.perf_counter(), time.thread_time()
        await asyncio.sleep(BEAT_S)
        late_s.append(time.perf_counter() - began - BEAT_S)
        worked_s.append(time.thread_time() - worked)


async def measure(load: Load, socket: Path) -> Beats:
    """Let another process make the request, and listen to the heart meanwhile."""
    late_s: list[float] = []
    worked_s: list[float] = []
    with tempfile.NamedTemporaryFile() as body:
        body.write(load.body or b"")
        body.flush()
        asker = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.ingest", load.method, load.target, body.name, str(socket),
            *(f"{name}:{value}" for name, value in load.headers.items()),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert asker.stdout is not None
        assert asker.stdin is not None
        await asker.stdout.readline()  # it has read the body, and waits for us
        beating = asyncio.create_task(beat(late_s, worked_s))
        began = time.perf_counter()
        asker.stdin.write(b"go\n")
        await asker.stdout.readline()
        lasted_s = time.perf_counter() - began
        beating.cancel()
        asker.stdin.close()
        await asker.wait()
    return Beats(lasted_s, late_s, worked_s)


def ask(method: str, target: str, body: str, socket: str, *headers: str) -> None:
    """Make one request, in a process of its own."""
    data = Path(body).read_bytes() or None
    path, _, query = target.partition("?")
    pairs = dict(pair.split("=") for pair in query.split("&") if pair)
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        Client(socket, timeout_s=REQUEST_S).request(
            method, path, query=pairs, body=data, headers=dict(h.split(":") for h in headers)
        )
    except ApiError as error:
        print(error.status, flush=True)
    else:
        print("done", flush=True)


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[Agent, Path]]:
    """Run an agent that is a covey by itself."""
    from agent.identity.identity import found

    paths = Paths.find(folder)
    paths.create()
    (folder / "covey.toml").write_text(SETTINGS)
    found(paths.identity, "bench", "node")
    agent = Agent(load(paths), paths)
    task = asyncio.create_task(agent.run())
    while not paths.socket.exists():  # noqa: ASYNC110 - a file is waited for
        await asyncio.sleep(0.05)
    await asyncio.to_thread(Client(paths.socket, timeout_s=60).get, "/api/v1/status")
    try:
        yield agent, paths.socket
    finally:
        await agent.leave()
        await task


def peak_mib() -> float:
    """Return the most memory that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIBIBYTES_PER_MEBIBYTE


async def main() -> None:
    """Measure and print."""
    gc.freeze()  # as an agent does (agent/process.py)
    results: list[tuple[Load, Beats]] = []
    with tempfile.TemporaryDirectory() as name:
        async with running(Path(name)) as (agent, socket):
            before_mib = peak_mib()
            for load in LOADS:
                await asyncio.sleep(0.5)
                results.append((load, await measure(load, socket)))
            stalls = dict(agent.stalls.counts)
    table(
        "Stalls of the event loop, in milliseconds",
        ("while", "seconds", "p99", "worst", "worst, own processor time"),
        [
            (load.name, beats.lasted_s, beats.p99_ms, beats.worst_ms, beats.worst_worked_ms)
            for load, beats in results
        ],
    )
    print(f"memory: {before_mib:.0f} MiB before, {peak_mib():.0f} MiB at most")
    seen = [f"{key} {count}" for key, count in sorted(stalls.items()) if key.startswith(COUNTED)]
    print("the watch saw:", ", ".join(seen) or "nothing")
    first = results[0][1]
    finish(
        "ingest",
        {
            "stall_p99_ms": round(first.p99_ms, 2),
            "stall_worst_ms": round(first.worst_ms, 2),
            "stall_worst_worked_ms": round(max(b.worst_worked_ms for _, b in results), 2),
            "seconds_8_mib": round(first.lasted_s, 2),
            "memory_grown_mib": round(peak_mib() - before_mib),
        },
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        ask(*sys.argv[1:])
    else:
        asyncio.run(main())
