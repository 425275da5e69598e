"""``covey txn``: compare keys of the control plane, and change them together."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import click

from agent.cli.output import output_option, wide_option, write_json, write_table
from agent.cli.param_types import DURATION
from agent.cli.session import Session, pass_session
from agent.exits import NO

EXTRA_WAIT_S = 5.0
WORDS = ("put", "delete", "delete_prefix", "get", "range")


@click.command()
@click.option("--if", "compares", multiple=True, help="A comparison: `version(door) = 0`.")
@click.option("--then", "then", multiple=True, help="If all hold: `put door open`.")
@click.option("--else", "otherwise", multiple=True, help="Otherwise: `get door`.")
@click.option(
    "--timeout", type=DURATION, default="20s", show_default=True, help="How long to wait."
)
@output_option
@wide_option
@pass_session
def txn(
    session: Session,
    compares: tuple[str, ...],
    then: tuple[str, ...],
    otherwise: tuple[str, ...],
    timeout: float,
    output: str,
    *,
    wide: bool,
) -> None:
    """Compare keys of the control plane, and change them together, all or nothing.

    Without options the transaction comes from stdin: JSON as the HTTP API takes it, or three blocks
    of lines (compare, then, else) with an empty line between them. The exit status is 1 when a
    comparison did not hold.
    """
    from agent.cli.txn_text import compare_of, operation_of

    if compares or then or otherwise:
        asked = {
            "compare": list(map(compare_of, compares)),
            "then": list(map(operation_of, then)),
            "else": list(map(operation_of, otherwise)),
        }
    else:
        asked = _read(sys.stdin.read())
    answer = (
        session.client()
        .request(
            "POST",
            "/api/v1/txn",
            query={"timeout": timeout},
            json=asked,
            timeout_s=timeout + EXTRA_WAIT_S,
        )
        .json()
    )
    if output == "json":
        write_json(answer)
    else:
        done = asked["then"] if answer["succeeded"] else asked["else"]
        rows = list(_rows(done, answer["results"]))
        write_table(("DONE", "KEY", "VALUE", "VERSION", "MODIFIED"), rows, wide=wide)
    if not answer["succeeded"]:
        session.say(f"A comparison did not hold at revision {answer['revision']}: `else` was done.")
        click.get_current_context().exit(NO)


def _read(text: str) -> dict[str, Any]:
    from agent.cli.txn_text import transaction_of

    if not text.lstrip().startswith("{"):
        return transaction_of(text)
    try:
        asked = json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"stdin is no JSON: {error}") from None
    return {"compare": [], "then": [], "else": [], **asked}


def _rows(
    done: list[dict[str, Any]], results: list[dict[str, Any]]
) -> Iterator[tuple[object, ...]]:
    for operation, result in zip(done, results, strict=True):
        word = next(each for each in WORDS if each in operation)
        if "entries" in result:
            for entry in result["entries"]:
                value = entry.get("value", entry.get("value_base64", ""))
                yield "get", entry["key"], value, entry["version"], entry["modified"]
        elif "deleted" in result:
            yield f"deleted {result['deleted']}", operation[word], "", "", ""
        else:
            yield "put", operation[word], operation.get("value", ""), result["version"], ""
