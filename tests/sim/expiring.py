"""Schedules in which values expire while clocks jump, owners are off and messages come late.

Each key has one client, which puts with and without a time to live, and deletes, by way of any
node. Then all is healed, clocks are right again, and it is judged: what was acknowledged last and
has not expired is there, what has expired is nowhere, all owners have the same and know the same,
and a watch was told so.
"""

import random
from collections import Counter

from gossip.core.errors import InvalidRequest
from gossip.kv.requests import (
    Delete,
    Get,
    GetResult,
    List,
    Put,
    PutResult,
    Request,
    Watch,
    WatchEvent,
)
from gossip.kv.typed_values import expires_ms_of
from tests.support.kv_net import WALL_MS, Net, registry_of

NODES = (1, 2, 3, 4, 5)
KEYS = tuple(f"k{number}" for number in range(8))
STEPS = 60
JUMPS_S = (-400_000_000.0, -3600.0, -200.0, 200.0, 3600.0, 2_300_000_000.0)
TTLS_S = (None, None, 3.0, 20.0, 90.0, 1e7)
MUST_HAPPEN = (
    "expiries/ok", "expiries/clock_not_agreed", "clock_rounds/agreed", "clock_rounds/doubted",
    "clock_rounds/set", "clock_rounds/agreed_by_steady_clock", "clock_rounds/unheard",
    "writes/ok", "writes/indeterminate",
)  # fmt: skip
CALM_S = 900.0
"""Longer than a clock is doubted before it is compared again, and an owner waited for."""


class Said:
    """What a client was told of one write: its value, when it expires, whether it was taken."""

    def __init__(self, value: bytes | None) -> None:
        self.value = value
        self.expires_ms = 0
        self.is_acknowledged = False


