"""The demo's screen as text: a pure function of what the agents see.

Laid out for 80 columns and 24 lines; a smaller terminal gets the upper left corner of it. Each
column of the table is what one agent believes, so that the moment in which two agents disagree
about a third can be seen.
"""

from collections.abc import Sequence
from typing import NamedTuple

from agent.cli.demo.views import DEMO_KEY, AgentView
from agent.text.escaping import columns, one_line, shortened

COLUMN = 11
RATE_BAR_MAX = 30
RATE_PER_MARK = 4.0

RESET, BOLD, DIM, GREEN, YELLOW, RED, CYAN = (
    "\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[36m",
)  # fmt: skip
STATE_COLOURS = {"alive": GREEN, "suspect": YELLOW, "asleep": CYAN, "dead": RED, "left": DIM}


class Screen(NamedTuple):
    """Everything that the screen shows."""

    views: Sequence[AgentView]
    broker: str
    rate: float
    received: int
    repeated: int
    events: Sequence[str]
    elapsed_s: float


class Cell(NamedTuple):
    """A piece of text and its colour; the width counts the text alone."""

    text: str
    colour: str = ""


Line = Sequence[Cell]


def draw(picture: Screen, width: int, height: int, *, colour: bool = True) -> list[str]:
    """Return the screen's lines, at most ``height``, none wider than ``width``."""
    body = [
        *_header(picture),
        *_members(picture.views),
        *_readings(picture),
        *_agents(picture.views),
    ]
    footer = _keys(len(picture.views))
    room = max(0, height - len(body) - len(footer) - 2)
    events = [[Cell(f"  {event}", DIM)] for event in list(picture.events)[-room:]] if room else []
    lines = [*body, [Cell(" Events", BOLD)], *events]
    lines += [[Cell("")]] * max(0, height - len(lines) - len(footer))
    shown = [*lines[: max(0, height - len(footer))], *footer][:height]
    return [_paint(line, width, colour=colour) for line in shown]


def _header(picture: Screen) -> list[Line]:
    minutes, seconds = divmod(int(picture.elapsed_s), 60)
    return [
        [Cell(" Covey ", BOLD + CYAN), Cell(f"demo on this machine, {minutes}:{seconds:02d}")],
        [Cell("")],
    ]


def _members(views: Sequence[AgentView]) -> list[Line]:
    """Return the table: who is how, in the eyes of each agent."""
    names = [view.name for view in views]
    head: list[Cell] = [Cell(" Members".ljust(COLUMN), BOLD)]
    head += [Cell(f"seen by {name}"[:17].ljust(17), DIM) for name in names[:4]]
    lines: list[Line] = [head]
    for name in names:
        row = [Cell(f"  {name}".ljust(COLUMN))]
        row += [_opinion(view, name) for view in views[:4]]
        lines.append(row)
    return [*lines, [Cell("")]]


def _opinion(view: AgentView, name: str) -> Cell:
    if not view.answers:
        return Cell(("." if view.running else "").ljust(17), DIM)
    state = view.states.get(name, "unknown")
    return Cell(state.ljust(17), STATE_COLOURS.get(state, DIM))


def _readings(picture: Screen) -> list[Line]:
    bar = "#" * min(RATE_BAR_MAX, round(picture.rate / RATE_PER_MARK))
    repeated = f", {picture.repeated} came twice" if picture.repeated else ""
    return [
        [Cell(" Readings", BOLD), Cell(f"  broker: {picture.broker}", DIM)],
        [
            Cell(f"  {picture.rate:5.0f}/s "),
            Cell(bar.ljust(RATE_BAR_MAX), GREEN),
            Cell(f" {picture.received} arrived{repeated}"),
        ],
        [Cell("")],
    ]


def _agents(views: Sequence[AgentView]) -> list[Line]:
    owners = next((view.owners for view in views if view.answers), ())
    lines: list[Line] = [[Cell(" Agents", BOLD)]]
    for number, view in enumerate(views, start=1):
        owns = f"keeps {DEMO_KEY}" if view.name in owners else ""
        lines.append([Cell(f"  {number} {view.name}".ljust(COLUMN)), *_condition(view), Cell(owns)])
    return [*lines, [Cell("")]]


def _condition(view: AgentView) -> list[Cell]:
    if not view.running:
        return [Cell("killed".ljust(11), RED), Cell("its readings wait on its disk ".ljust(39))]
    if not view.answers:
        return [Cell("starting".ljust(11), YELLOW), Cell("".ljust(39))]
    outbox = f"outbox {view.waiting}".ljust(15)
    return [Cell("running".ljust(11), GREEN), Cell(outbox), Cell(view.uplink.ljust(24))]


def _keys(count: int) -> list[Line]:
    numbers = "1" if count == 1 else f"1..{count}"
    return [
        [
            Cell(f" {numbers}", BOLD),
            Cell(" kill -9 an agent, again to revive it    "),
            Cell("q", BOLD),
            Cell(" quit"),
        ]
    ]


def _paint(line: Line, width: int, *, colour: bool) -> str:
    painted, used = "", 0
    for cell in line:
        text = shortened(one_line(cell.text), width - used)
        used += columns(text)
        painted += f"{cell.colour}{text}{RESET}" if colour and cell.colour and text else text
    return painted.rstrip()
