"""``covey kv``: the covey's shared keys, from the shell.

Values are bytes. ``get`` writes them to stdout exactly as they are, so that
``covey kv put key --file image && covey kv get key > copy`` gives the same file.
"""

import base64
import json
import sys
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar

import click

from agent import exits
from agent.cli.device_keys import KEY
from agent.cli.kv_space import space
from agent.cli.kv_stats import stats
from agent.cli.kv_transfer import export, import_
from agent.cli.kv_why import why
from agent.cli.output import (
    output_option,
    wide_option,
    write_json,
    write_json_line,
    write_row,
    write_table,
    write_value,
)
from agent.cli.param_types import COPIES, DURATION, NUMBER, TTL, ValueGroup
from agent.cli.session import Session, pass_session
from agent.cli.streaming import lines_of
from agent.cli.suggestions import suggesting_keys
from agent.exits import AgentError
from agent.text.units import counted

PAGE_KEYS = 500
# The agent gives up first, and says more than a broken connection would.
EXTRA_WAIT_S = 5.0
SHOWN_CHARACTERS_MAX = 60
AGAIN = ", or repeat this command: it does no harm"
WATCH_WIDTHS = (6, 32, 0)
DURABILITY = "covey.durability"
Command = TypeVar("Command", bound=Callable[..., Any])


def check_context(_ctx: click.Context, _option: click.Parameter, context: str | None) -> str | None:
    """Return the context, which travels in a header. Raises BadParameter for what none can hold."""
    if context and not (context.isascii() and context.isprintable()):
        raise click.BadParameter("it is not what `covey kv get -o json` shows as the context")
    return context


timeout_option = click.option(
    "--timeout", type=DURATION, default="5s", show_default=True, help="How long to wait."
)


def _keep_durability(ctx: click.Context, _option: click.Parameter, fsync: bool) -> None:  # noqa: FBT001 - click's own
    ctx.meta[DURABILITY] = "fsync" if fsync else None


_w_option = click.option(
    "-w", "w", type=COPIES, help="Owners that must have it: one, quorum, all or N [quorum]."
)
_fsync_option = click.option(
    "--fsync",
    is_flag=True,
    expose_value=False,
    callback=_keep_durability,
    help="Owners count once it survives a power cut there.",
)


def write_option(command: Command) -> Command:
    """Add what all writes have: how many owners, and what they are to survive."""
    return _w_option(_fsync_option(command))


def _durability() -> str | None:
    """Return what the command line says about it."""
    word: str | None = click.get_current_context().meta.get(DURABILITY)
    return word


read_option = click.option(
    "-r", "r", type=COPIES, help="Owners that must answer: one, quorum, all or N [quorum]."
)


@click.group(cls=ValueGroup)
def kv() -> None:
    """Read and write the covey's shared keys."""


for command in (why, stats, space, export, import_):
    kv.add_command(command)


@kv.command()
@click.argument("key", type=KEY)
@click.argument("value", required=False)
@click.option("--file", "file", type=click.File("rb"), help="Take the value from this file.")
@click.option(
    "--context",
    callback=check_context,
    help="Replace only the versions that a get with -o json showed.",
)
@click.option(
    "--if-context",
    callback=check_context,
    metavar="TEXT",
    help="Write only if the key still has the versions that this context shows.",
)
@click.option("--if-absent", is_flag=True, help="Write only if the key does not exist.")
@click.option(
    "--ttl",
    type=TTL,
    metavar="DURATION",
    help="Delete it after so long, from 1s on; none: never [as its space says].",
)
@write_option
@timeout_option
@output_option
@pass_session
def put(
    session: Session,
    key: str,
    value: str | None,
    file: BinaryIO | None,
    context: str | None,
    if_context: str | None,
    ttl: float | None,
    w: str | None,
    timeout: float,
    output: str,
    *,
    if_absent: bool,
) -> None:
    """Write VALUE to KEY; `-` reads the value from stdin.

    `--if-context` and `--if-absent` look first, and lose nothing; of two that write at once both
    may succeed, and both values stay. Where one must win: `covey txn`.
    """
    if (context is not None) + (if_context is not None) + if_absent > 1:
        raise click.UsageError("give one of --context, --if-context and --if-absent")
    data = _value(value, file)
    query = {
        "if_context": if_context is not None or None,
        "if_absent": if_absent or None,
        "ttl": ttl,
    }
    _write(
        session,
        "PUT",
        key,
        data,
        query,
        repeatable=if_context is None and not if_absent,
        context=context or if_context,
        w=w,
        timeout=timeout,
        output=output,
    )


