"""``covey recover``: go on from one copy when a majority of the voters is lost for good."""

import time
from typing import Any

import click

from agent.cli.confirm import confirm
from agent.cli.output import output_option, wide_option, write_json, write_table
from agent.cli.session import Session, pass_session
from agent.exits import NO, NOT_FOUND, TIMED_OUT, UNHEALTHY, USAGE, AgentError
from edge_apps.client import ClientError

SURVEY_S = 15.0
BEGUN_S = 90.0
LOOK_S = 0.5
HEADER = ("NODE", "COPY", "GENERATION", "TERM", "LAST", "APPLIED", "STORE", "ID")


@click.command()
@click.option(
    "--from-this-node", "goes_on", is_flag=True, help="Go on with this node's copy, alone."
)
@click.option(
    "--from-set-aside", "aside", is_flag=True, help="Go on with the log that was set aside here."
)
@click.option(
    "--follow", metavar="NODE", default="", help="Follow the later generation that NODE follows."
)
@click.option(
    "--without", metavar="NODE", multiple=True, help="Do not count what NODE says of its copy."
)
@click.option("--yes", is_flag=True, help="Do it without being asked.")
@output_option
@wide_option
@pass_session
def recover(
    session: Session,
    output: str,
    follow: str,
    without: tuple[str, ...],
    *,
    goes_on: bool,
    aside: bool,
    yes: bool,
    wide: bool,
) -> None:
    """Show which copies of what is agreed on there are; go on with one when the voters are lost.

    Only with --from-this-node, --from-set-aside or --follow anything is changed. The first two go
    on while no majority of the voters is there, on the node that has the newest copy. It votes
    alone then, in the next generation; the others follow, and vote again in time.
    """
    if goes_on + aside + bool(follow) > 1:
        raise AgentError(
            "--from-this-node, --from-set-aside and --follow are three ways to go on",
            "choose one of them",
            USAGE,
        )
    if follow:
        _follow(session, output, follow, yes=yes)
        return
    query = {"without": list(without)}
    answer = session.client().request("GET", "/api/v1/copies", query=query, timeout_s=SURVEY_S)
    found = answer.json()
    if goes_on:
        _check(found)
        asked, consequence, flag = _copy_of(found), _consequence(found), "--from-this-node"
    elif aside:
        asked, flag = _set_aside_of(found), "--from-set-aside"
        consequence = _consequence_of_set_aside(asked)
    else:
        _show(session, found, output, wide=wide)
        return
    if not yes:
        confirm(consequence, f"`covey recover {flag} --yes` does it unasked")
    _go_on(session, {**asked, **query}, output)


def _show(session: Session, answer: dict[str, Any], output: str, *, wide: bool) -> None:
    if output == "json":
        write_json(answer)
    else:
        write_table(HEADER, list(map(_row, answer["copies"])), wide=wide, spare=("STORE", "ID"))
    _advise(session, answer)


def _go_on(session: Session, asked: dict[str, Any], output: str) -> None:
    begun = session.client().post("/api/v1/recovery", asked)["generation"]
    voters = until_generation(session, begun)
    if output == "json":
        write_json(voters)
    else:
        session.say(
            f"Generation {begun} has begun, and this node votes alone in it. Others follow, and"
            " vote once they are stable: `covey voters`."
        )


def _copy_of(answer: dict[str, Any]) -> dict[str, Any]:
    return {"generation": answer["generation"], "last": answer["last"]}


