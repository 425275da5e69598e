"""Takes whole bodies of readings in: in slices, in groups, and with a bounded memory.

Two promises, for two kinds of clients:

* **All or none**, for a list of JSON objects: whoever made it corrects it and sends it again.
* **What is good**, for lines: a collector that is told "no" sends all of it once more, for ever,
  because of one bad line. Lines go to the disk group by group, and each group before the next is
  parsed; of bad lines the first few are remembered, and the rest are counted.

A body of lines that does not fit into the outbox any more may end in the middle. What was
accepted is then told with the error. Sent again as a whole, those readings exist twice.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from copy import copy

from agent.exits import AgentError
from agent.loop.slices import slices
from agent.telemetry.outbox import Receipt
from agent.telemetry.readings_json import ITEM_BYTES_MAX, is_list, items_of, parse_json
from agent.telemetry.readings_text import BadLine, GoodLine, Parsed, parse, split_lines
from edge_apps.reading import BadReading, Checked, check

LISTED_READINGS_MAX = 10_000
BAD_SHOWN_MAX = 5

Accept = Callable[[Sequence[Checked]], Awaitable[Receipt]]


class Taken:
    """What became of a body: how many readings were accepted, and which lines were bad."""

    def __init__(self) -> None:
        self.accepted = 0
        self.first = self.last = ""
        self.bad = 0
        self.bad_shown: list[BadLine] = []
        """The first few of the bad ones."""
        self.line = 0
        """The last line whose readings are accepted, or that had none."""

    def record(self, receipt: Receipt) -> None:
        """Add a group that is on disk."""
        self.accepted += receipt.count
        self.first = self.first or receipt.first
        self.last = receipt.last

    def complain(self, line: BadLine) -> None:
        """Add a bad line."""
        self.bad += 1
        if len(self.bad_shown) < BAD_SHOWN_MAX:
            self.bad_shown.append(line)

    @property
    def problems(self) -> str:
        """The first few bad lines in one sentence."""
        more = self.bad - len(self.bad_shown)
        told = "; ".join(map(str, self.bad_shown))
        return f"{told}; and {more} more" if more else told


async def take_lines(accept: Accept, body: bytes, unit_ns: int) -> Taken:
    """Accept what is good of a body in line protocol, whose times count ``unit_ns``.

    Raises what ``accept`` raises; when something was accepted before, the message says what.
    """
    taken = Taken()
    async for group in slices(parse(split_lines(body), "influx", unit_ns)):
        readings = _good(group, taken)
        if readings:
            try:
                taken.record(await accept(readings))
            except AgentError as error:
                if not taken.accepted:
                    raise
                told = copy(error)  # the same error may have failed others, who lost other lines
                told.message = (
                    f"{taken.accepted} readings were accepted, up to line {taken.line}, "
                    f"and none of those behind it: {error.message}"
                )
                raise told from error
        taken.line = group[-1].number if group else taken.line
    return taken


async def read_listed(body: bytes) -> tuple[list[Checked], Taken]:
    """Return the readings of a JSON body, and which are bad: a list, an object, one a line.

    Raises BadReading for what is none of these. Reading ends a little behind
    ``LISTED_READINGS_MAX``; more are not accepted as a whole.
    """
    taken = Taken()
    readings: list[Checked] = []
    async for group in slices(_parse_body(body)):
        readings += _good(group, taken)
        if len(readings) > LISTED_READINGS_MAX:
            break
    return readings, taken


def _good(group: list[Parsed], taken: Taken) -> list[Checked]:
    readings: list[Checked] = []
    for parsed in group:
        if isinstance(parsed, GoodLine):
            readings += parsed.readings
        else:
            taken.complain(parsed)
    return readings


def _parse_body(body: bytes) -> Iterator[Parsed]:
    if is_list(body):
        return _parse_items(body)
    whole = body.strip()
    if whole.startswith(b"{") and len(whole) <= ITEM_BYTES_MAX and b"\n" in whole:
        one = _parse_item(1, whole)  # an object that was laid out for people, over several lines
        if isinstance(one, GoodLine):
            return iter([one])
    return parse(split_lines(body), "json")


def _parse_items(body: bytes) -> Iterator[Parsed]:
    for number, item in enumerate(items_of(body), 1):
        yield _parse_item(number, item)


def _parse_item(number: int, item: bytes) -> Parsed:
    try:
        return GoodLine(number, [check(parse_json(item))])
    except BadReading as error:
        return BadLine(number, str(error))
