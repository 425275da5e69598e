"""What goes over a stream of shared keys: questions one way, answers the other, both numbered.

After the upgrade (``GET /api/v1/kv/stream`` with ``Upgrade: covey-kv``) each side sends frames: a
four-byte length (big-endian), then a message in msgpack, an array that begins with its tag. The
asker chooses the numbers, from 1 on; each is free again once it is answered. Many may be under way
at once, and are answered as they complete, in any order: of two writes of one key that are under
way together, either may be the later one.

``Failed`` under the number 0 is about the stream itself, which ends then.

Field order is the format: new fields go to the end, with a default.
"""

from typing import Annotated

import msgspec

from gossip.core.errors import Malformed

PROTOCOL = "covey-kv"
"""What a client asks to upgrade to."""
PATH = "/api/v1/kv/stream"
LENGTH_BYTES = 4
FRAME_BYTES_MAX = 320 * 1024
"""Of a question: a value, its key, and a context."""
ANSWER_BYTES_MAX = 4 * 1024 * 1024
"""Of an answer: all values that one key can have at once."""
TIMEOUT_S = 5.0
NUMBER_MAX = 2**63 - 1
ALWAYS, IF_CONTEXT, IF_ABSENT = range(3)
"""When a put is to write: in any case; only over what the context names; only over nothing."""

Number = Annotated[int, msgspec.Meta(ge=1, le=NUMBER_MAX)]


class PutAsk(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Write a value. ``w`` and ``context`` None: the default; ``w`` -1: all owners.

    ``durability`` is "flush", "fsync", or empty for what the agent is configured to do.
    """

    number: Number
    key: str
    value: bytes
    w: int | None = None
    context: bytes | None = None
    timeout_s: float = TIMEOUT_S
    condition: Annotated[int, msgspec.Meta(ge=ALWAYS, le=IF_ABSENT)] = ALWAYS
    durability: str = ""
    ttl_s: float | None = None
    """After so long it is deleted; None: as its space says, 0: never."""


class GetAsk(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Read a key. ``r`` as ``w`` of a put."""

    number: Number
    key: str
    r: int | None = None
    timeout_s: float = TIMEOUT_S


class DeleteAsk(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Delete a key, or the versions that the context names."""

    number: Number
    key: str
    w: int | None = None
    context: bytes | None = None
    timeout_s: float = TIMEOUT_S
    durability: str = ""


class WriteResult(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """How a put or delete ended: "ok", or "indeterminate", as over HTTP."""

    number: int
    outcome: str
    acks: int
    needed: int
    context: bytes
    versions: int = 1


class StoredValue(msgspec.Struct, frozen=True, array_like=True):
    """One value of a key; what is of another type than ``register`` is JSON."""

    data: bytes
    written_ms: int
    type: str
    expires_ms: int = 0
    """Unix milliseconds; 0: it does not."""


class Found(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """The values of a key, newest first; none of a key that does not exist."""

    number: int
    values: tuple[StoredValue, ...]
    context: bytes
    answered: int
    needed: int


class Failed(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """It was refused, or could not be done: the status and the words of the same error in HTTP."""

    number: int
    status: int
    code: str
    message: str
    hint: str = ""


Ask = PutAsk | GetAsk | DeleteAsk
Answer = WriteResult | Found | Failed

_encoder = msgspec.msgpack.Encoder()
_asks: msgspec.msgpack.Decoder[Ask] = msgspec.msgpack.Decoder(Ask)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)
BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def decode_ask(data: bytes) -> Ask:
    """Return a question. Raises Malformed, also where a later version has put it."""
    try:
        return _asks.decode(data)
    except BROKEN as error:
        raise Malformed(str(error)) from None


def decode_answer(data: bytes) -> Answer:
    """Return an answer. Raises Malformed."""
    try:
        return _answers.decode(data)
    except BROKEN as error:
        raise Malformed(str(error)) from None


def framed(message: Ask | Answer) -> bytes:
    """Return a message as it goes over the connection, its length in front."""
    data = _encoder.encode(message)
    return len(data).to_bytes(LENGTH_BYTES) + data


class ArrivingMessages:
    """Takes whole messages out of what arrives."""

    def __init__(self, bytes_max: int) -> None:
        self._unread = bytearray()
        self._at = 0
        self._bytes_max = bytes_max

    @property
    def unread_bytes(self) -> int:
        """How much of what came was not taken."""
        return len(self._unread) - self._at

    def feed(self, data: bytes) -> None:
        """Take in what has arrived."""
        del self._unread[: self._at]
        self._at = 0
        self._unread += data

    def take(self) -> bytes | None:
        """Return the next message, None while it is not whole.

        Raises Malformed for a length that none may have, before anything is reserved for it.
        """
        unread, begin = self._unread, self._at + LENGTH_BYTES
        if len(unread) < begin:
            return None
        size = int.from_bytes(unread[self._at : begin])
        if not 0 < size <= self._bytes_max:
            raise Malformed(f"a message of {size} bytes, where 1 to {self._bytes_max} are allowed")
        if len(unread) < begin + size:
            return None
        self._at = begin + size
        return bytes(unread[begin : self._at])
