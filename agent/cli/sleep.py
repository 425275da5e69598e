"""``covey sleep`` and ``covey wake``: being silent for a while, and not taken for dead."""

import click

from agent.cli.output import output_option, write_json, write_line
from agent.cli.param_types import DURATION
from agent.cli.session import Session, pass_session
from agent.text.units import format_duration


@click.command()
@click.argument("duration", type=DURATION)
@output_option
@pass_session
def sleep(session: Session, duration: float, output: str) -> None:
    """Tell the others that this node is silent for DURATION.

    Returns when they were told; then the device may be suspended, or its radio switched off. Nobody
    probes it meanwhile, and it counts as dead only when it is silent for longer, and some minutes
    more. When the device goes on, or the time is over, the agent says by itself that it is back.
    """
    answer = session.client().post("/api/v1/sleep", {"duration_s": duration})
    if output == "json":
        write_json(answer)
        return
    write_line(f"The others know that this node sleeps for {format_duration(answer['until_s'])}.")
    session.say(
        "If it is not back "
        f"{format_duration(answer['grace_s'])} after that, they take it for dead. "
        "`covey wake` ends the sleep early."
    )


@click.command()
@pass_session
def wake(session: Session) -> None:
    """Tell the others that this node is awake, before its time."""
    answer = session.client().post("/api/v1/wake")
    write_line("This node is awake." if answer["woken"] else "This node was not asleep.")
