"""``covey event`` and ``covey events``: tell all members something, and see what they were told."""

import base64
import sys
from typing import Any, BinaryIO

import click

from agent.cli.output import (
    is_terminal,
    output_option,
    wide_option,
    write_json,
    write_json_line,
    write_line,
    write_row,
    write_table,
)
from agent.cli.param_types import ValueGroup
from agent.cli.session import Session, pass_session
from agent.cli.streaming import lines_of
from agent.cli.suggestions import say_if_nothing

HEADER = ("TIME", "LAMPORT", "NAME", "FROM", "PAYLOAD")
FOLLOW_WIDTHS = (24, 8, 20, 16, 0)
RECENT_MAX = 256

file_option = click.option(
    "--file", "file", type=click.File("rb"), help="Take the payload from this file."
)


@click.group(cls=ValueGroup)
def event() -> None:
    """Send events to all members."""


@event.command()
@click.argument("name")
@click.argument("payload", required=False)
@file_option
@output_option
@pass_session
def send(
    session: Session, name: str, payload: str | None, file: BinaryIO | None, output: str
) -> None:
    """Send the event NAME with PAYLOAD; `-` reads the payload from stdin.

    At most 512 bytes. Every member that is there gets it, once.
    """
    body = {"name": name, **payload_fields(read_payload(payload, file))}
    answer = session.client().post("/api/v1/events", body)
    if output == "json":
        write_json(answer)
    else:
        write_line(answer["id"])


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Show those that come, until Ctrl-C.")
@click.option("--name", default="*", metavar="GLOB", help="Only events like this: 'door/*'.")
@click.option(
    "--limit", type=click.IntRange(0, RECENT_MAX), default=100, help="How many of the last [100]."
)
@output_option
@wide_option
@pass_session
def events(
    session: Session, *, follow: bool, name: str, limit: int, output: str, wide: bool
) -> None:
    """Show events that arrived here, in the order of their Lamport times.

    The agent remembers the last 256 since its start.
    """
    if follow:
        _follow(session, name, output, wide=wide)
        return
    answer = session.client().get("/api/v1/events", name=name, limit=limit)
    if output == "json":
        write_json(answer)
    else:
        write_table(HEADER, [_row(one) for one in answer["events"]], wide=wide)
        if not answer["events"] and name != "*" and limit:
            heard = session.client().get("/api/v1/events", limit=RECENT_MAX)["events"]
            say_if_nothing(session, "event", name, {one["name"]: None for one in heard})


def _follow(session: Session, name: str, output: str, *, wide: bool) -> None:
    if output != "json" and is_terminal():
        write_row(HEADER, FOLLOW_WIDTHS)
    for one in lines_of(session.client(), "/api/v1/events", {"follow": 1, "name": name}):
        if output == "json":
            write_json_line(one)
        elif "missed" in one:
            session.say(f"{one['missed']} events missed: they came faster than they were shown.")
        else:
            write_row(_row(one), FOLLOW_WIDTHS, wide=wide)


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    lamport = f"{one['lamport']} late" if one["late"] else one["lamport"]
    return one["received"], lamport, one["name"], one["sender"]["name"], payload_text(one)


def read_payload(payload: str | None, file: BinaryIO | None) -> bytes:
    """Return the payload that the arguments name; nothing is an empty one."""
    if payload is not None and file is not None:
        raise click.UsageError("give either a PAYLOAD, `-` for stdin, or --file")
    if file is not None:
        return file.read()
    if payload == "-":
        return sys.stdin.buffer.read()
    return (payload or "").encode(errors="surrogateescape")  # what the shell passed


def payload_fields(payload: bytes) -> dict[str, str]:
    """Return bytes as the API takes them."""
    try:
        return {"payload": payload.decode()}
    except UnicodeDecodeError:
        return {"payload_base64": base64.b64encode(payload).decode()}


def payload_text(one: dict[str, Any]) -> str:
    """Return the payload for a table."""
    text: str | None = one.get("payload")
    if text is not None:
        return text.rstrip("\n")
    return f"({len(base64.b64decode(one['payload_base64']))} bytes)"
