"""Readings taken under a wrong clock: corrected when it is set, else marked."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.store.database import Database
from agent.telemetry.outbox import Accepted, Outbox
from agent.telemetry.outbox_schema import OUTBOX_MIGRATIONS
from agent.telemetry.timekeeping import Timekeeper, kernel_keeps_clock, this_kernel
from agent.telemetry.uplink.template import Template, TemplateContext
from edge_apps.reading import UNTIMED, Reading
from tests.support.readings import checked

S = 1_000_000_000
NOW = int(datetime(2026, 11, 29, 12, tzinfo=UTC).timestamp()) * S
HOUR = 3600 * S
VALID = (NOW / S - 86400, NOW / S + 3650 * 86400)
FUTURE = NOW + 50 * 365 * 24 * HOUR
READING = checked("porch/temperature", 21.5)


class Clocks:
    """A device's clocks: ``pass_`` lets time go by, ``wall`` may be set."""

    def __init__(self, wall: int = NOW, kernel: int = 1, *, is_kept: bool | None = True) -> None:
        self.wall, self.steady, self.kernel, self.is_kept = wall, 100 * S, kernel, is_kept

    def pass_(self, by: int) -> None:
        self.wall += by
        self.steady += by

    def keeper(self) -> Timekeeper:
        return Timekeeper(
            lambda: self.wall, lambda: self.steady, self.kernel, lambda: self.is_kept, VALID
        )


def play(path: Path, clocks: Clocks, story: Callable[[Outbox], Awaitable[None]]) -> None:
    async def scenario() -> None:
        database = await Database.open(path / "telemetry.db", OUTBOX_MIGRATIONS)
        try:
            outbox = await Outbox.open(database, 1, 1 << 32, timekeeper=clocks.keeper())
            await story(outbox)
            await outbox.close()
        finally:
            await database.close()

    asyncio.run(scenario())


def marks(outbox: Outbox) -> list[tuple[int, str]]:
    return [(one.reading.time_ns, one.clock) for one in outbox.batch(10)]


@pytest.mark.parametrize("wrong", [0, NOW - HOUR, FUTURE], ids=["1970", "slow", "ahead"])
def test_a_clock_that_is_set_corrects_what_waits(tmp_path: Path, wrong: int) -> None:
    clocks = Clocks(wrong)

    async def story(outbox: Outbox) -> None:
        await outbox.accept([READING])
        clocks.pass_(10 * S)
        await outbox.accept([READING])
        clocks.pass_(10 * S)
        clocks.wall = NOW
        clocks.pass_(2 * S)
        assert marks(outbox) == [(NOW - 20 * S, "corrected"), (NOW - 10 * S, "corrected")]
        await outbox.accept([READING])
        assert marks(outbox)[2] == (NOW + 2 * S, "")

    play(tmp_path, clocks, story)


def test_what_cannot_be_right_leaves_marked(tmp_path: Path) -> None:
    clocks = Clocks(7 * S)

    async def story(outbox: Outbox) -> None:
        await outbox.accept([READING])
        assert marks(outbox) == [(7 * S, "implausible")]
        clocks.wall = FUTURE
        await outbox.accept([READING])
        assert marks(outbox) == [(7 * S, "implausible"), (FUTURE, "implausible")]

    play(tmp_path, clocks, story)


def test_a_good_time_survives_a_clock_that_goes_wrong(tmp_path: Path) -> None:
    clocks = Clocks()

    async def story(outbox: Outbox) -> None:
        await outbox.accept([READING])
        clocks.wall = 0
        assert marks(outbox) == [(NOW, "")]

    play(tmp_path, clocks, story)


def test_after_a_reboot_nothing_is_guessed(tmp_path: Path) -> None:
    before = Clocks(5 * S)

    async def take(outbox: Outbox) -> None:
        await outbox.accept([READING])
        before.wall, before.is_kept = NOW - HOUR, False
        before.pass_(S)
        await outbox.accept([READING])

    async def look(outbox: Outbox) -> None:
        assert marks(outbox) == [(5 * S, "implausible"), (NOW - HOUR + S, "unsynchronised")]

    play(tmp_path, before, take)
    play(tmp_path, Clocks(kernel=2), look)


def test_a_restart_of_the_agent_alone_forgets_nothing(tmp_path: Path) -> None:
    clocks = Clocks(5 * S)

    async def take(outbox: Outbox) -> None:
        await outbox.accept([READING])

    async def look(outbox: Outbox) -> None:
        assert marks(outbox) == [(NOW, "corrected")]

    play(tmp_path, clocks, take)
    clocks.wall = NOW
    play(tmp_path, clocks, look)


def test_a_clock_that_nobody_keeps_is_told(tmp_path: Path) -> None:
    clocks = Clocks(is_kept=False)

    async def story(outbox: Outbox) -> None:
        await outbox.accept([READING])
        assert marks(outbox) == [(NOW, "unsynchronised")]
        clocks.is_kept = True  # and it was right, as it turns out
        clocks.pass_(2 * S)
        assert marks(outbox) == [(NOW, "")]

    play(tmp_path, clocks, story)


def test_the_time_of_a_source_is_its_own(tmp_path: Path) -> None:
    clocks = Clocks(0, is_kept=False)

    async def story(outbox: Outbox) -> None:
        await outbox.accept([checked("a", 1, time_ns=NOW), checked("b", 2, time_ns=0)])
        clocks.wall = NOW
        assert marks(outbox) == [(NOW, ""), (0, "")]

    play(tmp_path, clocks, story)


def test_what_an_app_buffered_is_timed_by_when_it_was_taken() -> None:
    clocks = Clocks()
    taken = clocks.steady - 60 * S
    now = clocks.keeper().now()
    assert now.timed(Reading("a", 1, time_ns=123, taken_ns=taken)).time_ns == NOW - 60 * S
    later = now.timed(Reading("a", 1, taken_ns=clocks.steady + HOUR))
    assert (later.time_ns, later.taken_ns) == (NOW, clocks.steady), "the future is none of ours"
    assert now.timed(Reading("a", 1, time_ns=UNTIMED)).taken_ns == clocks.steady


def test_followers_see_the_mark(tmp_path: Path) -> None:
    clocks = Clocks(5 * S)

    async def story(outbox: Outbox) -> None:
        taken = clocks.keeper().now().timed(READING)
        assert outbox.as_accepted(1, taken).clock == "implausible"

    play(tmp_path, clocks, story)


def test_the_mark_is_in_the_message() -> None:
    template = Template("c/{sensor}", "", TemplateContext("c", "n", "1"))
    reading = Reading("t", 1, time_ns=5)
    assert (
        b'"clock":"implausible"'
        in template.message(Accepted(1, "i", reading, "implausible")).payload
    )
    assert b"clock" not in template.message(Accepted(1, "i", reading)).payload
    own = Template("c/{sensor}", "{value}/{clock}", TemplateContext("c", "n", "1"))
    assert own.message(Accepted(1, "i", reading, "corrected")).payload == b"1/corrected"


def test_the_kernel_is_asked() -> None:
    assert kernel_keeps_clock() in (True, False, None)
    assert this_kernel() == this_kernel()
