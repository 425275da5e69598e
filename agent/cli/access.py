"""``covey access``: who may use the HTTP API from elsewhere, and for what."""

import time
from typing import Any

import click

from agent.access.access_tokens import TTL_S_DEFAULT
from agent.access.rights import Role
from agent.cli.completion import member_names
from agent.cli.output import output_option, wide_option, write_json, write_line, write_table
from agent.cli.param_types import DURATION, NAME
from agent.cli.session import Session, pass_session
from agent.text.units import format_duration

HEADER = ("NAME", "ROLE", "FOR", "EXPIRES", "ID", "MADE BY")
SPARE = ("ID", "MADE BY")
ROLES = tuple(each.value for each in Role)


@click.group()
def access() -> None:
    """Give people and programs access to the HTTP API: make, list and revoke access tokens.

    A token is good at every member whose API listens on TCP (`listen` in `[api]`).
    """


@access.command()
@click.argument("name", type=NAME)
@click.option("--role", type=click.Choice(ROLES), required=True, help="What it is for.")
@click.option(
    "--prefix", "prefixes", multiple=True, help="Only for keys that begin so; several may be given."
)
@click.option("--node", default="", shell_complete=member_names, help="Whose own it is.")
@click.option(
    "--ttl",
    type=DURATION,
    default=format_duration(TTL_S_DEFAULT),
    show_default=True,
    help="How long it is good.",
)
@output_option
@pass_session
def create(
    session: Session,
    name: str,
    role: str,
    prefixes: tuple[str, ...],
    node: str,
    ttl: float,
    output: str,
) -> None:
    """Make an access token, and print it: it is kept nowhere.

    `reader` sees everything, `publisher` hands in readings and does nothing else, `node` is one
    device's own (`--node`), `operator` does all but to let devices in and out, `admin` does all.
    """
    asked = {"name": name, "role": role, "prefixes": prefixes, "node": node, "ttl_s": ttl}
    answer = session.client().post("/api/v1/access", asked)
    if output == "json":
        write_json(answer)
        return
    write_line(answer["token"])
    session.say(
        f"Good for {format_duration(ttl)}, as {role}. It is shown this once. To use it, at a "
        "member that has `listen` set in [api]: `curl -H 'Authorization: Bearer TOKEN' "
        "http://HOST:PORT/api/v1/status`, or https:// where `tls = true`."
    )


@access.command("list")
@output_option
@wide_option
@pass_session
def list_(session: Session, output: str, *, wide: bool) -> None:
    """List the access tokens, without their secrets."""
    answer = session.client().get("/api/v1/access")
    if output == "json":
        write_json(answer)
        return
    if answer["tokens"]:
        write_table(HEADER, [_row(one) for one in answer["tokens"]], wide=wide, spare=SPARE)
    else:
        session.say("No access tokens: `covey access create` makes one.")
    if answer["not_understood"]:
        session.say(
            f"{answer['not_understood']} more were made by a later version of Covey, and open "
            "nothing here."
        )
    if answer["age_s"] != 0:
        session.say(_warning(answer["age_s"]))


@access.command()
@click.argument("name", type=NAME)
@pass_session
def revoke(session: Session, name: str) -> None:
    """Make an access token good for nothing any more, at all members that hear of it."""
    session.client().request("DELETE", f"/api/v1/access/{name}")
    session.say(
        f"{name} is revoked. A member that is cut off from the voters takes it until it is back."
    )


@access.command()
@pass_session
def authority(session: Session) -> None:
    """Print the covey's certificates, by which clients of the API know an agent."""
    shown = session.client().request("GET", "/api/v1/authority").body.decode()
    for line in shown.splitlines():
        write_line(line)


def _warning(age_s: float | None) -> str:
    age = "nobody knows how old" if age_s is None else f"{format_duration(age_s)} old"
    return (
        f"No majority of the voters answers: this is this node's copy, {age}. What was revoked "
        "since is still good here."
    )


def _row(one: dict[str, Any]) -> tuple[str | list[str], ...]:
    left_s = one["expires_at"] - time.time()
    node = [f"node {one['node']['name'] or one['node']['id']}"] if one["node"] else []
    return (
        one["name"],
        one["role"],
        [*one["prefixes"], *node] or "",
        f"in {format_duration(left_s)}" if left_s > 0 else f"{format_duration(-left_s)} ago",
        one["id"],
        one["made_by"],
    )
