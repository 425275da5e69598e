"""``covey db``: what is in this node's databases, with SQL.

The agent is not asked: the file is read, so it works while the agent runs, hangs or is gone, and
for who may read the file: root, and the user that the agent runs as.
"""

import base64
from typing import TYPE_CHECKING, Any

import click

from agent.cli.output import wide_option, write_json, write_table, write_tsv
from agent.cli.param_types import DURATION
from agent.cli.session import Session, pass_session
from agent.text.units import counted

if TYPE_CHECKING:
    from agent.store.sql_reader import Cell

FILES = ("data", "control", "telemetry", "consensus", "audit")
ROWS_DEFAULT, ROWS_MAX = 1000, 1_000_000
SHOWN_BYTES_MAX = 32


@click.group()
def db() -> None:
    """Look into this node's databases with SQL. Nothing can be changed."""


file_option = click.option(
    "--db",
    "file",
    type=click.Choice(FILES),
    default="data",
    show_default=True,
    help="Which of the node's databases.",
)
limit_option = click.option(
    "--limit",
    type=click.IntRange(1, ROWS_MAX),
    default=ROWS_DEFAULT,
    show_default=True,
    help="At most this many rows.",
)
timeout_option = click.option(
    "--timeout", type=DURATION, default="10s", show_default=True, help="How long it may take."
)
form_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "tsv"]),
    default="table",
    help="A table (tab-separated in a pipe), JSON, or tab-separated with a header.",
)


@db.command()
@click.argument("sql")
@file_option
@limit_option
@timeout_option
@form_option
@wide_option
@pass_session
def query(
    session: Session, sql: str, file: str, limit: int, timeout: float, output: str, *, wide: bool
) -> None:
    """Show what SQL finds in one of this node's databases.

    `SELECT sql FROM sqlite_schema` shows the tables; `unpacked(COLUMN)` is JSON of what is packed.
    """
    from agent.store.sql_reader import select

    paths = session.agent_paths
    path = {
        "data": paths.data_db,
        "control": paths.control_db,
        "telemetry": paths.telemetry_db,
        "consensus": paths.consensus_db,
        "audit": paths.audit_db,
    }[file]
    found = select(path, sql, rows_max=limit, timeout_s=timeout)
    if output == "json":
        write_json([dict(zip(found.columns, map(_json, row), strict=True)) for row in found.rows])
    elif output == "tsv":
        write_tsv(found.columns, [list(map(_text, row)) for row in found.rows])
    else:
        write_table(found.columns, [list(map(_text, row)) for row in found.rows], wide=wide)
    if found.is_cut:
        session.say(f"There is more than the first {counted(len(found.rows), 'row')}; see --limit.")


def _json(cell: "Cell") -> Any:
    """Return a cell as JSON; bytes as sqlite-utils writes them."""
    if isinstance(cell, bytes):
        return {"$base64": True, "encoded": base64.b64encode(cell).decode()}
    return cell


def _text(cell: "Cell") -> object:
    """Return a cell as text; of bytes the beginning, in SQL's own spelling."""
    if isinstance(cell, bytes):
        shown = f"x'{cell[:SHOWN_BYTES_MAX].hex()}'"
        return shown if len(cell) <= SHOWN_BYTES_MAX else f"{shown} and more, {len(cell)} bytes"
    return repr(cell) if isinstance(cell, float) else cell
