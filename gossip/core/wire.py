"""Messages as bytes: msgpack arrays with integer tags, packed into length-prefixed items.

A message is a ``msgspec.Struct`` with ``array_like=True`` and an integer tag, so it travels as
``[tag, field, field, ...]``. Field order is the format: new fields go to the end and carry a
default, and ``tests/vectors`` holds the bytes of every message so that nobody moves one.

Tags are shared by all planes, so that a reader of a packet can name anything in it:

    1..17    messages in datagrams            gossip/membership/model/messages.py
             of them 13..15                   gossip/events/messages.py
    18..31   frames; of them 20, 21, 28       gossip/kv/messages.py
             of them 22..27                   gossip/bodies/messages.py
    32..47   frames of the membership         gossip/membership/model/messages.py
             of them 38 and 39                gossip/events/messages.py
             of them 45                       gossip/kv/messages.py
    48..79   frames of the state plane        gossip/kv/messages.py
    80..89   frames between agents: joining   agent/admission/messages.py
    90..93   keyrings                         agent/keys/messages.py
    94, 95   the authority's key              agent/admission/messages.py
    96, 97   the doctor's questions           agent/doctor/messages.py
    98, 99   what members have of a key       agent/cluster/kv_messages.py
    100, 101 relayed streams                  agent/net/relay_messages.py
    102, 103 how members' shared keys stand   agent/cluster/kv_messages.py
    104..111 to guests, or inside of 80..89   agent/admission/messages.py
    112..124 frames of agreement              gossip/consensus/messages.py
    125..126 frames of the control plane      gossip/control/messages.py
    127      the next authority's key, kept   agent/admission/messages.py
    128..143 inside of 80..89 alone, and 18   agent/admission/messages.py

A datagram carries several messages, each behind a two-byte length. A message with a tag that
we do not know was sent by a newer version and is skipped by its length; a message with a known
tag that does not decode is malformed, and the packet is dropped from there on. A frame is one
message; its tag is read once, by ``gossip/node.py``, which knows who takes in what.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

import msgspec

from gossip.core.errors import LimitExceeded, Malformed

LENGTH_BYTES = 2
ITEM_BYTES_MAX = 2 ** (8 * LENGTH_BYTES) - 1

# msgpack's type bytes: an array of at most 15 items is 0x90..0x9f, of at most 65,535 is 0xdc.
FIXARRAY, FIXARRAY_MASK, ARRAY16 = 0x90, 0xF0, 0xDC
POSITIVE_FIXINT_MAX = 0x7F

T = TypeVar("T")
U = TypeVar("U")


def tag_of(data: bytes) -> int:
    """Return the integer tag of an encoded message without decoding it.

    All our tags fit msgpack's one-byte integers, so the tag stands at a fixed place.
    Raises Malformed when the bytes are not an array that begins with such a tag.
    """
    if len(data) >= 2 and data[0] & FIXARRAY_MASK == FIXARRAY and data[0] != FIXARRAY:
        tag = data[1]
    elif len(data) >= 4 and data[0] == ARRAY16:
        tag = data[3]
    else:
        raise Malformed("a message is a non-empty array")
    if tag > POSITIVE_FIXINT_MAX:
        raise Malformed("a message begins with a small integer tag")
    return tag


class Codec(Generic[T]):
    """Encodes and decodes one plane's messages.

    The types are known when the codec is made, so decoding is one pass that also validates:
    what comes out has the field types that the struct says.
    """

    def __init__(self, union: Any) -> None:
        self._union = union
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(union)
        members = getattr(union, "__args__", (union,))
        self.tags: frozenset[int] = frozenset(m.__struct_config__.tag for m in members)
        assert len(self.tags) == len(members), "two messages share a tag"

    def __or__(self, other: "Codec[U]") -> "Codec[T | U]":
        """Return a codec of the messages of both."""
        return Codec(self._union | other._union)

    def encode(self, message: T) -> bytes:
        """Return the message as bytes."""
        return self._encoder.encode(message)

    def decode(self, data: bytes) -> T | None:
        """Return the message; None when its tag is one that we do not know.

        Raises Malformed.
        """
        return self.decode_known(data) if tag_of(data) in self.tags else None

    def decode_known(self, data: bytes) -> T:
        """Return the message of somebody who has looked at its tag. Raises Malformed."""
        try:
            return self._decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Malformed(str(error)) from None


def pack(items: Iterable[bytes]) -> bytes:
    """Join encoded messages into one body, each behind its two-byte length.

    Raises LimitExceeded for an item of more than 65,535 bytes.
    """
    parts: list[bytes] = []
    for item in items:
        if len(item) > ITEM_BYTES_MAX:
            raise LimitExceeded(f"a message of {len(item)} bytes does not fit a datagram")
        parts.append(len(item).to_bytes(LENGTH_BYTES))
        parts.append(item)
    return b"".join(parts)


def unpack(body: bytes) -> Iterator[bytes]:
    """Yield the items of a body. Raises Malformed where a length runs past the end."""
    at = 0
    while at < len(body):
        start = at + LENGTH_BYTES
        end = start + int.from_bytes(body[at:start])
        if start > len(body) or end > len(body):
            raise Malformed("an item is longer than its packet")
        yield body[start:end]
        at = end
