"""Writes results: tables for people, tab-separated lines for pipes, JSON for programs.

On a terminal a table is aligned and has a header. In a pipe the same rows come without header,
divided by tabs, so that ``cut -f2`` works; ``-o json`` has named and stable fields and is what a
program should read. Names, tags and values come from other nodes: control characters in them
are shown as escapes, so that nobody else writes to this terminal.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

STATE_COLOURS = {
    "alive": "green",
    "connected": "green",
    "running": "green",
    "ready": "green",
    "suspect": "yellow",
    "asleep": "cyan",
    "connecting": "yellow",
    "waiting": "yellow",
    "dead": "red",
    "failed": "red",
    "left": "bright_black",
    "stopped": "bright_black",
}
GAP = "  "


def output_option(function: F) -> F:
    """Add ``-o table|json`` to a command, as the argument ``output``."""
    option = click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json"]),
        default="table",
        help="A table (tab-separated in a pipe), or JSON with stable fields.",
    )
    return option(function)


def write_json(value: Any) -> None:
    """Write one JSON document."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def write_json_line(value: Any) -> None:
    """Write one value of a stream, on one line, at once."""
    click.echo(json.dumps(value, ensure_ascii=False))
    sys.stdout.flush()


def write_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write rows, aligned below their header on a terminal, divided by tabs in a pipe."""
    cells = [[printable(cell) for cell in row] for row in rows]
    if not is_terminal():
        for row in cells:
            click.echo("\t".join(row))
        return
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    click.echo(click.style(_aligned(header, widths), bold=True))
    for row in cells:
        click.echo(_aligned(row, widths))


def write_row(row: Sequence[object], widths: Sequence[int]) -> None:
    """Write one row of a stream, at once; ``widths`` are for the terminal."""
    cells = [printable(cell) for cell in row]
    click.echo(_aligned(cells, widths) if is_terminal() else "\t".join(cells))
    sys.stdout.flush()


def write_facts(facts: Mapping[str, object]) -> None:
    """Write names and values, one pair a line."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        text = printable(value)
        if is_terminal():
            click.echo(f"{click.style(name.ljust(width), bold=True)}{GAP}{_coloured(text, text)}")
        else:
            click.echo(f"{name}\t{text}")


def is_terminal() -> bool:
    """Say whether results go to a person."""
    return sys.stdout.isatty()


def printable(value: object) -> str:
    r"""Return a cell's text: None is a dash, control characters are escapes.

    >>> printable(None), printable(True), printable({"room": "attic"}), len(printable("a\tb"))
    ('-', 'yes', 'room=attic', 4)
    """
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return printable(",".join(f"{name}={text}" for name, text in sorted(value.items())))
    if isinstance(value, list | tuple):
        return printable(",".join(map(str, value)))
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [_coloured(cell, cell.ljust(width)) for cell, width in zip(row, widths, strict=True)]
    return GAP.join(cells).rstrip()


def _coloured(text: str, padded: str) -> str:
    return click.style(padded, fg=STATE_COLOURS[text]) if text in STATE_COLOURS else padded
