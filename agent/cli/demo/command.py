"""``covey demo``: sets the stage, and hands it to the screen, the log or the check."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

import click

from agent.exits import INTERRUPTED, NO, YES, AgentError
from agent.text.escaping import lines_below

AGENTS_DEFAULT = 3
AGENTS_MAX = 9  # one key for each
CHECK_S = 600.0  # some 20 s are enough where nothing else is at work; this is for what hangs
CHECK_AGENTS_MIN = 3  # two owners of a key outlive the third


@click.command()
@click.option("--check", "checks", is_flag=True, help="Run unattended and print one line of JSON.")
@click.option(
    "--agents",
    type=click.IntRange(2, AGENTS_MAX),
    default=AGENTS_DEFAULT,
    show_default=True,
    help="How many agents.",
)
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Put all files into DIR, and leave them there.",
)
@click.option("--seconds", type=click.FloatRange(min=0), help="Stop by itself after this long.")
def demo(*, checks: bool, agents: int, keep: Path | None, seconds: float | None) -> None:
    """Watch agents form a covey on this machine.

    Starts a broker and several agents, each with its own folder, on the loopback interface
    alone. They share a key and deliver this machine's own measurements. The keys 1, 2, ... kill
    an agent and revive it. Everything is stopped and removed at the end.

    With --check, one agent is killed and revived, and the exit status says whether all held.
    """
    if checks and agents < CHECK_AGENTS_MIN:
        raise click.UsageError(f"--check needs at least {CHECK_AGENTS_MIN} agents")
    if sys.stdout.isatty() and not checks:
        _say("Setting up; this takes a few seconds.")
    story = _check(agents, keep) if checks else _show(agents, keep, seconds)
    sys.exit(asyncio.run(_interruptible(story)))


async def _interruptible(story: Coroutine[None, None, int]) -> int:
    """Run the story; SIGTERM and Ctrl-C cancel it, so that it takes its stage down first."""
    task = asyncio.ensure_future(story)
    loop = asyncio.get_running_loop()
    told = False

    def once() -> None:
        nonlocal told
        if not told:  # a second Ctrl-C must not cut the taking down short
            told = True
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, once)
    try:
        return await task
    except asyncio.CancelledError:
        return INTERRUPTED


async def _show(agents: int, keep: Path | None, seconds: float | None) -> int:
    from agent.cli.demo.log_view import print_changes
    from agent.cli.demo.screen import LiveScreen
    from agent.cli.demo.setup import say_hello, set_up

    try:
        async with set_up(agents, keep, _say) as stage:
            await stage.fleet.start()
            await say_hello(stage)
            if sys.stdin.isatty() and sys.stdout.isatty():
                await LiveScreen(stage, colour=not os.environ.get("NO_COLOR")).run(seconds)
                _say("Stopping the agents.")
            else:
                await print_changes(stage, seconds, _say)
    except AgentError as error:
        _say(error.message)
        if error.hint:
            _say(error.hint)
        return error.status
    return YES


async def _check(agents: int, keep: Path | None) -> int:
    from agent.cli.demo.check import Report, check
    from agent.cli.demo.setup import set_up
    from edge_apps.client import ClientError

    report = Report()
    say = _timed()
    try:
        async with asyncio.timeout(CHECK_S), set_up(agents, keep, say) as stage:
            await stage.fleet.start()
            await check(stage, report, say)
    except TimeoutError:
        report.error = f"not done within {CHECK_S:g} s"
    except AgentError as error:
        report.error = error.message
        say(error.message)
        if error.hint:
            say(error.hint)
    except ClientError as error:
        report.error = str(error)
    except BaseException as error:
        report.error = f"interrupted: {type(error).__name__}"
        raise
    finally:
        report.conclude()
        click.echo(report.line())
    return YES if report.ok else NO


def _say(text: str) -> None:
    click.echo(lines_below(text), err=True)


def _timed() -> Callable[[str], None]:
    """Return a ``say`` that puts the seconds since now before each line."""
    began = time.monotonic()
    return lambda text: _say(f"{time.monotonic() - began:5.1f} s  {text}")
