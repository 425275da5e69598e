"""``covey file``: files of the covey, from the shell.

A file is streamed: however large it is, neither this command nor an agent has all of it in memory.
The same ``put``, typed again, goes on where it broke off.
"""

import os
import sys
import time
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

import click

from agent.cli.output import (
    is_terminal,
    output_option,
    wide_option,
    write_facts,
    write_json,
    write_table,
)
from agent.cli.param_types import ValueGroup
from agent.cli.progress import Progress
from agent.cli.session import Session, pass_session
from agent.exits import NO, NOT_FOUND, UNHEALTHY, USAGE, AgentError
from agent.text.units import counted
from edge_apps.client import AgentUnreachable, ApiError, ClientError
from edge_apps.files import FileBroken, Files

MARK_BYTES = 16
SHOWN_BLOCKS_MAX = 20


@click.group("file", cls=ValueGroup)
def file() -> None:
    """Put files on several devices, and get them back."""


@file.command()
@click.argument("path")
@click.argument("name", required=False)
@output_option
@pass_session
def put(session: Session, path: str, name: str | None, output: str) -> None:
    """Store the file PATH under NAME [its own name]; `-` stores what comes from stdin.

    NAME stands for it once most owners of each of its blocks have it on disk, and never for a part
    of it. The same command goes on where it broke off, within a day.
    """
    if name == "":
        raise click.UsageError("a NAME has at least one character")
    if path == "-":
        if name is None:
            raise click.UsageError("what comes from stdin needs a NAME")
        stored = Files(session.client()).put(name, sys.stdin.buffer)
    else:
        stored = _put(session, Path(path), name or Path(path).name)
    if output == "json":
        write_json(stored)
    else:
        session.say(f"Stored as {stored['name']}: {counted(stored['size_bytes'], 'byte')}.")


def _put(session: Session, path: Path, name: str) -> dict[str, Any]:
    try:
        source = path.open("rb")
    except OSError as error:
        status = NOT_FOUND if isinstance(error, FileNotFoundError) else NO
        raise AgentError(f"{path}: {error.strerror}", "is it the right file?", status) from None
    about = os.fstat(source.fileno())
    # What tells no size, such as a device, has no bar.
    with source, Progress(quiet=session.quiet or not about.st_size) as progress:
        size_bytes = max(1, about.st_size)
        told = f"{name}\0{path.absolute()}\0{about.st_size}\0{about.st_mtime_ns}"
        mark = blake2b(os.fsencode(told), digest_size=MARK_BYTES).hexdigest()
        files = Files(session.quiet_client())
        return files.put(
            name, source, mark=mark, on_progress=lambda done: progress.show(done / size_bytes)
        )


@file.command()
@click.argument("name")
@click.argument("path", required=False)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@click.option("--start", type=click.IntRange(min=0), default=0, help="From this byte on [0].")
@click.option("--bytes", "size", type=click.IntRange(min=1), help="Only so many bytes [all].")
@pass_session
def get(
    session: Session, name: str, path: str | None, start: int, size: int | None, *, force: bool
) -> None:
    """Write the file NAME to PATH [its last part]; `-` writes it to stdout.

    PATH is there as a whole or not at all. A terminal is not written to: send stdout elsewhere.
    """
    target = Path(path or name.rpartition("/")[2])
    to_stdout = path == "-"
    if to_stdout and is_terminal():
        raise AgentError(
            "a terminal would obey what is in a file; nothing was read",
            f"`covey file get {name} - | less` shows it",
            USAGE,
        )
    if not to_stdout and target.exists() and not force:
        raise AgentError(f"{target} is there already; nothing was read", "another PATH, or --force")
    files = Files(session.quiet_client())
    wanted = size if size is not None else files.stat(name)["size_bytes"]
    end = None if size is None else start + size
    with Progress(quiet=session.quiet or to_stdout) as progress:
        got = 0
        with _Target(target, to_stdout=to_stdout) as out:
            try:
                for part in files.read(name, start, end):
                    out.write(part)
                    got += len(part)
                    progress.show(min(1.0, got / max(1, wanted)))
            except FileBroken as error:
                raise AgentError(error.message, error.hint, UNHEALTHY) from None


