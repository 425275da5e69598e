"""The commands that make, enter and leave a covey: ``init``, ``token``, ``join``, ``leave``.

``init`` and ``join`` work on the identity directory of a node that does not run yet; ``token``
and ``leave`` ask the running agent. Each of them ends by saying what to do next.
"""

import socket
import sys
from pathlib import Path

import click

from agent.cli.output import output_option, write_json
from agent.cli.parameters import DURATION
from agent.cli.session import Session, pass_session
from agent.notation import format_duration

DEFAULT_CLUSTER_NAME = "covey"
JOIN_RELAY_TIMEOUT_S = 30.0

node_name_option = click.option(
    "--node-name",
    default=lambda: socket.gethostname().split(".")[0],
    show_default="the host's name",
    help="What the others call this node.",
)


@click.command()
@click.argument("name", default=DEFAULT_CLUSTER_NAME)
@node_name_option
@pass_session
def init(session: Session, name: str, node_name: str) -> None:
    """Found a covey called NAME, with this node as its first.

    Makes the covey's id, its certificate authority and its secrets, and this node's identity.
    """
    import asyncio

    from agent.config import load
    from agent.security.identity import found
    from agent.store.preparing import prepare

    settings = load(session.paths).node
    session.paths.create()
    found(session.paths.identity, name, node_name, weight=settings.weight, zone=settings.zone)
    asyncio.run(prepare(session.paths))
    click.echo(f"{node_name} is the first node of the covey {name}.")
    session.say(
        f"Next: start its agent with `{_command(session)} run`, and let others in with "
        f"`{_command(session)} token create`."
    )


@click.group()
def token() -> None:
    """Let other nodes in: make join tokens."""


@token.command()
@click.option("--ttl", type=DURATION, default="1h", show_default=True, help="How long it is good.")
@click.option(
    "--uses", type=click.IntRange(min=1), default=1, show_default=True, help="For how many nodes."
)
@output_option
@pass_session
def create(session: Session, ttl: float, uses: int, output: str) -> None:
    """Make a token that lets nodes join.

    Whoever has the token may join: pass it on as you would a password.
    """
    request = {"ttl_s": ttl, "uses": uses}
    answer = (
        session.client()
        .request("POST", "/api/v1/tokens", json=request, timeout_s=JOIN_RELAY_TIMEOUT_S)
        .json()
    )
    if output == "json":
        write_json(answer)
        return
    click.echo(answer["token"])
    nodes = "one node" if uses == 1 else f"{uses} nodes"
    session.say(
        f"Good for {nodes} within {format_duration(ttl)}. On the other device: `covey join TOKEN`, "
        "then `covey run`."
    )


@click.command()
@click.argument("token")
@click.option("--seed", "seeds", multiple=True, metavar="HOST[:PORT]", help="Ask this member.")
@node_name_option
@pass_session
def join(session: Session, token: str, seeds: tuple[str, ...], node_name: str) -> None:
    """Make this node part of the covey that TOKEN is from; `-` reads the token from stdin.

    Looks for a member by mDNS unless --seed names one. Nothing is left behind if it fails.
    """
    import asyncio

    from agent.admission.joining import join as join_covey
    from agent.config import load
    from agent.store.preparing import prepare

    text = sys.stdin.readline().strip() if token == "-" else token  # noqa: S105
    settings = load(session.paths)
    session.paths.create()
    session.say("Looking for a member of the covey ...")
    joining = join_covey(
        text,
        session.paths.identity,
        node_name,
        seeds=[*seeds, *settings.network.seeds],
        interfaces=settings.network.interfaces,
        mdns=settings.network.mdns,
        weight=settings.node.weight,
        zone=settings.node.zone,
    )
    identity = asyncio.run(joining)
    asyncio.run(prepare(session.paths))
    click.echo(f"{identity.node_name} belongs to the covey {identity.cluster_name}.")
    session.say(f"Next: start its agent with `{_command(session)} run`.")


@click.command()
@pass_session
def leave(session: Session) -> None:
    """Stop the agent after saying goodbye.

    The others see the node as left, not as dead. Its data stays; `covey run` brings it back.
    """
    session.client().post("/api/v1/leave")
    click.echo("The agent says goodbye and stops.")


def _command(session: Session) -> str:
    """Return how to call ``covey`` for the same agent once more."""
    directory: Path | None = session.directory
    return f"covey --dir {directory}" if directory else "covey"
