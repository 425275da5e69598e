"""A key's record, and the one rule by which any two copies of it merge.

A record holds the **live** versions of a key, normally one, and a **context**: per actor the
highest counter whose effect on this key is already in. A write names what its writer had seen;
those dots die, all others live on beside the new one. What was written without knowledge of
each other stays as siblings until somebody who has read both writes again. No clock decides.

What travels is always the whole state of a key: its live versions, its context and ``covered``,
the exact dots that the sender knows and that are news to somebody. With r for the receiver and
m for the message::

    seen_r(d)  =  d in context_r(key)  or  d in clock_r
    live'      =  live_r ∩ live_m
               ∪  { d in live_r : d not in context_m and d not in covered_m }
               ∪  { d in live_m : not seen_r(d) }
    context'   =  pointwise maximum            clock_r' = clock_r ∪ covered_m ∪ live_m

In words: a version survives if both sides have it, or if the side that lacks it never saw it.
The rule is commutative, idempotent and does not care for order: late, doubled and replayed
messages are all harmless. There are no tombstones. A deleted key's row goes at once, *unless*
its context reaches above a gap in the clock: then an older version that is still under way
would be unknown to the clock, so the bare context stays until the gap is filled by a
comparison. (DottedDB strips causality by the same condition.)
"""

from collections.abc import Collection, Iterable
from functools import lru_cache
from hashlib import blake2b

import msgspec

from gossip.core.errors import InvalidRequest
from gossip.core.hlc import Stamp
from gossip.kv.dots import MARK_BYTES, Actor, Counter, Dot, PartitionClock
from gossip.kv.limits import CONTEXT_ACTORS_MAX, CONTEXT_BYTES_MAX

MARKS_REMEMBERED = 1024
"""Each write asks for the mark of its record twice, and the next write of the key once more."""


class Version(msgspec.Struct, frozen=True, array_like=True, order=True):
    """One value as one write left it, under the dot (actor, n)."""

    actor: Actor
    n: Counter
    stamp: Stamp
    value: bytes

    @property
    def dot(self) -> Dot:
        """The name of the write."""
        return (self.actor, self.n)


class Record(msgspec.Struct, frozen=True, array_like=True):
    """What a replica keeps of one key. ``live`` is sorted by dot, ``context`` by actor."""

    live: tuple[Version, ...] = ()
    context: tuple[Dot, ...] = ()

    def dots(self) -> frozenset[Dot]:
        """Return the dots of the live versions."""
        return _dots_of(self.live)


class KeyState(msgspec.Struct, frozen=True, array_like=True):
    """A record as it travels, with the exact dots that its sender vouches to have seen."""

    live: tuple[Version, ...] = ()
    context: tuple[Dot, ...] = ()
    covered: tuple[Dot, ...] = ()

    def dots(self) -> frozenset[Dot]:
        """Return the dots of the live versions."""
        return _dots_of(self.live)

    def size_bytes(self) -> int:
        """Return roughly how much of a frame this state takes."""
        per_dot = 20
        dots = len(self.live) + len(self.context) + len(self.covered)
        return sum(len(version.value) for version in self.live) + per_dot * (dots + 1)


def _dots_of(live: tuple[Version, ...]) -> frozenset[Dot]:
    if len(live) == 1:  # as nearly always
        return frozenset(((live[0].actor, live[0].n),))
    return frozenset(version.dot for version in live)


NOTHING = Record()


class SeenDots:
    """The dots of one key whose effect was processed: a context, and a partition's clock if any.

    Made once for a whole state and asked for each dot of it. A state that travels has room for
    tens of thousands of both, which must not be compared each with each.
    """

    def __init__(
        self, context: Iterable[Dot], known: PartitionClock | frozenset[Dot] = frozenset()
    ) -> None:
        self._highest = _highest(context)
        self._known = known

    def __contains__(self, dot: Dot) -> bool:
        actor, n = dot
        return n <= self._highest.get(actor, 0) or dot in self._known


def seen(record: Record, clock: PartitionClock) -> SeenDots:
    """Return the dots of a key whose effect has been processed here."""
    return SeenDots(record.context, clock)


def join_contexts(*contexts: Iterable[Dot]) -> tuple[Dot, ...]:
    """Return the pointwise maximum."""
    return tuple(sorted(_highest(*contexts).items()))


def _highest(*contexts: Iterable[Dot]) -> dict[Actor, Counter]:
    highest: dict[Actor, Counter] = {}
    for context in contexts:
        for actor, n in context:
            highest[actor] = max(n, highest.get(actor, n))
    return highest


def put(record: Record, version: Version, replaced: Iterable[Dot]) -> tuple[Record, KeyState]:
    """Write a version over the dots in ``replaced``; return the record and what to tell.

    The dot must be new, and its actor must have seen all its own earlier dots of this key,
    which holds because an actor is one process with one replica.
    """
    gone = frozenset(replaced)
    live = sorted([v for v in record.live if v.dot not in gone] + [version])
    context = join_contexts(record.context, [version.dot])
    return _written(tuple(live), context, gone)


