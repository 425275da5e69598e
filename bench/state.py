"""The shared keys beside etcd: puts and gets, what they cost; balance, repair, memory.

Three agents of which each owns every key, and three members of etcd 3.4, take turns on this
machine as in ``control.py``, asked over HTTP by the same clients. What is promised differs. Covey's
put (W = 2) is answered when two of the three have committed it to files that survive the end of a
process, and a power cut of one device; they are synced within a second. etcd's is answered when
two have synced it. A get with R = 1 is beside etcd's serializable read, which one member answers
from what it has, and R = 2 beside the linearizable one; but it is not linearizable.

Covey is asked over its stream as well, by as many clients that share one to each node, as etcd's
own clients do over gRPC. etcd has no client here but its gateway: those ratios are of a stream to
HTTP, and say what a program gains that goes from etcd's gateway to the stream, not more.

Balance and movement are beside PyPI's uhashring (``state_balance.py``); what it takes to find and
mend one key of 100,000 is in ``state_repair.py``, and here how long a member lacks it that was
away. How long it takes until a device has all the keys of one that was lost, and what who asks
meanwhile feels of it, is in ``state_rebuild.py``.
"""

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from bench.agreeing import (
    MEMBERS,
    TOKEN,
    VALUE,
    EtcdTrio,
    Trio,
    eventually,
    read_serializably,
)
from bench.control import fill, key, middle, ratio, rss_mib, written_bytes
from bench.covey_keys import CoveyKeys
from bench.http_load import WARM_UP_S, Load, ask_each, ask_once, http, measure
from bench.idle import cpu_s
from bench.report import finish, table
from bench.state_balance import Balance, show_balance, weigh
from bench.state_rebuild import Rebuild, many_key, rebuild_both, rebuild_figures, show_rebuilds
from bench.state_repair import Repair, repair_one
from bench.stream_load import measure_streams
from edge_apps.kv_frames import Ask, GetAsk, PutAsk

CLIENTS = (1, 64)
MANY_KEYS = 100_000


class Lengths(NamedTuple):
    """How thorough a run is."""

    rounds: int
    load_s: float


THOROUGH = Lengths(rounds=3, load_s=8.0)
QUICK = Lengths(rounds=1, load_s=4.0)


class KeyTrio(Trio, Protocol):
    """Three members that keep keys, asked in two ways."""

    def get_from_one(self, key: str) -> bytes:
        """Return the request that reads a key from what one member has."""


class EtcdKeys(EtcdTrio):
    """Three members of etcd 3.4."""

    def get_from_one(self, key: str) -> bytes:
        """Return the request that reads a key from what one member has."""
        return read_serializably(key)


TRIOS: tuple[Callable[[], KeyTrio], ...] = (CoveyKeys, EtcdKeys)


class Asked(NamedTuple):
    """What came of one kind of request, and what it cost all three together."""

    load: Load
    cpu_us: float
    disk_bytes: float


class Round(NamedTuple):
    """One system in one round: by what is asked, and by the number of clients."""

    puts: dict[int, Asked]
    gets_r1: dict[int, Asked]
    gets_r2: dict[int, Asked]
    streams: dict[str, Asked]
    """The same over streams, with the most clients; of Covey alone."""


STREAMED: dict[str, Callable[[int, str], Ask]] = {
    "puts": lambda number, name: PutAsk(number, name, VALUE.encode(), 2),
    "gets_r1": lambda number, name: GetAsk(number, name, 1),
    "gets_r2": lambda number, name: GetAsk(number, name, 2),
}
KINDS = {"puts": "puts, W=2", "gets_r1": "gets, R=1", "gets_r2": "gets, R=2"}


def run_round(trio: KeyTrio, load_s: float) -> Round:
    """Measure one system."""
    asyncio.run(fill(trio))
    kinds = (trio.put, trio.get_from_one, trio.get)
    by_http = [{n: _ask(trio, kind, n, load_s) for n in CLIENTS} for kind in kinds]
    streams = {}
    if isinstance(trio, CoveyKeys):
        streams = {kind: _ask_streams(trio, ask, load_s) for kind, ask in STREAMED.items()}
    return Round(*by_http, streams)


def _ask(trio: Trio, kind: Callable[[str], bytes], clients: int, load_s: float) -> Asked:
    def ask() -> Load:
        return measure(trio.addresses, lambda who, asked: kind(key(who, asked)), clients, load_s)

    return _weigh(trio, ask, load_s)