@kv.command()
@click.argument("key", type=KEY)
@read_option
@timeout_option
@output_option
@pass_session
def get(session: Session, key: str, r: str | None, timeout: float, output: str) -> None:
    """Write the value of KEY to stdout, as it is; of a counter, set, map, max or min as JSON.

    Of concurrent versions, the newest; `-o json` shows all.
    """
    with suggesting_keys(session, key):
        answer = session.client().request(
            "GET",
            f"/api/v1/kv/{key}",
            query={"r": r, "timeout": timeout},
            headers={"Accept": "application/json"} if output == "json" else {},
            timeout_s=timeout + EXTRA_WAIT_S,
        )
    if output == "json":
        write_json(answer.json())
        return
    versions = int(answer.headers.get("covey-versions", "1"))
    if versions > 1:
        session.say(f"{versions} versions, none of which knew of the others; this is the newest.")
    if not write_value(answer.body):
        session.say(
            f"{len(answer.body)} bytes that are no text were not shown; to keep them: "
            f"`covey kv get {key} > FILE`"
        )


@kv.command()
@click.argument("key", type=KEY)
@click.option(
    "--context",
    callback=check_context,
    help="Delete only the versions that a get with -o json showed.",
)
@write_option
@timeout_option
@output_option
@pass_session
def delete(
    session: Session, key: str, context: str | None, w: str | None, timeout: float, output: str
) -> None:
    """Delete KEY. It is no error if there is none."""
    _write(session, "DELETE", key, None, {}, context=context, w=w, timeout=timeout, output=output)


@kv.command("list")
@click.argument("prefix", type=KEY, default="")
@click.option("--limit", type=click.IntRange(min=1), help="At most this many keys [all].")
@click.option("--after", default="", help="Only keys behind this one.")
@read_option
@output_option
@wide_option
@pass_session
def list_(
    session: Session,
    prefix: str,
    limit: int | None,
    after: str,
    r: str | None,
    output: str,
    *,
    wide: bool,
) -> None:
    """List the keys that begin with PREFIX, with their values."""
    entries, outcome = _pages(session, prefix, limit, after, r)
    if output == "json":
        write_json({"entries": entries, "outcome": outcome})
    else:
        rows = [(one["key"], _shown(one["values"][0]), len(one["values"])) for one in entries]
        write_table(("KEY", "VALUE", "VERSIONS"), rows, wide=wide)
    if outcome != "ok":
        raise AgentError(
            "the list is partial: not enough owners of some keys answered",
            "see `covey members`; try again when they are back",
            exits.UNHEALTHY,
        )


@kv.command()
@click.argument("key", type=KEY, required=False)
@click.option("--prefix", type=KEY, help="Watch all keys that begin like this; empty for all.")
@click.option("--since", metavar="TOKEN", help="Go on from where an earlier watch gave this [now].")
@output_option
@wide_option
@pass_session
def watch(
    session: Session,
    key: str | None,
    prefix: str | None,
    since: str | None,
    output: str,
    *,
    wide: bool,
) -> None:
    """Show changes of KEY, or of a --prefix, until Ctrl-C.

    At the end it says the token with which --since goes on, also at another node.
    """
    if (key is None) == (prefix is None):
        raise click.UsageError("watch either a KEY or a --prefix")
    query = {"key": key, "prefix": prefix}
    asked = {"since": since} if since else None
    token = since
    try:
        for event in lines_of(session.client(), "/api/v1/watch", query, asked):
            token = event.get("token", token)
            if output == "json":
                write_json_line(event)
            else:
                _show_change(session, event, wide=wide)
    finally:
        if token and output != "json":
            session.say(f"to go on from here: --since {token}")


def _show_change(session: Session, event: dict[str, Any], *, wide: bool) -> None:
    """Write one change as a row; what is no change to whom it concerns."""
    match event["kind"]:
        case "mark":
            pass
        case "gap":
            session.say(f"a gap: {event['reason']}; see `covey kv list` for what there is")
        case kind:
            values = event["values"]
            shown = _shown(values[0]) if values else ""
            write_row((kind, event["key"], shown), WATCH_WIDTHS, wide=wide)


@kv.command()
@click.argument("key", type=KEY)
@click.argument("by", type=int, default=1)
@write_option
@timeout_option
@output_option
@pass_session
def counter(
    session: Session, key: str, by: int, w: str | None, timeout: float, output: str
) -> None:
    """Count KEY up by BY [1], or down by a negative one.

    An increment that ended as indeterminate may have been counted: read before you repeat it.
    """
    change = {"type": "counter", "by": by}
    _update(session, key, change, repeatable=False, w=w, timeout=timeout, output=output)


@kv.command("set")
@click.argument("key", type=KEY)
@click.option("--add", metavar="MEMBER", help="Add this member.")
@click.option("--remove", metavar="MEMBER", help="Remove this member.")
@write_option
@timeout_option
@output_option
@pass_session
def set_(
    session: Session,
    key: str,
    add: str | None,
    remove: str | None,
    w: str | None,
    timeout: float,
    output: str,
) -> None:
    """Add a member to the set KEY, or remove one. Who adds while another removes wins."""
    if (add is None) == (remove is None):
        raise click.UsageError("give either --add or --remove")
    change = {"type": "set", **({"remove": remove} if add is None else {"add": add})}
    _update(session, key, change, w=w, timeout=timeout, output=output)


