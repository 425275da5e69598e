"""``covey ring``: which nodes own which keys, and what would move."""

from typing import Any

import click

from agent.cli.completion import member_names
from agent.cli.device_keys import KEY
from agent.cli.output import (
    is_terminal,
    output_option,
    wide_option,
    write_json,
    write_pairs,
    write_table,
)
from agent.cli.param_types import NAME, SHARE, ValueCommand, ValueGroup, shares_of
from agent.cli.ring_status import status
from agent.cli.session import Session, pass_session
from agent.exits import USAGE, AgentError
from agent.text.units import counted

CHANGES = ("set", "drain", "undrain", "remove", "add")
ORDERS = {
    "drain": "covey node drain {name}",
    "undrain": "covey node undrain {name}",
    "remove": "covey members remove {name}",
}
"""What makes the change that a plan was about; a join has no such command here."""
CAUSES = {
    "leaves": "for {count} an owner is to own nothing",
    "zones": "for {count} the copies come to lie in other zones",
    "share": "for {count} a node gets more or less",
    "copies": "for {count} there is a copy more or less",
}
MIB = 1 << 20


class KeyGroup(ValueGroup):
    """A group that takes what is none of its commands for a key: ``covey ring KEY``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments as those of ``key``, where they begin with no command."""
        if self._has_key(args):
            args = ["key", *args]
        return super().parse_args(ctx, args)

    def _has_key(self, args: list[str]) -> bool:
        rest = iter(args)
        for arg in rest:
            if arg in ("-o", "--output"):
                next(rest, None)
            elif arg not in ("--wide", "--help", "-h") and not arg.startswith(("-o", "--output=")):
                return arg not in self.commands
        return False


@click.group(cls=KeyGroup, invoke_without_command=True)
@output_option
@wide_option
@click.pass_context
def ring(ctx: click.Context, output: str, *, wide: bool) -> None:
    """Show which nodes own which keys, or who owns KEY.

    Keys hash to partitions, and each partition has owners. The owners follow from who belongs to
    the covey, not from who is up. Who is pending copies a partition, and will own it once it has
    all; until then the owners of before answer.
    """
    if ctx.invoked_subcommand is not None:
        return
    session: Session = ctx.obj
    answer = session.client().get("/api/v1/ring")
    if output == "json":
        write_json(answer)
        return
    rows = [
        (
            node["name"],
            node["partitions"],
            f"{node['share']:.1%}",
            _movement(node),
            _state(node) if is_terminal() else node["state"],
            node["id"],
            node["zone"],
            f"{node['capacity']:g}",
        )
        for node in answer["nodes"]
    ]
    header = ("NODE", "PARTITIONS", "SHARE", "PENDING", "STATE", "ID", "ZONE", "CAPACITY")
    write_table(header, rows, wide=wide, spare=("ID",))
    # A small covey has fewer nodes than replicas, and whoever is absent owns nothing.
    held = ("partitions", "homes", "in_spaces", "pending")
    owning = sum(sum(node[each] for each in held) > node["leaving"] for node in answer["nodes"])
    owners = min(answer["replicas"], owning)
    session.say(
        f"Epoch {answer['epoch']}: {answer['partitions']} partitions, owners of each: {owners}."
    )
    if answer["homes"]:
        session.say(
            f"Beside them {counted(answer['homes'], 'home')},"
            " for the keys of one device each (device/ID/...)."
        )
    for name, replicas in answer["spaces"].items():
        session.say(
            f"Keys that begin with {name}/ have partitions of their own, owners: {replicas}."
        )
    if missing := [node["name"] for node in answer["nodes"] if node["missing"]]:
        session.say(f"Not heard for long, so that others get their share: {', '.join(missing)}.")
    if on_their_way := in_words(answer["moving"]):
        session.say(f"On their way to other owners: {on_their_way}.")


def _state(node: dict[str, Any]) -> str:
    """Return what is believed of a node, and what the registry says about its share."""
    return ", ".join([node["state"], *(word for word in ("drains", "missing") if node[word])])