def delete(record: Record, dot: Dot, removed: Iterable[Dot]) -> tuple[Record, KeyState]:
    """Remove the dots in ``removed``; return the record and what to tell.

    The delete's own dot is covered and never live: by it a clock tells that there was a delete.
    """
    gone = frozenset(removed)
    live = tuple(v for v in record.live if v.dot not in gone)
    return _written(live, record.context, gone | {dot})


def _written(
    live: tuple[Version, ...], context: tuple[Dot, ...], gone: frozenset[Dot]
) -> tuple[Record, KeyState]:
    covered = gone.union(version.dot for version in live)
    return Record(live, context), KeyState(live, context, tuple(sorted(covered)))


def merge(record: Record, clock: PartitionClock, state: KeyState) -> Record:
    """Merge what was told into what is here, by the rule above.

    The caller then adds ``coverage(state)`` to the clock and calls ``settle``.
    """
    theirs, seen_there = state.dots(), SeenDots(state.context, frozenset(state.covered))
    ours, seen_here = record.dots(), seen(record, clock)
    kept = [v for v in record.live if v.dot in theirs or v.dot not in seen_there]
    new = [v for v in state.live if v.dot not in ours and v.dot not in seen_here]
    return Record(tuple(sorted(kept + new)), join_contexts(record.context, state.context))


def coverage(state: KeyState) -> frozenset[Dot]:
    """Return the exact dots that a receiver has processed once it merged this state."""
    return state.dots().union(state.covered)


def settle(record: Record, clock: PartitionClock) -> Record | None:
    """Return the record as it is kept, after the clock was updated; None when nothing is left.

    Context is let go only where the clock knows the same without a gap.
    """
    if record.live and len(record.context) <= CONTEXT_ACTORS_MAX:
        return record
    actors = {version.actor for version in record.live}
    context = tuple(
        (actor, n) for actor, n in record.context if actor in actors or n > clock.gap_free(actor)
    )
    if not record.live and not context:
        return None
    # A deleted key keeps its context whole, for as long as it keeps it at all: what is told
    # of it then still reaches replicas that hold an old version.
    return Record(record.live, context) if record.live else record


def answer(record: Record, clock: PartitionClock, asked: Collection[Dot]) -> KeyState:
    """Return this replica's state of a key, vouching for those of the asked dots it has seen.

    Whoever asks names the dots that other replicas hold, and so learns exactly what it needs
    of this replica's clock: "absent but covered" beats a stale copy.
    """
    covered = record.dots()
    if asked:
        processed = seen(record, clock)
        covered = covered.union(dot for dot in asked if dot in processed)
    return KeyState(record.live, record.context, tuple(sorted(covered)))


def combine(states: Iterable[KeyState]) -> KeyState:
    """Merge the answers of several replicas that were all asked for the same dots.

    A version survives if no replica that lacks it has seen it.
    """
    states = list(states)
    versions = {version.dot: version for state in states for version in state.live}
    views = [(state.dots(), SeenDots(state.context, frozenset(state.covered))) for state in states]

    def survives(dot: Dot) -> bool:
        return all(dot in live or dot not in processed for live, processed in views)

    live = tuple(sorted(version for dot, version in versions.items() if survives(dot)))
    context = join_contexts(*(state.context for state in states))
    covered = set(versions).union(*(state.covered for state in states))
    return KeyState(live, context, tuple(sorted(covered)))


@lru_cache(MARKS_REMEMBERED)
def record_mark(key: str, dots: frozenset[Dot]) -> int:
    """Return a 64-bit hash of a key and its live dots; 0 for none, so that it adds nothing.

    The exclusive or of all marks is a partition's digest. Values are not hashed: a dot names
    exactly one value.
    """
    ordered = sorted(dots)
    if not ordered:
        return 0
    data = msgspec.msgpack.encode((key, ordered))
    return int.from_bytes(blake2b(data, digest_size=MARK_BYTES).digest())


def newest_first(live: Iterable[Version]) -> tuple[Version, ...]:
    """Sort siblings for people: latest stamp first, the dot breaking ties everywhere alike."""
    if isinstance(live, tuple) and len(live) == 1:
        return live
    return tuple(sorted(live, key=lambda v: (v.stamp, v.dot), reverse=True))


_CONTEXT_DECODER = msgspec.msgpack.Decoder(tuple[int, tuple[Dot, ...]])


def encode_context(key: str, dots: Iterable[Dot]) -> bytes:
    """Return the token that a client hands back to say which versions it has seen.

    It is bound to its key: dots of one key that were taken for another's would cover writes
    which have not arrived yet, and so lose them.
    """
    return msgspec.msgpack.encode((_key_mark(key), sorted(dots)))


def decode_context(key: str, token: bytes) -> tuple[Dot, ...]:
    """Read such a token. Raises InvalidRequest."""
    if len(token) > CONTEXT_BYTES_MAX:
        raise InvalidRequest(f"a context has at most {CONTEXT_BYTES_MAX} bytes")
    try:
        mark, dots = _CONTEXT_DECODER.decode(token)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRequest(
            "this context did not come from a get or a put; read the key again"
        ) from None
    if mark != _key_mark(key):
        raise InvalidRequest(f"this context is another key's; read {key!r} again")
    return dots


def _key_mark(key: str) -> int:
    return int.from_bytes(blake2b(key.encode(), digest_size=MARK_BYTES).digest())