def _set_aside_of(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the newest log that was set aside. Raises AgentError if there is none."""
    if not answer["set_aside"]:
        raise AgentError(
            "no log was set aside on this node, or none that can be read; nothing was changed",
            "`covey recover` shows which copies there are",
            NOT_FOUND,
        )
    first = answer["set_aside"][0]
    return {"set_aside": first["file"], **_copy_of(first)}


def _consequence_of_set_aside(asked: dict[str, Any]) -> str:
    return (
        f"this node goes on alone with what {asked['set_aside']} has, in generation"
        f" {asked['generation']} up to revision {asked['last']}; what was decided since, here or"
        " elsewhere, is lost"
    )


def _follow(session: Session, output: str, node: str, *, yes: bool) -> None:
    """Follow where an operator has gone on, though this node cannot know that it is so."""
    if not yes:
        confirm(
            f"this node gives up what it has of what is agreed on, and follows {node}: only if an"
            " operator had the covey go on from there",
            f"`covey recover --follow {node} --yes` does it unasked",
        )
    answer = session.client().post("/api/v1/recovery", {"follow": node})
    if output == "json":
        write_json(answer)
    else:
        session.say(
            f"This node follows generation {answer['generation']} from now on. If it voted, its log"
            " is set aside, and its agent begins anew: `covey voters`."
        )


def _row(copy: dict[str, Any]) -> tuple[object, ...]:
    known = ("generation", "term", "last", "applied", "store")
    return (
        copy["name"] + (" (this node)" if copy["self"] else ""),
        _what(copy),
        *("" if copy[each] is None else copy[each] for each in known),
        copy["id"],
    )


def _what(copy: dict[str, Any]) -> str:
    """Return in a few words what a copy is."""
    if not copy["answered"]:
        return "does not answer" + (", voter" if copy["votes"] else "")
    role = "voter" if copy["votes"] and copy["takes_part"] else "copy"
    if copy["votes"] and not copy["takes_part"]:
        role = "voter that lost its log"
    return f"{role}, newest" if copy["newest"] else role


def _advise(session: Session, answer: dict[str, Any]) -> None:
    """Say what to do next."""
    if answer["forked"]:
        session.say(
            f"Generation {answer['generation']} was recovered at two places. Choose where it shall"
            " go on; there: `covey recover --from-this-node`. What the other one"
            " has decided since is lost then."
        )
    elif answer["majority"]:
        session.say("A majority of the voters is there: there is nothing to recover.")
    elif not answer["is_newest"]:
        names = ", ".join(answer["newest"])
        session.say(
            f"The newest copy is at {names}: recover there, if the others are lost.{_doubt(answer)}"
        )
    else:
        session.say(
            f"No majority of the voters is there. {_loss(answer)} If they are gone for good:"
            " `covey recover --from-this-node`. If one of them may come back, wait for it."
        )
    if answer["set_aside"] and not answer["majority"]:
        first = answer["set_aside"][0]
        session.say(
            f"A log was set aside here: {first['file']}, generation {first['generation']}, up to"
            f" revision {first['last']}. Where what came later was a lie, or is lost: `covey"
            " recover --from-set-aside`."
        )


def _doubt(answer: dict[str, Any]) -> str:
    """Say what to do where only such nodes say that theirs is newer that could be lying."""
    told = {each["name"] for each in answer["copies"] if each["newest"] and not each["believed"]}
    if not told or told != set(answer["newest"]):
        return ""
    left_out = " ".join(f"--without {name}" for name in sorted(told))
    return (
        f" Neither a voter nor an issuer says so: if that is a lie, `covey recover {left_out}`"
        " leaves it out. What is there alone is lost then."
    )


def _check(answer: dict[str, Any]) -> None:
    """Raise AgentError where the agent would refuse; it looks again itself."""
    if answer["majority"] and not answer["forked"]:
        raise AgentError(
            "a majority of the voters is there: nothing is to recover, and nothing was changed",
            "a voter that is gone for good is replaced with `covey voters replace`. Nothing forces "
            "a recovery past a majority",
            NO,
        )
    if not answer["is_newest"]:
        raise AgentError(
            f"the newest copy is at {', '.join(answer['newest'])}, so nothing was changed here",
            f"recover there.{_doubt(answer)}",
            NO,
        )


def _loss(answer: dict[str, Any]) -> str:
    """Say exactly what may be lost."""
    lost = ", ".join(answer["lost"]) or "nobody"
    return (
        f"These voters do not answer: {lost}. This node has everything up to revision"
        f" {answer['last']}, and knows that to be decided up to {answer['committed']}. What was"
        " decided later is lost with them; how much that is, nobody can know."
    )


def _consequence(answer: dict[str, Any]) -> str:
    loss = _loss(answer)
    return (
        f"{loss[0].lower()}{loss[1:]} This node goes on alone, and whoever comes back of the"
        " others gives up its log"
    )


def until_generation(session: Session, begun: int) -> dict[str, Any]:
    """Wait until this node leads a generation, and return how the voters are. Raises AgentError."""
    from agent.cli.progress import WaitNotice

    give_up = time.monotonic() + BEGUN_S
    with WaitNotice(f"for generation {begun} to begin", quiet=session.quiet):
        while time.monotonic() < give_up:
            try:
                answer: dict[str, Any] = session.hasty_client().get("/api/v1/voters")
            except ClientError:
                answer = {}  # the agent begins anew
            if answer.get("generation") == begun and answer["role"] == "leader":
                return answer
            time.sleep(LOOK_S)
    raise AgentError(
        f"generation {begun} has not begun within {BEGUN_S:.0f} s; the copy that was there is there"
        " still, unless it has begun meanwhile",
        "`covey status` and the agent's log say why; `covey voters` whether it has begun",
        UNHEALTHY if answer else TIMED_OUT,
    )
