"""The whole state as a snapshot has it, and whether any log leads to it.

A snapshot comes from a disk, from the voter that a copy pulls, or from a file that somebody has
kept, and whoever wrote it may have made it up. What no log leads to would do its harm later: in the
middle of a command that is in the log by then, at each replica alike, and again at each start. So
all of it is looked at before anything is taken over: every bound of ``bounds.py``, and what the
tables count on. These are errors, not assertions: they hold in an agent that was started with
``-O``, too.

What is accepted is written again byte for byte: everything stands in the one order in which
``ControlState.snapshot`` writes it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TypeVar

import msgspec

from gossip.control.barriers import Barrier
from gossip.control.bounds import (
    BARRIER_COUNT_MAX,
    CLIENT_OUTCOMES_MAX,
    CLIENTS_BYTES_MAX,
    CLIENTS_MAX,
    KEY_BYTES_MAX,
    LABEL_SESSIONS_MAX,
    LOCK_DELAY_MS_MAX,
    LOCK_VALUE_BYTES_MAX,
    NAME_BYTES_MAX,
    OPERATIONS_MAX,
    PERMITS_MAX,
    REGISTRY_BYTES_MAX,
    RESERVE_BYTES,
    SESSION_TTL_MS_MAX,
    SESSION_TTL_MS_MIN,
    SESSIONS_MAX,
    STATE_BYTES_MAX,
    TOKEN_BYTES_MAX,
    TOKEN_ID_BYTES_MAX,
    TOKENS_BYTES_MAX,
    UINT64_MAX,
    VALUE_BYTES_MAX,
    check_number,
    check_text,
)
from gossip.control.clients import SettledOutcome, outcome_bytes
from gossip.control.keys import KeyEntry
from gossip.control.locks import Lock
from gossip.control.registry_table import RegistryImage, read_registry
from gossip.control.sessions import ControlSession
from gossip.core.errors import InvalidRequest, Malformed

IMAGE_VERSION = 2
FIRST_IMAGE_VERSION = 1
"""Without registry and tokens: written while there are none, so that an older agent reads it."""
N = TypeVar("N", str, bytes, int)

NOTE_BYTES_MAX = 4096
"""A recovery writes its note (``recovery.py``) whatever room there is."""


class ClientImage(msgspec.Struct, frozen=True, array_like=True):
    """One client, as a snapshot has it."""

    number: int
    settled: int
    outcomes: tuple[SettledOutcome, ...]


class StateImage(msgspec.Struct, frozen=True, array_like=True):
    """The whole state, as a snapshot has it: everything in a fixed order.

    The index is not in it: a recovery after a lost majority goes on from the same state at a
    larger one.
    """

    version: int
    keys: tuple[KeyEntry, ...]
    sessions: tuple[ControlSession, ...]
    locks: tuple[Lock, ...]
    barriers: tuple[Barrier, ...]
    clients: tuple[ClientImage, ...]
    registry: RegistryImage | None = None


_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[StateImage] = msgspec.msgpack.Decoder(StateImage)


def encode_image(image: StateImage) -> bytes:
    """Return an image as the bytes of a snapshot."""
    return _ENCODER.encode(image)


def decode_image(data: bytes, index: int) -> StateImage:
    """Return what a snapshot of this index holds, if a log can lead to it. Raises Malformed."""
    try:
        image = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"a snapshot of the control plane does not decode: {error}") from None
    if not FIRST_IMAGE_VERSION <= image.version <= IMAGE_VERSION:
        raise Malformed(
            f"a snapshot of the control plane has version {image.version}; this agent reads"
            f" {FIRST_IMAGE_VERSION} to {IMAGE_VERSION}: update it"
        )
    try:
        _check(image, index)
    except InvalidRequest as error:
        raise Malformed(f"a snapshot of the control plane contradicts itself: {error}") from None
    return image


def _check(image: StateImage, index: int) -> None:
    """Raise InvalidRequest, or Malformed, unless a log of this index can lead to this."""
    sessions = frozenset(each.number for each in image.sessions)
    _check_sessions(image.sessions, index)
    _check_order([each.key for each in image.keys], "keys")
    for entry in image.keys:
        _check_key(entry, sessions, index)
    _check_order([each.name for each in image.locks], "locks")
    for lock in image.locks:
        _check_lock(lock, sessions, index)
    _check_order([each.name for each in image.barriers], "barriers")
    for barrier in image.barriers:
        _check_barrier(barrier, sessions)
    _check_clients(image.clients, index)
    is_first = image.version == FIRST_IMAGE_VERSION
    _ensure(is_first == (image.registry is None), "its version says whether it has a registry")
    if image.registry is not None:
        _check_registry(image.registry, index)
    _check_space(image)


def _ensure(holds: bool, rule: str) -> None:  # noqa: FBT001 - the sentence that it is
    if not holds:
        raise InvalidRequest(rule)


def _check_order(names: Sequence[N], what: str) -> None:
    """See that each is there once, in order."""
    grow = all(one < next_one for one, next_one in pairwise(names))
    _ensure(grow, f"{what} stand in their order, and each once")


def _check_sessions(sessions: Sequence[ControlSession], index: int) -> None:
    _ensure(len(sessions) <= SESSIONS_MAX, f"at most {SESSIONS_MAX} sessions are open")
    _check_order([each.number for each in sessions], "sessions")
    labelled = Counter(each.label for each in sessions if each.label)
    most = max(labelled.values(), default=0)
    check_number(most, "sessions with one label", 0, LABEL_SESSIONS_MAX)
    for each in sessions:
        check_number(each.number, "a session", 1, index)
        check_number(each.node, "the node of a session", 0, UINT64_MAX)
        check_number(each.ttl_ms, "a session's ttl", SESSION_TTL_MS_MIN, SESSION_TTL_MS_MAX)
        check_number(each.lock_delay_ms, "a lock delay", 0, LOCK_DELAY_MS_MAX)
        check_text(each.label, "a session's label", NAME_BYTES_MAX, 0)


def _check_key(entry: KeyEntry, sessions: frozenset[int], index: int) -> None:
    check_text(entry.key, "a key", KEY_BYTES_MAX)
    check_number(len(entry.value), "the bytes of a value", 0, VALUE_BYTES_MAX)
    check_number(entry.modified, "the revision of a key", 1, index)
    check_number(entry.created, "the first revision of a key", 1, entry.modified)
    # Each transaction writes it so often at most, and each index has one.
    writes_max = OPERATIONS_MAX * (entry.modified - entry.created + 1)
    check_number(entry.version, "the version of a key", 1, writes_max)
    _ensure(entry.session in sessions or not entry.session, "a key goes with its session")


def _check_lock(lock: Lock, sessions: frozenset[int], index: int) -> None:
    check_text(lock.name, "the name of a lock", NAME_BYTES_MAX)
    check_number(lock.permits, "`permits`", 1, PERMITS_MAX)
    holding = [each.session for each in lock.holders]
    _check_here([*holding, *(each.session for each in lock.waiters)], sessions)
    for name, at in (
        ("tokens of a lock", [each.token for each in lock.holders]),
        ("those who wait for a lock", [each.since for each in lock.waiters]),
        ("delays of a lock", [each.since for each in lock.delays]),
    ):
        _check_order(at, name)
        for each in at:
            check_number(each, name, 1, index)
    for shut in lock.delays:
        check_number(shut.delay_ms, "a lock delay", 1, LOCK_DELAY_MS_MAX)
    for value in [each.value for each in lock.holders] + [each.value for each in lock.waiters]:
        check_number(len(value), "the bytes of a holder's value", 0, LOCK_VALUE_BYTES_MAX)
    _ensure(lock.free >= 0, "no more permits are given than there are")
    _ensure(lock.free == 0 or not lock.waiters, "nobody waits for a permit that is free")
    is_wanted = bool(lock.holders or lock.waiters or lock.delays)
    _ensure(is_wanted, "a lock that nobody wants is none")


def _check_barrier(barrier: Barrier, sessions: frozenset[int]) -> None:
    check_text(barrier.name, "the name of a barrier", NAME_BYTES_MAX)
    check_number(barrier.count, "a barrier's `count`", 1, BARRIER_COUNT_MAX)
    _check_here(barrier.inside, sessions)
    # Before it opens so many are missing; once it is open, as many as have left.
    most = barrier.count if barrier.is_open else barrier.count - 1
    check_number(len(barrier.inside), "who is inside a barrier", 1, most)


def _check_here(holding: Sequence[int], sessions: frozenset[int]) -> None:
    """See that who holds something, or waits, is there, and once."""
    _ensure(sessions.issuperset(holding), "only an open session holds something or waits")
    _ensure(len(set(holding)) == len(holding), "no session has two places in one thing")


def _check_clients(clients: Sequence[ClientImage], index: int) -> None:
    _ensure(len(clients) <= CLIENTS_MAX, f"at most {CLIENTS_MAX} clients are known")
    known = {each.number for each in clients}
    _ensure(len(known) == len(clients), "a client is known once")
    for client in clients:
        _check_client(client, index)
    total = sum(outcome.size_bytes for client in clients for outcome in client.outcomes)
    check_number(total, "the bytes of all outcomes", 0, CLIENTS_BYTES_MAX)


def _check_client(client: ClientImage, index: int) -> None:
    check_number(client.number, "a client", 1, index)
    check_number(client.settled, "what a client has settled", 0, UINT64_MAX)
    check_number(len(client.outcomes), "outcomes of a client", 0, CLIENT_OUTCOMES_MAX)
    _check_order([each.sequence for each in client.outcomes], "outcomes of a client")
    for each in client.outcomes:
        check_number(each.sequence, "an outcome", client.settled, UINT64_MAX)
        check_number(each.index, "the index of an outcome", client.number + 1, index)
        _ensure(each.size_bytes == outcome_bytes(each.outcome), "an outcome is as long as it says")


def _check_registry(image: RegistryImage, index: int) -> None:
    check_number(len(image.signed), "the bytes of a registry", 0, REGISTRY_BYTES_MAX)
    if image.signed:
        read_registry(image.signed, image.revision)
    first, last = (1, index) if image.signed else (0, 0)
    check_number(image.revision, "the revision of the registry", first, last)
    _ensure(bool(image.signed or image.tokens), "a registry that is not there is none")
    _check_order([each.id for each in image.tokens], "tokens")
    for each in image.tokens:
        check_number(len(each.id), "the bytes of a token's id", 1, TOKEN_ID_BYTES_MAX)
        check_number(len(each.value), "the bytes of a token's value", 1, TOKEN_BYTES_MAX)
        check_number(each.revision, "the revision of a token", 1, index)
    token_bytes = sum(each.size_bytes for each in image.tokens)
    check_number(token_bytes, "the bytes of all tokens", 0, TOKENS_BYTES_MAX)


def _check_space(image: StateImage) -> None:
    """See that all of it fits, as ``Space`` counts it."""
    counted: Iterable[KeyEntry | ControlSession | Lock | Barrier] = (
        *image.keys, *image.sessions, *image.locks, *image.barriers,
    )  # fmt: skip
    used_bytes = sum(each.size_bytes for each in counted)
    if image.registry is not None:
        used_bytes += image.registry.size_bytes
    most = STATE_BYTES_MAX + RESERVE_BYTES + NOTE_BYTES_MAX
    check_number(used_bytes, "the bytes of all there is", 0, most)
