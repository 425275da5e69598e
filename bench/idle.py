"""Ten idle agents: memory, processor time and traffic of one of them, beside ten of Serf's.

Each agent has a host of its own on one bridge (tests/live/harness), so the bytes on its cable
are its own: gossip, streams and mDNS together. Nothing is published and no app runs.
"""

import argparse
import functools
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.bytecode import compile_packages
from bench.report import finish, table
from tests.live.harness.fleet import Fleet
from tests.live.harness.network import Host, Network, can_make_networks
from tests.live.harness.waiting import eventually

AGENTS = 10
SETTLE_S = 20.0
MEASURE_S = 60.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SERF_KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
QUIET = "[apps.system]\nenabled = false\n"


class Sample(NamedTuple):
    """Counters of one process at one moment."""

    cpu_s: float
    sent_bytes: int
    sent_packets: int


class Idle(NamedTuple):
    """What an idle agent costs; medians over all of them."""

    rss_mib: float
    cpu_percent: float
    bytes_per_s: float
    packets_per_s: float


def _rss_mib(process: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert found, "a running process has memory"
    return int(found.group(1)) / 1024


def sample(process: int) -> Sample:
    """Return the counters of a process as they are now."""
    # The process sees the network of its own host.
    card = re.search(r"eth0:\s*(.+)", Path(f"/proc/{process}/net/dev").read_text())
    assert card, "every host has one card"
    counters = card.group(1).split()
    return Sample(cpu_s(process), int(counters[8]), int(counters[9]))


def cpu_s(process: int) -> float:
    """Return how many seconds of a processor a process has had."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def measure(processes: Sequence[int], seconds: float, settle_s: float = SETTLE_S) -> Idle:
    """Let the agents rest, then watch them for so many seconds."""
    time.sleep(settle_s)
    before = [sample(process) for process in processes]
    time.sleep(seconds)
    after = [sample(process) for process in processes]
    pairs = list(zip(before, after, strict=True))
    return Idle(
        statistics.median(_rss_mib(process) for process in processes),
        statistics.median(100 * (b.cpu_s - a.cpu_s) / seconds for a, b in pairs),
        statistics.median((b.sent_bytes - a.sent_bytes) / seconds for a, b in pairs),
        statistics.median((b.sent_packets - a.sent_packets) / seconds for a, b in pairs),
    )


def _covey(seconds: float) -> Idle:
    with Fleet() as fleet:
        fleet.form(*(f"node-{number}" for number in range(AGENTS)), toml=QUIET)
        return measure([agent.pid for agent in fleet.agents.values()], seconds)


def _start_serf(host: Host, name: str, first: Host) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [*host.enter(), "serf", "agent", f"-node={name}", f"-bind={host.ipv4}:7946",
         "-iface=eth0", "-discover=bench", f"-retry-join={first.ipv4}", "-retry-interval=1s",
         f"-encrypt={SERF_KEY}"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _serf_alive(host: Host) -> int:
    listed = subprocess.run([*host.enter(), "serf", "members"], capture_output=True, text=True,
                            check=False)  # fmt: skip
    return len(re.findall(r"\balive\b", listed.stdout))


def _serf(seconds: float) -> Idle:
    with Network() as network:
        hosts = [network.add_host() for _ in range(AGENTS)]
        agents = [
            _start_serf(host, f"node-{number}", hosts[0]) for number, host in enumerate(hosts)
        ]
        try:
            for host in hosts:
                alive = functools.partial(_serf_alive, host)
                eventually(alive, AGENTS.__eq__, 30.0, "Serf formed")
            return measure([agent.pid for agent in agents], seconds)
        finally:
            for agent in agents:
                agent.kill()
                agent.wait()


def main() -> None:
    """Measure both, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=MEASURE_S)
    seconds = parser.parse_args().seconds
    compile_packages()  # who compiles at its start keeps 2 MiB of what that took
    if not can_make_networks:
        sys.exit("needs root and iproute2, to give each agent a host of its own")
    contenders: dict[str, Callable[[float], Idle]] = {"covey": _covey, "serf": _serf}
    idle = {name: of(seconds) for name, of in contenders.items()}
    table(
        f"Idle among {AGENTS} members, {seconds:.0f} s",
        ["one agent", "RSS MiB", "% of a core", "bytes sent a second", "packets"],
        [[name, *figures] for name, figures in idle.items()],
    )
    finish("idle", {name: figures._asdict() for name, figures in idle.items()})


if __name__ == "__main__":
    main()
