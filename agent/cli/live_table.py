"""A live screen of the members: drawn again when something changed, and the terminal given back.

On a terminal it uses the alternate screen, so that what was there before is there afterwards,
however the watch ends. Anywhere else it writes one line for each change, which is what a log or a
script wants.
"""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

from agent.cli.interrupts import interrupted_by_signals
from agent.cli.member_table import HEADER, SPARE, everybody, row
from agent.cli.output import is_terminal, steer, write_json_line, write_line, write_row, write_table
from agent.cli.session import Session
from agent.text.units import counted
from edge_apps.client import AgentUnreachable

POLL_S = 1.0
OPEN, CLOSE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
CLEAR = "\x1b[H\x1b[2J"
LINES_KEPT = 4
"""For the header, what does not fit, and the line at the bottom."""

LINE_WIDTHS = (24, 16, 7, 24, 0)

Members = list[dict[str, Any]]


def watch(session: Session, state: str | None, output: str, *, wide: bool) -> None:
    """Show the members until Ctrl-C."""
    if output == "json":
        _follow(session, state, write_json_line)
    elif is_terminal():
        with _screen():
            _draw(session, state, wide=wide)
    else:
        _follow(session, state, _write_line)


def _draw(session: Session, state: str | None, *, wide: bool) -> None:
    shown: object = None
    for found, trouble in _looks(session, state):
        size = shutil.get_terminal_size()
        if (found, trouble, size) == shown:
            continue
        shown = found, trouble, size
        room = max(1, size.lines - LINES_KEPT)
        steer(CLEAR)
        shown = [row(member) for member in found[:room]]
        write_table(HEADER, shown, wide=wide, spare=SPARE)
        if len(found) > room:
            write_line(f"... and {len(found) - room} more")
        write_line()
        write_line(f"{trouble or counted(len(found), 'member')}; Ctrl-C ends it")
        steer("")


def _follow(session: Session, state: str | None, write: Callable[[dict[str, Any]], None]) -> None:
    """Write each member at first, and again when anything about it has changed."""
    known: dict[str, dict[str, Any]] = {}
    told = ""
    for found, trouble in _looks(session, state):
        if trouble != told:
            told = trouble
            session.say(trouble or "the agent answers again")
        if trouble:
            continue
        present = {member["id"]: member for member in found}
        for gone in known.keys() - present.keys():
            write({**known[gone], "state": "gone"})
        for name, member in present.items():
            if not _same(known.get(name), member):
                write(member)
        known = present


def _same(known: dict[str, Any] | None, member: dict[str, Any]) -> bool:
    """Say whether nothing has changed; that the time of a sleeper goes by is no change."""
    return known is not None and {**known, "until_s": None} == {**member, "until_s": None}


def _looks(session: Session, state: str | None) -> Iterator[tuple[Members, str]]:
    """Yield the members once a second, with what keeps us from asking; the first failure raises."""
    client = session.client()
    found: Members = everybody(client.get("/api/v1/members", state=state))
    trouble = ""
    while True:
        yield sorted(found, key=lambda one: (str(one["name"]), str(one["id"]))), trouble
        time.sleep(POLL_S)
        try:
            found = everybody(client.get("/api/v1/members", state=state))
            trouble = ""
        except AgentUnreachable as error:
            trouble = error.message


def _write_line(member: dict[str, Any]) -> None:
    at = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    columns = member["name"], member["state"], member["addresses"], member["id"]
    write_row((at, *columns), LINE_WIDTHS)


@contextlib.contextmanager
def _screen() -> Iterator[None]:
    """Lend the alternate screen; give the terminal back also when we are told to end."""
    with interrupted_by_signals():
        try:
            steer(OPEN)
            yield
        finally:
            steer(CLOSE)
