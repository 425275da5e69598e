"""``covey config``: what the agent would be told if it started now, and what the fleet is told.

``show`` and ``check`` are about this device, whose own file and environment have the last word;
``set``, ``unset``, ``get``, ``list`` and ``watch`` are about all devices, or those with a tag.
"""

from typing import Any
from urllib.parse import unquote

import click

from agent.cli.completion import fleet_setting_names
from agent.cli.output import (
    complain,
    output_option,
    wide_option,
    write_json,
    write_json_line,
    write_line,
    write_row,
    write_table,
)
from agent.cli.param_types import ValueGroup
from agent.cli.restart import unapplied
from agent.cli.session import Session, pass_session
from agent.cli.streaming import lines_of
from agent.exits import BAD_CONFIG, NOT_FOUND, UNHEALTHY, AgentError

SETTINGS_PREFIX = "covey/settings/"
WATCH_WIDTHS = (6, 24, 20, 0)

scope_option = click.option(
    "--for",
    "scope",
    default="all",
    show_default=True,
    metavar="SCOPE",
    help="For all devices, those with a tag (tag:NAME=VALUE), or one (node:NAME).",
)


@click.group(cls=ValueGroup)
def config() -> None:
    """Show and check the configuration of this device; set what holds for the fleet."""


@config.command()
@click.option("--origin", is_flag=True, help="Say where each value was set.")
@output_option
@wide_option
@pass_session
def show(session: Session, *, origin: bool, output: str, wide: bool) -> None:
    """Show every setting, as the file and the environment set it now."""
    from agent.config.loader import load

    loaded = load(session.agent_paths)
    if output == "json":
        write_json(
            {
                "file": str(session.agent_paths.config_file),
                "settings": [
                    {"setting": name, "value": value, "origin": loaded.origin(name)}
                    for name, value in loaded.shown().items()
                ],
            }
        )
    elif origin:
        rows = [(name, value, loaded.origin(name)) for name, value in loaded.shown().items()]
        write_table(("SETTING", "VALUE", "ORIGIN"), rows, wide=wide)
    else:
        write_table(("SETTING", "VALUE"), list(loaded.shown().items()), wide=wide)
    if pending := unapplied(session):
        session.say(f"The configuration was {pending}.")


@config.command()
@pass_session
def check(session: Session) -> None:
    """Check the configuration, and that the files, commands and apps it names are there."""
    import os

    from agent.config.loader import Unusable, load
    from agent.doctor.config_checks import Problem, in_few_words, problems

    try:
        loaded = load(session.agent_paths)
        found = list(problems(loaded, os.environ, of_service=session.means_service))
    except Unusable as unusable:
        found = [Problem(fault.message, fault.hint) for fault in unusable.faults]
    for problem in found[:-1]:
        complain(f"{problem.message} ({problem.hint})")
    if found:
        more = f"{len(found)} things are wrong, at last " if len(found) > 1 else ""
        raise AgentError(more + found[-1].message, found[-1].hint, BAD_CONFIG)
    write_line(in_few_words(loaded, session.agent_paths))


@config.command("set")
@click.argument("setting", shell_complete=fleet_setting_names)
@click.argument("value")
@scope_option
@output_option
@pass_session
def set_(session: Session, setting: str, value: str, scope: str, output: str) -> None:
    """Set SETTING to VALUE for the fleet.

    What a device's own file or environment says wins there. Of the rest, the narrower scope wins.
    """
    answer = _change(session, setting, value, scope)
    if output == "json":
        write_json(answer)
    elif setting not in _at_once():
        session.say("The devices take it over at their next start, a new one at its second.")


@config.command()
@click.argument("setting", shell_complete=fleet_setting_names)
@scope_option
@pass_session
def unset(session: Session, setting: str, scope: str) -> None:
    """Take back what was set for the fleet."""
    _change(session, setting, None, scope)


@config.command("get")
@click.argument("setting", shell_complete=fleet_setting_names)
@output_option
@wide_option
@pass_session
def get(session: Session, setting: str, output: str, *, wide: bool) -> None:
    """Show for whom SETTING is set, and to what."""
    found = [each for each in _all(session) if each["setting"] == setting]
    if not found:
        raise AgentError(
            f"{setting!r:.80} is not set for the fleet", "see `covey config list`", NOT_FOUND
        )
    _list(session, found, output, wide=wide)


@config.command("list")
@output_option
@wide_option
@pass_session
def list_(session: Session, output: str, *, wide: bool) -> None:
    """Show all that is set for the fleet."""
    _list(session, _all(session), output, wide=wide)


@config.command("watch")
@output_option
@wide_option
@pass_session
def watch(session: Session, output: str, *, wide: bool) -> None:
    """Show what is set for the fleet as it changes, until Ctrl-C."""
    for told in lines_of(session.client(), "/api/v1/changes", {"prefix": SETTINGS_PREFIX}):
        if "compacted" in told:
            raise AgentError(
                "changes were missed: this node had to take over a newer state as a whole",
                "look at `covey config list`, and watch again",
                UNHEALTHY,
            )
        for change in told["changes"]:
            scope, _, name = change["key"].removeprefix(SETTINGS_PREFIX).partition("/")
            row = {
                "kind": "set" if change["kind"] == "put" else "unset",
                "setting": unquote(name),
                "scope": unquote(scope),
                "value": change.get("value"),
                "revision": told["revision"],
            }
            if output == "json":
                write_json_line(row)
            else:
                shown = row["kind"], row["setting"], row["scope"], row["value"] or ""
                write_row(shown, WATCH_WIDTHS, wide=wide)


def _change(session: Session, setting: str, value: str | None, scope: str) -> dict[str, Any]:
    wish = {"setting": setting, "scope": scope, "value": value}
    answer: dict[str, Any] = session.client().post("/api/v1/settings", wish)
    return answer


def _all(session: Session) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = session.client().get("/api/v1/settings")["settings"]
    return found


def _list(session: Session, found: list[dict[str, Any]], output: str, *, wide: bool) -> None:
    if output == "json":
        write_json({"settings": found})
        return
    rows = [(e["setting"], e["scope"], e["value"], e["revision"]) for e in found]
    write_table(("SETTING", "FOR", "VALUE", "REVISION"), rows, wide=wide)
    if not found:
        session.say("Nothing is set.")


def _at_once() -> frozenset[str]:
    from agent.config.fleet_layer import APPLIED_AT_ONCE

    return APPLIED_AT_ONCE
