"""``covey ring status``: how far partitions are on their way to other owners."""

import time
from typing import Any

import click

from agent.cli.output import output_option, wide_option, write_json, write_json_line, write_table
from agent.cli.progress import Progress
from agent.cli.session import Session, pass_session
from agent.text.units import counted, format_duration

LOOK_S = 2.0
KIB = 1024
BAR_COLUMNS = 30
HEADER = ("NODE", "STATE", "COPYING", "QUEUED", "LEFT", "COPIED KIB", "KIB/S", "SENT KIB", "ID")


@click.command()
@click.option("--follow", is_flag=True, help="Look again until nothing is on its way any more.")
@output_option
@wide_option
@pass_session
def status(session: Session, output: str, *, follow: bool, wide: bool) -> None:
    """Show how far partitions are on their way to other owners.

    How many were to move and have, since this agent saw it begin; how fast the nodes copy, how long
    the rest takes at that, and who is waited for.
    """
    if follow:
        _follow(session, output)
    answer = session.client().get("/api/v1/ring/status")
    if output == "json":
        (write_json_line if follow else write_json)(answer)
        return
    write_table(HEADER, list(map(_row, answer["nodes"])), wide=wide, spare=("ID",))
    for sentence in sentences(answer):
        session.say(sentence)


def _follow(session: Session, output: str) -> None:
    """Return when nothing is on its way; until then draw a bar, or write what changes."""
    client, before = session.client(), ""
    with Progress(quiet=session.quiet) as progress:
        while not (answer := client.get("/api/v1/ring/status"))["settled"]:
            progress.show(answer["moved"] / max(1, answer["to_move"]))
            if output == "json":
                write_json_line(answer)
            elif not session.quiet and not progress.is_wanted and before != (now := _bar(answer)):
                before = now
                session.say(now)
            time.sleep(LOOK_S)


def _row(node: dict[str, Any]) -> tuple[object, ...]:
    state = f"{node['state']}, missing" if node["missing"] else node["state"]
    if not node["answered"]:
        return (node["name"], state, *("" for _ in range(6)), node["id"])
    return (
        node["name"],
        state,
        node["copying"],
        node["queued"],
        node["unfinished"],
        node["copied"] // KIB,
        node["copied_per_s"] // KIB,
        node["sent"] // KIB,
        node["id"],
    )


def sentences(answer: dict[str, Any]) -> list[str]:
    """Return what it comes to."""
    told = [_bar(answer), *map(_wait, answer["waits"])]
    if answer["silent"]:
        told.append(f"No answer from {', '.join(answer['silent'])}.")
    return told


def _bar(answer: dict[str, Any]) -> str:
    moved, total = answer["moved"], answer["to_move"]
    took = format_duration(answer["took_s"])
    if answer["settled"]:
        if not total:
            return "No partition is on its way to other owners, nor was since this agent started."
        return f"No partition is on its way; the last change moved {total} within {took}."
    bar = "#" * (moved * BAR_COLUMNS // total)
    left = answer["left_s"]
    rest = "nobody can tell yet how long the rest takes"
    rest = rest if left is None else f"about {format_duration(left)} left"
    return (
        f"[{bar:<{BAR_COLUMNS}}] {moved} of {counted(total, 'partition')} in {took},"
        f" {answer['copied_per_s'] // KIB} KiB/s, {rest}."
    )


def _wait(wait: dict[str, Any]) -> str:
    number = wait["partitions"]
    return f"{counted(number, 'partition')} {wait['stage']}: {wait['name']} ({wait['state']})."
