"""``covey kv why``: which owners a key has, and what each of them has of it."""

from datetime import UTC, datetime
from typing import Any

import click

from agent import exits
from agent.cli.device_keys import KEY
from agent.cli.output import output_option, wide_option, write_json, write_table
from agent.cli.param_types import ValueCommand
from agent.cli.session import Session, pass_session
from agent.exits import AgentError
from agent.text.units import counted

HEADER = ("NODE", "ROLE", "STATE", "COPY", "WRITTEN", "BYTES", "DIGEST", "DOT", "CONTEXT")
MS_PER_S = 1000


@click.command(cls=ValueCommand)
@click.argument("key", type=KEY)
@output_option
@wide_option
@pass_session
def why(session: Session, key: str, output: str, *, wide: bool) -> None:
    """Show the owners of KEY, and which versions each of them has.

    Values are not shown, and nothing is repaired by it. Who does not answer is named.
    """
    answer = session.client().get(f"/api/v1/kv-why/{key}")
    if output == "json":
        write_json(answer)
    else:
        rows = [row for node in answer["nodes"] for row in _rows(node)]
        write_table(HEADER, rows, wide=wide, spare=("CONTEXT", "DOT"))
        for sentence in _sentences(answer):
            session.say(sentence)
    if answer["outcome"] != "ok":
        raise AgentError(
            "too few owners answered from a complete copy to know what a read would find",
            "see `covey members`; ask again when they are back",
            exits.UNHEALTHY,
        )


def _rows(node: dict[str, Any]) -> list[tuple[object, ...]]:
    """Return a row for each version that a node has, and one for who has none."""
    about = (node["name"] or node["id"], "+".join(node["roles"]), node["state"], _copy(node))
    if not node["answered"] or not node["versions"]:
        return [(*about, "", "", "", "", " ".join(node.get("context", ())))]
    return [
        (
            *about,
            _moment(version["written_ms"]),
            version["size_bytes"],
            version["digest"],
            version["dot"] + (" (outdated)" if version["dot"] in node["outdated"] else ""),
            " ".join(node["context"]),
        )
        for version in node["versions"]
    ]


def _copy(node: dict[str, Any]) -> str:
    if not node["answered"]:
        return "not known"
    if node["damaged"]:
        return "damaged"
    if node["complete"] is False:
        return "incomplete"
    if node["behind"]:
        return "behind"
    return "equal" if node["versions"] else "no such key"


def _moment(unix_ms: int) -> str:
    """Return a moment in UTC; as a number where no calendar has it."""
    try:
        at = datetime.fromtimestamp(unix_ms / MS_PER_S, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{unix_ms} ms"
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _sentences(answer: dict[str, Any]) -> list[str]:
    """Say in words where this key lies, what a read shows, and what is wrong."""
    shown = counted(len(answer["versions"]), "version")
    where = f"Partition {answer['partition']}, {answer['stage']} since epoch {answer['since']}"
    told = [f"{where} (now {answer['epoch']}). A read of all who answered shows {shown}."]
    if answer["versions"]:
        owners = sum("owner" in node["roles"] for node in answer["nodes"])
        told[0] += f" {answer['copies']} of {counted(owners, 'owner')} are known to have that."
    expiries = sorted({v["expires_ms"] for v in answer["versions"] if "expires_ms" in v})
    told += [f"A version expires at {_moment(ms)}; an owner deletes it then." for ms in expiries]
    for node in answer["nodes"]:
        name = node["name"] or node["id"]
        if not node["answered"]:
            told.append(f"What {name} has is not known: {node['reason']}.")
            continue
        told += [f"{name}: {each}." for each in _troubles(node, answer["epoch"])]
    return told


def _troubles(node: dict[str, Any], epoch: int) -> list[str]:
    found = []
    if node["lacks"]:
        found.append(f"it lacks {counted(len(node['lacks']), 'version')}; a read brings it")
    if node["outdated"]:
        count = counted(len(node["outdated"]), "version")
        found.append(f"it still has {count} that others know to be replaced or deleted")
    if node["damaged"]:
        found.append("its disk lost something, so it answers no reads until it has compared")
    if node["held_back"]:
        found.append("its disk takes nothing at the moment")
    if node["epoch"] != epoch:
        found.append(f"it follows the registry of epoch {node['epoch']}")
    if node["cut"]:
        found.append("it has more versions, or more context, than are shown")
    return found
