"""``covey facts``: what members tell about themselves, and what this node is to tell."""

from typing import Any

import click

from agent.cli.completion import member_names
from agent.cli.output import output_option, wide_option, write_json, write_table
from agent.cli.param_types import FACT, ValueGroup
from agent.cli.session import Session, pass_session
from agent.cli.suggestions import say_if_nothing


@click.group(cls=ValueGroup)
def facts() -> None:
    """Show and set what nodes tell about themselves."""


@facts.command("list")
@click.argument("node", required=False, shell_complete=member_names)
@click.option("--name", "pattern", help="Only facts whose name fits this glob, such as 'app/*'.")
@output_option
@wide_option
@pass_session
def list_(
    session: Session, node: str | None, pattern: str | None, output: str, *, wide: bool
) -> None:
    """List the facts of NODE, or of all members that are there."""
    answer = session.client().get("/api/v1/facts", node=node, name=pattern)
    if output == "json":
        write_json(answer)
        return
    rows = [
        (member["name"], name, value)
        for member in sorted(answer["members"], key=lambda one: one["name"])
        for name, value in member["facts"].items()
    ]
    if not rows and pattern is not None:
        told = session.client().get("/api/v1/facts", node=node)["members"]
        known = {name: None for member in told for name in member["facts"]}
        say_if_nothing(session, "fact", pattern, known)
    write_table(("NODE", "NAME", "VALUE"), rows, wide=wide)


@facts.command("set")
@click.argument("given", metavar="NAME=VALUE...", type=FACT, nargs=-1, required=True)
@output_option
@pass_session
def set_(session: Session, given: tuple[tuple[str, str], ...], output: str) -> None:
    """Let this node tell facts, all or none of these.

    They are kept over restarts of the agent, and reach the others within seconds to a minute.
    """
    _change(session, {"set": dict(given)}, output)


@facts.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@output_option
@pass_session
def unset(session: Session, names: tuple[str, ...], output: str) -> None:
    """Let this node tell facts no more that were set, all or none of these."""
    _change(session, {"unset": list(names)}, output)


def _change(session: Session, change: dict[str, Any], output: str) -> None:
    answer = session.client().post("/api/v1/facts", change)
    if output == "json":
        write_json(answer)
