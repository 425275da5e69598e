"""What devices agree on, beside etcd: writes, linearizable reads, a leader's death, disk, memory.

Three agents that vote and three members of etcd 3.4 take turns on this machine, round by round,
and the median of the rounds counts. The same clients ask both over HTTP with JSON, spread over the
three.
With ``--joining``, so many devices start at once, beside as many of Serf's; with ``--followers``,
so many copy what three agree on (``followers.py``).
"""

import argparse
import asyncio
import re
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from bench import trials
from bench.agreeing import CoveyTrio, EtcdTrio, Trio, eventually, kill
from bench.contenders import CONTENDERS
from bench.followers import Leading, lead
from bench.http_load import Load, RefusedError, ask_once, measure
from bench.report import finish, table
from tests.live.harness.neighbours import many_neighbours
from tests.live.harness.network import can_make_networks

CLIENTS = (1, 64)
KEYS = 1000
TRIOS: tuple[Callable[[], Trio], ...] = (CoveyTrio, EtcdTrio)
SECONDS_PER_HOUR = 3600
ASK_EVERY_S = 0.01
FAILED_OVER_S = 60.0

R = TypeVar("R")


class Lengths(NamedTuple):
    """How thorough a run is."""

    rounds: int
    load_s: float
    idle_s: float
    failovers: int


THOROUGH = Lengths(rounds=3, load_s=8.0, idle_s=60.0, failovers=3)
QUICK = Lengths(rounds=1, load_s=4.0, idle_s=20.0, failovers=1)


class Round(NamedTuple):
    """One system in one round."""

    writes: dict[int, Load]
    reads: dict[int, Load]
    write_bytes: dict[int, float]
    """Bytes to the disk for each write, of all three together, by the number of clients."""
    idle_bytes_per_h: float
    """Of one member that leads nothing in particular: the mean of the three."""
    rss_mib: float
    failover_s: float


def written_bytes(trio: Trio) -> int:
    """Return how many bytes the members have had written to the disk since they started."""
    total = 0
    for process in trio.processes:
        counters = Path(f"/proc/{process.pid}/io").read_text(encoding="ascii")
        total += int(dict(line.split(": ") for line in counters.splitlines())["write_bytes"])
    return total


def rss_mib(trio: Trio) -> float:
    """Return what a member holds: the mean of the three."""
    sizes = [
        int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{each.pid}/status").read_text())[1])
        for each in trio.processes
    ]
    return statistics.mean(sizes) / 1024


def key(client: int, asked: int) -> str:
    """Return one of a thousand keys; each client goes its own way through them."""
    return f"bench/{(client * 7919 + asked) % KEYS:04}"


def run_round(trio: Trio, lengths: Lengths) -> Round:
    """Measure one system."""
    asyncio.run(fill(trio))
    writes: dict[int, Load] = {}
    write_bytes: dict[int, float] = {}
    for clients in CLIENTS:
        before = written_bytes(trio)
        load = measure(
            trio.addresses, lambda who, asked: trio.put(key(who, asked)), clients, lengths.load_s
        )
        # What was written in the warm-up is among the bytes, and so counts here too.
        share = (lengths.load_s + 1.0) / lengths.load_s
        writes[clients] = load
        write_bytes[clients] = (written_bytes(trio) - before) / (load.done * share)
    reads = {
        clients: measure(
            trio.addresses, lambda who, asked: trio.get(key(who, asked)), clients, lengths.load_s
        )
        for clients in CLIENTS
    }
    rss = rss_mib(trio)
    before = written_bytes(trio)
    time.sleep(lengths.idle_s)
    idle = (written_bytes(trio) - before) / len(trio.processes) / lengths.idle_s * SECONDS_PER_HOUR
    failovers = [fail_over(trio) for _ in range(lengths.failovers)]
    return Round(writes, reads, write_bytes, idle, rss, statistics.median(failovers))


async def fill(trio: Trio) -> None:
    """Write each of the keys once."""
    for number in range(KEYS):
        await ask_once(trio.addresses[number % 3], trio.put(key(0, number)))


def fail_over(trio: Trio) -> float:
    """Kill the leader; return after how long another member has accepted a write."""
    leader = trio.leader()
    others = [address for number, address in enumerate(trio.addresses) if number != leader]
    kill(trio, leader)
    took = asyncio.run(_first_write(trio, others))
    trio.start(leader)
    eventually(lambda: _answers(trio, leader), "the killed one is back")
    return took


def _answers(trio: Trio, number: int) -> bool:
    asyncio.run(ask_once(trio.addresses[number], trio.get(key(0, 0))))
    return True


