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
from gossip.kv import messages as state_messages
from gossip.membership.model import messages as membership_messages
from gossip.sim.driver import SimulatedDriver
from gossip.sim.host import Host
from gossip.sim.world import World

MEMBERS = 10
SPAN_S = 300.0
FIRST_LOOKS_S = MEMBERS * LAN.path_rounds * LAN.path_check_s
PARTITIONS = 256

BOUNDS = {
    "envelope": 122.0,
    "Ping": 16.0,
    "Ack": 7.0,
    "CoordinateUpdate": 13.0,
    "DigestRequest": 9.0,
    "DigestReply": 1.0,
    "SyncSummary": 1.0,
    "SyncBuckets": 1.0,
}
"""Bytes a node and second, at most. Whoever raises one says in docs/BENCHMARKS.md what it buys."""
LOOKS = {"Filler": 45.0, "StreamPing": 0.5, "StreamPong": 2.0}
"""What comes to these in the first minutes, while each looks at the paths to all others."""


def names() -> dict[int, str]:
    """Return the kinds of messages, by their tags."""
    kinds = {}
    for module in (membership_messages, state_messages):
        for name, kind in inspect.getmembers(module, inspect.isclass):
            tag = kind.__struct_config__.tag if issubclass(kind, msgspec.Struct) else None
            if isinstance(tag, int):
                kinds[tag] = name
    return kinds


def sent_by_kind(monkeypatch: pytest.MonkeyPatch, settle_s: float) -> dict[str, float]:
    """Return what one of ten members sends at rest, in bytes a second of each kind."""
    kinds, sent = names(), Counter[str]()
    seal, send_frame = Envelope.seal, SimulatedDriver._send_frame

    def sealed(self: Envelope, body: bytes, incarnation: int, epoch: int, mark: int) -> bytes:
        for item in unpack(body):
            sent[kinds[tag_of(item)]] += LENGTH_BYTES + len(item)
        data = seal(self, body, incarnation, epoch, mark)
        sent["envelope"] += len(data) - len(body)
        return data

    def framed(self: SimulatedDriver, host: Host, effect: SendFrame) -> None:
        sent[kinds[tag_of(effect.data)]] += len(effect.data)
        send_frame(self, host, effect)

    monkeypatch.setattr(Envelope, "seal", sealed)
    monkeypatch.setattr(SimulatedDriver, "_send_frame", framed)
    world = World(7, partitions=PARTITIONS)
    world.add(*(f"n{index}" for index in range(MEMBERS)))
    assert world.run_until(world.is_settled, within_s=60) is not None
    world.run(settle_s)
    sent.clear()
    world.run(SPAN_S)
    return {kind: total / MEMBERS / SPAN_S for kind, total in sent.items()}


def exceeding(sent: dict[str, float], bounds: dict[str, float]) -> dict[str, float]:
    """Return the kinds of which more is sent than their bounds allow."""
    return {kind: rate for kind, rate in sent.items() if rate > bounds.get(kind, 0.0)}


def test_at_rest_each_kind_stays_within_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = sent_by_kind(monkeypatch, FIRST_LOOKS_S)
    assert not exceeding(sent, BOUNDS)
    assert sent.keys() == BOUNDS.keys(), "a bound of what is not sent holds nothing"


def test_first_looks_at_the_paths_are_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark of idle agents falls into these minutes."""
    sent = sent_by_kind(monkeypatch, LAN.path_check_s)
    assert not exceeding({kind: sent[kind] for kind in LOOKS}, LOOKS)
    assert all(sent[kind] > 0 for kind in LOOKS)
