"""``covey node``: a node's place in the registry: its zone, its capacity, and whether it drains."""

from typing import Any

import click

from agent.cli.completion import member_names
from agent.cli.draining import DrainWatch
from agent.cli.output import output_option, write_facts, write_json
from agent.cli.param_types import DURATION, NAME, SHARE, ValueGroup, shares_of
from agent.cli.ring import in_words, megabytes
from agent.cli.session import Session, pass_session

ORDER_TIMEOUT_S = 60.0
DRAIN_TIMEOUT_S = 15 * 60.0


@click.group(cls=ValueGroup)
def node() -> None:
    """Set a node's zone and capacity, or drain it."""


@node.command()
@click.argument("name", type=NAME, shell_complete=member_names)
@output_option
@pass_session
def show(session: Session, name: str, output: str) -> None:
    """Show what the registry says of a node, and how many partitions lie there."""
    answer = session.client().get(f"/api/v1/nodes/{name}")
    if output == "json":
        write_json(answer)
        return
    moving = in_words(answer["moving"])
    write_facts(
        {
            "name": answer["name"],
            "id": answer["id"],
            "state": answer["state"] or "never heard",
            "zone": answer["zone"],
            "capacity": f"{answer['capacity']:g}",
            "drains": _draining(answer),
            "owns": answer["partitions"],
            "about to own": answer["pending"],
            "roles": ", ".join(answer["roles"]),
            "covey": f"epoch {answer['epoch']}" + (f", partitions: {moving}" if moving else ""),
        }
    )


def _draining(answer: dict[str, Any]) -> str:
    if not answer["drains"]:
        return ""
    left = answer["held"]
    held = f"yes, with {left} partitions left" if left else "yes, and nothing lies there any more"
    return f"{held}; it votes still" if answer["votes"] else held


@node.command("set")
@click.argument("name", type=NAME, shell_complete=member_names)
@click.argument(
    "given", metavar="[zone=ZONE] [capacity=NUMBER]", type=SHARE, nargs=-1, required=True
)
@output_option
@pass_session
def set_(session: Session, name: str, given: tuple[tuple[str, str], ...], output: str) -> None:
    """Say where a node stands, and how much it is to own compared with others.

    Copies of a key lie in different zones where there are enough; zone= takes it out of its zone.
    A node of capacity 2 owns twice as much as one of capacity 1. `covey ring plan` shows
    beforehand what would move.
    """
    shares = shares_of(given)
    _order(session, name, shares, output)


@node.command()
@click.argument("name", type=NAME, shell_complete=member_names)
@click.option("--wait", is_flag=True, help="Until nothing lies there, and another has its vote.")
@click.option("--timeout", type=DURATION, help="Wait at most so long, with --wait [15m].")
@output_option
@pass_session
def drain(session: Session, name: str, timeout: float | None, output: str, *, wait: bool) -> None:
    """Have all that a node owns go to others, as before it is switched off or removed.

    It serves until they have taken over, stays a member, and gets nothing until `covey node
    undrain`. If it votes, its vote goes to a node that stands by. `covey ring plan` shows
    beforehand what would move.
    """
    if timeout is not None and not wait:
        raise click.UsageError("--timeout says for how long to --wait: give both, or neither")
    answer = _order(session, name, {"drains": True}, output)
    if wait:
        watch = DrainWatch(session, answer["name"], timeout or DRAIN_TIMEOUT_S)
        watch.for_partitions(answer["epoch"])
        kept = watch.for_vote()
        session.say(
            f"Nothing lies on {answer['name']} any more: it can be switched off or removed."
        )
        if kept:
            session.say(kept)
    elif output != "json":
        session.say(f"`covey node show {answer['name']}` tells how far that is.")


@node.command()
@click.argument("name", type=NAME, shell_complete=member_names)
@output_option
@pass_session
def undrain(session: Session, name: str, output: str) -> None:
    """Give a node that drains its share again; at once, or as soon as it runs."""
    _order(session, name, {"drains": False}, output)


def _order(session: Session, name: str, change: dict[str, Any], output: str) -> dict[str, Any]:
    answer: dict[str, Any] = (
        session.client()
        .request("POST", f"/api/v1/nodes/{name}", json=change, timeout_s=ORDER_TIMEOUT_S)
        .json()
    )
    if output == "json":
        write_json(answer)
        return answer
    what = "drains" if answer["drains"] else "does not drain"
    zone = f"zone {answer['zone']}" if answer["zone"] else "no zone"
    session.say(
        f"{answer['name']}: {zone}, capacity {answer['capacity']:g}, {what} (registry epoch "
        f"{answer['epoch']}). {_moved(answer)}"
    )
    for risk in answer["risks"]:
        session.say(f"Risk: {risk}.")
    return answer


def _moved(answer: dict[str, Any]) -> str:
    if not answer["causes"]:
        return "Nothing moves."
    size = "" if not answer["bytes"] else f", {megabytes(answer['bytes'])}"
    return f"Partitions that are copied now: {answer['copied']}{size}."