async def _first_write(trio: Trio, addresses: list[tuple[str, int]]) -> float:
    begun = time.monotonic()
    number = 0
    while time.monotonic() - begun < FAILED_OVER_S:
        number += 1
        with suppress(OSError, EOFError, RefusedError, TimeoutError):
            await ask_once(addresses[number % len(addresses)], trio.put(key(1, number)), 5.0)
            return time.monotonic() - begun
        await asyncio.sleep(ASK_EVERY_S)
    raise RuntimeError(f"no write was accepted within {FAILED_OVER_S:.0f} s")


def middle(rounds: list[R], of: Callable[[R], float]) -> float:
    """Return the median of the rounds."""
    return statistics.median(of(each) for each in rounds)


def show(found: dict[str, list[Round]]) -> None:
    """Print the tables."""
    head = ["", *found]

    def row(what: str, of: Callable[[Round], float]) -> list[object]:
        return [what, *(middle(rounds, of) for rounds in found.values())]

    rows: list[list[object]] = []
    for clients in CLIENTS:
        for what, field in (("writes", 0), ("linearizable reads", 1)):
            rows += [
                row(
                    f"{what} a second, {clients} clients",
                    lambda r, c=clients, f=field: r[f][c].per_s,
                ),
                row("p50 ms", lambda r, c=clients, f=field: r[f][c].p50_ms),
                row("p99 ms", lambda r, c=clients, f=field: r[f][c].p99_ms),
            ]
    table("Three that agree", head, rows)
    costs = [
        row("leader killed: seconds to the next write", lambda r: r.failover_s),
        *(row(f"bytes to disk a write, three together, {clients} clients",
              lambda r, c=clients: r.write_bytes[c]) for clients in CLIENTS),
        row("idle: KiB to disk an hour, one member", lambda r: r.idle_bytes_per_h / 1024),
        row("RSS of one, MiB", lambda r: r.rss_mib),
    ]  # fmt: skip
    table("What it costs", head, costs)


def ratio(found: dict[str, list[R]], of: Callable[[R], float]) -> float:
    """Return Covey's figure over etcd's, rounded."""
    return round(middle(found["covey"], of) / middle(found["etcd"], of), 3)


def main() -> None:
    """Measure both, round by round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--joining", type=int, default=0, metavar="DEVICES")
    parser.add_argument("--followers", type=int, default=0, metavar="DEVICES")
    options = parser.parse_args()
    if shutil.which("etcd") is None:
        sys.exit("needs etcd: apt-get install etcd-server")
    lengths = QUICK if options.quick else THOROUGH
    found: dict[str, list[Round]] = {"covey": [], "etcd": []}
    for number in range(lengths.rounds):
        for new in TRIOS:
            with new() as trio:
                print(f"{trio.name}: round {number + 1} of {lengths.rounds}", file=sys.stderr)
                found[trio.name].append(run_round(trio, lengths))
    show(found)
    joined = _join(options.joining) if options.joining else {}
    leading = _lead(options.followers) if options.followers else None
    finish(
        "control",
        {
            **{
                f"writes_ratio_etcd_{n}": ratio(found, lambda r, n=n: r.writes[n].per_s)
                for n in CLIENTS
            },
            **{
                f"reads_ratio_etcd_{n}": ratio(found, lambda r, n=n: r.reads[n].per_s)
                for n in CLIENTS
            },
            "failover_s": middle(found["covey"], lambda r: r.failover_s),
            "failover_etcd_s": middle(found["etcd"], lambda r: r.failover_s),
            "rss_ratio_etcd": ratio(found, lambda r: r.rss_mib),
            "joining": options.joining,
            "join100_s": joined.get("covey"),
            "join100_serf_s": joined.get("serf"),
            "followers": options.followers,
            "leading_idle_cpu_percent": leading and leading.idle_cpu_percent,
            "leading_cpu_ms_per_write": leading and leading.cpu_ms_per_write,
            "leading_sent_bytes_per_write": leading and leading.sent_bytes_per_write,
        },
    )


def _check_networks() -> None:
    if not can_make_networks:
        sys.exit("needs root and iproute2, to give each device a host of its own")


def _lead(devices: int) -> Leading:
    _check_networks()
    with many_neighbours():
        leading = lead(devices)
    table(f"Leading, with {devices} that follow", list(Leading._fields), [list(leading)])
    return leading


def _join(devices: int) -> dict[str, float | None]:
    _check_networks()
    with many_neighbours():
        took = {
            name: trials.join_when_ready(CONTENDERS[name], devices) for name in ("covey", "serf")
        }
    table(
        f"{devices} devices start at once",
        ["", *took],
        [["all see all, s after the last was ready", *took.values()]],
    )
    return took


if __name__ == "__main__":
    main()