def _ask_streams(trio: Trio, kind: Callable[[int, str], Ask], load_s: float) -> Asked:
    def ask() -> Load:
        return measure_streams(
            trio.addresses,
            TOKEN,
            lambda number, who, asked: kind(number, key(who, asked)),
            CLIENTS[-1],
            load_s,
        )

    return _weigh(trio, ask, load_s)


def _weigh(trio: Trio, ask: Callable[[], Load], load_s: float) -> Asked:
    """Measure a load, and what it cost."""
    cpu_before, disk_before = _cpu_s(trio), written_bytes(trio)
    load = ask()
    # What the warm-up cost is in it, and so is what was asked then.
    done = load.done * (load_s + WARM_UP_S) / load_s
    cpu_us = 1e6 * (_cpu_s(trio) - cpu_before) / done
    return Asked(load, cpu_us, (written_bytes(trio) - disk_before) / done)


def _cpu_s(trio: Trio) -> float:
    return sum(cpu_s(process.pid) for process in trio.processes)


def fill_many(trio: Trio) -> float:
    """Write a hundred thousand keys; return what a member holds then, in MiB."""
    asyncio.run(ask_each(trio.addresses, lambda n: trio.put(many_key(n)), MANY_KEYS))
    return rss_mib(trio)


def return_s(trio: CoveyKeys) -> float:
    """Have a member miss one write; return how long after its return it lacks it still."""
    away, name = MEMBERS - 1, many_key(0)
    trio.processes[away].send_signal(signal.SIGTERM)
    trio.processes[away].wait()
    missed = http("PUT", f"/api/v1/kv/{name}?w=2", b"missed", TOKEN)
    asyncio.run(ask_once(trio.addresses[0], missed))
    trio.start(away)
    eventually(lambda: _read(trio, away, many_key(1)) != b"missed", "it answers again")
    begun = time.monotonic()
    eventually(lambda: _read(trio, away, name) == b"missed", "it has what it missed")
    return time.monotonic() - begun


def _read(trio: CoveyKeys, number: int, name: str) -> bytes:
    return asyncio.run(ask_once(trio.addresses[number], trio.get_from_one(name)))


def show(found: dict[str, list[Round]]) -> None:
    """Print what was asked."""
    rows: list[list[object]] = []

    def add(what: str, of: Callable[[Round], float]) -> None:
        rows.append([what, *(middle(rounds, of) for rounds in found.values())])

    for kind, title in KINDS.items():
        for n in CLIENTS:
            asked: Callable[[Round], Asked] = lambda r, k=kind, n=n: getattr(r, k)[n]  # noqa: E731
            add(f"{title}, {n} clients: a second", lambda r, of=asked: of(r).load.per_s)
            add("p50 ms", lambda r, of=asked: of(r).load.p50_ms)
            add("p99 ms", lambda r, of=asked: of(r).load.p99_ms)
            add("processor time, three together, µs each", lambda r, of=asked: of(r).cpu_us)
    for n in CLIENTS:
        add(
            f"bytes to disk a put, three together, {n} clients",
            lambda r, n=n: r.puts[n].disk_bytes,
        )
    table("Three that keep keys; Covey syncs within a second, etcd before", ["", *found], rows)
    _show_streams(found["covey"])


def _show_streams(rounds: list[Round]) -> None:
    """Print what came over streams."""
    rows: list[list[object]] = [
        [
            title,
            middle(rounds, lambda r, kind=kind: r.streams[kind].load.per_s),
            middle(rounds, lambda r, kind=kind: r.streams[kind].load.p50_ms),
            middle(rounds, lambda r, kind=kind: r.streams[kind].load.p99_ms),
            middle(rounds, lambda r, kind=kind: r.streams[kind].cpu_us),
            middle(rounds, lambda r, kind=kind: r.streams[kind].disk_bytes),
        ]
        for kind, title in KINDS.items()
    ]
    head = ["", "a second", "p50 ms", "p99 ms", "processor time, µs each", "bytes to disk each"]
    table(f"Covey over a stream to each node, {CLIENTS[-1]} clients", head, rows)


