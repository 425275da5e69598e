"""What a snapshot holds is a state that a log can lead to, or it is refused as a whole."""

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossip.control import bounds
from gossip.control.barriers import Barrier
from gossip.control.clients import SettledOutcome, outcome_bytes
from gossip.control.commands import (
    AcquireLock,
    Action,
    ChangeRegistry,
    CloseSession,
    Command,
    EndDelay,
    EnterBarrier,
    ExpireSession,
    LeaveBarrier,
    OpenSession,
    ProclaimValue,
    RegisterClient,
    ReleaseLock,
    TokenChange,
    Transact,
    encode_command,
)
from gossip.control.keys import KeyEntry
from gossip.control.locks import Lock, LockDelay, LockHolder, LockWaiter
from gossip.control.outcomes import ClientResult
from gossip.control.registry_table import RegistryImage, TokenEntry
from gossip.control.sessions import ControlSession
from gossip.control.state_image import ClientImage, StateImage, encode_image
from gossip.control.state_machine import ControlState
from gossip.control.transactions import DeletePrefix, PutKey
from gossip.core.errors import Malformed

INDEX = 100
TERM = 1
KNOWN = SettledOutcome(3, 60, ClientResult(1), outcome_bytes(ClientResult(1)))
GOOD = StateImage(
    2,
    (KeyEntry("a", b"v", 5, 9, 2), KeyEntry("b", b"", 50, 50, 1, 20)),
    (ControlSession(20, 1, 5000, 0, "x"), ControlSession(21, 1, 5000), ControlSession(22, 1, 5000)),
    (
        Lock("l", 1, (LockHolder(20, 30, b"v"),), (LockWaiter(21, 31), LockWaiter(22, 32))),
        Lock("m", 2, (LockHolder(21, 33),), (), (LockDelay(40, 1000),)),
    ),
    (Barrier("b", 2, (20,), is_open=False), Barrier("c", 2, (21, 22), is_open=True)),
    (ClientImage(11, 2, (KNOWN,)), ClientImage(10, 0, ())),
    RegistryImage(b"", 0, (TokenEntry(b"t", b"v", 7), TokenEntry(b"u", b"v", 8))),
)

Edit = Callable[[Any], Any]


def with_first(name: str, **changes: Any) -> Edit:
    """Change the first of those things."""

    def edit(image: StateImage) -> StateImage:
        first, *others = getattr(image, name)
        return msgspec.structs.replace(
            image, **{name: (msgspec.structs.replace(first, **changes), *others)}
        )

    return edit


def having(**changes: Any) -> Edit:
    return lambda image: msgspec.structs.replace(image, **changes)


def lock(*parts: Any, permits: int = 1, name: str = "l") -> Edit:
    return having(locks=(Lock(name, permits, *parts),))


def barrier(*parts: Any) -> Edit:
    return having(barriers=(Barrier("b", *parts),))


def known(**changes: Any) -> Edit:
    outcome = msgspec.structs.replace(KNOWN, **changes)
    return with_first("clients", outcomes=(outcome,))


def tokens(*entries: TokenEntry) -> Edit:
    return having(registry=RegistryImage(b"", 0, entries))


