"""Completes names by asking the agent: quickly, or not at all.

A shell waits for this while somebody types. An agent that does not answer within a tenth of a
second, or does not run, simply completes nothing.

The shell puts what it is offered on its command line, and some shells do not quote it. A member
chooses its name itself: one that a shell would read as more than a word is not offered.
"""

import re

import click

from agent.cli.session import Session
from gossip.errors import CoveyError

TIMEOUT_S = 0.1
INERT = re.compile(r"[\w@%+,./][\w@%+=:,./-]*")
"""What no shell takes for anything but a word, and no command for an option."""


def member_names(ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the members' names that begin like this."""
    return _names(ctx, "members", begun)


def app_names(ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the apps' names that begin like this."""
    return _names(ctx, "apps", begun)


def _names(ctx: click.Context, collection: str, begun: str) -> list[str]:
    session = ctx.find_object(Session) or Session(ctx.find_root().params.get("directory"))
    try:
        answer = session.hasty_client().request("GET", f"/api/v1/{collection}", timeout_s=TIMEOUT_S)
        names = [item["name"] for item in answer.json()[collection]]
    except (CoveyError, ValueError, KeyError):
        return []
    return sorted(name for name in names if name.startswith(begun) and INERT.fullmatch(name))
