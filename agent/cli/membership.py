"""The commands that make, enter and leave a covey: ``init``, ``join``, ``leave``.

All of them ask the agent. Where none runs, ``init`` and ``join`` do the same work themselves
(``agent/admission/newcomer.py``), as the owner of the directory. Each ends by saying what to do
next.
"""

import math
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from agent.cli.confirm import confirm
from agent.cli.copyable import here
from agent.cli.output import write_line
from agent.cli.progress import WaitNotice
from agent.cli.session import Session, pass_session
from agent.cli.streaming import lines_of
from agent.config.paths import Paths, service_is_installed
from agent.exits import UNREACHABLE, AgentError
from edge_apps.client import AgentForbidden, AgentTimedOut, AgentUnreachable, ClientError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from agent.admission.newcomer import Newcomer
    from agent.identity.identity import Identity

DEFAULT_CLUSTER_NAME = "covey"
JOINING = "to be let in"
ISSUER_TIMEOUT_S = 60.0
ALONE_EPOCH = 1
"""Of the registry in which nobody was let in yet."""
STAGE_WITHIN_S, STAGE_LOOK_S = 10.0, 0.1

node_name_option = click.option(
    "--node-name",
    default=lambda: socket.gethostname().split(".")[0],
    show_default="the host's name",
    help="What the others call this node.",
)


@click.command()
@click.argument("name", default=DEFAULT_CLUSTER_NAME)
@node_name_option
@pass_session
def init(session: Session, name: str, node_name: str) -> None:
    """Found a covey called NAME, with this node as its first.

    Makes the covey's id, its certificate authority and its secrets, and this node's identity. An
    agent that runs goes on as the first member at once.
    """
    asked = {"name": name, "node_name": node_name}
    try:
        session.client().post("/api/v1/init", asked)
    except AgentUnreachable as error:
        _check_nobody_is_there(session, error)
        _without_agent(session, lambda newcomer: newcomer.found(name, node_name))
        write_line(f"{node_name} is the first node of the covey {name}.")
        _say_what_is_next(session, "let others in with `covey token create`")
        return
    write_line(f"{node_name} is the first node of the covey {name}.")
    _await_member(session)
    _say_ports(session)
    session.say("Next: let others in with `covey token create`.")


@click.command()
@click.argument("token", required=False)
@click.option("--seed", "seeds", multiple=True, metavar="HOST[:PORT]", help="Ask this member.")
@click.option("--replace", metavar="NAME", help="Take the name and the place of a dead node.")
@node_name_option
@pass_session
def join(
    session: Session,
    token: str | None,
    seeds: tuple[str, ...],
    replace: str | None,
    node_name: str,
) -> None:
    """Make this node part of the covey that TOKEN is from; `-` reads the token from stdin.

    Looks for a member by mDNS unless --seed names one. If it fails, nothing is changed, and the
    same command can be given again. Without a token, a node that has left its covey comes back.
    """
    text = sys.stdin.readline().strip() if token == "-" else token  # noqa: S105
    name = replace or node_name
    with WaitNotice(JOINING, quiet=session.quiet) as waiting:

        def tell(said: str) -> None:
            waiting.make_room()
            session.say(f"... {said}")

        def enter(newcomer: "Newcomer") -> "Coroutine[Any, Any, Identity]":
            if text is None:
                return newcomer.come_back()
            return newcomer.join(text, name, seeds, tell, replaces=replace is not None)

        joined: Identity | None = None
        try:
            asked = {"node_name": name, "seeds": list(seeds), "replaces": replace is not None}
            who = _ask_to_join(session, text, asked, tell)
        except AgentUnreachable as error:
            _check_nobody_is_there(session, error)
            joined = _without_agent(session, enter)
    if joined is not None:
        write_line(f"{joined.node_name} belongs to the covey {joined.cluster_name}.")
        _say_what_is_next(session)
        return
    write_line(f"{who['node']['name']} belongs to the covey {who['cluster']['name']}.")
    _await_member(session)
    _say_ports(session)


@click.command()
@click.option("--forget", is_flag=True, help="Leave for good: set the identity and data aside.")
@click.option("--yes", is_flag=True, help="Forget also what lets others in, without being asked.")
@pass_session
def leave(session: Session, *, forget: bool, yes: bool) -> None:
    """Take this node out of its covey after saying goodbye.

    The others see the node as left, not as dead. Its agent goes on running, and stays outside also
    after a restart, until `covey join` without a token brings it back as it was. With --forget its
    identity and its data are set aside, and it can join any covey with a token, as a new node.
    """
    client = session.client()
    before = client.get("/api/v1/status")
    bound, was_outside = _who_waits_for_it(before), before["stage"] == "waiting"
    if forget and bound and not yes:
        confirm(
            "this node is the one that lets others in, and without it no device ever joins "
            f"{bound}",
            "`covey leave --forget --yes` forgets it all the same; `covey leave` alone keeps it",
        )
    asked_at = time.monotonic()
    answer = client.request(
        "POST", "/api/v1/leave", json={"forget": forget}, timeout_s=ISSUER_TIMEOUT_S
    ).json()
    with WaitNotice("for the agent to say goodbye", quiet=session.quiet):
        is_outside = not _why_not(session, "waiting", asked_at)
    if was_outside and is_outside:
        write_line("The agent has set its identity and its data aside.")
    elif is_outside:
        write_line("The agent said goodbye, and waits outside of the covey.")
    else:
        said = "The agent says goodbye; `covey status` tells when it is outside of the covey."
        write_line(here(said))
    if bound:
        until = "its identity is back from former/" if forget else "it is back"
        session.say(f"It is the one that lets others in: until {until}, no device joins {bound}.")
    if forget and not answer["freed"] and answer["node"]["name"] not in answer["issuers"]:
        name = answer["node"]["name"] or "NAME"
        issuers = " or ".join(answer["issuers"]) or "the node that founded the covey"
        session.say(
            f"{name} keeps its name and its share of the keys: {issuers}, which lets others in, "
            f"was not reached. On {issuers}: type `covey members remove {name}` there."
        )
    if forget:
        session.say("Next: `covey join TOKEN` or `covey init`; what is set aside is in former/.")
    else:
        session.say("`covey join` without a token brings it back.")


