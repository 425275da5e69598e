"""What has no name for a whole day goes, and nothing that only seemed to have none."""

from gossip.bodies.block_limits import ORPHAN_S
from gossip.bodies.file_records import BlockName
from gossip.bodies.sweeper import Sweeper

A, B = bytes(16), bytes([1] * 16)
BLOCKS = [BlockName(A, 0), BlockName(A, 1), BlockName(B, 0)]


def test_blocks_go_after_a_day_without_a_name() -> None:
    sweeper = Sweeper()
    assert sweeper.blocks_over({B}, BLOCKS, 0.0) == []
    assert sweeper.blocks_over({B}, BLOCKS, ORPHAN_S - 1) == []
    assert sweeper.blocks_over({B}, BLOCKS, ORPHAN_S) == BLOCKS[:2]


def test_a_name_in_between_begins_the_day_anew() -> None:
    sweeper = Sweeper()
    sweeper.blocks_over({B}, BLOCKS, 0.0)
    sweeper.blocks_over({A, B}, BLOCKS, 10.0)
    assert sweeper.blocks_over({B}, BLOCKS, ORPHAN_S) == []
    assert sweeper.blocks_over({B}, BLOCKS, 2 * ORPHAN_S) == BLOCKS[:2]


def test_an_upload_lives_as_long_as_somebody_goes_on_with_it() -> None:
    sweeper = Sweeper()
    assert sweeper.uploads_over({A: 1, B: 1}, 0.0) == []
    assert sweeper.uploads_over({A: 2, B: 1}, ORPHAN_S - 1) == []
    assert sweeper.uploads_over({A: 2, B: 1}, ORPHAN_S) == [B]
    assert sweeper.uploads_over({A: 2}, 2 * ORPHAN_S - 1) == [A]
