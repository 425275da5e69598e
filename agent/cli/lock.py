"""``covey lock`` and ``covey elect``: run a command while this device holds a lock, or leads."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from agent.cli.completion import lock_names
from agent.cli.output import (
    output_option,
    wide_option,
    write_json_line,
    write_line,
    write_row,
)
from agent.cli.param_types import DURATION
from agent.cli.session import Session, pass_session
from agent.cli.streaming import lines_of

if TYPE_CHECKING:
    from edge_apps.locks import Lock

OBSERVED_WIDTHS = (12, 16, 0)
LOOK_S = 0.2
NOBODY: dict[str, Any] = dict.fromkeys(("token", "session"), "-") | {"value": "(nobody)"}

wait_option = click.option("--wait", type=DURATION, help="Wait at most so long [for ever].")
no_wait_option = click.option("--no-wait", is_flag=True, help="Give up at once if it is taken.")
ttl_option = click.option(
    "--ttl",
    type=DURATION,
    default="15s",
    show_default=True,
    help="How long the lock outlives a holder that is not heard of.",
)
delay_option = click.option(
    "--lock-delay",
    type=DURATION,
    default="15s",
    show_default=True,
    help="How long it stays shut when its holder was lost, rather than let go.",
)
grace_option = click.option(
    "--grace",
    type=DURATION,
    default="5s",
    show_default=True,
    help="Time between SIGTERM and SIGKILL for the command when the lock is lost.",
)


@click.command()
@click.argument("name", shell_complete=lock_names)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--permits",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many may hold it at a time: a semaphore.",
)
@click.option("--value", default="", help="What the others see of this holder.")
@wait_option
@no_wait_option
@ttl_option
@delay_option
@grace_option
@pass_session
def lock(
    session: Session,
    name: str,
    command: Sequence[str],
    permits: int,
    value: str,
    wait: float | None,
    ttl: float,
    lock_delay: float,
    grace: float,
    *,
    no_wait: bool,
) -> None:
    """Run a command while this device holds lock NAME.

    The command finds the fencing token in COVEY_LOCK_TOKEN. It is stopped when the lock is lost;
    otherwise its exit status is that of this command.
    """
    from edge_apps.locks import Lock

    held = Lock(
        session.hasty_client(),
        name,
        ttl_s=ttl,
        wait_s=_patience(wait, no_wait=no_wait),
        permits=permits,
        value=value,
        lock_delay_s=lock_delay,
    )
    _hold(session, held, command, grace)


@click.command()
@click.argument("name", shell_complete=lock_names)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--value", help="What the others see of the leader.")
@click.option("--observe", is_flag=True, help="Only show who leads, until Ctrl-C.")
@wait_option
@no_wait_option
@ttl_option
@delay_option
@grace_option
@output_option
@wide_option
@pass_session
def elect(
    session: Session,
    name: str,
    command: Sequence[str],
    value: str | None,
    wait: float | None,
    ttl: float,
    lock_delay: float,
    grace: float,
    output: str,
    *,
    observe: bool,
    no_wait: bool,
    wide: bool,
) -> None:
    """Stand for election NAME, and run COMMAND while this device leads; or lead until Ctrl-C."""
    if observe:
        if value is not None or command:
            raise click.UsageError("who observes does not stand: leave out --value and COMMAND")
        _observe(session, name, output, wide=wide)
        return
    if value is None:
        raise click.UsageError("give the --value that the others are to see, or --observe")
    from edge_apps.locks import Lock

    held = Lock(
        session.hasty_client(),
        name,
        ttl_s=ttl,
        wait_s=_patience(wait, no_wait=no_wait),
        value=value,
        lock_delay_s=lock_delay,
    )
    if command:
        _hold(session, held, command, grace)
    else:
        _lead(session, held, output)


def _patience(wait: float | None, *, no_wait: bool) -> float | None:
    if wait is not None and no_wait:
        raise click.UsageError("--wait and --no-wait contradict each other")
    return 0.0 if no_wait else wait


def _acquire(session: Session, held: "Lock") -> None:
    """Take the lock. Raises AgentError if somebody else has it."""
    from agent.cli.progress import WaitNotice
    from agent.exits import NO, TIMED_OUT, UNHEALTHY, AgentError
    from edge_apps.locks import NotHeld

    try:
        with WaitNotice(f"for lock {held.name}", quiet=session.quiet):
            held.acquire()
    except NotHeld as error:
        waited = held.wait_s != 0
        status = (TIMED_OUT if waited else NO) if error.is_taken else UNHEALTHY
        raise AgentError(error.message, error.hint, status) from None


@contextlib.contextmanager
def _acquired(session: Session, held: "Lock") -> Iterator[None]:
    """Take the lock, and let it go at the end, also of the wait for it."""
    from agent.cli.interrupts import interrupted_by_signals

    with interrupted_by_signals():
        try:
            _acquire(session, held)
            yield
        finally:
            held.release()


def _hold(session: Session, held: "Lock", command: Sequence[str], grace_s: float) -> None:
    from agent.cli.held_command import HeldCommand

    with _acquired(session, held):
        assert held.session is not None, "it is held"
        environment = {
            "COVEY_LOCK": held.name,
            "COVEY_LOCK_TOKEN": str(held.token),
            "COVEY_SESSION": held.session.id,
        }
        status = HeldCommand(command, environment, grace_s).run(held, f"lock {held.name!r}")
    click.get_current_context().exit(status)


def _lead(session: Session, held: "Lock", output: str) -> None:
    import time

    from agent.exits import UNHEALTHY, AgentError

    with _acquired(session, held):
        if output == "json":
            write_json_line({"name": held.name, "token": held.token})
        else:
            write_line(f"leads by token {held.token}")
        while not held.lost:
            time.sleep(LOOK_S)
        raise AgentError(f"the lead of {held.name!r} was lost", "see `covey voters`", UNHEALTHY)


def _observe(session: Session, name: str, output: str, *, wide: bool) -> None:
    """Show who leads, now and after each change, until Ctrl-C."""
    shown: object = None
    for holders in _holders(session, name):
        if holders == shown:
            continue
        shown = holders
        if output == "json":
            write_json_line({"name": name, "holders": holders})
            continue
        for holder in holders or [NOBODY]:
            row = holder["token"], holder["session"], _value_of(holder)
            write_row(row, OBSERVED_WIDTHS, wide=wide)


def _holders(session: Session, name: str) -> Iterator[list[dict[str, Any]]]:
    """Yield who holds a lock: now, and after each change."""
    client = session.client()
    while True:
        now = client.get(f"/api/v1/locks/{name}")
        yield now["holders"]
        query = {"name": name, "kind": "locks", "after": now["revision"]}
        for told in lines_of(client, "/api/v1/changes", query):
            for change in told.get("changes", ()):
                yield change["holders"]
            if "compacted" in told:
                break  # look again, and go on from there
        else:
            return


def _value_of(holder: dict[str, Any]) -> str:
    return str(holder.get("value", holder.get("value_base64", "")))
