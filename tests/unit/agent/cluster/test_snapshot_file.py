"""A saved state as a file: what is not as it was written is refused, and nothing else is read."""

import pytest

from agent.cluster.snapshot_file import read_snapshot, write_snapshot
from agent.exits import AgentError
from gossip.control.recovery import SavedState
from tests.fuzz.hostile import bit_flips, truncations

SAVED = SavedState(bytes(range(256)), 2, 2**32 + 7)
FILE = write_snapshot(SAVED, "49ae", "farm", "2026-11-30T02:22:18Z")


def test_what_was_saved_comes_back() -> None:
    read = read_snapshot(FILE)
    assert read.saved == SAVED
    assert (read.header.covey, read.header.name, read.header.index) == ("49ae", "farm", 2**32 + 7)


def test_people_can_read_what_it_is() -> None:
    first = FILE.split(b"\n")[0].decode()
    assert first.startswith("covey-snapshot 1 {")
    assert '"generation":2' in first


def test_every_truncation_and_every_bit_is_noticed() -> None:
    for spoiled in (*truncations(FILE), *bit_flips(FILE)):
        with pytest.raises(AgentError, match="nothing was changed"):
            read_snapshot(spoiled)
    with pytest.raises(AgentError, match="damaged"):
        read_snapshot(FILE + b"x")


@pytest.mark.parametrize("foreign", [b"", b"SQLite format 3\x00", b"\n\n", b"{}", bytes(10_000)])
def test_what_is_no_snapshot_is_called_so(foreign: bytes) -> None:
    with pytest.raises(AgentError, match="no snapshot"):
        read_snapshot(foreign)


def test_a_later_version_says_so() -> None:
    with pytest.raises(AgentError, match="later version"):
        read_snapshot(FILE.replace(b"covey-snapshot 1", b"covey-snapshot 2"))


@pytest.mark.parametrize(
    "impossible", [SavedState(b"", 0, 1), SavedState(b"", 2**29, 1), SavedState(b"", 1, 2**62)]
)
def test_numbers_that_no_log_has_are_refused(impossible: SavedState) -> None:
    with pytest.raises(AgentError, match="contradicts itself"):
        read_snapshot(write_snapshot(impossible, "49ae", "farm", ""))
