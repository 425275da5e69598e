"""Cold start of the command line, beside a Python that does nothing and one that imports click.

Each figure is the median of many fresh processes, started one after the other, with warm files:
what a person waits for when the command was used lately.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.bytecode import compile_packages
from bench.report import finish, table

RUNS = 30
COVEY = str(Path(sys.executable).with_name("covey"))
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "python -c 'import click'": [sys.executable, "-c", "import click"],
    "covey --version": [COVEY, "--version"],
    "covey --help": [COVEY, "--help"],
    "covey kv --help": [COVEY, "kv", "--help"],
    "covey members (no agent)": [COVEY, "members"],
}


def _milliseconds(command: list[str], environment: dict[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return (time.perf_counter() - started) * 1000


def main() -> None:
    """Measure each command; the rounds are interleaved, so that all share the weather."""
    compile_packages()
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "COVEY_DIR": folder}
        taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
        for _ in range(RUNS + 1):
            for name, command in COMMANDS.items():
                taken[name].append(_milliseconds(command, environment))
    # The first round only warms the files.
    figures = {name: (statistics.median(ms[1:]), min(ms[1:])) for name, ms in taken.items()}
    rows = [[name, median, best] for name, (median, best) in figures.items()]
    table("Cold start", ["milliseconds", "median", "best"], rows)
    finish("cli", {f"{name} ms": round(median, 1) for name, (median, _) in figures.items()})


if __name__ == "__main__":
    main()