class Schedule:
    """One run; ``faults`` says in words what was wrong."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(f"expiring {seed}")
        self.net = Net(registry_of(NODES, partitions=4), seed)
        self.net.delay_s = lambda _a, _b: self.rng.choice((0.001, 0.001, 0.01, 2.0))
        self.said: dict[str, list[Said]] = {key: [] for key in KEYS}
        self.open: dict[str, tuple[int, int, Said]] = {}
        self.looks: dict[tuple[int, int], None] = {}
        self.faults: list[str] = []
        self.counts: Counter[str] = Counter()
        self.net.run(6)
        self.net.submit(1, Watch(prefix=""))
        self.net.run(3)

    def run(self) -> "Schedule":
        for _ in range(STEPS):
            self._step()
            self.net.run(self.rng.choice((0.01, 0.5, 4.0, 30.0)))
            self._collect()
        self._heal()
        self._judge()
        return self

    def _true_ms(self) -> int:
        return WALL_MS + int(self.net.now * 1000)

    def _step(self) -> None:
        net, rng = self.net, self.rng
        node = rng.choice(NODES)
        match rng.randrange(12):
            case 0:
                net.ahead_s[node] = rng.choice(JUMPS_S)
            case 1:
                net.ahead_s[node] = 0.0
            case 2:
                net.isolate(node)
            case 3:
                net.heal()
            case 4 if node != 1 and node in net.planes and len(net.planes) > 3:
                net.crash(node)
                net.gone.add(node)
            case 5:
                for gone in [each for each in NODES if each not in net.planes]:
                    net.gone.discard(gone)
                    net.start(gone)
            case 6:
                self._look(node)
            case _:
                self._write(node)

    def _submit(self, node: int, request: Request) -> int | None:
        if node not in self.net.planes:
            return None
        try:
            return self.net.submit(node, request)
        except InvalidRequest:
            return None

    def _look(self, node: int) -> None:
        request = self.rng.choice((Get(self.rng.choice(KEYS)), Get(KEYS[0], r=1), List()))
        number = self._submit(node, request)
        if number is not None:
            self.looks[node, number] = None

    def _write(self, node: int) -> None:
        key = self.rng.choice(KEYS)
        if key in self.open:
            return
        said = Said(None)
        if self.rng.random() < 0.15:
            request: Request = Delete(key, timeout_s=20)
        else:
            said.value = b"%d" % self.rng.getrandbits(64)
            ttl_s = self.rng.choice(TTLS_S)
            request = Put(key, said.value, ttl_s=ttl_s, timeout_s=20)
            if ttl_s and node in self.net.planes:
                said_ms = self.net.planes[node].clock.said_ms(self.net.now) or 0
                said.expires_ms = said_ms + round(ttl_s * 1000)
        number = self._submit(node, request)
        if number is not None:
            self.said[key].append(said)
            self.open[key] = node, number, said

    def _collect(self) -> None:
        """Take down what was answered; what a node was asked that ended is indeterminate."""
        net = self.net
        for key, (node, number, said) in list(self.open.items()):
            result = net.results.get((node, number))
            if result is None and node in net.planes:
                continue
            del self.open[key]
            outcome = result.outcome if result is not None else "lost"
            self.counts[f"writes/{outcome}"] += 1
            said.is_acknowledged = isinstance(result, PutResult) and result.outcome == "ok"
            if outcome == "rejected":
                self.said[key].remove(said)
        for name in [name for name in self.looks if name in net.results]:
            del self.looks[name]
            self.counts["looks"] += 1

    def _heal(self) -> None:
        net = self.net
        net.delay_s = lambda _a, _b: 0.001
        net.heal()
        net.gone.clear()
        net.ahead_s.clear()
        for node in NODES:
            if node not in net.planes:
                net.start(node)
            for other in NODES:
                if other != node and node in net.planes:
                    net.planes[node].peer_alive(other, net.now)
        net.run(CALM_S)
        self._collect()

    # Judging

    def _judge(self) -> None:
        net = self.net
        for plane in net.planes.values():
            self.counts.update(plane.counts)
        for node in NODES:
            if net.planes[node].clock.agreed_ms(net.now) is None:
                self.faults.append(f"the clock of {node} is right, and is not agreed on")
        found = {key: self._read(key) for key in KEYS}
        for key, values in found.items():
            self._judge_key(key, values)
        self._judge_copies()
        told: dict[str, WatchEvent] = {e.key: e for e in net.watched if e.key}
        for key, event in told.items():
            shown = sorted(value.data for value in event.values)
            if event.kind in ("put", "delete") and shown != found[key]:
                self.faults.append(f"a watch was told last that {key} is {shown}, not {found[key]}")

    def _read(self, key: str) -> list[bytes]:
        result = self.net.ask(self.rng.choice(NODES), Get(key))
        assert isinstance(result, GetResult)
        for value in result.values:
            if 0 < value.expires_ms <= self._true_ms():
                self.faults.append(f"{key} shows what has expired")
        return sorted(value.data for value in result.values)

    def _judge_key(self, key: str, values: list[bytes]) -> None:
        last = max((at for at, s in enumerate(self.said[key]) if s.is_acknowledged), default=None)
        if last is None:
            return
        later = {said.value for said in self.said[key][last:]}
        kept = self.said[key][last]
        is_superseded = later & set(values) - {kept.value} or len(later) > 1
        is_over = 0 < kept.expires_ms <= self._true_ms()
        if kept.value is not None and not (kept.value in values or is_superseded or is_over):
            self.faults.append(f"{key} lost what was acknowledged last")
        # What was not acknowledged may be on its way while a delete looks, and survives that.
        before = {said.value for said in self.said[key][:last] if said.is_acknowledged}
        if kept.value is None and before & set(values):
            self.faults.append(f"{key} was deleted, and is back")

    def _judge_copies(self) -> None:
        net = self.net
        for partition in range(net.registry.partitions):
            owners = net.registry.table[partition].readers
            marks = {
                (
                    net.planes[n].replica.digest(partition),
                    net.planes[n].replica.clock_mark(partition),
                )
                for n in owners
            }
            if len(marks) > 1:
                self.faults.append(f"the owners of {partition} do not come to the same")
        for node, storage in net.storages.items():
            for records in storage.records.values():
                for key, record in records.items():
                    ends = [expires_ms_of(version.value) for version in record.live]
                    if any(0 < end <= self._true_ms() - 200_000 for end in ends):
                        self.faults.append(f"{node} still has {key}, which has expired")


def run(seed: int) -> Schedule:
    """Run one schedule. Raises AssertionError with what was wrong."""
    schedule = Schedule(seed).run()
    assert not schedule.faults, schedule.faults
    return schedule
