"""``covey snapshot``: save what is agreed on to a file, look at one, and go on from it."""

import os
from pathlib import Path
from typing import Any

import click

from agent.cli.confirm import confirm
from agent.cli.output import output_option, write_facts, write_json
from agent.cli.param_types import FILE
from agent.cli.recovery import until_generation
from agent.cli.session import Session, pass_session
from agent.exits import NO, NOT_FOUND, NOT_PERMITTED, AgentError

TRANSFER_S = 60.0
MODE = 0o600

file_argument = click.argument("file", type=FILE)


@click.group()
def snapshot() -> None:
    """Save what is agreed on to a file, and go on from it."""


@snapshot.command()
@file_argument
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@output_option
@pass_session
def save(session: Session, file: Path, output: str, *, force: bool) -> None:
    """Save keys, locks, sessions and settings of the control plane to FILE.

    The file is for its owner alone: it has all values in it. Shared keys, which the data plane
    keeps, and readings are not in it.
    """
    if file.exists() and not force:
        raise AgentError(f"{file} is there already; nothing was saved", "another name, or --force")
    data = session.client().request("GET", "/api/v1/snapshot", timeout_s=TRANSFER_S).body
    title = _read(data)
    _write(file, data)
    _tell(title, output)


@snapshot.command()
@file_argument
@output_option
def show(file: Path, output: str) -> None:
    """Show what FILE is a snapshot of, and whether it is whole."""
    _tell(_read(_bytes_of(file)), output)


@snapshot.command()
@file_argument
@click.option("--of", metavar="COVEY", default="", help="It is of another covey, with this id.")
@click.option("--yes", is_flag=True, help="Do it without being asked.")
@pass_session
def restore(session: Session, file: Path, of: str, *, yes: bool) -> None:
    """Go on from FILE, in place of all that is agreed on now.

    Where one node votes alone, on that node: in a new covey, or after `covey recover`. Tokens of
    locks and revisions are larger than any before. Who belongs to the covey is not changed by it.
    """
    data = _bytes_of(file)
    title = _read(data)
    if not yes:
        confirm(
            f"all that is agreed on now is replaced by what was saved at {title['saved_at']}",
            "`covey snapshot restore FILE --yes` does it without asking",
        )
    begun = (
        session.client()
        .request("PUT", "/api/v1/snapshot", query={"of": of}, body=data, timeout_s=TRANSFER_S)
        .json()["restored"]
    )
    until_generation(session, begun)
    session.say(f"Restored, in generation {begun}; all sessions of before have ended.")


def _read(data: bytes) -> dict[str, Any]:
    from agent.cluster.snapshot_file import read_snapshot, titled

    return titled(read_snapshot(data).header)


def _bytes_of(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        status = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_PERMITTED
        raise AgentError(f"{file}: {error.strerror}", "is it the right file?", status) from None


def _write(file: Path, data: bytes) -> None:
    """Put a file in place as a whole, and only once it is on the disk."""
    beside = file.with_name(f".{file.name}.new")
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, MODE)
        with os.fdopen(handle, "wb") as out:
            os.fchmod(handle, MODE)
            out.write(data)
            out.flush()
            os.fsync(handle)
        beside.replace(file)
    except OSError as error:
        raise AgentError(
            f"{file} was not written: {error.strerror}", "is there room?", NO
        ) from None


def _tell(title: dict[str, Any], output: str) -> None:
    if output == "json":
        write_json(title)
        return
    told = {
        "covey": f"{title['name']} ({title['covey']})",
        "generation": title["generation"],
        "revision": title["index"],
        "saved at": title["saved_at"],
        "size": f"{title['size_bytes']} bytes",
    }
    write_facts(told)
