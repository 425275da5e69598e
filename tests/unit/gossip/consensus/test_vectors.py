"""The bytes of every message of agreement are pinned; ``test_fuzz_codecs.py`` spoils them."""

import json
import typing
from pathlib import Path

import pytest

from gossip.consensus import messages as m
from gossip.consensus.configuration import Configuration, Voter
from gossip.core.errors import Malformed

VECTORS = Path(__file__).parents[3] / "vectors" / "consensus-v1.json"

HEAD = (1, 2**63 - 1, 7, 2**64 - 1, 2**62)
JOINT = Configuration((Voter(7, 2**64 - 1),), (Voter(8, 1),), (Voter(9, 2),))
MARK = m.SnapshotMark(2**32 + 5, 3, JOINT, 2**32 + 1, 70_000, 2**32 - 1, 65_536)

MESSAGES: list[m.Message] = [
    m.PreVoteRequest(*HEAD, 5, 3),
    m.PreVoteReply(*HEAD, True),
    m.VoteRequest(*HEAD, 5, 3, False),
    m.VoteReply(*HEAD, True),
    m.Append(*HEAD, 5, 3, 4, ()),
    m.Append(
        *HEAD, 5, 3, 4,
        (
            m.Entry(6, 3, m.EntryKind.NOTHING),
            m.Entry(7, 3, m.EntryKind.COMMAND, b"on"),
            m.Entry(8, 4, m.EntryKind.CONFIGURATION, b"\x93\x90\x90\x90"),
        ),
    ),
    m.AppendReply(*HEAD, True, 8),
    m.AppendReply(*HEAD, False, 8, 5, 3),
    m.Heartbeat(*HEAD, 12, 4),
    m.HeartbeatReply(*HEAD, 12),
    m.SnapshotChunk(*HEAD, MARK, 1, 2**32 - 1, b"state"),
    m.SnapshotReply(*HEAD, 2**32 + 5, 2**32 - 1, 2),
    m.TimeoutNow(*HEAD),
    m.ReadRequest(*HEAD, 2**63),
    m.ReadReply(*HEAD, 2**63, 8),
    m.ReadReply(*HEAD, 2**63, None),
]  # fmt: skip


def test_every_message_has_its_pinned_bytes() -> None:
    """If this fails, nodes of two versions cannot talk: add fields at the end, with a default."""
    pinned = json.loads(VECTORS.read_text())
    assert [[type(each).__name__, m.CODEC.encode(each).hex()] for each in MESSAGES] == pinned


def test_pinned_bytes_come_back_as_their_messages() -> None:
    pinned = [bytes.fromhex(data) for _, data in json.loads(VECTORS.read_text())]
    assert [m.CODEC.decode(data) for data in pinned] == MESSAGES


def test_no_message_is_missing_and_tags_are_the_rooms_own() -> None:
    assert set(typing.get_args(m.Message)) == {type(each) for each in MESSAGES}
    assert m.CODEC.tags == set(range(112, 125))


def test_entries_and_marks_as_they_are_stored() -> None:
    """An entry's kind is stored as its number, and a configuration as an entry's data."""
    assert [kind.value for kind in m.EntryKind] == [0, 1, 2]
    assert MARK.chunks == 2
    assert [MARK.chunk_size(number) for number in range(2)] == [65_536, 70_000 - 65_536]
    assert m.SnapshotMark(1, 1, JOINT, 1, 0, 0, 65_536).chunks == 1


@pytest.mark.parametrize("message", [
    m.Heartbeat(2**32, 1, 2, 3, 4, 5, 6), m.Heartbeat(1, -1, 2, 3, 4, 5, 6),
    m.Heartbeat(1, 1, 2, 3, 2**62 + 1, 5, 6), m.ReadRequest(*HEAD, -1),
    m.Append(*HEAD, 0, 0, 0, (m.Entry(1, 1, m.EntryKind.COMMAND, b"x" * 524_289),)),
    m.Append(*HEAD, 0, 0, 0, (m.Entry(1, 1, m.EntryKind.NOTHING),) * 1025),
    m.Append(*HEAD, 0, 0, 0, (m.Entry(1, 1, 3),)),  # type: ignore[arg-type]
    m.SnapshotChunk(*HEAD, MARK, 0, 0, b"x" * 262_145),
])  # fmt: skip
def test_values_out_of_bounds_are_malformed(message: m.Message) -> None:
    with pytest.raises(Malformed):
        m.CODEC.decode(m.CODEC.encode(message))


if __name__ == "__main__":
    rows = [[type(each).__name__, m.CODEC.encode(each).hex()] for each in MESSAGES]
    VECTORS.write_text(json.dumps(rows, indent=1) + "\n")
