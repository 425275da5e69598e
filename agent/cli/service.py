"""``covey service``: the agent as a service of this machine, under systemd."""

import os
import pwd
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent import exits
from agent.cli.output import output_option, write_facts, write_json, write_row
from agent.cli.session import Session, pass_session

if TYPE_CHECKING:
    from agent.installation.service import SystemService

GROUP = "covey"
PEOPLE_UIDS = range(1000, 60_000)
"""What Debian gives to people, and no service."""


@click.group()
def service() -> None:
    """Run the agent as a service of this machine."""


@service.command()
@click.option("--now", is_flag=True, help="Also start it, now and at each boot.")
@pass_session
def install(session: Session, *, now: bool) -> None:
    """Put the systemd unit, its user and group, and shell completion in place. Needs root.

    The service starts this very program. Safe to repeat: what is as it should be is left alone,
    and a later version of Covey brings the files up to date.
    """
    from agent.cli.completion import INSTALL, script
    from agent.installation.system import people_in

    found = _service_for_root()
    for change in found.install({shell: script(shell) for shell in INSTALL}):
        write_row((change.done, change.place), (0, 0))
    if now:
        found.start()
    session.say(f"The service keeps its data in /var/lib/covey, and starts {found.program}.")
    for owner, where in _people_with_agents():
        session.say(
            f"It is not the agent of {owner}, whose data is in {where}: each has an identity of "
            "its own, and is a member of its own."
        )
    if now:
        session.say(f"It runs, and says: {found.unit_state()['StatusText']}.")
    else:
        session.say(
            "Next: `systemctl enable --now covey`, then `covey init` or `covey join TOKEN`."
        )
    if (person := os.environ.get("SUDO_USER", "NAME")) not in people_in(GROUP):
        session.say(f"Let people use it without sudo: `sudo usermod -aG {GROUP} {person}`.")


@service.command()
@pass_session
def uninstall(session: Session) -> None:
    """Stop the service, and remove what `install` put in place. Needs root.

    The user, the configuration and the data stay, and the key that the data are sealed with.
    """
    found = _service_for_root()
    for change in found.uninstall():
        write_row((change.done, change.place), (0, 0))
    session.say(f"The program stays where it was installed: {found.program}.")
    session.say(
        "The user covey, /etc/covey and /var/lib/covey stay: with /var/lib/covey, this node's "
        "identity and its readings would be gone."
    )
    if found.seal.exists():
        session.say(f"So does {found.seal}: the keys in /var/lib/covey are sealed with it.")


@service.command()
@output_option
@click.pass_context
def status(ctx: click.Context, output: str) -> None:
    """Show whether the service is installed and runs. Exit status 3 if not installed, 6 if down."""
    from agent.installation.system import has_user, people_in

    found = _service()
    state = found.unit_state()
    is_installed = state["LoadState"] == "loaded"
    answer = {
        "installed": is_installed,
        "current": found.is_current(),
        "enabled": state["UnitFileState"] == "enabled",
        "active": state["ActiveState"],
        "says": state["StatusText"],
        "restarts": int(state["NRestarts"] or 0),
        "last_exit_status": int(state["ExecMainStatus"] or 0),
        "program": str(found.program),
        "user": has_user(GROUP),
        "people": people_in(GROUP),
        "files": [str(path) for path in found.installed()],
    }
    if output == "json":
        write_json(answer)
    else:
        write_facts(_facts(answer))
    if not is_installed:
        ctx.exit(exits.NOT_FOUND)
    if state["ActiveState"] != "active":
        ctx.exit(exits.UNHEALTHY)


def _facts(answer: dict[str, Any]) -> dict[str, object]:
    """Return what to show to people: also what to do where something is not as it should be."""
    unit = "as this version installs it" if answer["current"] else "not that of this version"
    told: dict[str, object] = {
        "service": f"installed, {unit}" if answer["installed"] else "not installed",
        "next": _advice(answer),
        "at boot": "starts" if answer["enabled"] else "does not start",
        "now": answer["active"],
        "it says": answer["says"],
        "restarts": answer["restarts"],
        "last exit status": answer["last_exit_status"],
        "program": answer["program"],
        "may use it": ", ".join(["root", *answer["people"]]),
        "files": ", ".join(answer["files"]),
    }
    return {name: value for name, value in told.items() if value not in ("", None)}


def _advice(answer: dict[str, Any]) -> str:
    if not answer["installed"] or not answer["current"]:
        return "`covey service install`, as root"
    start = "`systemctl start covey`" if answer["enabled"] else "`systemctl enable --now covey`"
    match answer["active"]:
        case "active":
            return ""
        case "failed":
            return f"`journalctl -u covey` says why it failed; mend that, then {start}"
        case "inactive":
            return f"{start}; `journalctl -u covey` says why it ended, if it ran"
        case _:  # it starts, or waits to be started again
            return "`journalctl -u covey` says what it waits for"


def _service() -> "SystemService":
    """Return this machine's service. Raises AgentError where there is no systemd."""
    from agent.installation.service import SystemService
    from agent.installation.system import System
    from agent.installation.trial import own_program

    system = System()
    system.require_systemd()
    return SystemService(own_program(), system)


def _service_for_root() -> "SystemService":
    """Return this machine's service, to be changed. Raises AgentError, before anything changed."""
    from agent.installation.system import System

    System().require_root()
    return _service()


def _people_with_agents() -> Iterable[tuple[str, Path]]:
    """Return who has an agent of their own, and where: of who calls us by sudo, else of all."""
    from agent.config.paths import Paths

    try:
        people = [pwd.getpwnam(os.environ.get("SUDO_USER", ""))]
    except KeyError:
        people = pwd.getpwall()
    for person in people:
        if person.pw_uid not in PEOPLE_UIDS:
            continue
        paths = Paths.find(None, {"HOME": person.pw_dir}, person.pw_uid)
        with suppress(OSError):  # a home on the network, that root may not read
            if (paths.identity / "identity.json").is_file():
                yield person.pw_name, paths.data
