"""``covey readings`` and ``covey outbox``: what was measured here, and what still has to go."""

from collections.abc import Callable
from typing import Any

import click

from agent.cli.copyable import here
from agent.cli.dead_letters import dead
from agent.cli.output import (
    is_terminal,
    output_option,
    wide_option,
    write_facts,
    write_json,
    write_json_line,
    write_row,
    write_table,
)
from agent.cli.session import Session, pass_session
from agent.cli.streaming import lines_of
from agent.cli.suggestions import say_if_nothing
from agent.text.suggestions import CANDIDATES_MAX

HEADER = ("TIME", "SENSOR", "VALUE", "UNIT", "TAGS")
FOLLOW_WIDTHS = (24, 32, 12, 6, 0)
KIB = 1024
LEFT = ("replayed", "dropped", "forgotten", "damaged")


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Go on with what is accepted, until Ctrl-C.")
@click.option("--sensor", default="*", metavar="GLOB", help="Only sensors like this: 'attic/*'.")
@click.option(
    "--limit", type=click.IntRange(min=0), help="How many of the newest [100; following: 0]."
)
@output_option
@wide_option
@pass_session
def readings(
    session: Session, *, follow: bool, sensor: str, limit: int | None, output: str, wide: bool
) -> None:
    """Show readings that the agent accepted, oldest first."""
    query = {"sensor": sensor, "limit": limit}
    if follow:
        show = write_json_line if output == "json" else _follower(session, wide=wide)
        for one in lines_of(session.client(), "/api/v1/readings", {**query, "follow": 1}):
            show(one)
        return
    answer = session.client().request("GET", "/api/v1/readings", query=query).json()
    if output == "json":
        write_json(answer)
    else:
        write_table(HEADER, [_row(one) for one in answer["readings"]], wide=wide)
        if not answer["readings"] and sensor != "*" and limit != 0:
            newest = session.client().get("/api/v1/readings", limit=CANDIDATES_MAX)["readings"]
            say_if_nothing(session, "sensor", sensor, {one["sensor"]: None for one in newest})


@click.group(invoke_without_command=True)
@output_option
@click.pass_context
def outbox(ctx: click.Context, output: str) -> None:
    """Show what waits for the broker, and how the uplink is."""
    if ctx.invoked_subcommand is not None:
        return
    answer = ctx.ensure_object(Session).client().get("/api/v1/outbox")
    if output == "json":
        write_json(answer)
        return
    uplink = answer["uplink"]
    facts = {
        "waiting": f"{answer['waiting']} of at most {answer['waiting_max']}",
        "bytes waiting": _bytes(answer["waiting_bytes"], answer["waiting_bytes_max"]),
        "dropped": _dropped(answer["dropped"]),
        "delivered": answer["delivered"],
        "dead letters": _letters(answer["letters"]),
        "lost on the disk": answer["lost"],
        "uplink": uplink["state"],
        "broker": f"{uplink['host']}:{uplink['port']}" if uplink["host"] else None,
        "MQTT version": uplink["version"],
        "in flight": f"{uplink['in_flight']} of at most {uplink['window']}",
        "last error": uplink["last_error"],
        "hint": here(uplink["hint"]),
    }
    write_facts(facts)
    for letter in answer["newest_dead_letters"]:
        write_facts({"dead letter": f"{letter['sensor']}: {letter['reason']} ({letter['id']})"})


outbox.add_command(dead)


def _bytes(count: int, most: int) -> str:
    return f"{count} of at most {most}" if most else str(count)


def _dropped(by_kind: dict[str, int]) -> str:
    """Return how many readings were dropped, by class and reason."""
    told = [f"{count} {kind.replace('_', ' (')})" for kind, count in sorted(by_kind.items())]
    return ", ".join(told) or "0"


def _letters(totals: dict[str, int]) -> str:
    """Return how many there are, and how those of before left."""
    left = [f"{totals[name]} {name}" for name in LEFT if totals[name]]
    return ", ".join([f"{totals['held']} ({-(-totals['held_bytes'] // KIB)} KiB)", *left])


def _follower(session: Session, *, wide: bool) -> Callable[[dict[str, Any]], None]:
    if is_terminal():
        write_row(HEADER, FOLLOW_WIDTHS)

    def show(one: dict[str, Any]) -> None:
        if "missed" in one:
            session.say(f"{one['missed']} readings came faster than they could be shown.")
        else:
            write_row(_row(one), FOLLOW_WIDTHS, wide=wide)

    return show


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    return one["time"], one["sensor"], one["value"], one["unit"], one["tags"]
