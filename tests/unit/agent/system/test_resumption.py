"""A process that goes on from a copy of itself finds out; one that merely slept does not."""

import subprocess
import sys

import pytest

from agent.system import resumption
from agent.system.resumption import JUMP_S, Resumption
from agent.system.wall_clock import ClockStep

NOW = 1000.0


class World:
    """What a process can see of where it runs."""

    def __init__(self, *, virtual: bool = True) -> None:
        self.kernel, self.began = "first", "100"
        self.step: ClockStep | None = ClockStep(
            NOW + 0.9, 3600.0
        )  # NTP, before the agent was there
        self.resumption = Resumption(
            lambda: self.step,
            kernel=lambda: self.kernel,
            began=lambda: self.began,
            virtual=virtual,
            steady=lambda: NOW,
        )


def test_nothing_shows_where_nothing_happened() -> None:
    assert World().resumption.sign() == ""


def test_another_kernel_shows_a_process_that_was_moved() -> None:
    world = World()
    world.kernel = "second"
    assert "another kernel" in world.resumption.sign()


def test_a_process_that_began_later_than_it_did_was_made_anew() -> None:
    world = World()
    world.began = "900"
    assert "made anew" in world.resumption.sign()


def test_what_cannot_be_read_just_now_is_no_sign() -> None:
    world = World()
    world.kernel = world.began = ""
    assert world.resumption.sign() == ""


@pytest.mark.parametrize(
    ("virtual", "by_s", "shows"),
    [
        (True, JUMP_S, True),
        (True, JUMP_S - 1, False),
        (True, -3600.0, False),
        (False, 3600.0, False),  # a Raspberry Pi that got the time
    ],
)
def test_a_clock_that_jumps_ahead_shows_it_on_a_virtual_machine(
    *, virtual: bool, by_s: float, shows: bool
) -> None:
    world = World(virtual=virtual)
    world.step = ClockStep(NOW + 60, by_s)
    assert bool(world.resumption.sign()) is shows


def test_this_process_has_a_kernel_and_began_when_it_did() -> None:
    first = resumption.kernel(), resumption.began()
    assert all(first)
    assert first == (resumption.kernel(), resumption.began())
    line = "from agent.system import resumption; print(resumption.began())"
    other = subprocess.run([sys.executable, "-c", line], check=True, capture_output=True, text=True)
    assert int(other.stdout) >= int(first[1])
