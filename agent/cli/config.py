"""``covey config``: what the agent would be told if it started now."""

import click

from agent.cli.output import (
    complain,
    output_option,
    wide_option,
    write_json,
    write_line,
    write_table,
)
from agent.cli.restart import unapplied
from agent.cli.session import Session, pass_session
from agent.exits import BAD_CONFIG, AgentError


@click.group()
def config() -> None:
    """Show and check the configuration."""


@config.command()
@click.option("--origin", is_flag=True, help="Say where each value was set.")
@output_option
@wide_option
@pass_session
def show(session: Session, *, origin: bool, output: str, wide: bool) -> None:
    """Show every setting, as the file and the environment set it now."""
    from agent.config.loader import load

    loaded = load(session.agent_paths)
    if output == "json":
        write_json(
            {
                "file": str(session.agent_paths.config_file),
                "settings": [
                    {"setting": name, "value": value, "origin": loaded.origin(name)}
                    for name, value in loaded.shown().items()
                ],
            }
        )
    elif origin:
        rows = [(name, value, loaded.origin(name)) for name, value in loaded.shown().items()]
        write_table(("SETTING", "VALUE", "ORIGIN"), rows, wide=wide)
    else:
        write_table(("SETTING", "VALUE"), list(loaded.shown().items()), wide=wide)
    if pending := unapplied(session):
        session.say(f"The configuration was {pending}.")


@config.command()
@pass_session
def check(session: Session) -> None:
    """Check the configuration, and that the files, commands and apps it names are there."""
    import os

    from agent.config.loader import Unusable, load
    from agent.doctor.config_checks import Problem, in_few_words, problems

    try:
        loaded = load(session.agent_paths)
        found = list(problems(loaded, os.environ, of_service=session.means_service))
    except Unusable as unusable:
        found = [Problem(fault.message, fault.hint) for fault in unusable.faults]
    for problem in found[:-1]:
        complain(f"{problem.message} ({problem.hint})")
    if found:
        more = f"{len(found)} things are wrong, at last " if len(found) > 1 else ""
        raise AgentError(more + found[-1].message, found[-1].hint, BAD_CONFIG)
    write_line(in_few_words(loaded, session.agent_paths))
