"""``covey uplink``: how the connection to the broker is, and a test of it step by step."""

import asyncio
import platform
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from agent import exits
from agent.cli.copyable import here
from agent.cli.output import (
    Styled,
    is_terminal,
    output_option,
    write_facts,
    write_json,
    write_line,
    write_paragraph,
    write_row,
)
from agent.cli.session import Session
from agent.exits import AgentError
from agent.text.units import format_duration
from edge_apps.client import AgentUnreachable, ApiError

if TYPE_CHECKING:
    from agent.telemetry.uplink.template import TemplateContext

COLOURS = {"ok": "green", "skipped": "bright_black", "failed": "red"}
STEP_COLUMNS = 15
HINT_INDENT = " " * 9
WITHOUT_AN_IDENTITY = "covey", "0000000000000000"


@click.group()
def uplink() -> None:
    """Show and test the connection to the broker."""


@uplink.command()
@output_option
@click.pass_context
def status(ctx: click.Context, output: str) -> None:
    """Show how the uplink is. Exit status 6 if there is a broker and no connection."""
    answer = ctx.ensure_object(Session).client().get("/api/v1/outbox")["uplink"]
    if output == "json":
        write_json(answer)
    else:
        write_facts(_facts(answer))
    if answer["state"] not in ("connected", "off"):
        ctx.exit(exits.UNHEALTHY)


@uplink.command()
@click.option(
    "--here",
    is_flag=True,
    help="From this process, with the configuration as it is now; not from the running agent.",
)
@output_option
@click.pass_context
def test(ctx: click.Context, output: str, *, here: bool) -> None:
    """Connect to the broker step by step, and publish one message.

    Name, TCP, TLS, login, publish, acknowledgement: each with its time, and with advice at the
    first that fails. The running agent does it, beside its own connection and with its settings;
    without one, this process. The message is a reading of the sensor uplink_test; the login has
    the client id of the uplink with -test behind it. Exit status 1 if a step fails.
    """
    session = ctx.ensure_object(Session)
    told = []
    for step in _steps(session, here=here):
        told.append(step)
        if output == "table":
            _write(step)
    good = all(step["outcome"] != "failed" for step in told)
    if output == "json":
        write_json({"ok": good, "steps": told})
    if not good:
        ctx.exit(exits.NO)


def _facts(answer: dict[str, Any]) -> dict[str, object]:
    broker = f"{answer['host']}:{answer['port']}" if answer["host"] else None
    since_s = max(0.0, time.time() - answer["since_s"])
    fell_back = " (the broker does not take 5)" if answer["fell_back"] else ""
    return {
        "state": answer["state"],
        "for": format_duration(since_s),
        "broker": broker,
        "MQTT version": answer["version"] + fell_back,
        "client id": answer["client_id"],
        "in flight": _in_flight(answer["in_flight"], answer["window"]),
        "readings waiting": answer["waiting"],
        "delivered": answer["delivered"],
        "dead letters": answer["dead_letters"],
        "last error": answer["last_error"],
        "hint": here(answer["hint"]),
    }


def _in_flight(count: int, window: int) -> str:
    """Without a connection there is no window: the broker says how large it is."""
    return f"{count} of at most {window}" if window else str(count)


def _steps(session: Session, *, here: bool) -> Iterator[dict[str, Any]]:
    """Yield the steps as the agent takes them, or this process."""
    from agent.cli.streaming import lines_of, one_by_one

    if not here:
        lines = lines_of(session.client(), "/api/v1/uplink/test", json={})
        try:
            yield from one_by_one(lines, "for the broker", quiet=session.quiet)
        except AgentUnreachable:
            session.say("No agent answers: this process tests the configuration as it is now.")
        except ApiError as error:  # an agent that waits has no uplink yet, and may have a broker
            if error.code != exits.word_of(exits.UNHEALTHY):
                raise
            session.say("The agent waits: this process tests the configuration as it is now.")
        else:
            return
    yield from one_by_one(_local_steps(session), "for the broker", quiet=session.quiet)


def _local_steps(session: Session) -> Iterator[dict[str, Any]]:
    import msgspec

    from agent.config.loader import load
    from agent.telemetry.uplink import service

    settings = load(session.agent_paths).uplink
    with asyncio.Runner() as runner:

        async def begin() -> Any:
            return service.test(settings, _place(session))

        steps = runner.run(begin())
        while True:
            step = runner.run(_next(steps))
            if step is None:
                return
            yield msgspec.to_builtins(step)


async def _next(steps: Any) -> Any:
    return await anext(steps, None)


def _place(session: Session) -> "TemplateContext":
    """Return what the topic is made of; before there is an identity, something like it."""
    from agent.identity import identity
    from agent.telemetry.uplink.template import TemplateContext
    from gossip.core.ids import format_node_id

    try:
        me = identity.load(session.agent_paths.identity)
    except (AgentError, OSError):
        cluster, node_id = WITHOUT_AN_IDENTITY
        return TemplateContext(cluster, platform.node(), node_id)
    return TemplateContext(me.cluster_name, me.node_name, format_node_id(me.node_id))


def _write(step: dict[str, Any]) -> None:
    took_ms = f"{step['took_s'] * 1000:.0f} ms"
    if not is_terminal():
        write_row((step["step"], step["outcome"], took_ms, step["message"], here(step["hint"])), ())
        return
    outcome = Styled(step["outcome"].ljust(7), COLOURS.get(step["outcome"]))
    write_line(outcome, f"  {step['step'].ljust(STEP_COLUMNS)}  {took_ms:>8}  {step['message']}")
    if step["hint"]:
        write_paragraph(Styled(HINT_INDENT), here(step["hint"]), HINT_INDENT)