@kv.command("map")
@click.argument("key", type=KEY)
@click.argument("field")
@click.argument("value", required=False)
@click.option("--remove", is_flag=True, help="Remove the field.")
@write_option
@timeout_option
@output_option
@pass_session
def map_(
    session: Session,
    key: str,
    field: str,
    value: str | None,
    w: str | None,
    timeout: float,
    output: str,
    *,
    remove: bool,
) -> None:
    """Give FIELD of the map KEY the value VALUE, or remove it."""
    if (value is None) != remove:
        raise click.UsageError("give either a VALUE or --remove")
    change = {"type": "map", "field": field, "value": value}
    _update(session, key, change, w=w, timeout=timeout, output=output)


@kv.command("max")
@click.argument("key", type=KEY)
@click.argument("number", type=NUMBER)
@write_option
@timeout_option
@output_option
@pass_session
def max_(
    session: Session, key: str, number: float, w: str | None, timeout: float, output: str
) -> None:
    """Raise KEY to NUMBER, if it is below."""
    change = {"type": "max", "number": number}
    _update(session, key, change, w=w, timeout=timeout, output=output)


@kv.command("min")
@click.argument("key", type=KEY)
@click.argument("number", type=NUMBER)
@write_option
@timeout_option
@output_option
@pass_session
def min_(
    session: Session, key: str, number: float, w: str | None, timeout: float, output: str
) -> None:
    """Lower KEY to NUMBER, if it is above."""
    change = {"type": "min", "number": number}
    _update(session, key, change, w=w, timeout=timeout, output=output)


def _update(
    session: Session,
    key: str,
    change: dict[str, Any],
    *,
    repeatable: bool = True,
    w: str | None,
    timeout: float,
    output: str,
) -> None:
    query = {"w": w, "timeout": timeout, "durability": _durability()}
    path, patience_s = f"/api/v1/kv/{key}", timeout + EXTRA_WAIT_S
    asked = session.client().request("POST", path, query=query, json=change, timeout_s=patience_s)
    _report(key, asked.json(), output, repeatable=repeatable)


def _value(value: str | None, file: BinaryIO | None) -> bytes:
    if (value is None) == (file is None):
        raise click.UsageError("give either a VALUE, `-` for stdin, or --file")
    if file is not None:
        return file.read()
    assert value is not None, "one of the two was given"
    if value == "-":
        return sys.stdin.buffer.read()
    return value.encode(errors="surrogateescape")  # what the shell passed, byte for byte


def _write(
    session: Session,
    method: str,
    key: str,
    body: bytes | None,
    query: dict[str, Any],
    *,
    repeatable: bool = True,
    context: str | None,
    w: str | None,
    timeout: float,
    output: str,
) -> None:
    answer = (
        session.client()
        .request(
            method,
            f"/api/v1/kv/{key}",
            query={"w": w, "timeout": timeout, "durability": _durability(), **query},
            body=body,
            headers={"Covey-Context": context} if context else {},
            timeout_s=timeout + EXTRA_WAIT_S,
        )
        .json()
    )
    _report(key, answer, output, repeatable=repeatable)
    unseen = answer["versions"] - (body is not None)
    if unseen:
        session.say(
            f"kept as well: {counted(unseen, 'version')} that this context had not seen; "
            f"`covey kv get {key} -o json` shows all, with the context that replaces all"
        )


def _report(key: str, answer: dict[str, Any], output: str, *, repeatable: bool) -> None:
    """Show how a write ended. Raises AgentError unless it is acknowledged."""
    if output == "json":
        write_json(answer)
    if answer["outcome"] != "ok":
        raise AgentError(
            f"indeterminate: {answer['acks']} of {answer['needed']} owners are known to have it on "
            "disk; it may spread, or not",
            f"read it again with `covey kv get {key}`{AGAIN if repeatable else ''}",
            exits.UNHEALTHY,
        )


def _pages(
    session: Session, prefix: str, limit: int | None, after: str, r: str | None
) -> tuple[list[dict[str, Any]], str]:
    """Fetch page after page until ``limit`` or the end."""
    client = session.client()
    entries: list[dict[str, Any]] = []
    outcome = "ok"
    while limit is None or len(entries) < limit:
        wanted = PAGE_KEYS if limit is None else min(PAGE_KEYS, limit - len(entries))
        page = client.get("/api/v1/kv", prefix=prefix, after=after, limit=wanted, r=r)
        entries += page["entries"]
        after = page["next"]
        if page["outcome"] != "ok":
            outcome = page["outcome"]
        if not after:
            break
    return entries, outcome


def _shown(value: dict[str, Any]) -> str:
    """Return the beginning of a value, for a table."""
    text = value.get("value")
    if "type" in value:
        text = json.dumps(text, ensure_ascii=False)
    if text is None:
        size = len(base64.b64decode(value["value_base64"]))
        return f"({size} bytes)"
    shortened: str = text[:SHOWN_CHARACTERS_MAX]
    return shortened + ("..." if len(text) > SHOWN_CHARACTERS_MAX else "")
