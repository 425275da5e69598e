"""``covey kv space``: rules for the shared keys that begin alike, up to their first slash."""

from typing import Any

import click

from agent.cli.output import output_option, wide_option, write_json, write_table
from agent.cli.param_types import NAME, QUOTA, TTL, ValueGroup
from agent.cli.session import Session, pass_session
from agent.text.units import counted, format_duration

REPLICAS_MAX = 7
HEADER = ("SPACE", "POLICY", "TTL", "KEYS", "BYTES", "OWNERS")
POLICIES = ("siblings", "lww", "counter", "set", "map", "max", "min")


@click.group(cls=ValueGroup)
def space() -> None:
    """Show and set what holds for shared keys that begin alike.

    A space is what keys begin with, up to their first slash: lamps/north is in lamps.
    """


@space.command("list")
@output_option
@wide_option
@pass_session
def list_(session: Session, output: str, *, wide: bool) -> None:
    """List the spaces for which something is set, or that have partitions of their own."""
    answer = session.client().get("/api/v1/kv-spaces")
    if output == "json":
        write_json(answer)
        return
    write_table(HEADER, list(map(_row, answer["spaces"])), wide=wide)


def _row(each: dict[str, Any]) -> tuple[object, ...]:
    keys, size = _of(each["keys"], each["quota_keys"]), _of(each["bytes"], each["quota_bytes"])
    return each["name"], each["policy"], _ttl(each), keys, size, each["replicas"] or ""


def _of(used: int | None, quota: int | None) -> str:
    """Tell how much there is of how much; a question mark before any owner has told."""
    return "" if quota is None else f"{'?' if used is None else used}/{quota}"


def _ttl(space: dict[str, Any]) -> str:
    seconds = space["ttl_default_s"]
    return "" if seconds is None else format_duration(seconds)


@space.command("set")
@click.argument("name", type=NAME)
@click.option(
    "--policy",
    type=click.Choice(POLICIES),
    help="What becomes of concurrent values, or the one type that is accepted.",
)
@click.option(
    "--ttl-default",
    "ttl",
    type=TTL,
    metavar="DURATION",
    help="Delete after so long what is put without --ttl; none takes it back.",
)
@click.option(
    "--quota-keys",
    type=QUOTA,
    metavar="N",
    help="Take no more keys than about so many; none takes it back.",
)
@click.option(
    "--quota-bytes",
    type=QUOTA,
    metavar="N",
    help="Take no more bytes than about so many, as 64K, 10M or 2G; none takes it back.",
)
@output_option
@pass_session
def set_(
    session: Session,
    name: str,
    policy: str | None,
    ttl: float | None,
    quota_keys: int | None,
    quota_bytes: int | None,
    output: str,
) -> None:
    """Set what holds for keys that begin with NAME/.

    With the policy lww, concurrent writes may be dropped: of values that knew nothing of each
    other only the latest is shown, and the next put replaces all. Values that are there stay.

    Owners are asked every ten seconds how much there is: within these a quota can be overrun. Then
    puts that add are refused; deletes, reads and values that are not larger go on.
    """
    changes: dict[str, Any] = {} if policy is None else {"policy": policy}
    amounts = {"ttl_default_s": ttl, "quota_keys": quota_keys, "quota_bytes": quota_bytes}
    changes |= {key: amount or None for key, amount in amounts.items() if amount is not None}
    if not changes:
        raise click.UsageError(
            "say what is to be set: --policy, --ttl-default, --quota-keys or --quota-bytes"
        )
    answer = session.client().post(f"/api/v1/kv-spaces/{name}", json=changes)
    if output == "json":
        write_json(answer)


@space.command()
@click.argument("name", type=NAME)
@click.option(
    "--replicas",
    type=click.IntRange(1, REPLICAS_MAX),
    required=True,
    metavar="N",
    help="So many nodes own each key, 1 to 7.",
)
@output_option
@pass_session
def create(session: Session, name: str, replicas: int, output: str) -> None:
    """Have keys that begin with NAME/ owned by N nodes.

    They get partitions of their own, so there must be no such keys yet. Of a space that has them,
    N may be changed at any time.
    """
    answer = session.client().post(f"/api/v1/kv-owners/{name}", json={"replicas": replicas})
    if output == "json":
        write_json(answer)
    else:
        owners = counted(replicas, "owner")
        session.say(f"Keys that begin with {name}/ have {owners}; `covey ring` shows it.")


@space.command()
@click.argument("name", type=NAME)
@pass_session
def unset(session: Session, name: str) -> None:
    """Take back all that was set for keys that begin with NAME/."""
    session.client().request("DELETE", f"/api/v1/kv-spaces/{name}")
