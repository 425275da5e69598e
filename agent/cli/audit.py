"""``covey audit``: what was changed by way of this agent, by whom and from where."""

import time
from typing import Any

import click

from agent.access.audit import PAGE_MAX
from agent.cli.output import (
    is_terminal,
    output_option,
    wide_option,
    write_json,
    write_json_line,
    write_row,
    write_table,
)
from agent.cli.param_types import DURATION
from agent.cli.session import Session, pass_session
from agent.cli.streaming import lines_of

HEADER = ("TIME", "WHO", "FROM", "WHAT", "OUTCOME")
FOLLOW_WIDTHS = (19, 16, 15, 40, 0)


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Show those that come, until Ctrl-C.")
@click.option("--since", type=DURATION, default=None, help="Only what is not older than that.")
@click.option(
    "--limit", type=click.IntRange(1, PAGE_MAX), default=100, help="How many of the last [100]."
)
@output_option
@wide_option
@pass_session
def audit(
    session: Session, *, follow: bool, since: float | None, limit: int, output: str, wide: bool
) -> None:
    """Show what was changed, and by whom: by way of this agent's API, and from where.

    What was refused is there, too. Each agent has its own: what came in at its sockets.
    """
    if follow:
        _follow(session, output, wide=wide)
        return
    since_ms = None if since is None else max(0, round((time.time() - since) * 1000))
    answer = session.client().get("/api/v1/audit", since_ms=since_ms, limit=limit)
    if output == "json":
        write_json(answer)
    elif answer["entries"]:
        write_table(HEADER, [_row(one) for one in answer["entries"]], wide=wide)
    else:
        session.say("Nothing was changed by way of this agent, as far as it remembers.")


def _follow(session: Session, output: str, *, wide: bool) -> None:
    if output != "json" and is_terminal():
        write_row(HEADER, FOLLOW_WIDTHS)
    for one in lines_of(session.client(), "/api/v1/audit", {"follow": 1}):
        if output == "json":
            write_json_line(one)
        else:
            write_row(_row(one), FOLLOW_WIDTHS, wide=wide)


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one["at_ms"] / 1000))
    what = f"{one['action']} {one['detail']}".rstrip()
    refused = "refused: " if one["refused"] else ""
    times = f" ({one['times']} times)" if one["times"] > 1 else ""
    return at, one["who"], one["from"], what, f"{refused}{one['outcome']}{times}"