def _who_waits_for_it(status: dict[str, Any]) -> str:
    """Return the covey that this node leaves without who admits; empty where others can, or none.

    A covey of one has nobody who could miss it.
    """
    if status["stage"] == "waiting" or not status["node"]["issuer"]:
        return ""
    if any(one["id"] != status["node"]["id"] for one in status["issuers"] or ()):
        return ""
    return str(status["cluster"]["name"]) if (status["epoch"] or 0) > ALONE_EPOCH else ""


def _ask_to_join(
    session: Session,
    token: str | None,
    asked: dict[str, Any],
    tell: "Callable[[str], None]",
) -> dict[str, Any]:
    """Have the agent join, and say what it does. Raises AgentUnreachable, AgentError, ApiError."""
    if token is not None:
        asked["token"] = token
    outcome: dict[str, Any] = {}
    for line in lines_of(session.client(), "/api/v1/join", json=asked):
        if "progress" in line:
            tell(line["progress"])
        else:
            outcome = line
    if not outcome:  # the agent stopped while it was at it
        raise AgentError(
            "the agent stopped before it had joined; nothing was kept",
            "start it, and run the same command again: that is safe",
            UNREACHABLE,
        )
    return outcome


def _check_nobody_is_there(session: Session, error: AgentUnreachable) -> None:
    """Raise the error again unless it means that no agent runs: two must not write at once.

    Who means the service has to start it: the identity would be another than the service's.
    """
    means_other = session.agent_paths != session.paths
    if means_other or isinstance(error, AgentForbidden | AgentTimedOut):
        raise error


def _without_agent(
    session: Session, work: "Callable[[Newcomer], Coroutine[Any, Any, Identity]]"
) -> "Identity":
    """Do what an agent would do, while none runs. Raises AgentError."""
    import asyncio

    from agent.admission.newcomer import Newcomer, load_late_code
    from agent.config.loader import load
    from agent.files.ownership import work_as_owner
    from agent.store.lock import locked

    paths = session.paths
    settings = load(paths)
    load_late_code()
    work_as_owner(paths.data)
    paths.create_data()

    async def do() -> "Identity":
        newcomer = Newcomer(settings, paths)
        newcomer.forget()
        return await work(newcomer)

    with locked(paths):
        return asyncio.run(do())


def _await_member(session: Session) -> None:
    """Wait until the agent takes part, and say whether it does."""
    with WaitNotice("for the agent to take part", quiet=session.quiet):
        because = _why_not(session, "member")
    if because:
        session.say(f"Its agent does not take part yet: {because}.")
        session.say("See `covey status`, or what the agent wrote last if it has ended.")
    else:
        session.say("Its agent takes part from now on.")


def _why_not(session: Session, stage: str, since: float = -math.inf) -> str:
    """Wait for the agent to come to a stage; return what keeps it from there, empty if nothing.

    Only one that began after ``since``, of the monotonic clock, counts: who leaves is replaced.
    An agent on its way may close a database under a question, or end: its port may be taken.
    """
    client, give_up = session.hasty_client(), time.monotonic() + STAGE_WITHIN_S
    because = "it has not answered yet"
    while time.monotonic() < give_up:
        try:
            status = client.get("/api/v1/status")
        except ClientError as error:
            because = str(error).rstrip(".")
        else:
            if status["stage"] == stage and status["uptime_s"] <= time.monotonic() - since:
                return ""
            because = "; ".join(status["reasons"]) or "it is not so far"
        time.sleep(STAGE_LOOK_S)
    return because


def _say_what_is_next(session: Session, more: str = "") -> None:
    """Say how to start the agent, and of which agent this is the identity."""
    start = f"start its agent with {_how_to_start(session)}"
    session.say(f"Next: {start}{f', and {more}' if more else ''}.")
    if session.paths != Paths.of_service() and session.means_any:
        session.say(
            f"This is an agent of your own, in {session.paths.data}. `sudo covey` speaks to the "
            "one that runs as a service of this machine, if there is one: that is another node."
        )
    _say_ports(session)


def _how_to_start(session: Session) -> str:
    """Return the command that starts the agent: as the service where the identity is its own."""
    from agent.installation.system import BOOTED_WITH_SYSTEMD

    by_hand = "`covey run`"
    if session.paths != Paths.of_service() or not BOOTED_WITH_SYSTEMD.is_dir():
        return by_hand
    if service_is_installed():
        return "`systemctl start covey`"
    return f"`covey service install --now`, or {by_hand} in a terminal"


def _say_ports(session: Session) -> None:
    """Say what has to pass a firewall, and how nftables is told so."""
    from agent.config.loader import load
    from agent.config.settings import NetworkSettings

    try:
        network = load(session.agent_paths).network
    except AgentError:  # whoever may not read the configuration is told what is usual
        network = NetworkSettings()
    multicast = ", and UDP port 5353 for mDNS" if network.mdns else ""
    datagrams = f"{{ {network.port}, 5353 }}" if network.mdns else network.port
    session.say(
        f"A firewall has to let UDP and TCP port {network.port} pass{multicast}; in nftables' "
        f"words: `udp dport {datagrams} accept` and `tcp dport {network.port} accept`."
    )
