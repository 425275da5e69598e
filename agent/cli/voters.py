"""``covey voters``: who decides for the covey, how each of them is, and who takes whose place."""

import time
from typing import Any

import click

from agent.cli.completion import member_names
from agent.cli.output import output_option, wide_option, write_json, write_table
from agent.cli.param_types import DURATION, NAME
from agent.cli.session import Session, pass_session
from agent.exits import NO, TIMED_OUT, UNHEALTHY, AgentError
from agent.text.units import counted, format_duration

HEADER = ("NODE", "ROLE", "STORE", "LAG", "HEARD", "UP FOR", "SYNC", "POWER", "MATCH", "LOG", "ID")
SPARE = ("POWER", "MATCH", "LOG", "ID")
LOOK_S = 2.0
SLOW_SYNC_MS = 2_000
"""What takes longer gets no vote, and hands over (``fsync_p99_max_ms`` of ``VoterTuning``)."""
POWERS = {True: "mains", False: "battery", None: ""}


@click.group(invoke_without_command=True)
@output_option
@wide_option
@click.pass_context
def voters(ctx: click.Context, output: str, *, wide: bool) -> None:
    """Show who decides for the covey, and who leads; how each of them is, and why no more vote.

    They decide on locks, settings and transactions. The exit status is 6 while no majority of them
    agrees on a leader.
    """
    if ctx.invoked_subcommand is not None:
        return
    session = ctx.ensure_object(Session)
    answer = session.client().get("/api/v1/voters")
    if output == "json":
        write_json(answer)
    else:
        _show(session, answer, wide=wide)
    if answer["forks"]:
        raise AgentError(_forked(answer), "see `covey recover`", UNHEALTHY)
    if not answer["has_majority"]:
        raise AgentError(
            "no majority of the voters agrees on a leader, as far as this node knows",
            "events and readings go on, and shared keys most of whose owners are there; locks, "
            "transactions and settings wait until more voters are back. If they are gone for good: "
            "`covey recover`",
            UNHEALTHY,
        )


def _show(session: Session, answer: dict[str, Any], *, wide: bool) -> None:
    rows = [_row(each) for each in answer["voters"]]
    write_table(HEADER, rows, wide=wide, spare=SPARE)
    term = f"term {answer['term']}, " if answer["term"] is not None else ""
    leader = answer["leader"] or "unknown"
    session.say(
        f"Leader: {leader} ({term}generation {answer['generation']}); this node is"
        f" {answer['role']}, and has applied {answer['applied']}."
    )
    if answer["changing"]:
        session.say("The voters are being changed.")
    voting = sum(each["role"] in ("leader", "voter") for each in answer["voters"])
    if answer["wanted"] is not None:
        session.say(f"{counted(voting, 'voter')}; {_due(answer, voting)}.")
    for each in answer["voters"]:
        if each["drains"] and each["role"] != "learner":
            session.say(f"{each['name']} drains, and votes until one that stands by can.")
    for each in answer["others"]:
        session.say(f"{each['name']} does not vote: {each['reason']}.")


def _due(answer: dict[str, Any], voting: int) -> str:
    """Say how many more are to vote, of as many as could."""
    if answer["wanted"] > voting:
        return f"{answer['wanted']} are to vote"
    return "nobody else can vote yet" if answer["others"] else "no more are due"


def _row(voter: dict[str, Any]) -> tuple[object, ...]:
    sync_ms = voter["fsync_p99_ms"]
    return (
        voter["name"],
        voter["role"],
        _health(voter),
        "" if voter["lag"] is None else voter["lag"],
        _ago(voter["heard_s_ago"]) if voter["role"] != "leader" else "",
        "" if voter["uptime_s"] is None else format_duration(voter["uptime_s"]),
        "" if sync_ms is None else f"{sync_ms} ms",
        POWERS[voter["mains"]],
        "" if voter["match"] is None else voter["match"],
        voter["store"],
        voter["id"],
    )


def _health(voter: dict[str, Any]) -> str:
    """Return in one word how a voter's disk and log are; empty where nobody knows."""
    if voter["fenced"]:
        return "copied"
    if voter["takes_writes"] is None:
        return ""
    if not voter["takes_writes"]:
        return "failing"
    if (voter["fsync_p99_ms"] or 0) > SLOW_SYNC_MS:
        return "slow"
    return "ok" if voter["settled"] else "catching up"


def _ago(seconds: float | None) -> str:
    return "" if seconds is None else f"{format_duration(seconds)} ago"


def _forked(answer: dict[str, Any]) -> str:
    names = ", ".join(each["name"] for each in answer["forks"])
    return (
        f"generation {answer['generation']} was recovered at two places: {names} follows the"
        " other one, and neither knows what the other has decided"
    )


@voters.command()
@click.argument("old", type=NAME, shell_complete=member_names)
@click.argument("new", type=NAME, shell_complete=member_names)
@click.option(
    "--wait", type=DURATION, default="15m", show_default=True, help="How long to wait for it."
)
@pass_session
def replace(session: Session, old: str, new: str, wait: float) -> None:
    """Have NEW vote in the place of OLD.

    NEW learns first, and has to keep up for a minute; a majority of the voters has to agree. OLD is
    not chosen again while the same leader leads.
    """
    from agent.cli.progress import WaitNotice

    client = session.client()
    client.post("/api/v1/voters", {"old": old, "new": new})
    term = client.get("/api/v1/voters")["term"]
    with WaitNotice(f"for {new} to vote in the place of {old}", quiet=session.quiet):
        answer = _until_replaced(session, old, new, term, wait)
    session.say(f"{new} votes in the place of {old}; {answer['leader']} leads.")


def _until_replaced(
    session: Session, old: str, new: str, term: int | None, wait_s: float
) -> dict[str, Any]:
    """Return how the voters are when it is done. Raises AgentError, with how far it has come."""
    give_up = time.monotonic() + wait_s
    while True:
        answer: dict[str, Any] = session.hasty_client().get("/api/v1/voters")
        names = {each[key]: each for each in answer["voters"] for key in ("id", "name")}
        is_in = new in names and names[new]["role"] in ("voter", "leader")
        if is_in and old not in names and not answer["changing"]:
            return answer
        if answer["term"] not in (None, term) and not is_in and new not in names:
            raise AgentError(
                f"another node leads now, and does not know of the order: {old} votes still",
                f"say it again: `covey voters replace {old} {new}`",
                NO,
            )
        if time.monotonic() >= give_up:
            raise AgentError(
                f"{_how_far(new, names)} after {format_duration(wait_s)}; the order stands for"
                " 15 minutes from when it was given",
                "`covey voters` shows how far it comes; what does not come in time is dropped, and "
                "can be said again",
                TIMED_OUT,
            )
        time.sleep(min(LOOK_S, max(0.0, give_up - time.monotonic())))


def _how_far(new: str, names: dict[str, dict[str, Any]]) -> str:
    if new not in names:
        return f"{new} does not even learn yet"
    lag = names[new]["lag"]
    return f"{new} learns{'' if lag is None else f', {lag} behind,'} and does not vote yet"