LONG = "x" * (bounds.NAME_BYTES_MAX + 1)
HUGE = 2**62
MADE_UP: dict[str, Edit] = {
    "keys out of order": having(keys=GOOD.keys[::-1]),
    "a key twice": having(keys=(GOOD.keys[0],) * 2),
    "an empty key": with_first("keys", key=""),
    "a long key": with_first("keys", key="x" * (bounds.KEY_BYTES_MAX + 1)),
    "a large value": with_first("keys", value=bytes(bounds.VALUE_BYTES_MAX + 1)),
    "a key of the future": with_first("keys", modified=INDEX + 1),
    "a key that was modified first": with_first("keys", created=10),
    "a key of no revision": with_first("keys", created=0),
    "a version that overflows": with_first("keys", version=2**64 - 1),
    "no version": with_first("keys", version=0),
    "a key of a session that is not there": with_first("keys", session=19),
    "sessions out of order": having(sessions=GOOD.sessions[::-1]),
    "a session of the future": with_first("sessions", number=INDEX + 1),
    "a session that never ends": with_first("sessions", ttl_ms=HUGE),
    "a session that has ended": with_first("sessions", ttl_ms=0),
    "a negative node": with_first("sessions", node=-1),
    "a delay without end": with_first("sessions", lock_delay_ms=HUGE),
    "a long label": with_first("sessions", label=LONG),
    "many with one label": having(
        sessions=tuple(
            ControlSession(n, 1, 5000, 0, "x") for n in range(1, bounds.LABEL_SESSIONS_MAX + 2)
        )
    ),
    "locks out of order": having(locks=GOOD.locks[::-1]),
    "a lock twice": having(locks=(GOOD.locks[0],) * 2),
    "a long name": lock((LockHolder(20, 30),), name=LONG),
    "no permits": lock((), (), (), permits=0),
    "too many permits": lock((LockHolder(20, 30),), permits=bounds.PERMITS_MAX + 1),
    "more holders than permits": lock((LockHolder(20, 30), LockHolder(21, 31))),
    "a holder that is not there": lock((LockHolder(19, 30),)),
    "who waits is not there": lock((LockHolder(20, 30),), (LockWaiter(19, 31),)),
    "a holder twice": lock((LockHolder(20, 30), LockHolder(20, 31)), permits=2),
    "a holder that waits": lock((LockHolder(20, 30),), (LockWaiter(20, 31),)),
    "tokens that fall": lock((LockHolder(20, 31), LockHolder(21, 30)), permits=2),
    "one token twice": lock((LockHolder(20, 30), LockHolder(21, 30)), permits=2),
    "a token of the future": lock((LockHolder(20, INDEX + 1),)),
    "no token": lock((LockHolder(20, 0),)),
    "a queue out of order": lock((LockHolder(20, 30),), (LockWaiter(21, 32), LockWaiter(22, 31))),
    "who waits for a free permit": lock((), (LockWaiter(21, 31),)),
    "delays out of order": lock((), (), (LockDelay(9, 5), LockDelay(8, 5)), permits=2),
    "a delay that is none": lock((), (), (LockDelay(9, 0),)),
    "a delay for ever": lock((), (), (LockDelay(9, HUGE),)),
    "a large word": lock((LockHolder(20, 30, bytes(bounds.LOCK_VALUE_BYTES_MAX + 1)),)),
    "a lock of nobody": lock(()),
    "a barrier that should be open": barrier(1, (20,), False),
    "a barrier of none": barrier(1, (), True),
    "too many inside": barrier(1, (20, 21), True),
    "one inside twice": barrier(3, (20, 20), False),
    "one inside that is not there": barrier(2, (19,), False),
    "a barrier for too many": barrier(bounds.BARRIER_COUNT_MAX + 1, (20,), False),
    "a barrier twice": having(barriers=(GOOD.barriers[0],) * 2),
    "a client twice": having(clients=(GOOD.clients[0],) * 2),
    "a client of the future": with_first("clients", number=INDEX + 1),
    "a client of no index": with_first("clients", number=0),
    "what is settled is kept": with_first("clients", settled=4),
    "settled beyond": with_first("clients", settled=-1),
    "outcomes out of order": with_first(
        "clients", outcomes=(KNOWN, msgspec.structs.replace(KNOWN, sequence=2))
    ),
    "an outcome of the future": known(index=INDEX + 1),
    "an outcome before its client": known(index=11),
    "an outcome without a size": known(size_bytes=0),
    "an outcome of a huge size": known(size_bytes=HUGE),
    "too many clients": having(
        clients=tuple(ClientImage(1 + n % INDEX, 0, ()) for n in range(bounds.CLIENTS_MAX + 1))
    ),
    "tokens out of order": tokens(TokenEntry(b"u", b"v", 8), TokenEntry(b"t", b"v", 7)),
    "a token without a value": tokens(TokenEntry(b"t", b"", 7)),
    "a token without a name": tokens(TokenEntry(b"", b"v", 7)),
    "a large token": tokens(TokenEntry(b"t", bytes(bounds.TOKEN_BYTES_MAX + 1), 7)),
    "an invitation of the future": tokens(TokenEntry(b"t", b"v", INDEX + 1)),
    "too many tokens": tokens(
        *(TokenEntry(b"%03d" % n, bytes(bounds.TOKEN_BYTES_MAX), 7) for n in range(17))
    ),
    "a registry of nothing": tokens(),
    "a revision of no registry": having(registry=RegistryImage(b"", 3, GOOD.registry.tokens)),  # type: ignore[union-attr]
    "a registry in the first version": having(version=1),
    "no registry in the second version": having(registry=None),
    "more than there is room for": having(
        keys=tuple(KeyEntry(f"{n:06}", bytes(bounds.VALUE_BYTES_MAX), 1, 1, 1) for n in range(1155))
    ),
}


