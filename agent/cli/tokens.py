"""``covey token``: let other nodes in, see with what, and stop it."""

import time
from typing import Any

import click

from agent.cli.output import output_option, wide_option, write_json, write_line, write_table
from agent.cli.param_types import DURATION, NAME
from agent.cli.session import Session, pass_session
from agent.text.units import format_duration

ISSUER_TIMEOUT_S = 60.0
TTL_S = "1h"
HEADER = ("ID", "STATE", "USES LEFT", "EXPIRES", "FIXES", "MADE BY", "ADMITTED")
SPARE = ("MADE BY",)
WHY_OUTDATED = (
    "outdated: made by a version of Covey that kept a hash of it, with which a copy of the disk "
    "could let anybody in. Make a new one: `covey token create`."
)


@click.group()
def token() -> None:
    """Let other nodes in: make, list and revoke join tokens.

    They are made on nodes that let others in (`covey registry` names them), and on members that
    were allowed to (`covey members allow`).
    """


@token.command()
@click.option("--ttl", type=DURATION, default=TTL_S, show_default=True, help="How long it is good.")
@click.option(
    "--uses", type=click.IntRange(min=1), default=1, show_default=True, help="For how many nodes."
)
@click.option("--node-name", default="", help="The name of the node that joins with it.")
@click.option("--zone", default="", help="The zone of the nodes that join with it.")
@click.option("--weight", type=float, default=0.0, help="Their weight.")
@output_option
@pass_session
def create(
    session: Session,
    ttl: float,
    uses: int,
    node_name: str,
    zone: str,
    weight: float,
    output: str,
) -> None:
    """Make a token that lets nodes join, for a week and a hundred nodes at most.

    Whoever has the token may join: pass it on as you would a password. What it fixes, name, zone
    or weight, the device that joins cannot choose.
    """
    asked = {"ttl_s": ttl, "uses": uses, "node_name": node_name, "zone": zone, "weight": weight}
    answer = (
        session.client()
        .request("POST", "/api/v1/tokens", json=asked, timeout_s=ISSUER_TIMEOUT_S)
        .json()
    )
    if output == "json":
        write_json(answer)
        return
    write_line(answer["token"])
    nodes = "one node" if uses == 1 else f"{uses} nodes"
    replacing = f" --replace {node_name}" if answer["name_of"] else ""
    session.say(
        f"Good for {nodes} within {format_duration(ttl)}. On the other device: "
        f"`covey join{replacing} TOKEN`, and `covey run` where no agent runs yet."
    )
    if replacing:
        _say_who_has_it(session, node_name, answer["name_of"]["state"])


def _say_who_has_it(session: Session, name: str, state: str | None) -> None:
    told = f"{name} is a node of this covey already, {state or 'never heard'}"
    session.say(f"{told}: with this token its place can be taken while it is dead or gone.")


@token.command("list")
@click.option("--all", "every", is_flag=True, help="Also those that let nobody in any more.")
@output_option
@wide_option
@pass_session
def list_(session: Session, output: str, *, every: bool, wide: bool) -> None:
    """List the tokens that let nodes in, without their secrets."""
    answer = session.client().request("GET", "/api/v1/tokens", timeout_s=ISSUER_TIMEOUT_S).json()
    shown = [one for one in answer["tokens"] if every or one["state"] == "valid"]
    if output == "json":
        write_json({"tokens": shown})
        return
    if shown:
        write_table(HEADER, [_row(one) for one in shown], wide=wide, spare=SPARE)
    else:
        session.say(_none_of(len(answer["tokens"])))
    if any(one["state"] == "outdated" for one in shown):
        session.say(WHY_OUTDATED)


@token.command()
@click.argument("token_id", type=NAME, metavar="ID")
@pass_session
def revoke(session: Session, token_id: str) -> None:
    """Make a token good for nobody any more. Who joined with it stays."""
    path = f"/api/v1/tokens/{token_id}"
    was = session.client().request("DELETE", path, timeout_s=ISSUER_TIMEOUT_S).json()["was"]
    session.say(f"{token_id} is revoked." if was == "valid" else f"{token_id} was {was} already.")


def _none_of(remembered: int) -> str:
    if not remembered:
        return "No tokens: `covey token create` makes one."
    return f"None lets anybody in; `covey token list --all` shows {remembered} that did."


def _row(one: dict[str, Any]) -> tuple[str | list[str], ...]:
    fixes = {"name": one["node_name"], "zone": one["zone"], "weight": one["weight"]}
    left_s = one["expires_at"] - time.time()
    return (
        one["id"],
        one["state"],
        f"{one['uses_left']} of {one['uses']}",
        f"in {format_duration(left_s)}" if left_s > 0 else f"{format_duration(-left_s)} ago",
        " ".join(f"{name}={value}" for name, value in fixes.items() if value),
        one["made_by"],
        [_admitted(node) for node in one["admitted"]],
    )


def _admitted(node: dict[str, Any]) -> str:
    return f"{node['name'] or node['id']}{' (removed)' if node['removed'] else ''}"
