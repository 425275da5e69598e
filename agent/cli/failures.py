"""How a command ends: every exception becomes a sentence, a hint and an exit status.

::

    error: no agent listens on /run/covey/covey.sock
    hint: start one with `covey run`, or name its directory with --dir or COVEY_DIR

What nobody foresaw keeps its stack trace: hiding it would only make the report worse.
"""

import os
import sys
from types import TracebackType

import click

from agent import exits
from agent.escaping import one_line
from agent.exits import AgentError
from agent.paths import SYSTEM_SOCKET
from edge_apps.client import AgentTimedOut, AgentUnreachable, ApiError, ClientError
from gossip.errors import CoveyError

VERBS = {
    "check": "config check",
    "create": "token create",
    "delete": "kv delete",
    "get": "kv get",
    "log": "app log",
    "put": "kv put",
    "rotate": "keys rotate",
    "send": "event send",
    "set": "facts set",
    "start": "app start",
    "stop": "app stop",
    "unset": "facts unset",
    "watch": "kv watch",
}
"""What stands below a noun, and is asked for without it."""


def run_to_status(command: click.Command, arguments: list[str] | None = None) -> int:
    """Run a command; return its exit status after saying what went wrong, if anything did."""
    try:
        result = command.main(arguments, prog_name="covey", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except (click.Abort, KeyboardInterrupt):
        return exits.INTERRUPTED
    except BrokenPipeError:  # as click does for what is written before the last flush
        _forget_stdout()
        return exits.NO
    except click.exceptions.NoArgsIsHelpError as error:  # a command group named alone
        click.echo(error.format_message(), err=True)
        return exits.USAGE
    except click.exceptions.NoSuchCommand as error:
        return _tell(_small(error.message), _command_hint(error), exits.USAGE)
    except click.exceptions.NoSuchOption as error:
        return _tell(_small(error.message), _option_hint(error), exits.USAGE)
    except click.UsageError as error:
        return _tell(error.format_message(), _usage_hint(error), exits.USAGE)
    except click.ClickException as error:
        return _tell(error.format_message(), "", error.exit_code)
    except CoveyError as error:
        from agent.cli.spelling import spelled

        hint = getattr(error, "hint", "") + _service_hint(error)
        return _tell(spelled(str(error)), spelled(hint), _status(error))
    # Without standalone mode, click returns the code that ctx.exit() was given.
    return result if isinstance(result, int) else exits.YES


def _status(error: CoveyError) -> int:
    if isinstance(error, AgentError):
        return error.status
    if isinstance(error, ApiError):
        return exits.STATUSES.get(error.code, exits.NO)
    if isinstance(error, AgentTimedOut):
        return exits.TIMED_OUT
    return exits.UNREACHABLE if isinstance(error, ClientError) else exits.NO


def _command_hint(error: click.exceptions.NoSuchCommand) -> str:
    """Name the command that was probably meant: a close name, or one that stands below a noun."""
    from agent.suggesting import closest

    assert error.ctx is not None, "a group found it missing"
    group = error.ctx.command
    assert isinstance(group, click.Group), "only a group has commands"
    meant = VERBS.get(error.command_name) if group.name == "root" else None
    meant = meant or closest(error.command_name, group.list_commands(error.ctx))
    return f"did you mean `{error.ctx.command_path} {meant}`?" if meant else _usage_hint(error)


def _option_hint(error: click.exceptions.NoSuchOption) -> str:
    if not error.possibilities:
        return _usage_hint(error)
    return f"did you mean {' or '.join(f'`{each}`' for each in error.possibilities)}?"


def _small(text: str) -> str:
    """Return a sentence of click as the rest of one of ours."""
    return text[:1].lower() + text[1:].rstrip(".")


def _usage_hint(error: click.UsageError) -> str:
    path = error.ctx.command_path if error.ctx else "covey"
    return f"`{path} --help` explains it"


def _service_hint(error: CoveyError) -> str:
    """Point to the system's agent, which a user without rights would not find."""
    unreached = isinstance(error, AgentUnreachable) and not isinstance(error, AgentTimedOut)
    if unreached and os.geteuid() != 0 and SYSTEM_SOCKET.exists():
        return f"; an agent runs as a service on this machine ({SYSTEM_SOCKET}): try `sudo covey`"
    return ""


def _tell(message: str, hint: str, status: int) -> int:
    told = click.style("error: ", fg="red") + one_line(message)
    click.echo(told, err=True, color=colour_wish())
    if hint:
        advice = click.style("hint: ", fg="cyan") + one_line(hint)
        click.echo(advice, err=True, color=colour_wish())
    return status


def on_unforeseen(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Write the stack trace of what nobody foresaw, in which texts of others may stand."""
    import traceback

    text = "".join(traceback.format_exception(kind, error, trace)).rstrip("\n")
    click.echo("\n".join(map(one_line, text.split("\n"))), err=True)


def colour_wish() -> bool | None:
    """Return what NO_COLOR and FORCE_COLOR ask for; None leaves it to whether it is a terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    return True if os.environ.get("FORCE_COLOR") else None


def _forget_stdout() -> None:
    """Keep Python from writing the rest at exit, where it would complain a second time."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
