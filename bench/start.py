"""Processor time that an agent takes until it is ready, beside its libraries alone.

An agent is ready when it tells systemd so: its sockets are bound, its stores open, its API answers.
On a small device these seconds of a core are what a reboot costs. The rounds are interleaved, so
that all share the weather; processor time is read from the kernel, to the microsecond or so.
"""

import os
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.bytecode import compile_packages
from bench.report import finish, table

RUNS = 15
COVEY = str(Path(sys.executable).with_name("covey"))
LIBRARIES = "import asyncio, ssl, sqlite3, msgspec, click, zeroconf, cryptography.x509"
READY_WITHIN_S = 120.0
NS_PER_S = 1_000_000_000
SETTINGS = '[network]\nbind = ["127.0.0.1"]\nport = 27747\ninterfaces = ["127.0.0.1"]\n'
# A port that no other agent of this machine uses.
"""Alone, on the loopback: who else is there does not belong to the start."""


def _cpu_s(process: int) -> float:
    """Return the processor time of all threads of a process."""
    tasks = Path(f"/proc/{process}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / NS_PER_S


def _modules(folder: Path) -> int:
    """Return how many modules an agent has loaded when it is ready, as its own process counts."""
    program = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom agent.agent import Agent\n"
        "from agent.config.loader import load\nfrom agent.config.paths import Paths\n"
        f"paths = Paths.find(Path({str(folder)!r}))\nagent = Agent(load(paths), paths)\n"
        "stop = agent._waiting.stopping.set\n"
        "agent._notifier.ready = lambda _: (print(len(sys.modules)), stop())\n"
        "asyncio.run(agent.run())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def _agent_s(folder: Path) -> float:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        address = folder / "notify.sock"
        address.unlink(missing_ok=True)
        told.bind(str(address))
        told.settimeout(READY_WITHIN_S)
        process = subprocess.Popen(
            [COVEY, "--dir", str(folder), "run"],
            env={**os.environ, "NOTIFY_SOCKET": str(address)},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            while b"READY=1" not in told.recv(4096):
                pass
            return _cpu_s(process.pid)
        finally:
            process.kill()
            process.wait()


def _python_s(program: str) -> float:
    before = os.times()
    subprocess.run([sys.executable, "-c", program], check=True)
    after = os.times()
    used = after.children_user - before.children_user
    return used + after.children_system - before.children_system


def main() -> None:
    """Measure the agent and its libraries in turns."""
    compile_packages()
    with tempfile.TemporaryDirectory(prefix="covey-") as made:
        folder = Path(made)
        (folder / "covey.toml").write_text(SETTINGS)
        subprocess.run(
            [COVEY, "--dir", made, "init", "bench", "--node-name", "one"],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        found: dict[str, list[float]] = {"libraries": [], "agent": []}
        for _ in range(RUNS + 1):
            found["libraries"].append(_python_s(LIBRARIES))
            found["agent"].append(_agent_s(folder))
        modules = _modules(folder)
    # The first round only warms the files.
    seconds = {name: statistics.median(each[1:]) for name, each in found.items()}
    ratio = seconds["agent"] / seconds["libraries"]
    table(
        f"Processor time of a start, medians of {RUNS}",
        ["what", "seconds of a core"],
        [["python that imports Covey's libraries", seconds["libraries"]],
         ["`covey run` until it is ready", seconds["agent"]],
         ["ratio", ratio]],
    )  # fmt: skip
    finish("start", {
        **{f"{name}_cpu_s": round(each, 3) for name, each in seconds.items()},
        "ratio": round(ratio, 2), "modules": modules,
    })  # fmt: skip


if __name__ == "__main__":
    main()
