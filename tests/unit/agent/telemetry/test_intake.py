"""Whole bodies: taken in groups, with a bounded memory, and told exactly what became of them."""

import asyncio
import tracemalloc
from collections.abc import Sequence

import pytest

from agent.exits import UNHEALTHY, AgentError
from agent.telemetry.intake import (
    BAD_SHOWN_MAX,
    LISTED_READINGS_MAX,
    Taken,
    read_listed,
    take_lines,
)
from agent.telemetry.outbox import Receipt
from edge_apps.reading import BadReading, Reading

KIB = 1024


class Outbox:
    """Counts what it accepts, and is full at some point."""

    def __init__(self, room: int = 10**9) -> None:
        self.count, self.largest, self.room = 0, 0, room
        self.last: Reading | None = None

    async def accept(self, readings: Sequence[Reading]) -> Receipt:
        if self.count + len(readings) > self.room:
            raise AgentError("The outbox is full.", "wait", UNHEALTHY)
        await asyncio.sleep(0)
        first = self.count + 1
        self.count += len(readings)
        self.largest = max(self.largest, len(readings))
        self.last = readings[-1]
        return Receipt(len(readings), f"a-{first}", f"a-{self.count}")


def take(body: bytes, outbox: Outbox) -> Taken:
    return asyncio.run(take_lines(outbox.accept, body, 1))


def test_all_good_lines_are_accepted_in_their_order() -> None:
    outbox = Outbox()
    body = b"".join(b"m a=%d,b=1 %d\n" % (n, n) for n in range(5000))
    taken = take(body, outbox)
    assert (taken.accepted, taken.bad, taken.first, taken.last) == (10_000, 0, "a-1", "a-10000")
    assert outbox.last == Reading("m/b", 1.0, time_ns=4999)


def test_of_bad_lines_a_few_are_told_and_the_rest_are_counted() -> None:
    outbox = Outbox()
    taken = take(b"bad\n" * 20_000 + b"m v=1\n", outbox)
    assert (taken.accepted, taken.bad, len(taken.bad_shown)) == (1, 20_000, BAD_SHOWN_MAX)
    assert taken.problems.count("; ") == BAD_SHOWN_MAX
    assert taken.problems.endswith(f"and {20_000 - BAD_SHOWN_MAX} more")


@pytest.mark.parametrize("line", [b"m v=1\n", b"bad\n", b"\n", b'm t="\n', b'm t="a\n",b="\n'])
def test_a_body_costs_little_more_than_itself(line: bytes) -> None:
    """A million bad lines once took a gigabyte: 64 times their size."""
    body = line * (64 * KIB // len(line))
    tracemalloc.start()
    try:
        take(body, Outbox())
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1024 * KIB


def test_an_outbox_that_fills_in_the_midst_says_up_to_where() -> None:
    outbox = Outbox(room=4000)
    with pytest.raises(AgentError) as told:
        take(b"m v=1\n" * 100_000, outbox)
    assert 0 < outbox.count <= 4000
    assert (
        f"{outbox.count} readings were accepted, up to line {outbox.count}," in told.value.message
    )
    assert "The outbox is full" in told.value.message
    assert told.value.status == UNHEALTHY


def test_an_outbox_that_is_full_from_the_beginning_says_just_that() -> None:
    with pytest.raises(AgentError) as told:
        take(b"m v=1\n", Outbox(room=0))
    assert told.value.message == "The outbox is full."


def test_a_list_is_read_up_to_its_limit() -> None:
    item = b'{"sensor":"t","value":1}'
    readings, _ = asyncio.run(read_listed(b"[" + b",".join([item] * LISTED_READINGS_MAX) + b"]"))
    assert len(readings) == LISTED_READINGS_MAX
    more, _ = asyncio.run(read_listed(b"[" + b",".join([item] * 300_000) + b"]"))
    assert LISTED_READINGS_MAX < len(more) < 300_000, "it stopped reading"


@pytest.mark.parametrize(
    "body",
    [
        b'[{"sensor":"t","value":1}]',
        b'{"sensor":"t","value":1}',
        b'{"sensor":"t","value":1}\n',
        b'{\n  "sensor": "t",\n  "value": 1\n}\n',
        b'\n{"sensor":"t","value":1}\r\n\n',
    ],
)
def test_the_shapes_of_json(body: bytes) -> None:
    readings, taken = asyncio.run(read_listed(body))
    assert (readings, taken.bad) == ([Reading("t", 1)], 0)


def test_a_bad_object_of_a_list_is_named_by_its_number() -> None:
    readings, taken = asyncio.run(read_listed(b'[{"sensor":"t","value":1},{"sensor":"t"}]'))
    assert len(readings) == 1
    assert taken.problems.startswith("line 2: ")


def test_a_list_that_breaks_off_is_no_list() -> None:
    with pytest.raises(BadReading, match="reading 2 of the list"):
        asyncio.run(read_listed(b'[{"sensor":"t","value":1},{"sensor":'))
