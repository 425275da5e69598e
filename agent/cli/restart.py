"""Says that the configuration was changed since the agent read it: a restart applies it."""

from typing import Any

from agent.cli.session import Session
from edge_apps.client import ClientError

TIMEOUT_S = 1.0
NAMES_MAX = 5
RESTART = "restart the agent to apply it"


def unapplied(session: Session) -> str:
    """Ask the agent what was changed; empty if nothing was, or no agent answers."""
    try:
        answer = session.hasty_client().request("GET", "/api/v1/config", timeout_s=TIMEOUT_S).json()
        return in_words(answer)
    except (ClientError, KeyError, TypeError, ValueError):
        return ""


def in_words(answer: dict[str, Any]) -> str:
    """Return one sentence about what was changed, empty if nothing was.

    >>> in_words({"changed": ["uplink.host"], "problem": ""})
    'changed since the agent started: uplink.host; restart the agent to apply it'
    """
    if problem := answer["problem"]:
        return f"cannot be read any more, so that the agent would not start again: {problem}"
    names = answer["changed"]
    if not names:
        return ""
    more = f" and {len(names) - NAMES_MAX} more" if len(names) > NAMES_MAX else ""
    return f"changed since the agent started: {', '.join(names[:NAMES_MAX])}{more}; {RESTART}"
