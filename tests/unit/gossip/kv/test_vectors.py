"""The bytes of every state message are pinned; ``test_fuzz_codecs.py`` spoils them."""

import json
import typing
from pathlib import Path

import msgspec
import pytest

from gossip.core.errors import Malformed
from gossip.events.messages import EVENT_FRAMES
from gossip.kv import messages as m
from gossip.kv.records import KeyState, Version
from gossip.kv.takeover import Copy
from gossip.membership.model.messages import FRAMES

VECTORS = Path(__file__).parents[3] / "vectors" / "state-v1.json"

VERSION = Version(2**64 - 1, 3, 2**63, b"on")
STATE = KeyState((VERSION,), ((1, 2), (2**64 - 1, 3)), ((1, 2), (2**64 - 1, 3)))

MESSAGES: list[m.Message] = [
    m.RegistryOffer(b"signed"),
    m.RegistryAsk(7),
    m.Ready(2**63 - 1),
    m.ReadyReply(1),
    m.ClockRequest(1),
    m.ClockReply(1, 1_800_000_000_000),
    m.Forward(1, 7, "lamp", b"on", 2, ((1, 2),), 2.5),
    m.Forward(1, 7, "lamp", None, None, None, 0.0),
    m.Forwarded(1, True, 2, 2, b"context"),
    m.Store(1, 7, "lamp", STATE),
    m.Stored(1),
    m.Fetch(1, 7, "lamp"),
    m.Fetch(1, 7, "lamp", ((1, 2),)),
    m.Fetched(1, KeyState()),
    m.Scan(1, 7, (0, 255), "room/", "room/1", 100),
    m.Scanned(1, (0,), (("room/2", (VERSION,)),), "room/2"),
    m.Refused(1, 8, m.STALE_EPOCH),
    m.Subscribe(1, "room/", True),
    m.Unsubscribe(1),
    m.Changed(1, "lamp", (VERSION,), ((1, 2),), 1),
    m.DigestRequest(1, 7, ((0, 2**64 - 1, 0),)),
    m.DigestReply(1, (0,)),
    m.SyncStart(1, 7, 0, 2**64 - 1),
    m.SyncStarted(1, False, Copy(True, 7), ((1, ((1, 4), (6, 6))),), 3),
    m.SyncStarted(1, False, Copy(True, 7), (), 3, (2**64 - 1, 0)),
    m.KeyPageRequest(1, 7, 0, "lamp", 3),
    m.KeyPageRequest(1, 7, 0, "lamp", 3, (0, 63)),
    m.KeyPage(1, (("lamp", ((1, 2),)),), ""),
    m.SyncStates(1, 7, 0, (("lamp", STATE),), 3),
    m.StatesSynced(1, (("lamp", STATE),)),
    m.Reached(7, (0, 255)),
    m.DigestSummary(1, 7, bytes(range(16))),
    m.SummaryReply(1, True),
    m.SummaryReply(1, False, (2**64 - 1, 0)),
    m.WatchSubscribeReply(1, 3, ((0, 2**64 - 1),), (255,)),
    m.WatchAsk(1, 7, 0, "room/", True, ((1, ((1, 4), (6, 6))),), ((1, ((7, 7),)),), False, "", 0),
    m.WatchPage(1, 3, True, ((1, ((7, 9),)),), (("lamp", STATE),), ((2**63 + 1, 1),), "lamp"),
    m.WatchSubscribe(1, "room/", True, ((0, 2**64 - 1), (255, 0))),
    m.WatchedChange(1, "lamp", STATE, 3, 9),
    m.Increment(1, 7, "visits", -3, None, 2.5),
    m.Forward(1, 7, "lamp", b"on", 2, None, 2.5, True),
    m.Forwarded(1, True, 2, 2, b"", 1, True),
    m.Store(1, 7, "lamp", STATE, True),
    m.Stored(1, True),
    m.Increment(1, 7, "visits", -3, None, 2.5, True),
    m.Restore(1, 7, "lamp", (VERSION,), None, 2.5),
]


def test_every_message_has_its_pinned_bytes() -> None:
    """If this fails, nodes of two versions cannot talk: add fields at the end, with a default."""
    pinned = json.loads(VECTORS.read_text())
    assert [[type(each).__name__, m.CODEC.encode(each).hex()] for each in MESSAGES] == pinned


def test_pinned_bytes_come_back_as_their_messages() -> None:
    pinned = [bytes.fromhex(data) for _, data in json.loads(VECTORS.read_text())]
    assert [m.CODEC.decode(data) for data in pinned] == MESSAGES


def test_who_knows_nothing_of_synced_writes_is_not_believed_to_have_synced() -> None:
    """Versions before send these without their last field, and skip it."""
    assert m.CODEC.decode(msgspec.msgpack.encode([55, 1])) == m.Stored(1)
    before = msgspec.msgpack.encode([53, 1, True, 2, 2, b"", 1])
    assert m.CODEC.decode(before) == m.Forwarded(1, True, 2, 2, b"", 1)
    longer = msgspec.msgpack.encode([55, 1, True, "of a version to come"])
    assert m.CODEC.decode(longer) == m.Stored(1, True)


def test_no_message_is_missing_and_tags_are_the_planes_own() -> None:
    assert set(typing.get_args(m.Message)) == {type(each) for each in MESSAGES}
    assert m.CODEC.tags == {20, 21, 28, 45, *range(48, 80)}
    assert not m.CODEC.tags & (FRAMES.tags | EVENT_FRAMES.tags), "one of them would not be heard"


@pytest.mark.parametrize("message", [
    m.Ready(-1), m.Store(1, 7, "", STATE), m.Store(1, 7, "k" * 513, STATE),
    m.Forward(1, 7, "k", b"x" * 300_000, None, None, 1.0), m.Fetch(1, 7, "k", ((1, 0),)),
    m.Forward(1, 7, "k", b"", None, None, float("nan")),
    m.Increment(1, 7, "k", 2**63, None, 1.0),
    m.Forward(1, 7, "k", b"", None, None, 1e9), m.KeyPageRequest(1, 7, -1, "", 3),
    m.KeyPageRequest(1, 7, 0, "", 3, (64,)), m.KeyPageRequest(1, 7, 0, "", 3, (0,) * 33),
    m.SyncStarted(1, False, Copy(True, 7), (), 3, (0,) * 65), m.SummaryReply(1, False, (0,) * 17),
])  # fmt: skip
def test_values_out_of_bounds_are_malformed(message: m.Message) -> None:
    with pytest.raises(Malformed):
        m.CODEC.decode(m.CODEC.encode(message))
