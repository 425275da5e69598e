"""A saved state of the control plane as one file, that says what it is, and whether it is whole.

Two lines of text, then the state: whoever looks into the file sees which covey it is of, and how
far it had come. The second line's checksum covers the first line and the state.
"""

import hashlib
import json

import msgspec

from agent.exits import NO, AgentError
from gossip.consensus.messages import GENERATION_MAX, NUMBER_MAX
from gossip.control.recovery import SavedState

FORM = "covey-snapshot 1"
LINE_BYTES_MAX = 4096


class SnapshotHeader(msgspec.Struct, frozen=True):
    """What a file says of itself; ``saved_at`` is the clock of the node that saved it."""

    covey: str
    name: str
    generation: int
    index: int
    saved_at: str
    size_bytes: int


class SnapshotFile(msgspec.Struct, frozen=True):
    """A file that was read, and is whole."""

    header: SnapshotHeader
    saved: SavedState


def write_snapshot(saved: SavedState, covey: str, name: str, saved_at: str) -> bytes:
    """Return the bytes of a file."""
    title = SnapshotHeader(covey, name, saved.generation, saved.index, saved_at, len(saved.data))
    first = f"{FORM} ".encode() + msgspec.json.encode(title) + b"\n"
    return first + f"{_digest(first, saved.data)}\n".encode() + saved.data


def read_snapshot(data: bytes) -> SnapshotFile:
    """Read a file. Raises AgentError for what is none, is of a later version, or damaged."""
    first_end = data.find(b"\n", 0, LINE_BYTES_MAX) + 1
    second_end = data.find(b"\n", first_end, first_end + LINE_BYTES_MAX) + 1
    form = FORM.encode()
    if not data.startswith(form.rpartition(b" ")[0]):
        raise _refused("this is no snapshot of a covey", "`covey snapshot save` makes one")
    if not data.startswith(form + b" "):
        raise _refused("this snapshot was saved by a later version", "update this agent")
    first, state = data[:first_end], data[second_end:]
    if not (first_end and second_end) or data[first_end : second_end - 1].decode(
        errors="replace"
    ) != _digest(first, state):
        raise _refused("this snapshot is damaged: its checksum does not fit", "take another copy")
    try:
        title = msgspec.json.decode(first[len(form) :], type=SnapshotHeader)
    except (msgspec.DecodeError, RecursionError):
        raise _refused("this snapshot does not say what it is of", "take another copy") from None
    is_possible = 0 < title.generation < GENERATION_MAX and 0 < title.index < NUMBER_MAX // 2
    if not is_possible or title.size_bytes != len(state):
        raise _refused("this snapshot contradicts itself", "take another copy")
    return SnapshotFile(title, SavedState(state, title.generation, title.index))


def _digest(first: bytes, state: bytes) -> str:
    return hashlib.blake2b(first + state, digest_size=32).hexdigest()


def _refused(message: str, hint: str) -> AgentError:
    return AgentError(f"{message}; nothing was changed", hint, NO)


def titled(header: SnapshotHeader) -> dict[str, object]:
    """Return what a file says of itself, as JSON."""
    told: dict[str, object] = json.loads(msgspec.json.encode(header))
    return told
