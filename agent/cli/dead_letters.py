"""``covey outbox dead``: the readings that were given up; send them again, or delete them."""

from collections.abc import Callable
from typing import Any

import click

from agent import exits
from agent.cli.confirm import confirm
from agent.cli.output import output_option, wide_option, write_json, write_table
from agent.cli.session import Session, pass_session
from agent.text.units import counted

HEADER = ("DEAD SINCE", "ID", "SENSOR", "VALUE", "REASON")
PATH = "/api/v1/dead-letters"
TIMEOUT_S = 60.0

Function = Callable[..., Any]


def choosing(command: Function) -> Function:
    """Add what letters are chosen by."""
    for option in (
        click.option("--reason", metavar="GLOB", help="Only for reasons like this: '*too large*'."),
        click.option("--sensor", metavar="GLOB", help="Only of sensors like this: 'attic/*'."),
        click.argument("ids", nargs=-1, metavar="[ID]..."),
    ):
        command = option(command)
    return command


@click.group()
def dead() -> None:
    """Show readings that were given up; send them again, or delete them.

    A reading is given up when the broker has refused it again and again, or ended each connection
    on which it came, while it took others.
    """


@dead.command("list")
@choosing
@click.option("--limit", type=click.IntRange(min=0), help="How many of the newest [100].")
@output_option
@wide_option
@pass_session
def show(
    session: Session,
    ids: tuple[str, ...],
    sensor: str | None,
    reason: str | None,
    limit: int | None,
    output: str,
    *,
    wide: bool,
) -> None:
    """Show dead letters, oldest first."""
    query = {**_choice(ids, sensor, reason), "limit": limit}
    answer = session.client().request("GET", PATH, query=query).json()
    if output == "json":
        write_json(answer)
        return
    write_table(HEADER, [_row(one) for one in answer["dead_letters"]], wide=wide)
    if (held := answer["totals"]["held"]) > len(answer["dead_letters"]):
        session.say(f"{len(answer['dead_letters'])} of {counted(held, 'dead letter')}.")


@dead.command()
@choosing
@click.option("--all", "everything", is_flag=True, help="All of them.")
@output_option
@click.pass_context
def replay(
    ctx: click.Context,
    ids: tuple[str, ...],
    sensor: str | None,
    reason: str | None,
    output: str,
    *,
    everything: bool,
) -> None:
    """Send dead letters again: they wait behind all others, under the ids that they have.

    What the broker refuses once more is given up once more. Exit status 6 if some had no room in
    the outbox.
    """
    session = ctx.ensure_object(Session)
    query = _deliberate_choice(ids, sensor, reason, everything=everything)
    answer = _ask(session, "POST", f"{PATH}/replay", query)
    if output == "json":
        write_json(answer)
    else:
        session.say(f"{counted(answer['replayed'], 'reading')} wait for the broker again.")
        if answer["damaged"]:
            session.say(f"{answer['damaged']} were damaged on the disk, and are gone.")
    if answer["left"]:
        session.say(f"{answer['left']} stay dead letters: the outbox is full. Try later.")
        ctx.exit(exits.UNHEALTHY)


@dead.command()
@choosing
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--yes", is_flag=True, help="Without being asked.")
@output_option
@pass_session
def drop(
    session: Session,
    ids: tuple[str, ...],
    sensor: str | None,
    reason: str | None,
    output: str,
    *,
    everything: bool,
    yes: bool,
) -> None:
    """Delete dead letters for good."""
    query = _deliberate_choice(ids, sensor, reason, everything=everything)
    if not yes:
        confirm("this deletes readings for good", "`--yes` deletes them without asking")
    answer = _ask(session, "DELETE", PATH, query)
    if output == "json":
        write_json(answer)
    else:
        session.say(f"{counted(answer['dropped'], 'dead letter')} deleted.")


def _deliberate_choice(
    ids: tuple[str, ...], sensor: str | None, reason: str | None, *, everything: bool
) -> dict[str, Any]:
    is_chosen = bool(ids) or sensor is not None or reason is not None
    if is_chosen == everything:
        raise click.UsageError("Which? Give ids, --sensor or --reason; or --all alone.")
    return {**_choice(ids, sensor, reason), "all": 1 if everything else None}


def _choice(ids: tuple[str, ...], sensor: str | None, reason: str | None) -> dict[str, Any]:
    return {"id": ids or None, "sensor": sensor, "reason": reason}


def _ask(session: Session, method: str, path: str, query: dict[str, Any]) -> dict[str, Any]:
    asked = session.client().request(method, path, query=query, timeout_s=TIMEOUT_S)
    answer: dict[str, Any] = asked.json()
    return answer


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    return one["dead_since"], one["id"], one["sensor"], one["value"], one["reason"]
