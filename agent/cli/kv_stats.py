"""``covey kv stats``: how the shared keys stand, at every node and in all."""

from typing import Any

import click

from agent import exits
from agent.cli.output import output_option, wide_option, write_json, write_table
from agent.cli.ring import in_words
from agent.cli.session import Session, pass_session
from agent.exits import AgentError
from agent.text.units import counted, format_duration

HEADER = (
    "NODE", "STATE", "PARTITIONS", "KEYS", "KIB", "HINTS", "DIFFERING", "REPAIRED", "COMPARED",
    "SINCE", "ZONE", "ID",
)  # fmt: skip
KIB = 1024


@click.command()
@output_option
@wide_option
@pass_session
def stats(session: Session, output: str, *, wide: bool) -> None:
    """Show how the shared keys stand: at each node, and in all.

    All nodes are asked; who does not answer is named.
    """
    answer = session.client().get("/api/v1/kv-stats")
    if output == "json":
        write_json(answer)
    else:
        write_table(HEADER, list(map(_row, answer["nodes"])), wide=wide, spare=("ID", "ZONE"))
        for sentence in _sentences(answer):
            session.say(sentence)
    if answer["outcome"] != "ok":
        raise AgentError(
            f"no answer from {', '.join(answer['silent'])}",
            "the sums are without them; see `covey members`",
            exits.UNHEALTHY,
        )


def _row(node: dict[str, Any]) -> tuple[object, ...]:
    where = (node["zone"], node["id"])
    about = (node["name"], node["state"], node["partitions"])
    if not node["answered"]:
        return (*about, *("" for _ in range(7)), *where)
    ago = node["compared_s"]
    return (
        *about,
        node["keys"],
        node["bytes"] // KIB,
        node["hints"],
        node["differing"],
        node["repaired"],
        "never" if ago is None else f"{format_duration(ago)} ago",
        format_duration(node["since_s"]),
        *where,
    )


def _sentences(answer: dict[str, Any]) -> list[str]:
    in_all = f"{answer['copies']} copies, {answer['bytes'] // KIB} KiB on disks"
    told = [f"{counted(answer['keys'], 'key')}, {in_all}."]
    if answer["uncounted"]:
        told.append(f"{counted(answer['uncounted'], 'partition')} nobody of whose owners answered.")
    if answer["short"]:
        without = answer["without_majority"]
        told.append(
            f"{counted(answer['short'], 'partition')} with an owner away, "
            f"{without} of them without a majority."
        )
    if moving := in_words(answer["moving"]):
        told.append(f"On their way to other owners: {moving}.")
    return told + [each for node in answer["nodes"] for each in _troubles(node)]


def _troubles(node: dict[str, Any]) -> list[str]:
    if not node["answered"]:
        return []
    name, found = node["name"], []
    if node["damaged"]:
        found.append(f"{name}: its disk lost some of {counted(node['damaged'], 'partition')}.")
    if node["incomplete"]:
        found.append(f"{name}: {counted(node['incomplete'], 'partition')} not complete yet.")
    if node["held_back"]:
        found.append(f"{name}: its disk takes nothing at the moment.")
    elif not node["takes_puts"]:
        found.append(f"{name}: its disk is nearly full: no puts, until there is room.")
    if node["failed"]:
        found.append(f"{name}: {counted(node['failed'], 'comparison')} not ended since its start.")
    return found
