"""``covey status``: how the agent is, in a dozen lines."""

from typing import Any

import click

from agent import exits
from agent.cli.output import output_option, write_facts, write_json
from agent.cli.session import Session
from agent.notation import format_duration


@click.command()
@output_option
@click.pass_context
def status(ctx: click.Context, output: str) -> None:
    """Show how the agent is. Exit status 6 if it runs but is not ready."""
    session = ctx.ensure_object(Session)
    answer = session.client().get("/api/v1/status")
    if output == "json":
        write_json(answer)
    else:
        write_facts(_facts(answer))
    if not answer["ready"]:
        ctx.exit(exits.UNHEALTHY)


def _facts(answer: dict[str, Any]) -> dict[str, object]:
    members = ", ".join(f"{count} {state}" for state, count in answer["members"].items())
    return {
        "state": "ready" if answer["ready"] else "not ready",
        "because": "; ".join(answer["reasons"]),
        "covey": f"{answer['cluster']['name']} ({answer['cluster']['id']})",
        "node": f"{answer['node']['name']} ({answer['node']['id']})",
        "up for": format_duration(answer["uptime_s"]),
        "members": members,
        "epoch": answer["epoch"],
        "readings waiting": answer["outbox"]["waiting"],
        "uplink": answer["uplink"]["state"],
        "version": answer["version"],
    }