class _Target:
    """Where a file is written to: put in place as a whole, and only once it is on the disk."""

    def __init__(self, path: Path, *, to_stdout: bool) -> None:
        self._path, self._to_stdout = path, to_stdout
        self._beside = path.with_name(f".{path.name}.{os.getpid()}.new")

    def __enter__(self) -> Self:
        if not self._to_stdout:
            try:
                self._file = self._beside.open("xb")
            except OSError as error:
                raise self._failed(error) from None
        return self

    def write(self, data: bytes) -> None:
        try:
            (sys.stdout.buffer if self._to_stdout else self._file).write(data)
        except OSError as error:
            if self._to_stdout:
                raise
            raise self._failed(error) from None

    def __exit__(self, kind: object, *_: object) -> None:
        if self._to_stdout:
            sys.stdout.buffer.flush()
            return
        try:
            with self._file:
                self._file.flush()
                os.fsync(self._file.fileno())
            if kind is None:
                self._beside.replace(self._path)
        except OSError as error:
            raise self._failed(error) from None
        finally:
            self._beside.unlink(missing_ok=True)

    def _failed(self, error: OSError) -> AgentError:
        return AgentError(f"{self._path} was not written: {error.strerror}", "is there room?", NO)


@file.command()
@click.argument("prefix", default="")
@output_option
@wide_option
@pass_session
def ls(session: Session, prefix: str, output: str, *, wide: bool) -> None:
    """List the files whose names begin with PREFIX.

    SHORT counts blocks that are not known to lie with all of their owners, MISSING those that
    nobody has who answered.
    """
    files = []
    problem: ClientError | None = None
    try:
        for each in Files(session.client()).list(prefix):
            files.append(each)  # noqa: PERF402 - what came before an error is shown
    except ClientError as error:
        if not files and isinstance(error, ApiError | AgentUnreachable):
            raise
        problem = error
    if output == "json":
        write_json({"files": files, "outcome": "partial" if problem else "ok"})
    else:
        header = ("NAME", "BYTES", "WRITTEN", "BLOCKS", "SHORT", "MISSING")
        write_table(header, [_row(each) for each in files], wide=wide)
    if problem is not None:
        raise AgentError(problem.message, problem.hint, UNHEALTHY)


def _row(each: dict[str, Any]) -> tuple[object, ...]:
    counts = each["blocks"], each["short"], each["missing"]
    return (each["name"], each["size_bytes"], _date(each["written_ms"]), *counts)


def _date(written_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(min(written_ms / 1000, 2**40)))


@file.command()
@click.argument("name")
@output_option
@pass_session
def stat(session: Session, name: str, output: str) -> None:
    """Show what is known of the file NAME, and which of its blocks are short.

    Status 6 if any block is nowhere to be had just now.
    """
    told = Files(session.client()).stat(name)
    if output == "json":
        write_json(told)
    else:
        _show(told)
    if told["missing"]:
        raise AgentError(
            f"{counted(told['missing'], 'block')} of {told['blocks']} nobody has who answered",
            "see `covey members`: who has them is away",
            UNHEALTHY,
        )


def _show(told: dict[str, Any]) -> None:
    facts = {
        "name": told["name"],
        "bytes": told["size_bytes"],
        "digest": told["digest"],
        "written": _date(told["written_ms"]),
        "blocks": told["blocks"],
        "short": told["short"],
        "missing": told["missing"],
    }
    if told["silent"]:
        facts["did not answer"] = ", ".join(told["silent"])
    write_facts(facts)
    short = [
        (number, ", ".join(block["owners"]), ", ".join(block["held"]) or "nobody")
        for number, block in enumerate(told["placed"])
        if not set(block["held"]).issuperset(block["owners"])
    ]
    if short:
        write_table(("BLOCK", "OWNERS", "HELD BY"), short[:SHOWN_BLOCKS_MAX])


@file.command()
@click.argument("old")
@click.argument("new")
@output_option
@pass_session
def mv(session: Session, old: str, new: str, output: str) -> None:
    """Give the file OLD the name NEW, in the place of what that one stands for."""
    moved = Files(session.client()).move(old, new)
    if output == "json":
        write_json(moved)


@file.command()
@click.argument("name")
@output_option
@pass_session
def rm(session: Session, name: str, output: str) -> None:
    """Remove the file NAME. Who is reading it has a minute to finish."""
    removed = Files(session.client()).remove(name)
    if output == "json":
        write_json(removed)
