"""What a covey at rest sends, by kind: no kind may grow unnoticed, and no new one appear.

Deterministic: whole nodes in virtual time. Bytes are payload of UDP and of streams, sent.
"""

import inspect
from collections import Counter

import msgspec
import pytest

from gossip.core.envelope import Envelope
from gossip.core.machine import SendFrame
from gossip.core.tuning import LAN
from gossip.core.wire import LENGTH_BYTES, tag_of, unpack
from gossip.events import messages as event_messages
from gossip.kv import messages as state_messages
from gossip.membership.model import messages as membership_messages
from gossip.sim.driver import SimulatedDriver
from gossip.sim.host import Host
from gossip.sim.world import World

MEMBERS = 10
SPAN_S = 150.0
FIRST_LOOKS_S = MEMBERS * LAN.path_rounds * LAN.path_check_s
PARTITIONS = 64

BOUNDS = {
    "envelope": 122.0,
    "Ping": 16.0,
    "Ack": 7.0,
    "CoordinateUpdate": 13.0,
    "DigestSummary": 1.2,
    "Ready": 0.01,
    "ReadyReply": 0.01,
    "SummaryReply": 0.5,
    "SyncSummary": 1.0,
    "SyncBuckets": 1.0,
}
"""Bytes a node and second, at most. Whoever raises one says in docs/BENCHMARKS.md what it buys."""
LOOKS = {"Filler": 23.0, "StreamPing": 0.5, "StreamPong": 2.0}
"""What comes to these in the first minutes, while each looks at the paths to all others."""


def names() -> dict[int, str]:
    """Return the kinds of messages, by their tags."""
    kinds = {}
    for module in (membership_messages, event_messages, state_messages):
        for name, kind in inspect.getmembers(module, inspect.isclass):
            tag = kind.__struct_config__.tag if issubclass(kind, msgspec.Struct) else None
            if isinstance(tag, int):
                kinds[tag] = name
    return kinds


class ByteCounter:
    """Counts the bytes that are sent, by kind."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._kinds, self._sent = names(), Counter[str]()
        seal, send_frame = Envelope.seal, SimulatedDriver._send_frame

        def sealed(envelope: Envelope, body: bytes, *numbers: int) -> bytes:
            for item in unpack(body):
                self._sent[self._kinds[tag_of(item)]] += LENGTH_BYTES + len(item)
            data = seal(envelope, body, *numbers)
            self._sent["envelope"] += len(data) - len(body)
            return data

        def framed(driver: SimulatedDriver, host: Host, effect: SendFrame) -> None:
            self._sent[self._kinds[tag_of(effect.data)]] += len(effect.data)
            send_frame(driver, host, effect)

        monkeypatch.setattr(Envelope, "seal", sealed)
        monkeypatch.setattr(SimulatedDriver, "_send_frame", framed)

    def over(self, world: World) -> dict[str, float]:
        """Return what a member sends from now on, in bytes a second of each kind."""
        self._sent.clear()
        world.run(SPAN_S)
        return {kind: total / MEMBERS / SPAN_S for kind, total in self._sent.items()}


def exceeding(sent: dict[str, float], bounds: dict[str, float]) -> dict[str, float]:
    """Return the kinds of which more is sent than their bounds allow."""
    return {kind: rate for kind, rate in sent.items() if rate > bounds.get(kind, 0.0)}


@pytest.mark.slow
def test_each_kind_stays_within_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """At first, where the benchmark of idle agents measures, and at rest."""
    meter = ByteCounter(monkeypatch)
    world = World(7, partitions=PARTITIONS)
    world.add(*(f"n{index}" for index in range(MEMBERS)))
    assert world.run_until(world.is_settled, within_s=60) is not None
    world.run(LAN.path_check_s)
    first = meter.over(world)
    assert not exceeding({kind: first[kind] for kind in LOOKS}, LOOKS)
    assert all(first[kind] > 0 for kind in LOOKS)
    world.run(FIRST_LOOKS_S - SPAN_S)
    at_rest = meter.over(world)
    assert not exceeding(at_rest, BOUNDS)
    assert at_rest.keys() == BOUNDS.keys(), "a bound of what is not sent holds nothing"
