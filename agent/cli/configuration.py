"""``covey config``: what the agent would be told if it started now."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.output import output_option, wide_option, write_json, write_line, write_table
from agent.cli.session import Session, pass_session
from agent.exits import BAD_CONFIG, AgentError

if TYPE_CHECKING:
    from agent.config import Config

FILE_SUFFIX = "_file"
# Made by the agent when it is missing.
MADE_WHEN_MISSING = "api.token_file"


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
    from agent.config import load

    loaded = load(session.paths)
    if output == "json":
        write_json(
            {
                "file": str(session.paths.config_file),
                "settings": [
                    {"setting": name, "value": value, "origin": loaded.origin(name)}
                    for name, value in loaded.values().items()
                ],
            }
        )
    elif origin:
        rows = [(name, value, loaded.origin(name)) for name, value in loaded.values().items()]
        write_table(("SETTING", "VALUE", "ORIGIN"), rows, wide=wide)
    else:
        write_table(("SETTING", "VALUE"), list(loaded.values().items()), wide=wide)


@config.command()
@pass_session
def check(session: Session) -> None:
    """Check the configuration, and that the files it names are there."""
    from agent.config import load

    loaded = load(session.paths)
    _check_files(loaded)
    exists = session.paths.config_file.exists()
    kind = "is good" if exists else "does not exist: all settings have their defaults"
    write_line(f"{session.paths.config_file} {kind}")


def _check_files(loaded: "Config") -> None:
    for name, value in loaded.values().items():
        if not name.endswith(FILE_SUFFIX) or not value or name == MADE_WHEN_MISSING:
            continue
        try:
            with Path(value).open("rb"):
                pass
        except OSError as error:
            raise AgentError(
                f"{loaded.origin(name)}: {name}: cannot read {value}: {error.strerror}",
                "correct the path, or the rights of the file",
                BAD_CONFIG,
            ) from None
