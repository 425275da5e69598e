"""``covey registry``: who signs who belongs, and a way out when there are two answers."""

from typing import Any

import click

from agent.cli.confirm import confirm
from agent.cli.output import output_option, write_facts, write_json
from agent.cli.session import Session, pass_session

MEND_TIMEOUT_S = 60.0


@click.group(invoke_without_command=True)
@output_option
@click.pass_context
def registry(ctx: click.Context, output: str) -> None:
    """Show the registry of this node: its epoch, and who signs it."""
    if ctx.invoked_subcommand is not None:
        return
    answer = ctx.obj.client().get("/api/v1/registry")
    if output == "json":
        write_json(answer)
    else:
        write_facts(_facts(answer))


@registry.command()
@click.option("--yes", is_flag=True, help="Mend it without being asked.")
@pass_session
def mend(session: Session, *, yes: bool) -> None:
    """End a fork of the registry, after the node that signs it was restored from a backup.

    All nodes of both halves belong afterwards, but for those that one of them removed, and what
    either half wrote is brought together. To be typed on the node that signs.
    """
    if not yes:
        confirm(
            "this makes one covey of both halves",
            "`covey registry mend --yes` does it without asking",
        )
    answer = session.client().request("POST", "/api/v1/registry/mend", timeout_s=MEND_TIMEOUT_S)
    epoch = answer.json()["epoch"]
    session.say(f"The fork is mended by registry epoch {epoch}, which goes to all nodes now.")


def _facts(answer: dict[str, Any]) -> dict[str, object]:
    told: dict[str, object] = {
        "epoch": answer["epoch"],
        "nodes": answer["nodes"],
        "signed by": ", ".join(
            f"{one['name']} ({one['state'] or 'never heard'})" for one in answer["issuers"]
        ),
        "removed": ", ".join(f"{one['name']} (epoch {one['epoch']})" for one in answer["removed"]),
    }
    if answer["fork"]:
        told["forked"] = (
            f"another registry of epoch {answer['fork']['epoch']} is signed as well; no state is "
            "served: `covey registry mend` where it is signed"
        )
    return told