def _movement(node: dict[str, Any]) -> str:
    """Return how many partitions come to a node, and how many go from it."""
    moves = {"+": node["pending"], "-": node["leaving"]}
    return " ".join(f"{sign}{count}" for sign, count in moves.items() if count)


ring.add_command(status)


@ring.command(cls=ValueCommand)
@click.argument("key", type=KEY)
@output_option
@wide_option
@pass_session
def key(session: Session, key: str, output: str, *, wide: bool) -> None:
    """Show who owns KEY, also one that is called as a command is."""
    del wide
    answer = session.client().get("/api/v1/ring", key=key)
    if output == "json":
        write_json(answer)
        return
    stage = answer["stage"]
    write_pairs(
        [
            ("key", answer["key"]),
            ("partition", answer["partition"]),
            *([("home of", answer["home"]["name"])] if answer["home"] else []),
            *(("owner", f"{one['name']} ({one['state']})") for one in answer["owners"]),
            *(("pending", f"{one['name']} ({one['state']}, {stage})") for one in answer["pending"]),
        ]
    )


@ring.command()
@click.argument("change", type=click.Choice(CHANGES))
@click.argument("name", type=NAME, shell_complete=member_names)
@click.argument("given", metavar="[zone=ZONE] [capacity=NUMBER]", type=SHARE, nargs=-1)
@output_option
@wide_option
@pass_session
def plan(
    session: Session,
    change: str,
    name: str,
    given: tuple[tuple[str, str], ...],
    output: str,
    *,
    wide: bool,
) -> None:
    """Show what would move, and why, if a node were set, drained, removed or added.

    Nothing is changed.
    """
    shares = shares_of(given)
    if given and change not in ("set", "add"):
        raise AgentError(f"`{change}` takes a name alone", "`covey ring plan --help`", USAGE)
    if change == "set" and not given:
        raise AgentError("nothing to set", "give zone=ZONE, capacity=NUMBER, or both", USAGE)
    answer = session.client().get("/api/v1/ring/plan", change=change, name=name, **shares)
    if output == "json":
        write_json(answer)
        return
    rows = [
        (
            node["name"], node["before"], node["after"], node["gets"], node["gives"],
            node["zone"], f"{node['capacity']:g}", node["state"], node["id"],
        )
        for node in answer["nodes"]
    ]  # fmt: skip
    header = ("NODE", "NOW", "THEN", "GETS", "GIVES", "ZONE", "CAPACITY", "STATE", "ID")
    write_table(header, rows, wide=wide, spare=("ID",))
    session.say(_in_sum(answer))
    for risk in answer["risks"]:
        session.say(f"Risk: {risk}.")
    session.say(_how(change, name, given))


def _in_sum(answer: dict[str, Any]) -> str:
    if not answer["causes"]:
        return "Nothing would move."
    size = "" if not answer["bytes"] else f" ({megabytes(answer['bytes'])})"
    why = "; ".join(CAUSES[name].format(count=count) for name, count in answer["causes"].items())
    places = (
        f"{answer[name]} {words}"
        for name, words in (("copied_homes", "of homes"), ("copied_in_spaces", "of spaces"))
        if answer[name]
    )
    told = ", ".join(("", *places))
    return f"Partitions to be copied: {answer['copied']}{told}{size}. Why: {why}."


def megabytes(size: int) -> str:
    """Return a size as people read it.

    >>> megabytes(300), megabytes(3 << 19), megabytes(300 << 20)
    ('less than 0.1 MiB', 'about 1.5 MiB', 'about 300 MiB')
    """
    if size < MIB / 10:
        return "less than 0.1 MiB"
    return f"about {size / MIB:.{int(size < 10 * MIB)}f} MiB"


def _how(change: str, name: str, given: tuple[tuple[str, str], ...]) -> str:
    if change == "add":
        return "Nothing was changed."
    shares = " ".join(f"{one}={value}" for one, value in given)
    command = ORDERS.get(change, "covey node set {name} " + shares).format(name=name)
    return f"Nothing was changed: `{command}` does it."


def in_words(moving: dict[str, int]) -> str:
    """Return how many partitions are in which stage of a change of owners; empty if none."""
    return ", ".join(f"{count} {stage}" for stage, count in moving.items() if count)
