"""``covey doctor``: what is wrong, and what to do about it."""

import os
from typing import Any

import click

from agent import exits
from agent.cli.copyable import here
from agent.cli.errors import hint_of
from agent.cli.output import (
    Styled,
    output_option,
    wide_option,
    write_json,
    write_line,
    write_paragraph,
    write_table,
)
from agent.cli.restart import unapplied
from agent.cli.session import Session
from agent.exits import AgentError
from edge_apps.client import AgentUnreachable

TIMEOUT_S = 30.0
INDENT = " " * 6
IN_DATA = ("certificate", "sealed-keys", "disk")
"""Checks of the data directory, which whoever may not look there cannot make."""
LOCKED_OUT = "it does not start without the key of its sealed files: see sealed-keys, below"
COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command()
@output_option
@wide_option
@click.pass_context
def doctor(ctx: click.Context, output: str, *, wide: bool) -> None:
    """Say what is wrong, and what to do about it.

    Asks the agent, and the agent asks every member whom it reaches and by what: datagrams (udp), a
    stream only, relays only, or nothing. Without an agent it looks at this device alone.
    Exit status 6 if any check fails.
    """
    answer = _examine(ctx.ensure_object(Session))
    if output == "json":
        write_json(answer)
    else:
        _write(answer, wide=wide)
    if any(check["status"] == "fail" for check in answer["checks"]):
        ctx.exit(exits.UNHEALTHY)


def _examine(session: Session) -> dict[str, Any]:
    configuration, config = _configuration(session)
    try:
        answer = session.client().request("GET", "/api/v1/doctor", timeout_s=TIMEOUT_S).json()
    except AgentUnreachable as error:
        checks = _device(session, config)
        failed = {each["id"] for each in checks if each["status"] == "fail"}
        hint = LOCKED_OUT if "sealed-keys" in failed else hint_of(error)
        agent = _check("agent", "fail", f"{error.message}.", hint)
        return {"checks": [agent, configuration, *checks], "matrix": None}
    agent = _check("agent", "ok", f"it answers on {session.agent_paths.socket}.")
    if configuration["status"] == "ok" and (pending := unapplied(session)):
        told = f"{session.agent_paths.config_file} was {pending}."
        configuration = _check(
            "configuration", "warn", told, "`covey config show` has all settings"
        )
    return {**answer, "checks": [agent, configuration, *answer["checks"]]}


def _configuration(session: Session) -> tuple[dict[str, str], Any]:
    """Return the finding about the configuration, and that; defaults if it is bad."""
    from agent.config.loader import Config, load
    from agent.doctor.config_checks import in_few_words

    try:
        loaded = load(session.agent_paths)
    except AgentError as error:
        return _check("configuration", "fail", error.message, error.hint), Config()
    told = f"{in_few_words(loaded, session.agent_paths)}."
    return _check("configuration", "ok", told), loaded


def _device(session: Session, config: Any) -> list[dict[str, str]]:
    import msgspec

    from agent.doctor.device_checks import examine_device

    data = session.agent_paths.data
    network, percent_max = config.network, config.storage.disk_percent_max
    found = examine_device(session.agent_paths, network.interfaces, percent_max, mdns=network.mdns)
    checks: list[dict[str, str]] = msgspec.to_builtins(found)
    if not data.is_dir() or os.access(data, os.R_OK | os.W_OK | os.X_OK):
        return checks
    told = f"{data} is for its owner alone: identity and disk were not looked at."
    closed = _check("data", "warn", told, "`sudo covey doctor` looks at them")
    return [closed, *(each for each in checks if each["id"] not in IN_DATA)]


def _check(name: str, status: str, message: str, hint: str = "") -> dict[str, str]:
    return {"id": name, "status": status, "message": message, "hint": hint}


def _write(answer: dict[str, Any], *, wide: bool) -> None:
    for check in answer["checks"]:
        status = Styled(check["status"].ljust(4), COLOURS.get(check["status"]))
        write_paragraph(status, f"  {check['id']}: {here(check['message'])}", INDENT)
        if check["hint"] and check["status"] != "ok":
            write_paragraph(Styled(INDENT), here(check["hint"]), INDENT)
    matrix = answer["matrix"]
    if matrix and len(matrix["names"]) > 1:
        write_line()
        rows = [(name, *row) for name, row in zip(matrix["names"], matrix["rows"], strict=True)]
        write_table(("FROM \\ TO", *matrix["names"]), rows, wide=wide)
