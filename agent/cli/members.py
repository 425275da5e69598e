"""``covey members``: who is there, as this agent sees it."""

from typing import Any

import click

from agent.cli.complete import member_names
from agent.cli.output import output_option, write_facts, write_json, write_table
from agent.cli.session import Session, pass_session
from agent.notation import format_duration

STATES = ("alive", "suspect", "dead", "left")


@click.group(invoke_without_command=True)
@click.option("--state", type=click.Choice(STATES), help="Only members in this state.")
@output_option
@click.pass_context
def members(ctx: click.Context, state: str | None, output: str) -> None:
    """Show who is there.

    The list is this agent's view: each member is alive, suspect (did not answer lately), dead,
    or has left.
    """
    if ctx.invoked_subcommand is not None:
        return
    answer = ctx.obj.client().get("/api/v1/members", state=state)
    if output == "json":
        write_json(answer)
        return
    rows = [_row(member) for member in sorted(answer["members"], key=lambda one: one["name"])]
    write_table(("NAME", "STATE", "ADDRESSES", "TAGS", "ID"), rows)


@members.command()
@click.argument("name", shell_complete=member_names)
@output_option
@pass_session
def show(session: Session, name: str, output: str) -> None:
    """Show one member, by name or id."""
    member = session.client().get(f"/api/v1/members/{name}")
    if output == "json":
        write_json(member)
        return
    since = format_duration(member.pop("changed_s"))
    write_facts({**member, "state": member["state"], "since": since})


def _row(member: dict[str, Any]) -> tuple[object, ...]:
    name = f"{member['name']} (this node)" if member["self"] else member["name"]
    return name, member["state"], member["addresses"], member["tags"], member["id"]
