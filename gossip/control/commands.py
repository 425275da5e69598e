"""What stands in the log: every command of the control plane, as bytes.

A command is decoded by every replica, now and by later versions that read an old log, so the rule
of ``gossip/core/wire.py`` is not enough here: *a replica that does not understand a command must
not go on*, or it would differ from the others ever after. So unknown tags and unknown fields are
errors, see ``UnknownCommand``; a new field comes with a default that means what was before.

Whoever proposes checks first (``check_command``). What is in the log all the same and breaks a rule
is declined by every replica alike.
"""

import msgspec

from gossip.control.bounds import (
    BARRIER_COUNT_MAX,
    COMMAND_BYTES_MAX,
    LOCK_DELAY_MS_DEFAULT,
    LOCK_DELAY_MS_MAX,
    LOCK_VALUE_BYTES_MAX,
    NAME_BYTES_MAX,
    PERMITS_MAX,
    REGISTRY_BYTES_MAX,
    SESSION_TTL_MS_MAX,
    SESSION_TTL_MS_MIN,
    TOKEN_BYTES_MAX,
    TOKEN_ID_BYTES_MAX,
    TOKENS_CHANGED_MAX,
    check_number,
    check_text,
)
from gossip.control.transactions import Compares, Operations, Uint64, check_transaction
from gossip.core.errors import InvalidRequest, LimitExceeded, LocalError


class RegisterClient(
    msgspec.Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True
):
    """Make a client known, so that its commands are carried out once; see ``clients.py``.

    By the ``nonce``, which it drew at random, it finds its own registration in the log.
    """

    nonce: Uint64


class Transact(msgspec.Struct, frozen=True, array_like=True, tag=2, forbid_unknown_fields=True):
    """Compare, then, otherwise."""

    compares: Compares
    then: Operations
    otherwise: Operations = ()


class OpenSession(msgspec.Struct, frozen=True, array_like=True, tag=3, forbid_unknown_fields=True):
    """Open a session; ``node`` is who will renew it."""

    node: Uint64
    ttl_ms: Uint64
    lock_delay_ms: Uint64 = LOCK_DELAY_MS_DEFAULT
    label: str = ""


class CloseSession(msgspec.Struct, frozen=True, array_like=True, tag=4, forbid_unknown_fields=True):
    """End a session by its own wish: what it holds is free at once."""

    session: Uint64


class ExpireSession(
    msgspec.Struct, frozen=True, array_like=True, tag=5, forbid_unknown_fields=True
):
    """End a session that was not renewed, as the leader of this term found.

    Carried out only from a log entry of that very term. So a leader that was deposed while it was
    stuck ends no session: others have been renewed at its successor since (etcd#15247).
    """

    session: Uint64
    term: Uint64


class AcquireLock(msgspec.Struct, frozen=True, array_like=True, tag=6, forbid_unknown_fields=True):
    """Take a lock, one of its permits; or wait for it in its queue."""

    name: str
    session: Uint64
    permits: Uint64 = 1
    wait: bool = True
    value: bytes = b""


class ReleaseLock(msgspec.Struct, frozen=True, array_like=True, tag=7, forbid_unknown_fields=True):
    """Let go of a lock, or leave its queue."""

    name: str
    session: Uint64


class ProclaimValue(
    msgspec.Struct, frozen=True, array_like=True, tag=8, forbid_unknown_fields=True
):
    """Say something else about oneself as the holder of a lock."""

    name: str
    session: Uint64
    value: bytes


class EndDelay(msgspec.Struct, frozen=True, array_like=True, tag=9, forbid_unknown_fields=True):
    """Open a lock again whose holder was lost at ``since``, as the leader of this term measured."""

    name: str
    since: Uint64
    term: Uint64


class EnterBarrier(
    msgspec.Struct, frozen=True, array_like=True, tag=10, forbid_unknown_fields=True
):
    """Enter a double barrier for so many."""

    name: str
    session: Uint64
    count: Uint64


class LeaveBarrier(
    msgspec.Struct, frozen=True, array_like=True, tag=11, forbid_unknown_fields=True
):
    """Leave a double barrier."""

    name: str
    session: Uint64


