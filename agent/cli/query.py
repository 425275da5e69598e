"""``covey query``: ask all members something, or those with certain tags."""

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import click

from agent import exits
from agent.cli.events import file_option, payload_fields, payload_text, read_payload
from agent.cli.output import is_terminal, output_option, wide_option, write_json_line, write_row
from agent.cli.param_types import DURATION, TAG, ValueCommand
from agent.cli.session import Session, pass_session
from agent.cli.streaming import lines_of, one_by_one
from agent.exits import AgentError
from agent.text.suggestions import did_you_mean

HEADER = ("NODE", "AFTER", "ANSWER")
WIDTHS = (20, 8, 0)
BUILT_IN = ("ping", "version", "uptime")
SAID = {"failed": "failed: ", "nobody": "nobody answers such queries there"}


@click.command(cls=ValueCommand)
@click.argument("name")
@click.argument("payload", required=False)
@file_option
@click.option("--filter", "filters", type=TAG, multiple=True, help="Only members with this tag.")
@click.option("--timeout", type=DURATION, default="5s", show_default=True, help="How long to wait.")
@output_option
@wide_option
@pass_session
def query(
    session: Session,
    name: str,
    payload: str | None,
    file: BinaryIO | None,
    filters: tuple[tuple[str, str], ...],
    timeout: float,
    output: str,
    *,
    wide: bool,
) -> None:
    """Ask members something, and show their answers as they come.

    Every agent answers `ping`, `version` and `uptime`; for other names it needs a handler in its
    configuration, or an app. `-` reads the payload from stdin.
    """
    body = {
        "name": name,
        **payload_fields(read_payload(payload, file)),
        "filters": dict(filters),
        "timeout_s": timeout,
    }
    lines = lines_of(session.client(), "/api/v1/queries", json=body)
    lines = one_by_one(lines, "for answers", quiet=session.quiet)
    answers = Answers(write_json_line if output == "json" else None, wide=wide)
    summary = answers.show(lines)
    if not summary:
        raise AgentError("the agent stopped before all had answered", "", exits.UNREACHABLE)
    if not summary["expected"]:
        raise AgentError(
            f"no member that is alive has the {_tags(filters)}; nobody was asked",
            "tags are set in [node] of each member's covey.toml; `covey members --wide` shows them",
            exits.NOT_FOUND,
        )
    if answers.kinds == {"nobody"}:
        known = did_you_mean(name, BUILT_IN, f"every agent answers {', '.join(BUILT_IN)}")
        raise AgentError(
            f"no member that was asked answers {name!r}",
            f"{known}; others need a handler in [queries] there, or an app",
            exits.UNHEALTHY,
        )
    _conclude(session, summary)


class Answers:
    """Shows answers as they come: to a person below a header, once there is one."""

    def __init__(self, write: Callable[[Any], None] | None, *, wide: bool) -> None:
        self.kinds: set[str] = set()
        self._write = write or self._write_row
        self._wide = wide

    def show(self, lines: Iterator[dict[str, Any]]) -> dict[str, Any]:
        """Show all answers; return the summary, empty if none came."""
        summary: dict[str, Any] = {}
        for one in lines:
            self._write(one)
            summary = one.get("summary", summary)
            self.kinds |= {one["kind"]} if "kind" in one else set()
        return summary

    def _write_row(self, one: dict[str, Any]) -> None:
        if "node" not in one:
            return
        if not self.kinds and is_terminal():
            write_row(HEADER, WIDTHS)
        said = SAID.get(one["kind"], "") + payload_text(one)
        after = f"{one['after_s'] * 1000:.0f}ms"
        write_row((one["node"]["name"], after, said), WIDTHS, wide=self._wide)


def _tags(filters: tuple[tuple[str, str], ...]) -> str:
    told = ", ".join(f"{name}={value}" for name, value in filters)
    return f"tag {told}" if len(filters) == 1 else f"tags {told}"


def _conclude(session: Session, summary: dict[str, Any]) -> None:
    """Say how many answered. Raises AgentError if some did not."""
    told = f"{summary['answered']} of {summary['expected']} answered"
    if summary["answered"] == summary["expected"]:
        session.say(told)
        return
    silent = ", ".join(summary["missing"])
    hint = f"no word from {silent}; see `covey members`" if silent else ""
    raise AgentError(told, hint, exits.UNHEALTHY)
