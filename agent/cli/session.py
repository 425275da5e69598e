"""What the global options say, and what every command needs: the paths, the client, a voice."""

from pathlib import Path

import click

from agent.escaping import one_line
from agent.paths import Paths
from edge_apps.client import Client


class Session:
    """One call of ``covey``."""

    def __init__(
        self, directory: Path | None = None, *, verbose: bool = False, quiet: bool = False
    ) -> None:
        self.verbose = verbose
        self.quiet = quiet
        self.directory = directory
        self.paths = Paths.find(directory)

    def client(self) -> Client:
        """Return a client of the agent; nothing is connected yet."""
        return Client(self.paths.socket)

    def say(self, text: str) -> None:
        """Tell the person something that is not the result."""
        if not self.quiet:
            click.echo(one_line(text), err=True)


pass_session = click.make_pass_decorator(Session, ensure=True)
