"""Golden vectors: the bytes of every message, so that nobody moves a field.

``tests/vectors/membership-v1.json`` holds for each name the message's type, its fields and its
bytes. A changed vector means that running coveys no longer understand each other. To add vectors
for new messages, extend EXAMPLES and run ``python tests/unit/test_membership_vectors.py``: it adds
what is missing and never changes what is there.
"""

import json
import pathlib
import typing
from typing import Any

import msgspec
import pytest

from gossip.machine import Address
from gossip.membership import messages
from gossip.membership.members import MemberState
from gossip.membership.messages import DATAGRAMS, FRAMES, Entry
from gossip.wire import Codec

FILE = pathlib.Path(__file__).parents[1] / "vectors" / "membership-v1.json"

ID, BOOT, MAX = 0xC0FFEE, 3 << 32 | 0xABCD, 2**64 - 1
V4, V6 = Address("192.0.2.7", 7747), Address("2001:db8::7", 7747)
TAGS = {"site": "north", "größe": "µ"}
ENTRIES = tuple(
    Entry(ID + n, BOOT, 5, state, 4, 60 * n, f"node-{n}", (V4, V6)[:n], TAGS if n else {})
    for n, state in enumerate(MemberState)
)

EXAMPLES = {
    "ping": messages.Ping(1, ID),
    "ping, largest numbers": messages.Ping(MAX, MAX),
    "ack": messages.Ack(300),
    "ping request": messages.PingRequest(70_000, ID, V6),
    "nack": messages.Nack(2**32),
    "hello, asking": messages.Hello(wants_reply=True),
    "hello, answering": messages.Hello(wants_reply=False),
    "alive": messages.Alive(ID, BOOT, 1, "greenhouse", (V4, V6), TAGS),
    "alive, bare": messages.Alive(1, 0, 0, "", (), {}),
    "suspect": messages.Suspect(ID, BOOT, 2, 7),
    "dead": messages.Dead(ID, BOOT, 2, 7),
    "left": messages.Left(ID, BOOT, 3),
    "exchange request": messages.ExchangeRequest(ENTRIES, 12),
    "exchange request, empty": messages.ExchangeRequest((), 0),
    "exchange reply": messages.ExchangeReply(ENTRIES[:1], MAX),
}


def codec_of(message: Any) -> Codec[Any]:
    return DATAGRAMS if isinstance(message, messages.Datagram) else FRAMES


def vector_of(message: Any) -> dict[str, Any]:
    fields = {f: msgspec.to_builtins(getattr(message, f)) for f in message.__struct_fields__}
    return {
        "message": type(message).__name__,
        "fields": plain(fields),
        "hex": codec_of(message).encode(message).hex(),
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
    kind = getattr(messages, vector["message"])
    codec = DATAGRAMS if kind in typing.get_args(messages.Datagram) else FRAMES
    message = codec.decode(bytes.fromhex(vector["hex"]))
    assert type(message) is kind
    assert vector_of(message)["fields"] == vector["fields"]


def test_every_message_has_a_vector() -> None:
    kinds = {*typing.get_args(messages.Datagram), *typing.get_args(messages.Frame)}
    assert {vector["message"] for vector in recorded().values()} == {k.__name__ for k in kinds}


def test_tags_keep_to_their_ranges() -> None:
    assert DATAGRAMS.tags <= set(range(1, 32))
    assert FRAMES.tags <= set(range(32, 48))


if __name__ == "__main__":
    vectors = {name: vector_of(message) for name, message in EXAMPLES.items()} | recorded()
    FILE.write_text(json.dumps(vectors, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
