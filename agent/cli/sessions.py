"""``covey session``: who holds locks, barriers and keys as long as it is there."""

import click

from agent.cli.output import output_option, wide_option, write_json, write_table
from agent.cli.session import Session, pass_session
from agent.exits import NOT_FOUND, AgentError
from agent.text.units import format_duration


@click.group("session")
def sessions() -> None:
    """Show and end the sessions through which locks and barriers are held."""


@sessions.command("list")
@output_option
@wide_option
@pass_session
def list_(session: Session, output: str, *, wide: bool) -> None:
    """Show the open sessions: at which node each was opened, and how long it outlives its end."""
    client = session.client()
    answer = client.get("/api/v1/sessions")
    found = answer["sessions"]
    while answer["next"]:
        answer = client.get("/api/v1/sessions", after=answer["next"])
        found += answer["sessions"]
    if output == "json":
        write_json({"revision": answer["revision"], "sessions": found})
        return
    rows = [
        (e["session"], e["node"], e["label"], format_duration(e["ttl_s"]),
         format_duration(e["lock_delay_s"]))
        for e in found
    ]  # fmt: skip
    write_table(("SESSION", "NODE", "LABEL", "TTL", "LOCK DELAY"), rows, wide=wide)
    if not rows:
        session.say("No session is open.")


@sessions.command()
@click.argument("number", metavar="SESSION")
@pass_session
def close(session: Session, number: str) -> None:
    """End SESSION: its locks are free at once, its keys go. Its holder is told."""
    ended = session.client().request("DELETE", f"/api/v1/sessions/{number}").json()["ended"]
    if not ended:
        raise AgentError(f"session {number!r:.40} had ended", "", NOT_FOUND)
