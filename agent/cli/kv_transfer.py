"""``covey kv export`` and ``covey kv import``: shared keys to a file of lines, and from one.

An import reads each key first, leaves it alone where it has these values already, and else writes
with the context of that read: so it replaces what there was, and nothing that somebody writes
meanwhile. Several versions are written with that same context, so that they stay beside each
other. Running it again does no harm, and finds most of it done.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import click

from agent import exits
from agent.cli.output import output_option, write_facts, write_json, write_json_lines
from agent.cli.progress import CountProgress
from agent.cli.session import Session, pass_session
from agent.exits import AgentError
from agent.text.units import counted
from edge_apps.client import AgentTimedOut, ApiError, Client
from edge_apps.key_batches import carry_out, data_of, put_of

if TYPE_CHECKING:
    from agent.cluster.kv_lines import KeyLine

PAGE_KEYS = 500
TRIES = 3
"""So often a page is asked for of which too few owners answered."""
BATCH_KEYS = 256
LINE_BYTES_MAX = 16 * 1024 * 1024
"""Several versions of 256 KiB, each character of them an escape."""
TIMEOUT_S = 10.0
SHOWN_MAX = 10

WRITTEN, UNCHANGED, EXPIRED = "written", "unchanged", "expired"
REFUSED, INDETERMINATE = "refused", "indeterminate"


@click.command()
@click.option("--prefix", default="", help="Only keys that begin like this [all].")
@pass_session
def export(session: Session, prefix: str) -> None:
    """Write shared keys with their values to stdout, one JSON object a line.

    It is no snapshot of one moment: what is written meanwhile may be in it or not. Status 6 if
    keys may be missing.
    """
    client, after, keys, siblings, is_whole = session.client(), "", 0, 0, True
    with CountProgress("keys", quiet=session.quiet) as progress:
        while True:
            page = _page(client, prefix, after)
            write_json_lines(page["entries"])
            keys += len(page["entries"])
            siblings += sum(len(entry["values"]) > 1 for entry in page["entries"])
            is_whole = is_whole and page["outcome"] == "ok"
            progress.show(keys)
            if not (after := page["next"]):
                break
    session.say(f"{counted(keys, 'key')}, of them {siblings} with several versions.")
    if not is_whole:
        raise AgentError(
            "this export is not whole: not enough owners of some keys answered",
            "see `covey members`; export again when they are back",
            exits.UNHEALTHY,
        )


def _page(client: Client, prefix: str, after: str) -> dict[str, Any]:
    page: dict[str, Any] = {}
    for _ in range(TRIES):
        page = client.get("/api/v1/kv", prefix=prefix, after=after, limit=PAGE_KEYS)
        if page["outcome"] == "ok":
            break
    return page


class ImportedKey(NamedTuple):
    """What became of one line."""

    line: int
    key: str
    outcome: str
    reason: str = ""


@click.command("import")
@click.argument("file", type=click.File("rb"))
@output_option
@pass_session
def import_(session: Session, file: BinaryIO, output: str) -> None:
    """Write the keys of FILE, which `covey kv export` made; `-` reads stdin.

    Each key gets exactly the values of its line, and expires when they did; what has expired is
    left out. Keys that FILE does not name stay as they are.
    Run it again where something was not written: what is there already is left alone.
    """
    counts = dict.fromkeys((WRITTEN, UNCHANGED, EXPIRED, REFUSED, INDETERMINATE), 0)
    troubles: list[ImportedKey] = []
    with CountProgress("keys", quiet=session.quiet) as progress:
        client = session.hasty_client()
        for batch in _batches(_numbered(file)):
            for each in _import(client, batch):
                counts[each.outcome] += 1
                if each.outcome in (REFUSED, INDETERMINATE):
                    troubles.append(each)
            progress.show(sum(counts.values()))
    _tell(session, counts, troubles, output)


class NumberedLine(NamedTuple):
    """A line of the file: what it says, or else why it is none."""

    number: int
    says: "KeyLine | None"
    problem: str = ""


def _numbered(file: BinaryIO) -> Iterator[NumberedLine]:
    """Yield the lines that are not empty. Raises AgentError for one without end."""
    from agent.cluster.kv_lines import BadKeyLine, read_line

    number = 0
    while line := file.readline(LINE_BYTES_MAX):
        number += 1
        if len(line) == LINE_BYTES_MAX:
            raise AgentError(
                f"line {number} has more than {LINE_BYTES_MAX} bytes; those before it were written",
                "is this a file that `covey kv export` made?",
                exits.USAGE,
            )
        if line.strip():
            try:
                yield NumberedLine(number, read_line(line))
            except BadKeyLine as error:
                yield NumberedLine(number, None, str(error))


def _batches(lines: Iterable[NumberedLine]) -> Iterator[list[NumberedLine]]:
    """Yield lines that may be imported in any order: no key is twice in one batch."""
    batch: list[NumberedLine] = []
    keys: set[str] = set()
    for line in lines:
        if len(batch) == BATCH_KEYS or (line.says and line.says.key in keys):
            yield batch
            batch, keys = [], set()
        batch.append(line)
        if line.says:
            keys.add(line.says.key)
    if batch:
        yield batch


def _import(client: Client, lines: list[NumberedLine]) -> Iterator[ImportedKey]:
    """Write the keys of some lines. Raises AgentUnreachable when there is no agent any more."""
    asked = [line.says for line in lines if line.says is not None]
    outcomes = _read_and_write(client, asked)
    for line in lines:
        if line.says is None:
            yield ImportedKey(line.number, "", REFUSED, line.problem)
        else:
            yield ImportedKey(line.number, line.says.key, *outcomes[line.says.key])


def _read_and_write(client: Client, lines: "list[KeyLine]") -> dict[str, tuple[str, str]]:
    """Return of each key what became of it, and why."""
    outcomes: dict[str, tuple[str, str]] = {}
    try:
        wanted = {line.key: _wanted(line, found) for line, found in _found(client, lines)}
    except (ApiError, AgentTimedOut) as error:
        return {line.key: (REFUSED, f"it could not be read: {error.message}") for line in lines}
    writes: list[dict[str, Any]] = []
    for key, decided in wanted.items():
        if isinstance(decided, tuple):
            outcomes[key] = decided
        else:
            writes += decided
    results: dict[str, list[dict[str, Any]]] = {each["key"]: [] for each in writes}
    try:
        for told in carry_out(client, writes, TIMEOUT_S):
            results[told["key"]].append(told)
        why = "nothing was heard of it"
    except (ApiError, AgentTimedOut) as error:
        why = error.message
    counts = Counter(each["key"] for each in writes)
    for key, told_of in results.items():
        outcomes[key] = _outcome(told_of, counts[key], why)
    return outcomes


def _found(client: Client, lines: "list[KeyLine]") -> "Iterator[tuple[KeyLine, dict[str, Any]]]":
    """Yield what there is of each key; what one batch has no room for is asked by itself."""
    asked = [{"op": "get", "key": line.key} for line in lines]
    for line, get, told in zip(lines, asked, carry_out(client, asked, TIMEOUT_S), strict=True):
        if told["outcome"] == "refused":
            (told,) = carry_out(client, [get], TIMEOUT_S)
        yield line, told


def _wanted(line: "KeyLine", found: dict[str, Any]) -> tuple[str, str] | list[dict[str, Any]]:
    """Return what is to be done for a key, or what becomes of it without."""
    from agent.cluster.kv_lines import unseen

    living = line.living(time.time() * 1000)
    if not living:
        return EXPIRED, ""
    if found["outcome"] != "ok":
        error = found.get("error", {})
        return REFUSED, error.get("message", "too few owners answered to know what there is")
    present = sorted(map(data_of, found["values"]))
    types = {each.get("type", "register") for each in found["values"]}
    if present == sorted(value for value, _ in living) and types <= {line.type}:
        return UNCHANGED, ""
    seen = found["context"] if present else unseen(line.key)
    if line.type == "register":  # the newest was first, and is to be so again
        return [put_of(line.key, v, context=seen, ttl=ttl_s or 0) for v, ttl_s in reversed(living)]
    deletes = [{"op": "delete", "key": line.key, "context": seen}] if present else []
    return deletes + [{"op": "update", "key": line.key, "change": c} for c in line.changes()]


def _outcome(told: list[dict[str, Any]], asked: int, why: str) -> tuple[str, str]:
    """Return what became of a key by what became of its operations."""
    good = sum(each["outcome"] == "ok" for each in told)
    if good == asked:
        return WRITTEN, ""
    bad = next((each for each in told if each["outcome"] != "ok"), None)
    if bad is None:
        return INDETERMINATE, why
    some = f"; {good} of {asked} steps were carried out" if good else ""
    if bad["outcome"] == "refused":
        return REFUSED, bad["error"]["message"] + some
    return INDETERMINATE, f"{bad['acks']} of {bad['needed']} owners are known to have it{some}"


def _tell(
    session: Session, counts: dict[str, int], troubles: list[ImportedKey], output: str
) -> None:
    if output == "json":
        write_json({**counts, "troubles": [each._asdict() for each in troubles]})
    else:
        write_facts(counts)
    for each in troubles[:SHOWN_MAX]:
        session.say(f"line {each.line}, {each.key or 'no key'}: {each.outcome}: {each.reason}")
    if len(troubles) > SHOWN_MAX:
        session.say(f"and {len(troubles) - SHOWN_MAX} more; `-o json` has all")
    if counts[INDETERMINATE] or counts[REFUSED]:
        status = exits.UNHEALTHY if counts[INDETERMINATE] else exits.NO
        raise AgentError(
            f"{counted(len(troubles), 'key')} of the file may not be there as it says",
            "correct what is named, and run it again: what is there already is left alone",
            status,
        )
