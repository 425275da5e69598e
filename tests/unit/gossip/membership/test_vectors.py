"""Golden vectors: the bytes of every message, so that nobody moves a field.

Of the membership, and of the events and queries that travel with it.

``tests/vectors/membership-v1.json`` holds for each name the message's type, its fields and its
bytes. A changed vector means that running coveys no longer understand each other. To add vectors
for new messages, extend EXAMPLES and run ``python tests/unit/gossip/membership/test_vectors.py``:
it adds what is missing and never changes what is there.
"""

import json
import pathlib
import types
import typing
from typing import Any

import msgspec
import pytest

from gossip.core.machine import Address
from gossip.core.wire import Codec
from gossip.events import messages as events
from gossip.membership.model import messages
from gossip.membership.model.facts import Facts
from gossip.membership.model.members import MemberState
from gossip.membership.model.messages import DATAGRAMS, SyncEntry

FILE = pathlib.Path(__file__).parents[3] / "vectors" / "membership-v1.json"

ID, BOOT, MAX = 0xC0FFEE, 3 << 32 | 0xABCD, 2**64 - 1
V4, V6 = Address("192.0.2.7", 7747), Address("2001:db8::7", 7747)
TAGS = {"site": "north", "größe": "µ"}
SIGNATURE = bytes(range(64))
STATES = MemberState.ALIVE, MemberState.SUSPECT, MemberState.DEAD, MemberState.LEFT
ENTRIES = (
    *(
        SyncEntry(ID + n, BOOT, 5, state, 4, 60 * n, f"node-{n}", (V4, V6)[:n], TAGS if n else {})
        for n, state in enumerate(STATES)
    ),
    SyncEntry(
        7, BOOT, 1, MemberState.ALIVE, 1, 0, "n7", (V4,), {},
        Facts(3, {"größe": "1 µm"}, SIGNATURE[::-1]), signature=SIGNATURE,
    ),
)  # fmt: skip
SLEEPER = SyncEntry(
    9, BOOT, 2, MemberState.ASLEEP, 1, 5, "n9", (V6,), {}, None, 7_195, SIGNATURE, SIGNATURE, 7_200
)
VERSIONS = (messages.SyncVersion(ID, BOOT, 5, 0, 4, 1), messages.SyncVersion(MAX, 0, MAX, 3, 0, 0))

EXAMPLES = {
    "ping": messages.Ping(1, ID),
    "ping, largest numbers": messages.Ping(MAX, MAX),
    "ack": messages.Ack(300),
    "ping request": messages.PingRequest(70_000, ID, V6),
    "nack": messages.Nack(2**32),
    "hello, asking": messages.Hello(wants_reply=True),
    "hello, answering": messages.Hello(wants_reply=False),
    "alive": messages.Alive(ID, BOOT, 1, "greenhouse", (V4, V6), TAGS, SIGNATURE),
    "alive, bare": messages.Alive(1, 0, 0, "a", (), {}),
    "suspect": messages.Suspect(ID, BOOT, 2, 7),
    "suspect, by evidence": messages.Suspect(ID, BOOT, 2, 7, messages.REFUSAL),
    "dead": messages.Dead(ID, BOOT, 2, 7),
    "dead, by evidence": messages.Dead(ID, BOOT, 2, 7, messages.REFUSAL),
    "stream ping": messages.StreamPing(12),
    "stream ping to a suspect": messages.StreamPing(13, messages.Suspect(ID, BOOT, 2, 7)),
    "stream pong": messages.StreamPong(13, messages.Alive(ID, BOOT, 3, "barn", (V4,), {})),
    "left": messages.Left(ID, BOOT, 3, SIGNATURE),
    "asleep": messages.Asleep(ID, BOOT, 4, 7_100, 7_200, SIGNATURE),
    "asleep, longest": messages.Asleep(MAX, MAX, MAX, messages.SLEEP_S_MAX),
    "event": events.Event(ID, BOOT, 3, 70_000, "door/größe", b"\x00open"),
    "event, bare": events.Event(1, 0, 0, 0, "x", b""),
    "query": events.Query(ID, BOOT, 2, "log", b"tail", TAGS, 5_000),
    "answer": events.QueryResponse(ID, BOOT, 2, 7, events.ResponseKind.ANSWERED, b"\xffyes"),
    "answer, receipt": events.QueryResponse(ID, BOOT, 2, 7, events.ResponseKind.RECEIPT, b""),
    "bulletin": events.EventSyncMessage(
        70_000,
        True,
        True,
        (events.EventId(ID, BOOT, 3),),
        (events.EventId(MAX, MAX, MAX),),
        (events.Event(7, BOOT, 1, 2, "x", b"y"),),
    ),
    "bulletin, empty": events.EventSyncMessage(0, False, False, (), (), ()),
    "long answer": events.LongQueryResponse(ID, BOOT, 2, b"long"),
    "filler": messages.Filler(bytes(300)),
    "position": messages.CoordinateUpdate(bytes(range(44))),
    "round trip, asked": messages.RttRequest(3, MAX),
    "round trip, told": messages.RttReply(3, 1_234, None, 10_000_000),
    "exchange summary": messages.SyncSummary(bytes(range(16)), 12),
    "exchange outline": messages.SyncBuckets(bytes(range(16)), bytes(range(8)), 12),
    "exchange outline, the same": messages.SyncBuckets(bytes(16), b"", MAX),
    "exchange digest": messages.SyncDigest(64, (0, 63), VERSIONS),
    "exchange difference": messages.SyncDelta(ENTRIES, (ID, MAX), is_partial=True),
    "exchange difference, a sleeper": messages.SyncDelta((SLEEPER,), (), is_partial=False),
    "exchange difference, empty": messages.SyncDelta((), (), is_partial=False),
}


