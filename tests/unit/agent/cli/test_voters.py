"""``covey voters``: what it calls a voter, in one word."""

from typing import Any

import pytest

from agent.cli.voters import SLOW_SYNC_MS, _health
from gossip.control.voters import VoterTuning

GOOD = {"fenced": False, "takes_writes": True, "settled": True, "fsync_p99_ms": 12}


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({}, "ok"),
        ({"settled": False}, "catching up"),
        ({"fsync_p99_ms": None}, "ok"),
        ({"fsync_p99_ms": SLOW_SYNC_MS + 1}, "slow"),
        ({"takes_writes": False, "fsync_p99_ms": 9_000}, "failing"),
        ({"takes_writes": None, "fsync_p99_ms": None}, ""),
        ({"fenced": True, "takes_writes": False}, "copied"),
    ],
)
def test_what_is_worst_is_said(more: dict[str, Any], word: str) -> None:
    assert _health({**GOOD, **more}) == word


def test_slow_is_what_gets_no_vote() -> None:
    assert VoterTuning().fsync_p99_max_ms == SLOW_SYNC_MS
