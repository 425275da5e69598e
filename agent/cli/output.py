"""Writes results: tables for people, tab-separated lines for pipes, JSON for programs.

On a terminal a table is aligned, has a header and fits. In a pipe the same rows come without
header, divided by tabs and in full, so that ``cut -f1`` gives names; ``-o json`` has named and
stable fields and is what a program should read. Nothing else in ``agent/cli`` writes to stdout, so
that every text passes through ``agent/text/escaping.py``; what is not a result goes to stderr by
``Session.say``, or by ``complain``, which ``--quiet`` does not silence.
"""

import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import click

from agent.cli.copyable import here
from agent.cli.tables import GAP, cut, laid_out, printable
from agent.text.escaping import columns, folded, json_text, one_line, padded, with_tabs

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


class Styled(NamedTuple):
    """A piece of a line with its colour."""

    text: str
    colour: str | None = None
    bold: bool = False


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


def wide_option(function: F) -> F:
    """Add ``--wide`` to a command that writes a table, as the argument ``wide``."""
    option = click.option(
        "--wide", is_flag=True, help="All columns and whole cells, also wider than the terminal."
    )
    return option(function)


def write_json(value: Any) -> None:
    """Write one JSON document."""
    click.echo(json_text(value, indent=2))


def write_json_line(value: Any) -> None:
    """Write one value of a stream, on one line, at once."""
    click.echo(json_text(value))
    sys.stdout.flush()


def write_json_lines(values: Iterable[Any]) -> None:
    """Write values, one a line, all at once."""
    lines = "\n".join(map(json_text, values))
    if lines:
        click.echo(lines)


def write_table(
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    wide: bool = False,
    spare: Collection[str] = (),
) -> None:
    """Write rows, aligned below their header on a terminal, divided by tabs in a pipe.

    On a terminal that is too narrow, the columns ``spare`` are left out and cells cut, unless
    ``wide``.
    """
    if not is_terminal():
        for row in rows:
            click.echo("\t".join(map(printable, row)))
        return
    lines, widths = laid_out(header, rows, None if wide else terminal_columns(), spare)
    click.echo(click.style(_aligned(lines[0], widths, coloured=False), bold=True))
    for line in lines[1:]:
        click.echo(_aligned(line, widths))


def write_tsv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a header and rows, divided by tabs and in full, wherever they go."""
    for row in (header, *rows):
        click.echo("\t".join(map(printable, row)))


def write_row(row: Sequence[object], widths: Sequence[int], *, wide: bool = False) -> None:
    """Write one row of a stream, at once; ``widths`` are for the terminal, 0 for the last."""
    if not is_terminal():
        click.echo("\t".join(map(printable, row)))
    else:
        cells = list(map(printable, row))
        used = sum(
            max(columns(cell), width) + len(GAP)
            for cell, width in zip(cells[:-1], widths, strict=False)
        )
        if not wide and used < (room := terminal_columns()):
            cells[-1] = cut(row[-1], room - used)
        click.echo(_aligned(cells, widths))
    sys.stdout.flush()


def write_facts(facts: Mapping[str, object]) -> None:
    """Write names and values, one pair a line."""
    write_pairs(list(facts.items()))


def write_pairs(pairs: Sequence[tuple[str, object]]) -> None:
    """Write names and values, one pair a line; a name may come several times."""
    names = {name: one_line(name) for name, _ in pairs}
    width = max(map(columns, names.values()), default=0)
    for name, value in pairs:
        text = printable(value)
        if is_terminal():
            label = click.style(padded(names[name], width), bold=True)
            first, *more = folded(text, terminal_columns() - width - len(GAP))
            click.echo(f"{label}{GAP}{_coloured(first, first)}")
            for line in more:
                click.echo(f"{' ' * (width + len(GAP))}{line}")
        else:
            click.echo(f"{names[name]}\t{text}")


def write_line(*parts: str | Styled) -> None:
    """Write one line of text, whatever is in it."""
    click.echo("".join(_painted(part) for part in parts))


def write_paragraph(label: Styled, text: str, indent: str) -> None:
    """Write a text behind a label; on a terminal in lines that end between words, indented."""
    if not is_terminal():
        write_line(label, text)
        return
    room = terminal_columns() - columns(label.text)
    first, *more = folded(one_line(text), room)
    write_line(label, first)
    rest = " ".join(more)
    for line in folded(rest, terminal_columns() - len(indent)) if rest else []:
        write_line(indent + line)


def write_value(data: bytes) -> bool:
    """Write a value: exact bytes into a pipe or file; on a terminal the lines of its text.

    Says whether all of it was shown: a terminal gets nothing of what is no text.
    """
    if not is_terminal():
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return True
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return False
    for line in text.removesuffix("\n").split("\n"):
        click.echo(with_tabs(line))
    return True


def write_own(text: str) -> None:
    """Write a text that holds nothing of others, such as a script for a shell, as it is."""
    click.echo(text)


def steer(sequence: str) -> None:
    """Send the terminal a control sequence of ours, at once; NO_COLOR does not mean these."""
    click.echo(sequence, nl=False, color=True)
    sys.stdout.flush()


def complain(text: str) -> None:
    """Tell on stderr what was wrong with a part of the input, also under ``--quiet``."""
    click.echo(one_line(here(text)), err=True)


def is_terminal() -> bool:
    """Say whether results go to a person."""
    return sys.stdout.isatty()


def terminal_columns() -> int:
    """Return how wide the terminal is; ``COLUMNS`` decides where it is set."""
    return shutil.get_terminal_size().columns


def _aligned(row: Sequence[str], widths: Sequence[int], *, coloured: bool = True) -> str:
    cells = [padded(cell, width) for cell, width in zip(row, widths, strict=True)]
    if coloured:
        cells = [_coloured(cell, filled) for cell, filled in zip(row, cells, strict=True)]
    return GAP.join(cells).rstrip()


def _coloured(text: str, filled: str) -> str:
    """Colour a cell by its first word: a state may have more behind it, "alive, no streams"."""
    word = text.partition(" ")[0].rstrip(",")
    return click.style(filled, fg=STATE_COLOURS[word]) if word in STATE_COLOURS else filled


def _painted(part: str | Styled) -> str:
    if isinstance(part, str):
        return one_line(part)
    return click.style(one_line(part.text), fg=part.colour, bold=part.bold or None)