NAMES = vars(messages) | vars(events)
CODECS = [value for value in NAMES.values() if isinstance(value, Codec)]


def codec_of(kind: type[Any]) -> Codec[Any]:
    [codec] = [each for each in CODECS if kind.__struct_config__.tag in each.tags]
    return codec


def vector_of(message: Any) -> dict[str, Any]:
    fields = {f: msgspec.to_builtins(getattr(message, f)) for f in message.__struct_fields__}
    return {
        "message": type(message).__name__,
        "fields": plain(fields),
        "hex": codec_of(type(message)).encode(message).hex(),
    }


def plain(value: Any) -> Any:
    """Structs that travel as arrays are arrays here too."""
    return json.loads(msgspec.json.encode(value))


def recorded() -> dict[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_the_bytes_are_the_recorded_ones(name: str) -> None:
    assert vector_of(EXAMPLES[name]) == recorded()[name]


@pytest.mark.parametrize("name", list(recorded()))
def test_the_recorded_bytes_decode_to_the_recorded_fields(name: str) -> None:
    vector = recorded()[name]
    kind = NAMES[vector["message"]]
    message = codec_of(kind).decode(bytes.fromhex(vector["hex"]))
    assert type(message) is kind
    assert vector_of(message)["fields"] == vector["fields"]


@pytest.mark.parametrize("kind", [messages.Suspect, messages.Dead])
def test_an_accusation_without_the_field_of_evidence_rests_on_silence(kind: type[Any]) -> None:
    whole = kind(ID, BOOT, 2, 7)
    tag, *fields = msgspec.msgpack.decode(DATAGRAMS.encode(whole))
    assert DATAGRAMS.decode(msgspec.msgpack.encode([tag, *fields[:4]])) == whole


@pytest.mark.parametrize("kind", [messages.Alive, messages.Left, messages.Asleep])
def test_words_of_a_version_before_signatures_have_none(kind: type[Any]) -> None:
    fields_of: dict[type[Any], tuple[Any, ...]] = {
        messages.Alive: ("a", (), {}), messages.Left: (), messages.Asleep: (7,),
    }  # fmt: skip
    told = fields_of[kind]
    whole = kind(ID, BOOT, 2, *told)
    assert not whole.signature
    fields = [kind.__struct_config__.tag, ID, BOOT, 2, *told]
    assert DATAGRAMS.decode(msgspec.msgpack.encode(fields)) == whole


def test_every_message_has_a_vector() -> None:
    unions = [value for value in NAMES.values() if isinstance(value, types.UnionType)]
    kinds = {kind for union in unions for kind in typing.get_args(union)} - {None}
    kinds = {kind for kind in kinds if getattr(kind, "__struct_config__", None) is not None}
    assert {vector["message"] for vector in recorded().values()} == {k.__name__ for k in kinds}


def test_tags_keep_to_their_ranges() -> None:
    datagrams = [DATAGRAMS.tags, events.BROADCASTS.tags]
    frames = [codec.tags for codec in CODECS if codec.tags not in datagrams]
    assert set().union(*datagrams) <= set(range(1, 32))
    assert set().union(*frames) <= set(range(32, 48))
    for tags in datagrams, frames:
        assert sum(map(len, tags)) == len(set().union(*tags)), "one tag, one message"


if __name__ == "__main__":
    vectors = {name: vector_of(message) for name, message in EXAMPLES.items()} | recorded()
    FILE.write_text(json.dumps(vectors, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
