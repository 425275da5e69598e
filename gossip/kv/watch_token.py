"""The token by which a watch goes on later, at any node: what was told, as a clock per partition.

Every start of a process is an actor in many partitions, so actors stand in it once, and the whole
is compressed: 64 partitions that three nodes write to take some hundred bytes. A token is bound to
what was watched. The dots that it covers are those of a whole partition, and to say of another
prefix's changes that they were told would lose them.
"""

import zlib
from collections.abc import Mapping
from hashlib import blake2b
from typing import Annotated

import msgspec

from gossip.core.errors import InvalidRequest
from gossip.kv.coverages import sound
from gossip.kv.dots import MARK_BYTES, Actor, Coverage, Interval
from gossip.kv.limits import WATCH_TOKEN_BYTES_MAX

FORMAT = 1
Place = Annotated[int, msgspec.Meta(ge=0)]


class WatchToken(msgspec.Struct, frozen=True, array_like=True):
    """What is in a token."""

    format: int
    watched: int
    actors: tuple[Actor, ...]
    partitions: tuple[tuple[int, tuple[tuple[Place, tuple[Interval, ...]], ...]], ...]
    """Each with its clock, the actors as places among ``actors``."""


_DECODER = msgspec.msgpack.Decoder(WatchToken)
BAD = "this token did not come from a watch; take the last one that a watch gave"


def watched_mark(text: str, *, is_prefix: bool) -> int:
    """Return a hash of what is watched."""
    data = msgspec.msgpack.encode((text, is_prefix))
    return int.from_bytes(blake2b(data, digest_size=MARK_BYTES).digest())


def encode_token(watched: int, clocks: Mapping[int, Coverage]) -> bytes:
    """Return the token of a watch that was told all that these clocks cover."""
    actors = tuple(sorted({actor for clock in clocks.values() for actor, _ in clock}))
    places = {actor: place for place, actor in enumerate(actors)}
    partitions = tuple(
        (partition, tuple((places[actor], intervals) for actor, intervals in clock))
        for partition, clock in sorted(clocks.items())
    )
    token = WatchToken(FORMAT, watched, actors, partitions)
    return zlib.compress(msgspec.msgpack.encode(token))


def decode_token(token: bytes, watched: int) -> dict[int, Coverage]:
    """Return the clocks in a token. Raises InvalidRequest, also for one of another watch."""
    found = _decode(token)
    if found.format != FORMAT:
        raise InvalidRequest("this token is of another version of Covey; begin without one")
    if found.watched != watched:
        raise InvalidRequest("this token is of a watch of other keys; go on with the same ones")
    try:
        return {
            partition: sound(tuple((found.actors[place], intervals) for place, intervals in clock))
            for partition, clock in found.partitions
        }
    except IndexError:
        raise InvalidRequest(BAD) from None


def _decode(token: bytes) -> WatchToken:
    unpacking = zlib.decompressobj()
    try:
        data = unpacking.decompress(token, WATCH_TOKEN_BYTES_MAX)
        if unpacking.unconsumed_tail or not unpacking.eof:
            raise InvalidRequest(BAD)
        return _DECODER.decode(data)
    except (zlib.error, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRequest(BAD) from None
