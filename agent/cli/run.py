"""``covey run``: the agent itself, in the foreground."""

import click

from agent.cli.session import Session, pass_session


@click.command()
@pass_session
def run(session: Session) -> None:
    """Run the agent in the foreground, until Ctrl-C or SIGTERM.

    The first signal lets it say goodbye; a second one stops it at once.
    """
    from agent.process import run_agent

    log_level = "debug" if session.verbose else "warning" if session.quiet else None
    run_agent(session.paths, log_level)