class TokenChange(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Put a token's value in the place of the one of this revision; 0: there is none so far.

    An empty value: take the token away.
    """

    id: bytes
    expected: Uint64
    value: bytes


class ChangeRegistry(
    msgspec.Struct, frozen=True, array_like=True, tag=12, forbid_unknown_fields=True
):
    """Put a signed registry in the place of the one with the mark ``expected``, and change tokens.

    All or nothing. Without ``registry`` tokens alone are changed. An empty ``expected`` with a
    registry: there is none in the log so far. See ``registry_table.py``.
    """

    expected: bytes
    registry: bytes
    tokens: tuple[TokenChange, ...] = ()


Action = (
    RegisterClient
    | Transact
    | OpenSession
    | CloseSession
    | ExpireSession
    | AcquireLock
    | ReleaseLock
    | ProclaimValue
    | EndDelay
    | EnterBarrier
    | LeaveBarrier
    | ChangeRegistry
)


NEWEST_TAG = 12
"""Of the actions above: what a node that says it of itself can carry out from a log."""


class Command(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One command with who sent it. ``client`` 0: a leader's own, which does no harm twice.

    ``settled``: all commands of this client with a lower sequence have been answered.
    """

    action: Action
    client: Uint64 = 0
    sequence: Uint64 = 0
    settled: Uint64 = 0


class UnknownCommand(LocalError):
    """The log has a command that this version does not know; a newer one has written it."""


_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)


def encode_command(command: Command) -> bytes:
    """Return a command as it stands in the log. Raises LimitExceeded if it is too large."""
    data = _ENCODER.encode(command)
    if len(data) > COMMAND_BYTES_MAX:
        raise LimitExceeded(
            f"a command has at most {COMMAND_BYTES_MAX} bytes, not {len(data)}; split it"
        )
    return data


def decode_command(data: bytes) -> Command:
    """Read a command. Raises UnknownCommand."""
    try:
        return _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnknownCommand(
            f"the log has a command that this version does not know ({error}); update this agent"
        ) from None


def check_command(action: Action) -> None:
    """Raise InvalidRequest for what no state could carry out."""
    match action:
        case Transact():
            check_transaction(action.compares, action.then, action.otherwise)
            return
        case OpenSession():
            check_number(
                action.ttl_ms, "a session's `ttl` in ms", SESSION_TTL_MS_MIN, SESSION_TTL_MS_MAX
            )
            check_number(action.lock_delay_ms, "a `lock delay` in ms", 0, LOCK_DELAY_MS_MAX)
            check_text(action.label, "a session's label", NAME_BYTES_MAX, 0)
        case AcquireLock() | ReleaseLock() | ProclaimValue() | EndDelay():
            check_text(action.name, "the name of a lock", NAME_BYTES_MAX)
        case EnterBarrier() | LeaveBarrier():
            check_text(action.name, "the name of a barrier", NAME_BYTES_MAX)
        case ChangeRegistry():
            _check_registry_change(action)
        case _:
            pass
    if isinstance(action, AcquireLock):
        check_number(action.permits, "`permits`", 1, PERMITS_MAX)
    if isinstance(action, EnterBarrier):
        check_number(action.count, "a barrier's `count`", 1, BARRIER_COUNT_MAX)
    value = action.value if isinstance(action, AcquireLock | ProclaimValue) else b""
    if len(value) > LOCK_VALUE_BYTES_MAX:
        raise InvalidRequest(
            f"a holder's value has at most {LOCK_VALUE_BYTES_MAX} bytes, not {len(value)}"
        )


def _check_registry_change(change: ChangeRegistry) -> None:
    if len(change.registry) > REGISTRY_BYTES_MAX:
        raise InvalidRequest(
            f"a registry has at most {REGISTRY_BYTES_MAX} bytes, not {len(change.registry)}; remove"
            " nodes that are gone for good"
        )
    if not change.registry and (change.expected or not change.tokens):
        raise InvalidRequest("a change of the registry has a registry, or tokens, or both")
    if len(change.tokens) > TOKENS_CHANGED_MAX:
        raise InvalidRequest(f"at most {TOKENS_CHANGED_MAX} tokens are changed at once")
    if len({each.id for each in change.tokens}) < len(change.tokens):
        raise InvalidRequest("a token is changed once in one change")
    for each in change.tokens:
        check_number(len(each.id), "the bytes of a token's id", 1, TOKEN_ID_BYTES_MAX)
        check_number(len(each.value), "the bytes of a token's value", 0, TOKEN_BYTES_MAX)
        if not each.value and not each.expected:
            raise InvalidRequest("a token that is not there cannot be taken away")
