"""``covey rtt``: how far members are from each other."""

import click

from agent.cli.completion import member_names
from agent.cli.output import output_option, write_facts, write_json
from agent.cli.session import Session, pass_session


@click.command()
@click.argument("a", shell_complete=member_names)
@click.argument("b", required=False, shell_complete=member_names)
@output_option
@pass_session
def rtt(session: Session, a: str, b: str | None, output: str) -> None:
    """Show the round trip between A and B, or this node.

    Measured, if one of them has probed the other lately; estimated from network coordinates in
    any case, with how far off the estimate may be. Status 3: nobody knows yet.
    """
    answer = session.client().get("/api/v1/rtt", a=a, b=b)
    if output == "json":
        write_json(answer)
        return
    estimated = answer["estimated_ms"]
    write_facts(
        {
            "between": f"{answer['a']} and {answer['b']}",
            "measured": _ms(answer["measured_ms"]),
            "estimated": None
            if estimated is None
            else f"{_ms(estimated)} (give or take {_ms(answer['error_ms'])})",
        }
    )


def _ms(milliseconds: float | None) -> str | None:
    return None if milliseconds is None else f"{milliseconds:.3g} ms"
