"""A small state machine under a Raft group: registers, lists and locks, by key.

It is as small as it may be and still show every way in which replicated state goes wrong. Commands
carry their client and a number that grows with each of its requests, so that one which is in the
log twice, because the client did not hear the answer and asked again, has its effect once. The
requests are those of ``CommandKind``; what they are answered depends on nothing but the log.
"""

import enum
import zlib

import msgspec

from gossip.consensus.messages import Entry, EntryKind

Value = int | bool | str | None
Answer = Value | tuple[int, ...]


class CommandKind(enum.IntEnum):
    """What a command does to its key."""

    WRITE = 1
    """A register holds the first argument from now on; "ok"."""
    SWAP = 2
    """A register that holds the first argument holds the second from now on; whether it did."""
    APPEND = 3
    """A list ends with the first argument; "ok"."""
    LOCK = 4
    """The client has the lock; the token, which is the entry's index. None: another has it."""
    UNLOCK = 5
    """The lock is free, if the client has it by the token in the first argument; whether so."""


class ClientCommand(msgspec.Struct, frozen=True, array_like=True):
    """One request of a client, as the data of an entry."""

    client: str
    number: int
    kind: CommandKind
    key: str
    arguments: tuple[int | None, ...] = ()


class _State(msgspec.Struct, array_like=True):
    """All that a snapshot holds."""

    index: int = 0
    digest: int = 0
    registers: dict[str, int | None] = msgspec.field(default_factory=dict)
    lists: dict[str, tuple[int, ...]] = {}
    locks: dict[str, tuple[str, int]] = {}
    answered: dict[str, tuple[int, Answer]] = {}


_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_COMMANDS = msgspec.msgpack.Decoder(ClientCommand)
_STATES = msgspec.msgpack.Decoder(_State)


class ConsensusStore:
    """The state after the entries up to ``index``; ``digest`` depends on each of them."""

    def __init__(self) -> None:
        self._state = _State()

    @property
    def index(self) -> int:
        """The last entry that was applied."""
        return self._state.index

    @property
    def digest(self) -> int:
        """A checksum of all entries that were applied, in their order."""
        return self._state.digest

    def begin(self, index: int) -> None:
        """Let the first entry be the one behind this index, of a group that does not begin at 1."""
        assert not self._state.index, "what was applied stays"
        self._state.index = index

    def apply(self, entry: Entry) -> tuple[ClientCommand, Answer] | None:
        """Apply the next entry; return what it asked and what that is answered, if it asked."""
        state = self._state
        assert entry.index == state.index + 1, f"entry {entry.index} follows on {state.index}"
        state.index = entry.index
        state.digest = zlib.crc32(entry.data, zlib.crc32(b"%d" % entry.term, state.digest))
        if entry.kind is not EntryKind.COMMAND:
            return None
        command = _COMMANDS.decode(entry.data)
        number, answer = state.answered.get(command.client, (0, None))
        if command.number < number:
            return None
        if command.number > number:
            answer = self._execute(command, entry.index)
            state.answered[command.client] = command.number, answer
        return command, answer

    def read(self, key: str) -> Answer:
        """Return what a register or a list holds."""
        if key in self._state.lists:
            return self._state.lists[key]
        return self._state.registers.get(key)

    def snapshot(self) -> bytes:
        """Return all of it; two that applied the same entries return the same bytes."""
        return _ENCODER.encode(self._state)

    def restore(self, data: bytes, index: int) -> None:
        """Take over what ``snapshot`` returned; a recovery has raised its index, if anything."""
        self._state = _STATES.decode(data)
        assert self._state.index <= index, "nobody has applied less than its snapshot says"
        self._state.index = index

    def _execute(self, command: ClientCommand, index: int) -> Answer:
        state, key, arguments = self._state, command.key, command.arguments
        match command.kind:
            case CommandKind.WRITE:
                state.registers[key] = arguments[0]
                return "ok"
            case CommandKind.SWAP:
                fits = state.registers.get(key) == arguments[0]
                if fits:
                    state.registers[key] = arguments[1]
                return fits
            case CommandKind.APPEND:
                assert arguments[0] is not None, "a list holds numbers"
                state.lists[key] = (*state.lists.get(key, ()), arguments[0])
                return "ok"
            case CommandKind.LOCK:
                if key in state.locks:
                    return None
                state.locks[key] = command.client, index
                return index
            case CommandKind.UNLOCK:
                fits = state.locks.get(key) == (command.client, arguments[0])
                if fits:
                    del state.locks[key]
                return fits


def encode_command(command: ClientCommand) -> bytes:
    """Return a command as the data of an entry."""
    return _ENCODER.encode(command)
