"""What the global options say, and what every command needs: the paths, the client, a voice."""

from functools import cached_property
from pathlib import Path

import click

from agent.cli.copyable import here
from agent.config.paths import Paths, may_be_there, service_is_installed
from agent.text.escaping import one_line
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

    @property
    def agent_paths(self) -> Paths:
        """Where the files of the agent are that is spoken to: this user's, or the service's.

        A user who has no agent, and has named none, means the one that runs as a service.
        """
        own, service = self.paths, Paths.of_service()
        if not self.means_any or may_be_there(own.socket):
            return own
        means_service = service_is_installed() and not may_be_there(own.identity)
        return service if means_service or may_be_there(service.socket) else own

    @property
    def means_service(self) -> bool:
        """Say whether the agent that is spoken to is a service of this machine."""
        return service_is_installed() and self.agent_paths == Paths.of_service()

    def client(self) -> Client:
        """Return a client of the agent, that shows when it waits; nothing is connected yet."""
        from agent.cli.patient_client import PatientClient

        return PatientClient(self.agent_paths, quiet=self.quiet)

    def quiet_client(self) -> Client:
        """Return a client that waits for an agent, and leaves it to others to show so."""
        from agent.cli.patient_client import PatientClient

        return PatientClient(self.agent_paths, quiet=True)

    def hasty_client(self) -> Client:
        """Return a client that neither waits for an agent nor shows anything."""
        return Client(self.agent_paths.socket)

    @property
    def means_any(self) -> bool:
        """Say whether neither option nor variable names an agent."""
        return self.directory is None and not Paths.is_chosen()

    def say(self, text: str) -> None:
        """Tell the person something that is not the result."""
        if not self.quiet:
            click.echo(one_line(here(text)), err=True)


pass_session = click.make_pass_decorator(Session, ensure=True)
