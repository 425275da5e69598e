"""``covey members``: who is there, as this agent sees it."""

from typing import Any

import click

from agent.cli.completion import member_names
from agent.cli.confirm import confirm
from agent.cli.copyable import here
from agent.cli.member_table import HEADER, SPARE, everybody, row, state_of
from agent.cli.output import (
    output_option,
    wide_option,
    write_facts,
    write_json,
    write_table,
)
from agent.cli.param_types import NAME
from agent.cli.session import Session, pass_session
from agent.exits import NOT_PERMITTED, AgentError
from agent.text.units import format_duration

REMOVAL_TIMEOUT_S = 60.0
STATES = ("alive", "suspect", "asleep", "dead", "left", "absent")

PATHS = {
    "udp_out_s": "UDP out",
    "udp_in_s": "UDP in",
    "stream_s": "stream",
    "stream_failed_s": "stream failed",
}


@click.group(invoke_without_command=True)
@click.option("--state", type=click.Choice(STATES), help="Only members in this state.")
@click.option("--watch", is_flag=True, help="Keep showing, and draw again when it changes.")
@output_option
@wide_option
@click.pass_context
def members(ctx: click.Context, state: str | None, output: str, *, watch: bool, wide: bool) -> None:
    """Show who is there.

    The list is this agent's view: each member is alive, suspect (did not answer lately), asleep
    (it said for how long), dead, or has left. Who is absent was let in and never heard: it gets
    no partitions before it is.
    """
    if ctx.invoked_subcommand is not None:
        return
    if watch:
        from agent.cli import live_table

        live_table.watch(ctx.obj, state, output, wide=wide)
        return
    answer = ctx.obj.client().get("/api/v1/members", state=state)
    if output == "json":
        write_json(answer)
        return
    rows = [row(one) for one in sorted(everybody(answer), key=lambda one: str(one["name"]))]
    write_table(HEADER, rows, wide=wide, spare=SPARE)


@members.command()
@click.argument("name", type=NAME, shell_complete=member_names)
@pass_session
def allow(session: Session, name: str) -> None:
    """Let the operator of a member make, list and revoke join tokens."""
    _say_who_invites(session, name, may_invite=True)
    session.say(f"{name} may let others in: `covey token create` works there.")


@members.command()
@click.argument("name", type=NAME, shell_complete=member_names)
@pass_session
def forbid(session: Session, name: str) -> None:
    """Forbid a member to make tokens. Those that it made stay good: see `covey token list`."""
    _say_who_invites(session, name, may_invite=False)
    session.say(f"{name} may not make tokens any more; those that it made: `covey token list`.")


def _say_who_invites(session: Session, name: str, *, may_invite: bool) -> None:
    session.client().post(f"/api/v1/members/{name}/rights", {"invite": may_invite})


@members.command()
@click.argument("name", type=NAME, shell_complete=member_names)
@click.option("--yes", is_flag=True, help="Remove it without being asked.")
@click.option("--accept-loss", is_flag=True, help="Also when what only it had may be lost.")
@pass_session
def remove(session: Session, name: str, *, yes: bool, accept_loss: bool) -> None:
    """Take a device out of the covey for good: one that is lost, stolen or dead.

    Its partitions go to others, its name is free, the keys are replaced without it, and nothing
    that it has opens anything any more. To be typed on a node that lets others in, or on a member
    that may make tokens (`covey members allow`), which removes whoever may not.
    """
    _check_may_remove(session, name)
    if not yes:
        confirm(
            f"this takes {name} out of the covey for good",
            f"`covey members remove {name} --yes` does it without asking",
        )
    answer = session.client().request(
        "DELETE",
        f"/api/v1/members/{name}",
        query={"accept_loss": "true"} if accept_loss else None,
        timeout_s=REMOVAL_TIMEOUT_S,
    )
    gone = answer.json()
    session.say(
        f"{gone['name']} is out of the covey since registry epoch {gone['epoch']}. The keys are "
        "being replaced without it: `covey keys list` shows how far that is."
    )
    if gone["held_authority"]:
        session.say(
            "It held the authority's key as well, which signs who belongs, and that is not replaced"
            " by this: if somebody may have the device, `covey keys rotate --authority`."
        )


def _check_may_remove(session: Session, name: str) -> None:
    """Raise AgentError where it would be refused, before anybody is asked whether to go on."""
    status = session.client().get("/api/v1/status")
    me = status["node"]
    if me is None or me["issuer"] or name in (me["name"], me["id"]):
        return
    if "inviter" in session.client().get(f"/api/v1/members/{me['id']}").get("roles", ()):
        return
    issuers = " or ".join(one["name"] for one in status["issuers"] or ()) or "its founder"
    raise AgentError(
        f"{me['name']} may not remove others; nothing was changed",
        f"on {issuers}, type `covey members remove {name}` there",
        NOT_PERMITTED,
    )


@members.command()
@click.argument("name", type=NAME, shell_complete=member_names)
@output_option
@pass_session
def show(session: Session, name: str, output: str) -> None:
    """Show one member, by name or id: its state, why, and which ways to it work.

    UDP out: it answered a ping; UDP in: a datagram of it came; stream: a frame of it came.
    """
    member = session.client().get(f"/api/v1/members/{name}")
    if output == "json":
        write_json(member)
        return
    since = format_duration(member.pop("changed_s"))
    facts = {f"fact {name}": value for name, value in sorted(member.pop("facts").items())}
    paths = member.pop("paths")
    state, signs = state_of(member), _signs(member)
    write_facts({**member, "state": state, "since": since, **signs, **_ways(paths), **facts})


def _ways(paths: dict[str, Any] | None) -> dict[str, object]:
    """Return which ways to the member worked, and when last; nothing for this node itself."""
    if paths is None:
        return {}
    ways: dict[str, object] = {
        title: "never" if paths[name] is None else f"{format_duration(paths[name])} ago"
        for name, title in PATHS.items()
    }
    if paths["udp_blocked"]:
        ways["UDP out"] = f"blocked, a stream alone passes ({ways['UDP out']})"
    if paths["streams_blocked"]:
        ways["stream"] = f"blocked, datagrams alone pass ({ways['stream']})"
    if paths["narrow"]:
        ways["packets"] = here("of full size are lost on the way; `covey doctor` has advice")
    return ways


def _signs(member: dict[str, Any]) -> dict[str, object]:
    """Return what looks wrong with the member, in words."""
    signs: dict[str, object] = {}
    if member.pop("absent"):
        signs["partitions"] = "none before the issuer hears it"
    if member.pop("drains"):
        signs["drains"] = f"yes: `covey node show {member['name']}`"
    if member.pop("flapping"):
        signs["flapping"] = "comes and goes; most changes are not told"
    if (says := member.pop("calls_itself")) != member["name"]:
        signs["calls itself"] = f"{says}, which is not its name in the registry"
    if clone := member.pop("clone"):
        signs["clone"] = f"two devices have this identity: {', '.join(clone)}"
    return signs
