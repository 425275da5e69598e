"""``covey watch``: changes of the control plane, in order, each once, from where one has come."""

from collections.abc import Iterator
from typing import Any

import click

from agent.cli.output import output_option, wide_option, write_json_line, write_row
from agent.cli.param_types import ValueCommand
from agent.cli.session import Session, pass_session
from agent.cli.streaming import lines_of
from agent.exits import UNHEALTHY, AgentError

WIDTHS = (14, 8, 24, 0)
KINDS = ("keys", "locks", "barriers")


@click.command(cls=ValueCommand)
@click.argument("prefix", default="")
@click.option("--exact", is_flag=True, help="Only this very name, not all that begin so.")
@click.option(
    "--kind", type=click.Choice(KINDS), default="keys", show_default=True, help="What is watched."
)
@click.option(
    "--since", type=click.IntRange(min=0), metavar="REV", help="Begin after this revision [now]."
)
@output_option
@wide_option
@pass_session
def watch(
    session: Session,
    prefix: str,
    kind: str,
    since: int | None,
    output: str,
    *,
    exact: bool,
    wide: bool,
) -> None:
    """Show changes of keys whose names begin with PREFIX, until Ctrl-C.

    They come in their order, each once, with the revision from which on one can go on later. Where
    changes are not remembered any more it says so and ends with status 6, rather than leave a gap.
    """
    query: dict[str, Any] = {"name" if exact else "prefix": prefix, "kind": kind, "after": since}
    for told in lines_of(session.client(), "/api/v1/changes", query):
        if output == "json":
            write_json_line(told)
        if "compacted" in told:
            raise AgentError(
                f"changes up to revision {told['compacted']} are not remembered here",
                f"read what there is now, and go on from there: --since {told['compacted']} or "
                "later",
                UNHEALTHY,
            )
        if output != "json":
            for row in _rows(told):
                write_row(row, WIDTHS, wide=wide)


def _rows(told: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    for change in told["changes"]:
        yield told["revision"], change["kind"], change.get("key", change.get("name")), _now(change)


def _now(change: dict[str, Any]) -> str:
    """Return what there is after a change, in few words."""
    match change["kind"]:
        case "lock":
            held = [f"{each['session']} by token {each['token']}" for each in change["holders"]]
            return ", ".join(held) or "free"
        case "barrier":
            state = "open" if change["open"] else "waits"
            return f"{state}, {len(change['inside'])} inside" if change["inside"] else "over"
        case _:
            return str(change.get("value", change.get("value_base64", "")))
