"""``covey keys``: the keys that seal and sign for the covey, and how to get new ones."""

import time
from typing import Any

import click

from agent import exits
from agent.cli.output import output_option, wide_option, write_json, write_table
from agent.cli.progress import WaitNotice
from agent.cli.session import Session, pass_session

POLL_S = 0.5
PATIENCE_S = 60.0
"""How long one step may take before the command stops watching; the issuer goes on."""
STEPS = {
    "installed": "1/3 installed: everybody gets the new key beside the old one",
    "used": "2/3 used: everybody seals with the new key, the old one still opens",
    "steady": "3/3 removed: the old key opens nothing any more",
}
ORDER_TIMEOUT_S = 60.0


@click.group()
def keys() -> None:
    """Show and replace the keys that seal and sign for the covey."""


@keys.command("list")
@output_option
@wide_option
@pass_session
def list_keys(session: Session, output: str, *, wide: bool) -> None:
    """Show who holds which keys, by their fingerprints."""
    answer = session.client().get("/api/v1/keys")
    _write(answer, output, wide=wide)
    if missing := answer["authority"]["uncertified"]:
        session.say(f"No certificate of the present authority yet: {', '.join(missing)}.")


@keys.command()
@click.option("--force", is_flag=True, help="Do not wait for members that are away.")
@click.option("--authority", is_flag=True, help="Replace the authority's key instead.")
@output_option
@wide_option
@click.pass_context
def rotate(ctx: click.Context, *, force: bool, authority: bool, output: str, wide: bool) -> None:
    """Give the covey a new key, without losing a member.

    The old key is dropped when every node has the new one. With --force those that are away are
    not waited for: they get the new key over a stream when they come back. Exit status 6 if
    the old key still has to stay.

    With --authority, on a node that lets others in, it is the key that signs certificates, and who
    belongs. All nodes get new certificates; tokens made before end.
    """
    session = ctx.ensure_object(Session)
    client = session.client()
    if authority:
        answer = _replace_authority(session, force=force)
        _write(answer, output, wide=wide)
        if answer["authority"]["overlaps"]:
            ctx.exit(exits.UNHEALTHY)
        return
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


def _replace_authority(session: Session, *, force: bool) -> dict[str, Any]:
    """Order it, say each step, and return the last answer."""
    client = session.client()
    before = client.get("/api/v1/keys")["authority"]
    answer = client.request(
        "POST", "/api/v1/keys/authority", json={"force": force}, timeout_s=ORDER_TIMEOUT_S
    ).json()
    if not before["overlaps"]:
        session.say("1/2 named: a new authority is trusted beside the old one; tokens have ended")
    answer = _await_certificates(session, answer, force=force)
    if answer["authority"]["overlaps"]:
        missing = ", ".join(answer["authority"]["uncertified"]) or "nobody"
        session.say(
            f"The old authority stays until these have new certificates: {missing}. The issuer "
            "goes on by itself; `covey keys rotate --authority --force` does not wait for them."
        )
    else:
        session.say("2/2 removed: what the old authority signs opens nothing any more")
    return answer


def _await_certificates(session: Session, answer: dict[str, Any], *, force: bool) -> dict[str, Any]:
    """Wait until the old authority is dropped, or the absent alone are waited for."""
    told, give_up = answer["authority"], time.monotonic() + PATIENCE_S
    with WaitNotice("for the members to get new certificates", quiet=session.quiet):
        while answer["authority"]["overlaps"] and time.monotonic() < give_up:
            time.sleep(POLL_S)
            answer = session.hasty_client().get("/api/v1/keys")
            if answer["authority"] != told:
                told, give_up = answer["authority"], time.monotonic() + PATIENCE_S
            live = {one["name"] for one in answer["members"] if one["live"]}
            if told["uncertified"] and not force and live.isdisjoint(told["uncertified"]):
                break
    return answer


def _watch(session: Session, began: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """Say each step as this node takes it, until it is done or waits for the absent alone."""
    told = began["generation"]
    give_up = time.monotonic() + PATIENCE_S
    with WaitNotice("for the members to take the next step", quiet=session.quiet) as waiting:
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
