"""``covey app``: the programs that the agent runs."""

import click

from agent.cli.app_authoring import new, try_
from agent.cli.completion import app_names
from agent.cli.output import output_option, wide_option, write_json, write_line, write_table
from agent.cli.param_types import NAME
from agent.cli.session import Session, pass_session
from agent.cli.streaming import lines_of

name_argument = click.argument("name", type=NAME, shell_complete=app_names)


@click.group()
def app() -> None:
    """Run, stop and watch the agent's apps."""


@app.command("list")
@output_option
@wide_option
@pass_session
def list_(session: Session, output: str, *, wide: bool) -> None:
    """List the apps that the agent knows."""
    answer = session.client().get("/api/v1/apps")
    if output == "json":
        write_json(answer)
        return
    rows = [
        (one["name"], one["state"], one["desired"], one["pid"], one["restarts"], one["last_end"])
        for one in answer["apps"]
    ]
    write_table(("NAME", "STATE", "DESIRED", "PID", "RESTARTS", "LAST END"), rows, wide=wide)


@app.command()
@name_argument
@pass_session
def start(session: Session, name: str) -> None:
    """Run an app, now and after each start of the agent."""
    answer = session.client().post(f"/api/v1/apps/{name}/start")
    write_line(f"{name} is {answer['state']}")
    session.say(f"What it prints: `covey app log {name} --follow`.")


@app.command()
@name_argument
@pass_session
def stop(session: Session, name: str) -> None:
    """Stop an app, and leave it stopped when the agent starts again."""
    answer = session.client().post(f"/api/v1/apps/{name}/stop")
    write_line(f"{name} is {answer['state']}")


@app.command()
@name_argument
@click.option("--lines", "-n", type=click.IntRange(min=0), default=100, show_default=True)
@click.option("--follow", "-f", is_flag=True, help="Go on with what it prints, until Ctrl-C.")
@pass_session
def log(session: Session, name: str, lines: int, *, follow: bool) -> None:
    """Show what an app prints."""
    path = f"/api/v1/apps/{name}/log"
    if follow:
        for one in lines_of(session.client(), path, {"lines": lines, "follow": 1}):
            write_line(one["line"])
        return
    for text in session.client().get(path, lines=lines)["lines"]:
        write_line(text)


app.add_command(new)
app.add_command(try_)
