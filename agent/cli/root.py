"""The root of the command line: the names of all commands, and nothing of what they import.

The pattern is the lazy group of click's documentation, with one addition: the one-line helps
stand in the table too, so that ``covey --help`` has to load no command at all.
"""

from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import click

from agent.cli.copyable import spoke_to
from agent.cli.errors import colour_wish
from agent.cli.session import Session


class CommandEntry(NamedTuple):
    """Where a command is defined, and its help in one line."""

    module: str
    attribute: str
    help: str


# In the order in which a newcomer meets them.
COMMANDS: dict[str, CommandEntry] = {
    "demo": CommandEntry(
        "agent.cli.demo.command", "demo", "Watch agents form a covey on this machine."
    ),
    "simulate": CommandEntry("agent.cli.simulate", "simulate", "Simulate a covey of any size."),
    "init": CommandEntry(
        "agent.cli.membership", "init", "Found a covey with this node as its first."
    ),
    "token": CommandEntry(
        "agent.cli.tokens", "token", "Let other nodes in: make, list and revoke join tokens."
    ),
    "join": CommandEntry("agent.cli.membership", "join", "Make this node part of a covey."),
    "access": CommandEntry(
        "agent.cli.access", "access", "Give people and programs access to the HTTP API."
    ),
    "audit": CommandEntry("agent.cli.audit", "audit", "Show what was changed, and by whom."),
    "run": CommandEntry("agent.cli.run", "run", "Run the agent in the foreground."),
    "sleep": CommandEntry(
        "agent.cli.sleep", "sleep", "Tell the others that this node will be silent."
    ),
    "wake": CommandEntry("agent.cli.sleep", "wake", "Tell the others that this node is awake."),
    "leave": CommandEntry("agent.cli.membership", "leave", "Take this node out of its covey."),
    "status": CommandEntry("agent.cli.status", "status", "Show how the agent is."),
    "members": CommandEntry("agent.cli.members", "members", "Show who is there."),
    "registry": CommandEntry("agent.cli.registry", "registry", "Show the registry of this node."),
    "facts": CommandEntry(
        "agent.cli.facts", "facts", "Show and set what nodes tell about themselves."
    ),
    "rtt": CommandEntry("agent.cli.rtt", "rtt", "Show the round trip between members."),
    "doctor": CommandEntry(
        "agent.cli.doctor", "doctor", "Say what is wrong, and what to do about it."
    ),
    "keys": CommandEntry(
        "agent.cli.keys", "keys", "Show and replace the keys that seal datagrams."
    ),
    "kv": CommandEntry("agent.cli.kv", "kv", "Read and write the covey's shared keys."),
    "file": CommandEntry(
        "agent.cli.files", "file", "Put files on several devices, and get them back."
    ),
    "txn": CommandEntry(
        "agent.cli.txn", "txn", "Compare keys of the control plane, and change them together."
    ),
    "lock": CommandEntry("agent.cli.lock", "lock", "Run a command while this device holds a lock."),
    "barrier": CommandEntry(
        "agent.cli.barrier", "barrier", "Begin something together with other devices."
    ),
    "session": CommandEntry(
        "agent.cli.sessions", "sessions", "Show and end the sessions of locks and barriers."
    ),
    "watch": CommandEntry(
        "agent.cli.watch", "watch", "Show changes of keys, locks and barriers as they come."
    ),
    "elect": CommandEntry("agent.cli.lock", "elect", "Stand for election, or show who leads."),
    "voters": CommandEntry(
        "agent.cli.voters", "voters", "Show who decides for the covey, and who leads."
    ),
    "node": CommandEntry("agent.cli.node", "node", "Set a node's zone and capacity, or drain it."),
    "recover": CommandEntry(
        "agent.cli.recovery", "recover", "Show which copies there are; go on with one of them."
    ),
    "backup": CommandEntry(
        "agent.cli.backup",
        "backup",
        "Save the whole covey to a file while it runs, and put it back.",
    ),
    "salvage": CommandEntry(
        "agent.cli.salvage", "salvage", "Write the shared keys that a node's files hold to stdout."
    ),
    "snapshot": CommandEntry(
        "agent.cli.snapshot", "snapshot", "Save what is agreed on to a file, and go on from it."
    ),
    "ring": CommandEntry("agent.cli.ring", "ring", "Show which nodes own which keys."),
    "publish": CommandEntry(
        "agent.cli.publish", "publish", "Hand readings to the agent for delivery."
    ),
    "readings": CommandEntry(
        "agent.cli.readings", "readings", "Show readings that the agent accepted."
    ),
    "outbox": CommandEntry("agent.cli.readings", "outbox", "Show what waits for the broker."),
    "uplink": CommandEntry(
        "agent.cli.uplink", "uplink", "Show and test the connection to the broker."
    ),
    "event": CommandEntry("agent.cli.events", "event", "Send events to all members."),
    "events": CommandEntry("agent.cli.events", "events", "Show events that arrived here."),
    "query": CommandEntry(
        "agent.cli.query", "query", "Ask members something, and show their answers."
    ),
    "db": CommandEntry("agent.cli.db", "db", "Look into this node's databases with SQL."),
    "app": CommandEntry("agent.cli.apps", "app", "Run, stop and watch the agent's apps."),
    "service": CommandEntry(
        "agent.cli.service", "service", "Run the agent as a service of this machine."
    ),
    "config": CommandEntry(
        "agent.cli.config", "config", "Show and check the configuration; set it for the fleet."
    ),
    "completion": CommandEntry(
        "agent.cli.completion", "completion", "Print a shell's completion script."
    ),
}


class LazyGroup(click.Group):
    """A group that imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return a command."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = getattr(import_module(entry.module), entry.attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of commands from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])


def _note_directory(
    _ctx: click.Context, _option: click.Parameter, directory: Path | None
) -> Path | None:
    """Know it before any command is looked up: what is mistyped is answered with a command."""
    spoke_to(directory)
    return directory


def _print_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:  # noqa: FBT001
    """Print the versions that a bug report needs."""
    if not wanted or ctx.resilient_parsing:
        return
    import platform
    import sqlite3

    from agent._version import __version__
    from gossip.core.envelope import MAGIC_AND_VERSION

    click.echo(
        f"covey {__version__}, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}, wire protocol {MAGIC_AND_VERSION & 0x0F}"
    )
    ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, readable=False, path_type=Path),
    metavar="PATH",
    is_eager=True,
    callback=_note_directory,
    help="Keep all of this agent, configuration, data and socket, under PATH (or COVEY_DIR).",
)
@click.option("-v", "--verbose", is_flag=True, help="Say more, on stderr.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing on stderr but errors.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the versions of Covey, Python, SQLite and the wire protocol.",
)
@click.pass_context
def root(ctx: click.Context, directory: Path | None, *, verbose: bool, quiet: bool) -> None:
    """Covey turns devices on a flaky network into one system.

    Start here: `covey demo`, or `make demo` in a clone, shows it on this machine. For real:
    `covey init` on the first device, `covey run`, `covey token create`, and `covey join TOKEN` on
    the others.
    """
    if verbose and quiet:
        raise click.UsageError("--verbose and --quiet contradict each other")
    ctx.color = colour_wish()
    ctx.obj = Session(directory, verbose=verbose, quiet=quiet)
