"""``covey app new`` and ``covey app try``: writing an app, before any agent runs it.

An app is tried with the interpreter and in the environment in which the agent would run it,
wherever Covey was installed to; its readings are shown and not kept.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from agent import exits
from agent.cli.output import (
    complain,
    is_terminal,
    output_option,
    wide_option,
    write_json_line,
    write_line,
    write_row,
)
from agent.cli.param_types import OPTION
from agent.cli.session import Session, pass_session
from agent.exits import AgentError

HEADER = ("SENSOR", "VALUE", "UNIT", "TAGS")
WIDTHS = (32, 12, 6, 0)
NOTHING_SAID = {"unit": "", "tags": {}}
READ = {0: "It published no reading.", 1: "1 reading."}
NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
"""What can be a module's name as well as an app's."""
TEMPLATE = '''"""Says how busy this machine is; put your own sensor in the place of it."""

from pathlib import Path

from edge_apps import App, Context

app = App("{name}")


@app.every("10s")
def sample(context: Context) -> None:
    """Publish one reading. `context.options` is [apps.{name}.options] of covey.toml."""
    load = float(Path("/proc/loadavg").read_text().split()[0])
    context.publish("{name}/load", load, tags={{"over": "1m"}})
'''


@click.command()
@click.argument("name")
@pass_session
def new(session: Session, name: str) -> None:
    """Write an app called NAME, as NAME.py in this directory."""
    from edge_apps.loader import available

    if not NAME.fullmatch(name):
        raise click.UsageError(
            f"{name!r} cannot be the name of an app; use letters, digits and '_', such as my_sensor"
        )
    if name in available():
        raise AgentError(
            f"an app called {name!r} comes with Covey; nothing was written", "choose another name"
        )
    from agent.doctor.config_checks import is_hidden

    file = Path(f"{name}.py").absolute()
    try:
        with file.open("x", encoding="utf-8") as written:
            written.write(TEMPLATE.format(name=name))
    except FileExistsError:
        message = f"{file} is there already; it was left as it is"
        raise AgentError(message, "choose another name") from None
    except OSError as error:
        message, hint = f"cannot write {file}: {error.strerror}", "go to a directory of yours"
        raise AgentError(message, hint, exits.NOT_PERMITTED) from None
    write_line(str(file))
    session.say(f"Try it: `covey app try {file.name}`. For the agent to run it,")
    place = file
    if session.means_service and is_hidden(file):
        place = session.agent_paths.config_file.with_name(file.name)
        session.say(f"copy it to where the service sees it, `sudo cp {file.name} {place}`,")
    session.say(f"add to {session.agent_paths.config_file}, and restart the agent:")
    session.say(f"    [apps.{name}]")
    session.say(f"    path = {json.dumps(str(place), ensure_ascii=False)}")


@click.command("try")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--option",
    "given",
    type=OPTION,
    multiple=True,
    help="NAME=VALUE for the app, as in its table of the configuration; several times.",
)
@click.option("--follow", "-f", is_flag=True, help="Go on at its own pace, until Ctrl-C.")
@output_option
@wide_option
@pass_session
def try_(
    session: Session,
    file: Path,
    given: tuple[tuple[str, str], ...],
    output: str,
    *,
    follow: bool,
    wide: bool,
) -> None:
    """Run the app in FILE once, here and without an agent, and show its readings.

    Nothing is published: readings go to stdout, shared keys live in memory. Options are those of
    its table in the configuration, if it has one, and those given here.
    """
    options = {**_configured(session, file), **_typed(given), "path": str(file.absolute())}
    if output != "json" and is_terminal():
        write_row(HEADER, WIDTHS)
    count = 0
    status = 0
    with closing(_readings(file, options, follow=follow)) as readings:
        for reading in readings:
            if isinstance(reading, int):
                status = reading
                continue
            count += 1
            if output == "json":
                write_json_line(reading)
            else:
                cells = (reading["sensor"], reading["value"], reading["unit"], reading["tags"])
                write_row(cells, WIDTHS, wide=wide)
    if status:
        raise AgentError(f"{file} failed; what it said is above", "correct it, and try again")
    session.say(READ.get(count, f"{count} readings."))


def _configured(session: Session, file: Path) -> Mapping[str, Any]:
    """Return the options of the app whose file this is; none if the configuration has no such."""
    from agent.config.loader import load
    from edge_apps.homes import expanded

    for app in load(session.agent_paths).apps.values():
        if app.path and expanded(app.path) == file.absolute():
            return app.told()
    return {}


def _typed(given: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """Return options with the types that they would have in the file."""
    from agent.config.loader import literal

    return {name: literal(text) for name, text in given}


def _readings(
    file: Path, options: Mapping[str, Any], *, follow: bool
) -> Generator[dict[str, Any] | int]:
    """Run the app; yield each reading, and last the exit status. What else it says is told.

    Whoever stops asking ends the app: it may not say anything for an hour, and be waited for.
    """
    environment = {name: os.environ[name] for name in os.environ if not name.startswith("COVEY_")}
    words = [sys.executable, "-P", "-m", "edge_apps", file.stem, "--print"]
    words += [] if follow else ["--once"]
    # Not as a word of the command: everybody on the machine can read those, and there are secrets.
    told = {"COVEY_APP_OPTIONS": json.dumps(options, default=str), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(  # noqa: S603  the app that the user named
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**environment, **told},
    ) as process:
        assert process.stdout is not None, "stdout is a pipe"
        try:
            for line in process.stdout:
                text = line.decode(errors="replace").rstrip("\n")
                reading = _reading(text)
                if reading is None:
                    complain(text)
                else:
                    yield reading
        except BaseException:
            process.terminate()
            raise
    yield process.returncode


def _reading(line: str) -> dict[str, Any] | None:
    """Return the reading on a line; None for whatever else an app prints."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    if not isinstance(value, dict) or not {"sensor", "value", "time_ns"} <= value.keys():
        return None
    return {**NOTHING_SAID, **value}