def _stream_figures(found: dict[str, list[Round]]) -> dict[str, object]:
    """Return those of streams, beside etcd over HTTP."""
    figures: dict[str, object] = {}
    most = CLIENTS[-1]
    for kind in KINDS:
        per_s = middle(found["covey"], lambda r, kind=kind: r.streams[kind].load.per_s)
        etcd = middle(found["etcd"], lambda r, kind=kind: getattr(r, kind)[most].load.per_s)
        cpu_us = middle(found["covey"], lambda r, kind=kind: r.streams[kind].cpu_us)
        p99_ms = middle(found["covey"], lambda r, kind=kind: r.streams[kind].load.p99_ms)
        figures[f"{kind}_stream_ratio_etcd_{most}"] = round(per_s / etcd, 3)
        figures[f"{kind}_stream_cpu_us_{most}"] = round(cpu_us)
        figures[f"{kind}_stream_p99_ms_{most}"] = round(p99_ms, 1)
    return figures


class Measured(NamedTuple):
    """All of it."""

    rounds: dict[str, list[Round]]
    rss_mib: dict[str, float]
    return_s: float
    balance: list[Balance]
    repair: Repair
    rebuilds: list[Rebuild]


def run(lengths: Lengths) -> Measured:
    """Measure both, round by round, and the rest after the last."""
    rounds: dict[str, list[Round]] = {"covey": [], "etcd": []}
    rss: dict[str, float] = {}
    returned_s, rebuilds = 0.0, list[Rebuild]()
    for number in range(lengths.rounds):
        for new in TRIOS:
            with new() as trio:
                print(f"{trio.name}: round {number + 1} of {lengths.rounds}", file=sys.stderr)
                rounds[trio.name].append(run_round(trio, lengths.load_s))
                if number + 1 < lengths.rounds:
                    continue
                print(f"{trio.name}: {MANY_KEYS:,} keys", file=sys.stderr)
                rss[trio.name] = fill_many(trio)
                if isinstance(trio, CoveyKeys):
                    returned_s = return_s(trio)
                    print("covey: rebuild of a lost node", file=sys.stderr)
                    rebuilds = rebuild_both(trio, MANY_KEYS)
    print("balance, repair", file=sys.stderr)
    # Beside the code: /tmp may be memory.
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        repair = repair_one(Path(folder), MANY_KEYS)
    return Measured(rounds, rss, returned_s, weigh(), repair, rebuilds)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if shutil.which("etcd") is None:
        sys.exit("needs etcd: apt-get install etcd-server")
    found = run(QUICK if options.quick else THOROUGH)
    show(found.rounds)
    rows = [["RSS of one, MiB", *found.rss_mib.values()]]
    table(f"With {MANY_KEYS:,} keys more", ["", *found.rss_mib], rows)
    show_balance(found.balance)
    repair = found.repair._asdict() | {"member_back_s": found.return_s}
    table(f"One differing key among {MANY_KEYS:,}", list(repair), [list(repair.values())])
    show_rebuilds(found.rebuilds)
    finish("state", _figures(found))


def _figures(found: Measured) -> dict[str, object]:
    ratios = {
        f"{kind}_ratio_etcd_{n}": ratio(
            found.rounds, lambda r, kind=kind, n=n: getattr(r, kind)[n].load.per_s
        )
        for kind in KINDS
        for n in CLIENTS
    }
    costs = {
        f"{kind}_cpu_us_{n}": {
            name: round(middle(rounds, lambda r, kind=kind, n=n: getattr(r, kind)[n].cpu_us))
            for name, rounds in found.rounds.items()
        }
        for kind in KINDS
        for n in CLIENTS
    }
    disk = {
        f"put_disk_bytes_{n}": {
            name: round(middle(rounds, lambda r, n=n: r.puts[n].disk_bytes))
            for name, rounds in found.rounds.items()
        }
        for n in CLIENTS
    }
    return {
        **ratios,
        **_stream_figures(found.rounds),
        **costs,
        **disk,
        "durability": {"covey": "two of three committed, synced within 1 s", "etcd": "two synced"},
        "balance_max_mean": max(each.share_max_mean for each in found.balance),
        "balance_keys_max_mean": max(each.covey.max_mean for each in found.balance),
        "moved_over_optimum": max(each.covey.moved_over_optimum for each in found.balance),
        "balance": [each.figures() for each in found.balance],
        "rss_100k_mib": found.rss_mib["covey"],
        "rss_100k_etcd_mib": found.rss_mib["etcd"],
        "repair": found.repair._asdict(),
        "member_back_s": found.return_s,
        **rebuild_figures(found.rebuilds),
    }


if __name__ == "__main__":
    main()
