"""How a command ends: every exception becomes a sentence, a hint and an exit status.

::

    error: no agent listens on /run/covey/covey.sock
    hint: start one with `covey run`, or name its directory with --dir or COVEY_DIR

A file, a directory or a socket that refuses is nobody's bug: it is named, with what it said. What
nobody foresaw keeps its stack trace: hiding it would only make the report worse.
"""

import os
import sys
from pathlib import Path
from types import TracebackType

import click

from agent import exits
from agent.cli.copyable import here
from agent.exits import AgentError
from agent.text.escaping import one_line
from edge_apps.client import AgentForbidden, AgentTimedOut, ApiError, ClientError
from gossip.core.errors import CoveyError

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
    "unset": "facts unset",
    "watch": "kv watch",
}
"""What stands below a noun, and is asked for without it."""

ALSO_CALLED = {
    "add": "put", "append": "put", "del": "delete", "ls": "list", "logs": "log", "read": "get",
    "remove": "delete", "rm": "delete", "set": "put", "show": "list", "write": "put",
}  # fmt: skip
"""What other programs call it, in a group that has the one and not the other."""

IN_WORDS = {
    "covey help": "`covey --help` lists the commands",
    "covey list": "`covey members` lists who is there; `covey --help` lists the commands",
    "covey ls": "`covey members` lists who is there; `covey --help` lists the commands",
    "covey logs": "the agent writes to its terminal or to the journal (`journalctl -u covey`); "
    "`covey app log` has what an app printed",
    "covey start": "`covey run` starts the agent, `covey app start` an app",
    "covey stop": "Ctrl-C or `systemctl stop covey` stops the agent, `covey app stop` an app",
    "covey up": "`covey run` starts the agent",
    "covey down": "Ctrl-C or `systemctl stop covey` stops the agent",
    "covey version": "`covey --version` tells it",
    "covey app restart": "`covey app stop` and then `covey app start` do that",
}
"""What a newcomer types, and no single command does."""


def run_to_status(command: click.Command, arguments: list[str] | None = None) -> int:
    """Run a command; return its exit status after saying what went wrong, if anything did."""
    try:
        result = command.main(arguments, prog_name="covey", standalone_mode=False)
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001 - what nobody foresaw is raised again
        return status_of(error)
    # Without standalone mode, click returns the code that ctx.exit() was given.
    return result if isinstance(result, int) else exits.YES


def status_of(error: BaseException) -> int:
    """Say what went wrong and return the exit status for it. Raises what nobody foresaw."""
    try:
        raise error
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
        return _report(_small(error.message), _command_hint(error), exits.USAGE)
    except click.exceptions.NoSuchOption as error:
        return _report(_small(error.message), _option_hint(error), exits.USAGE)
    except click.UsageError as error:
        from agent.cli.api_words import plain

        return _report(plain(error.format_message()), _usage_hint(error), exits.USAGE)
    except click.ClickException as error:
        return _report(error.format_message(), "", error.exit_code)
    except CoveyError as error:
        from agent.cli.api_words import spelled

        return _report(spelled(str(error)), spelled(hint_of(error)), _status(error))
    except OSError as error:
        return _report(_said(error), _advice(error), _status_of_system(error))


def _status(error: CoveyError) -> int:
    if isinstance(error, AgentError):
        return error.status
    if isinstance(error, ApiError):
        return exits.STATUSES.get(error.code, exits.NO)
    if isinstance(error, AgentTimedOut):
        return exits.TIMED_OUT
    if isinstance(error, AgentForbidden):
        return exits.NOT_PERMITTED
    return exits.UNREACHABLE if isinstance(error, ClientError) else exits.NO


def _command_hint(error: click.exceptions.NoSuchCommand) -> str:
    """Name the command that was probably meant: a close name, or one that stands below a noun."""
    from agent.text.suggestions import closest

    assert error.ctx is not None, "a group found it missing"
    group = error.ctx.command
    assert isinstance(group, click.Group), "only a group has commands"
    path, typed, known = error.ctx.command_path, error.command_name, group.list_commands(error.ctx)
    if words := IN_WORDS.get(f"{path} {typed}"):
        return words
    meant = VERBS.get(typed) if group.name == "root" else None
    meant = meant or next((name for name in known if name == ALSO_CALLED.get(typed)), None)
    meant = meant or closest(typed, known)
    return f"did you mean `{path} {meant}`?" if meant else _usage_hint(error)


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


def hint_of(error: CoveyError) -> str:
    """Return what to do; for who may not use an agent that a group may, how to join the group."""
    if isinstance(error, AgentForbidden) and (group := _group_of(error.socket_path.parent)):
        return (
            f"become one of the group that may: `sudo usermod -aG {group} {_user()}`, and log in "
            "again; until then put `sudo` before the command"
        )
    return str(getattr(error, "hint", ""))


def _group_of(directory: Path) -> str:
    """Return the name of the group that may enter a directory; empty if there is none to join."""
    import grp
    import stat

    try:
        status = directory.stat()
        may_enter = status.st_gid and status.st_mode & stat.S_IXGRP
        return grp.getgrgid(status.st_gid).gr_name if may_enter else ""
    except (OSError, KeyError):
        return ""


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return "USER"


def _said(error: OSError) -> str:
    """Return what the system said, and of which file."""
    where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
    return where + (error.strerror or str(error) or type(error).__name__)


def _advice(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "run as a user who may, or name another place"
    if isinstance(error, FileNotFoundError):
        return "check the name, and that its directory is still there"
    return ""


def _status_of_system(error: OSError) -> int:
    return exits.NOT_PERMITTED if isinstance(error, PermissionError) else exits.NO


def _report(message: str, hint: str, status: int) -> int:
    told = click.style("error: ", fg="red") + one_line(message)
    click.echo(told, err=True, color=colour_wish())
    if hint:
        advice = click.style("hint: ", fg="cyan") + one_line(here(hint))
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
