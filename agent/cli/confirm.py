"""Asks a person before what cannot be taken back."""

import sys

import click

from agent.exits import USAGE, AgentError


def confirm(consequence: str, without_asking: str) -> None:
    """Return when a person says yes. Raises AgentError when there is none, or the answer is no.

    ``consequence`` begins with a small letter; ``without_asking`` says what to type instead.
    """
    if not sys.stdin.isatty():
        told = f"nothing was changed: {consequence}, and there is no terminal to ask at first"
        raise AgentError(told, without_asking, USAGE)
    if not click.confirm(f"{consequence[0].upper()}{consequence[1:]}. Go on?", err=True):
        raise AgentError("nothing was changed", without_asking)
