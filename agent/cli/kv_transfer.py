"""``covey kv export`` and ``covey kv import``: shared keys to a file of lines, and from one.

An import reads each key first, leaves it alone where it has these values already, and else writes
with the context of that read: so it replaces what there was, and nothing that somebody writes
meanwhile. Several versions are written with that same context, so that they stay beside each
other. Running it again does no harm, and finds most of it done.
"""

import base64
import time
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

if TYPE_CHECKING:
    from agent.cluster.kv_lines import KeyLine

PAGE_KEYS = 500
TRIES = 3
"""So often a page is asked for of which too few owners answered."""
AT_ONCE = 8
BATCH_KEYS = 64
LINE_BYTES_MAX = 16 * 1024 * 1024
"""Several versions of 256 KiB, each character of them an escape."""
TIMEOUT_S = 10.0
EXTRA_WAIT_S = 5.0
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
    from concurrent.futures import ThreadPoolExecutor  # late: `covey kv get` needs none

    counts = dict.fromkeys((WRITTEN, UNCHANGED, EXPIRED, REFUSED, INDETERMINATE), 0)
    troubles: list[ImportedKey] = []
    with (
        CountProgress("keys", quiet=session.quiet) as progress,
        ThreadPoolExecutor(AT_ONCE, thread_name_prefix="import") as pool,
    ):
        client = session.hasty_client()
        for batch in _batches(_numbered(file)):
            for each in pool.map(lambda line: _import(client, line), batch):
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


def _import(client: Client, line: NumberedLine) -> ImportedKey:
    """Write one key. Raises AgentUnreachable when there is no agent any more."""
    if line.says is None:
        return ImportedKey(line.number, "", REFUSED, line.problem)
    try:
        outcome, reason = _write(client, line.says)
    except ApiError as error:
        outcome, reason = REFUSED, error.message
    except AgentTimedOut as error:
        outcome, reason = INDETERMINATE, error.message
    return ImportedKey(line.number, line.says.key, outcome, reason)


def _write(client: Client, line: "KeyLine") -> tuple[str, str]:
    living = line.living(time.time() * 1000)
    if not living:
        return EXPIRED, ""
    present, context, types = _read(client, line.key)
    if sorted(present) == sorted(value for value, _ in living) and types <= {line.type}:
        return UNCHANGED, ""
    if line.type != "register":
        return _build(client, line, context if present else "")
    outcome, reason = WRITTEN, ""
    # The newest was first, and is to be so again.
    for count, (value, ttl_s) in enumerate(reversed(living)):
        try:
            told = _put(client, line.key, value, context, ttl_s)
        except ApiError as error:
            some = f"; {count} of {len(living)} versions were written" if count else ""
            return REFUSED, error.message + some
        if told["outcome"] != "ok":
            outcome = INDETERMINATE
            reason = f"{told['acks']} of {told['needed']} owners are known to have it"
    return outcome, reason


def _build(client: Client, line: "KeyLine", seen: str) -> tuple[str, str]:
    """Make a key with a type anew, after what was seen of it is deleted."""

    def ask(method: str, change: Any, headers: dict[str, str]) -> bool:
        path, query = f"/api/v1/kv/{line.key}", {"timeout": TIMEOUT_S}
        patience_s = TIMEOUT_S + EXTRA_WAIT_S
        answer = client.request(
            method, path, query=query, json=change, headers=headers, timeout_s=patience_s
        )
        return bool(answer.json()["outcome"] == "ok")

    if (not seen or ask("DELETE", None, {"Covey-Context": seen})) and all(
        ask("POST", change, {}) for change in line.changes()
    ):
        return WRITTEN, ""
    return INDETERMINATE, "only part of it is known to be there"


def _read(client: Client, key: str) -> tuple[list[bytes], str, set[str]]:
    """Return what there is of a key, its context, and of which types. Raises ApiError."""
    from agent.cluster.kv_lines import as_json, unseen

    try:
        found = client.request(
            "GET",
            f"/api/v1/kv/{key}",
            query={"timeout": TIMEOUT_S},
            headers={"Accept": "application/json"},
            timeout_s=TIMEOUT_S + EXTRA_WAIT_S,
        ).json()
    except ApiError as error:
        if error.code != "not-found":
            raise
        return [], unseen(key), set()

    def data(each: dict[str, Any]) -> bytes:
        if "type" in each:
            return as_json(each["value"])
        return each["value"].encode() if "value" in each else base64.b64decode(each["value_base64"])

    types = {each.get("type", "register") for each in found["values"]}
    return [data(each) for each in found["values"]], found["context"], types


def _put(
    client: Client, key: str, value: bytes, context: str, ttl_s: float | None
) -> dict[str, Any]:
    told: dict[str, Any] = client.request(
        "PUT",
        f"/api/v1/kv/{key}",
        query={"timeout": TIMEOUT_S, "ttl": ttl_s or 0},
        body=value,
        headers={"Covey-Context": context},
        timeout_s=TIMEOUT_S + EXTRA_WAIT_S,
    ).json()
    return told


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
