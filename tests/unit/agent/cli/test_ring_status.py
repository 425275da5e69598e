"""What `covey ring status` says of a change of owners."""

from typing import Any

from agent.cli.ring_status import sentences

MOVING: dict[str, Any] = {
    "settled": False, "to_move": 85, "moved": 17, "took_s": 20.0, "left_s": 80.0,
    "copied_per_s": 262_144, "silent": [],
    "waits": [{"stage": "copying", "partitions": 68, "name": "oak", "state": "dead"}],
}  # fmt: skip


def test_while_partitions_move_it_says_how_far_how_fast_and_for_whom() -> None:
    bar, waits = sentences(MOVING)
    assert bar == (
        "[######                        ] 17 of 85 partitions in 20s, 256 KiB/s, about 1m20s left."
    )
    assert waits == "68 partitions copying: oak (dead)."


def test_what_nobody_can_tell_is_not_said() -> None:
    [bar, *_] = sentences({**MOVING, "moved": 0, "left_s": None})
    assert "nobody can tell yet" in bar


def test_afterwards_it_says_what_the_last_change_took_and_who_was_silent() -> None:
    over = {**MOVING, "settled": True, "moved": 85, "waits": [], "silent": ["oak"]}
    assert sentences(over) == [
        "No partition is on its way; the last change moved 85 within 20s.", "No answer from oak.",
    ]  # fmt: skip
    assert "nor was" in sentences({**over, "to_move": 0, "moved": 0})[0]