def test_a_state_that_is_one_is_taken_over_byte_for_byte() -> None:
    data = encode_image(GOOD)
    assert ControlState.restore(data, INDEX).snapshot() == data


@pytest.mark.parametrize("made_up", MADE_UP)
def test_what_no_log_leads_to_is_refused(made_up: str) -> None:
    with pytest.raises(Malformed):
        ControlState.restore(encode_image(MADE_UP[made_up](GOOD)), INDEX)


NAMES = ("a", "b", "c/d", "é", "covey/settings/all/x")


def some_action(rng: random.Random, index: int) -> Action:
    """Return a command as clients and leaders send them, some of which are declined."""
    number, name = rng.randrange(1, index + 1), rng.choice(NAMES)
    made: tuple[Callable[[], Action], ...] = (
        lambda: RegisterClient(number),
        lambda: OpenSession(1, 5000, rng.choice((0, 1000)), rng.choice(("", "app:x"))),
        lambda: OpenSession(1, 5000, 1000),
        lambda: CloseSession(number),
        lambda: ExpireSession(number, TERM),
        lambda: AcquireLock(name, number, rng.choice((1, 1, 2)), rng.random() < 0.8, b"v"),
        lambda: ReleaseLock(name, number),
        lambda: ProclaimValue(name, number, b"w"),
        lambda: EndDelay(name, number, TERM),
        lambda: EnterBarrier(name, number, rng.choice((1, 2, 3))),
        lambda: LeaveBarrier(name, number),
        lambda: Transact((), (PutKey(name, b"x", rng.choice((0, number))), PutKey(name, b"y"))),
        lambda: Transact((), (DeletePrefix(name[:1]),)),
        lambda: ChangeRegistry(b"", b"", (TokenChange(name.encode(), 0, b"t"),)),
    )
    return rng.choice(made)()


def carry_on(state: ControlState, rng: random.Random, count: int) -> None:
    """Apply so many commands, from clients that are known and from nobody."""
    for _ in range(count):
        clients = [0, *(each.number for each in state.clients)]
        sender = rng.choice(clients), rng.randrange(1, 40), rng.randrange(4)
        action = some_action(rng, state.index + 1)
        data = encode_command(Command(action, *sender) if sender[0] else Command(action))
        state.apply(state.index + 1, TERM, data)


@given(st.integers(0, 2**32), st.integers(0, 150))
@settings(max_examples=60, deadline=None)
def test_what_a_log_leads_to_is_taken_over_and_written_again_byte_for_byte(
    seed: int, count: int
) -> None:
    rng = random.Random(seed)
    state = ControlState()
    carry_on(state, rng, count)
    data = state.snapshot()
    again = ControlState.restore(data, state.index)
    assert again.snapshot() == data
    assert again.space.used_bytes == state.space.used_bytes
    carry_on(again, rng, 10)


def spoilt(value: Any, rng: random.Random) -> Any:
    """Return a decoded image with one thing in it changed."""
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        return [*value[:place], spoilt(value[place], rng), *value[place + 1 :]]
    match value:
        case bool():
            return not value
        case int():
            return rng.choice((0, 1, value + 1, max(0, value - 1), rng.randrange(60), 2**63))
        case str():
            return rng.choice(("", "a", value + "x", "x" * 600))
        case bytes():
            return rng.choice((b"", b"x", value + b"x"))
        case list():
            return rng.choice((value[:-1], value[::-1], value + value[:1]))
    return value


def test_what_is_taken_over_does_no_harm_later() -> None:
    """Of images with one lie in them, those that pass are states like any other."""
    passed = 0
    for seed in range(1500):
        rng = random.Random(seed)
        state = ControlState()
        carry_on(state, rng, rng.randrange(10, 60))
        lie = msgspec.msgpack.encode(spoilt(msgspec.msgpack.decode(state.snapshot()), rng))
        try:
            again = ControlState.restore(lie, state.index)
        except Malformed:
            continue
        passed += 1
        carry_on(again, rng, 40)
        state = ControlState.restore(again.snapshot(), again.index)
        assert state.snapshot() == again.snapshot()
    assert passed, "some lies are as good as the truth"
