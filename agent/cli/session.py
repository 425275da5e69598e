"""What the global options say, and what every command needs: the paths, the client, a voice."""

from functools import cached_property
from pathlib import Path

import click

from agent.escaping import one_line
from agent.paths import SYSTEM_SOCKET, Paths, may_be_there, service_is_installed
from edge_apps.client import Client


class Session:
    """One call of ``covey``."""

    def __init__(
        self, directory: Path | None = None, *, verbose: bool = False, quiet: bool = False
    ) -> None:
        self.verbose = verbose
        self.quiet = quiet
        self.directory = directory

    @cached_property
    def paths(self) -> Paths:
        """Where the files of this user's agent are. Raises AgentError when nothing says where."""
        return Paths.find(self.directory)

    def client(self) -> Client:
        """Return a client of the agent, that shows when it waits; nothing is connected yet."""
        from agent.cli.patience import PatientClient

        return PatientClient(self._socket(), self.paths, quiet=self.quiet)

    def hasty_client(self) -> Client:
        """Return a client that neither waits for an agent nor shows anything."""
        return Client(self._socket())

    def _socket(self) -> Path:
        """Return the agent's socket.

        A user who has no agent, and has named none, means the one that runs as a service.
        """
        own = self.paths.socket
        if not self.means_any or may_be_there(own):
            return own
        has_agent = may_be_there(self.paths.identity)
        means_service = not has_agent and service_is_installed()
        return SYSTEM_SOCKET if means_service or may_be_there(SYSTEM_SOCKET) else own

    @property
    def means_any(self) -> bool:
        """Say whether neither option nor variable names an agent."""
        return self.directory is None and not Paths.is_chosen()

    def say(self, text: str) -> None:
        """Tell the person something that is not the result."""
        if not self.quiet:
            click.echo(one_line(text), err=True)


pass_session = click.make_pass_decorator(Session, ensure=True)
