"""``covey barrier``: devices begin something together, and end it together."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from agent.cli.completion import barrier_names
from agent.cli.output import output_option, wide_option, write_json, write_table
from agent.cli.param_types import DURATION
from agent.cli.session import Session, pass_session
from agent.exits import TIMED_OUT, UNHEALTHY, AgentError

if TYPE_CHECKING:
    from edge_apps.barriers import Barrier


@click.group()
def barrier() -> None:
    """Begin something together with other devices, and end it together."""


@barrier.command()
@click.argument("name", shell_complete=barrier_names)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--count", type=click.IntRange(min=1), required=True, help="How many have to enter it."
)
@click.option("--wait", type=DURATION, help="Wait at most so long for the others [for ever].")
@click.option(
    "--ttl",
    type=DURATION,
    default="15s",
    show_default=True,
    help="How long the others wait for one that is not heard of any more.",
)
@click.option(
    "--grace",
    type=DURATION,
    default="5s",
    show_default=True,
    help="Time between SIGTERM and SIGKILL for the command when its place is lost.",
)
@pass_session
def enter(
    session: Session,
    name: str,
    command: Sequence[str],
    count: int,
    wait: float | None,
    ttl: float,
    grace: float,
) -> None:
    """Enter barrier NAME, and run COMMAND once --count have entered it.

    Then wait until all have ended theirs. Without a command it ends as soon as all are there. The
    exit status is that of the command.
    """
    from agent.cli.interrupts import interrupted_by_signals
    from edge_apps.barriers import Barrier

    inside = Barrier(session.hasty_client(), name, count, ttl_s=ttl, wait_s=wait)
    status = 0
    with interrupted_by_signals():
        try:
            _enter(session, inside)
            if command:
                status = _run(session, inside, command, grace)
        finally:
            inside.give_up()
    click.get_current_context().exit(status)


def _enter(session: Session, inside: "Barrier") -> None:
    from agent.cli.progress import WaitNotice
    from edge_apps.locks import NotHeld

    try:
        with WaitNotice(f"for the others at barrier {inside.name}", quiet=session.quiet):
            inside.enter()
    except NotHeld as error:
        status = TIMED_OUT if error.is_taken else UNHEALTHY
        raise AgentError(error.message, error.hint, status) from None


def _run(session: Session, inside: "Barrier", command: Sequence[str], grace_s: float) -> int:
    """Run the command, and wait for the others to end theirs; return its status."""
    from agent.cli.held_command import HeldCommand
    from agent.cli.progress import WaitNotice

    assert inside.session is not None, "it is inside"
    environment = {"COVEY_BARRIER": inside.name, "COVEY_SESSION": inside.session.id}
    what = f"the place in barrier {inside.name!r}"
    status = HeldCommand(command, environment, grace_s).run(inside, what)
    with WaitNotice(f"for the others to leave barrier {inside.name}", quiet=session.quiet):
        inside.leave()
    return status


@barrier.command()
@click.argument("name", shell_complete=barrier_names)
@click.option("--session", "who", required=True, metavar="ID", help="Who is taken out of it.")
@pass_session
def leave(session: Session, name: str, who: str) -> None:
    """Take one session out of barrier NAME, for whom the others wait in vain."""
    query = {"session": who}
    session.client().request("DELETE", f"/api/v1/barriers/{name}", query=query)


@barrier.command("list")
@output_option
@wide_option
@pass_session
def list_(session: Session, output: str, *, wide: bool) -> None:
    """Show the barriers that somebody is inside of."""
    answer = session.client().get("/api/v1/barriers")
    if output == "json":
        write_json(answer)
        return
    rows = [
        (
            each["name"],
            "open" if each["open"] else "waits",
            f"{len(each['inside'])} of {each['count']}",
            ", ".join(each["inside"]),
        )
        for each in answer["barriers"]
    ]
    write_table(("NAME", "STATE", "INSIDE", "SESSIONS"), rows, wide=wide)
    if not rows:
        session.say("Nobody is inside of a barrier.")
