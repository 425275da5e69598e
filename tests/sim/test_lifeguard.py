"""Each part of Lifeguard earns its place: without it, slow members do more harm to the others.

Members are made slow as in the paper: what goes in or out of them is held for seconds, while their
timers go on. The protocols with a part missing are those of the benchmark (``bench/lifeguard.py``).
"""

import pytest

from bench.lifeguard import Trial, run
from bench.lifeguard_rows import LIFEGUARD, WITHOUT_LHA_PROBE, WITHOUT_LHA_SUSPICION, Row, nothing
from gossip.membership.anti_entropy.sync import StateSync
from gossip.membership.dissemination.broadcast_queue import TransmitLimitedQueue
from gossip.sim.world import World


def false_deaths(row: Row) -> int:
    """Count them among 16, of whom 4 are held for 12 s again and again."""
    trial = Trial(
        row, 2, slow=4, held_s=12.0, open_s=0.05, seconds=45.0, members=16, senders_wait=False
    )
    return run(trial).false_deaths


def untold_deaths(row: Row) -> int:
    """Count them among 6, of whom 2 are held once, and only a ping tells a suspect that it is."""
    trial = Trial(
        row, 1, slow=2, held_s=3.0, open_s=99.0, seconds=50.0, members=6, senders_wait=False
    )
    return run(trial).false_deaths


@pytest.mark.slow
def test_slow_members_wrong_more_without_local_health() -> None:
    assert false_deaths(LIFEGUARD) == 0
    for without in (WITHOUT_LHA_PROBE, WITHOUT_LHA_SUSPICION):
        assert false_deaths(Row("without", without)) > 10


def test_a_suspect_that_is_not_told_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The buddy system: where no update reaches the suspect, the ping itself tells it."""
    monkeypatch.setattr(TransmitLimitedQueue, "put_accusation", nothing)
    monkeypatch.setattr(StateSync, "_begin", nothing)
    assert untold_deaths(LIFEGUARD) == 0
    assert untold_deaths(Row("without", buddy_system=False)) > 0


def test_what_a_slow_host_holds_is_late_and_not_lost() -> None:
    world = World(1)
    world.add("a", "b")
    world.run(5)
    world.slow("b", 2.0)
    write = world.put("a", "key", b"value", w=2)
    world.run(1.9)
    assert not write.is_done
    world.run(1.0)
    assert write.outcome == "ok"
    assert world.counts["world/messages/held"] > 0


def test_the_timers_of_a_slow_host_go_on() -> None:
    """That is what makes it differ from one that is paused: it judges by answers held back."""
    world = World(1)
    world.add("a", "b", "c")
    world.run(5)
    world.slow("b", 3.0)
    world.run(2.9)
    assert "suspect" in world.members("b").values()
    assert world.counts["pauses/noticed"] == 0
    world.run(2.0)
    assert world.is_whole()
