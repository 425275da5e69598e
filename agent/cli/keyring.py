"""``covey keys``: the keys that seal the covey's datagrams, and how to get new ones."""

import time
from typing import Any

import click

from agent import exits
from agent.cli.output import output_option, wide_option, write_json, write_table
from agent.cli.progress import Waiting
from agent.cli.session import Session, pass_session

POLL_S = 0.5
PATIENCE_S = 60.0
"""How long one step may take before the command stops watching; the issuer goes on."""
STEPS = {
    "installed": "1/3 installed: everybody gets the new key beside the old one",
    "used": "2/3 used: everybody seals with the new key, the old one still opens",
    "steady": "3/3 removed: the old key opens nothing any more",
}
ORDER_TIMEOUT_S = 30.0


@click.group()
def keys() -> None:
    """Show and replace the keys that seal datagrams."""


@keys.command("list")
@output_option
@wide_option
@pass_session
def list_keys(session: Session, output: str, *, wide: bool) -> None:
    """Show who holds which keys, by their fingerprints."""
    _write(session.client().get("/api/v1/keys"), output, wide=wide)


@keys.command()
@click.option("--force", is_flag=True, help="Do not wait for members that are away.")
@output_option
@wide_option
@click.pass_context
def rotate(ctx: click.Context, *, force: bool, output: str, wide: bool) -> None:
    """Give the covey a new key, without losing a member.

    The old key is dropped when every node has the new one. With --force those that are away are
    not waited for: they get the new key over a stream when they come back. Exit status 6 if
    the old key still has to stay.
    """
    session = ctx.ensure_object(Session)
    client = session.client()
    began = client.get("/api/v1/keys")
    answer = client.request(
        "POST", "/api/v1/keys/rotate", json={"force": force}, timeout_s=ORDER_TIMEOUT_S
    ).json()
    answer = _watch(session, began, answer)
    _write(answer, output, wide=wide)
    if answer["rotating"]:
        missing = _names(answer, "awaited")
        session.say(
            f"The old key stays until these have the new one: {', '.join(missing) or 'nobody'}. "
            "The issuer goes on by itself; `covey keys rotate --force` does not wait for them."
        )
        ctx.exit(exits.UNHEALTHY)


def _watch(session: Session, began: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """Say each step as this node takes it, until it is done or waits for the absent alone."""
    told = began["generation"]
    give_up = time.monotonic() + PATIENCE_S
    with Waiting("for the members to take the next step", quiet=session.quiet) as waiting:
        while True:
            if answer["generation"] > told:
                told, give_up = answer["generation"], time.monotonic() + PATIENCE_S
                waiting.make_room()
                session.say(STEPS[answer["phase"]])
            if told > began["generation"] and not answer["rotating"]:
                return answer
            if time.monotonic() > give_up or _waits_for_absent(answer):
                return answer
            time.sleep(POLL_S)
            answer = session.hasty_client().get("/api/v1/keys")


def _waits_for_absent(answer: dict[str, Any]) -> bool:
    awaited = [one for one in answer["members"] if one["awaited"]]
    return answer["phase"] == "used" and bool(awaited) and not any(one["live"] for one in awaited)


def _names(answer: dict[str, Any], flag: str) -> list[str]:
    return sorted(one["name"] for one in answer["members"] if one[flag])


def _write(answer: dict[str, Any], output: str, *, wide: bool) -> None:
    if output == "json":
        write_json(answer)
        return
    rows = [_row(one) for one in sorted(answer["members"], key=lambda one: str(one["name"]))]
    write_table(("NAME", "GENERATION", "PRIMARY", "OTHER KEYS", "TOLD"), rows, wide=wide)


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    others = [key for key in one["keys"] if key != one["primary"]]
    told = "now" if one["answered"] else ("earlier" if one["keys"] else "never")
    return one["name"], one["generation"], one["primary"], others, told
