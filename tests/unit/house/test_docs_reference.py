"""The reference pages against the code: each command, option, setting, route and metric."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest

from agent.api.route_rights import RIGHTS
from agent.api.routes import ROOMS, ROUTES, handlers_in
from agent.cli.root import COMMANDS, root
from agent.config.settings import SECTIONS, AppSettings, Section
from agent.exits import MEANINGS
from agent.metrics import FAMILIES

ROOT = Path(__file__).resolve().parents[3]
CLI = (ROOT / "docs" / "cli.md").read_text()
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()
API = (ROOT / "docs" / "api.md").read_text()

COUNTED = re.compile(r'counts\[\s*f?"([a-z_]+)/')
KEY = re.compile(r'"([a-z_]+)/[a-z_{"]')


def sections(page: str, level: str) -> dict[str, str]:
    """Return the text below each heading of a level, up to the next heading of it or above."""
    found: dict[str, str] = {}
    title = ""
    for line in page.splitlines():
        if line.startswith("#") and len(line.split(" ")[0]) <= len(level):
            title = line.removeprefix(level).strip() if line.startswith(f"{level} ") else ""
        elif title:
            found[title] = found.get(title, "") + line + "\n"
    return found


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        ctx = click.Context(command, info_name=path)
        for name in command.list_commands(ctx):
            below = command.get_command(ctx, name)
            assert below is not None
            yield from commands(below, f"{path} {name}")


EVERY_COMMAND = dict(commands(root, "covey"))
DOCUMENTED = {
    re.sub(r" (\[?[A-Z].*)$", "", heading.strip("`")): text
    for heading, text in sections(CLI, "###").items()
}


def test_each_command_has_its_place() -> None:
    assert set(DOCUMENTED) == set(EVERY_COMMAND) - {"covey"}


@pytest.mark.parametrize("path", [path for path in EVERY_COMMAND if path != "covey"])
def test_each_option_is_explained_and_none_invented(path: str) -> None:
    options = [each for each in EVERY_COMMAND[path].params if isinstance(each, click.Option)]
    flags = {flag for option in options for flag in option.opts} - {"--help", "-h"}
    rows = re.findall(r"^\| (`-[^|]*) \|", DOCUMENTED[path], flags=re.MULTILINE)
    told = {word for row in rows for word in re.findall(r"`(-[-\w]+)", row)}
    assert told == flags


def test_global_options() -> None:
    flags = {flag for option in root.params for flag in option.opts}
    assert not [flag for flag in flags if f"`{flag}" not in CLI]


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "demo"])
def test_the_table_of_commands_says_what_the_command_says(name: str) -> None:
    help_text = (EVERY_COMMAND[f"covey {name}"].help or "").split("\n\n")[0]
    words = " ".join(help_text.split()).lower().rstrip(".")
    told = COMMANDS[name].help.lower().rstrip(".")
    assert words.startswith(told[:13]), "covey --help and the command disagree"


def test_exit_statuses() -> None:
    rows = re.findall(r"^\| (\d+) \| `([\w-]+)` \| (.+) \|$", CLI, flags=re.MULTILINE)
    assert {int(status): (word, text) for status, word, text in rows} == MEANINGS


@pytest.mark.parametrize(("name", "kind"), [*SECTIONS.items(), ("apps.NAME", AppSettings)])
def test_each_setting_with_its_default(name: str, kind: type[Section]) -> None:
    text = sections(CONFIGURATION, "##")[f"[{name}]"]
    rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \|", text, flags=re.MULTILINE)
    told = {key: tomllib.loads(f"value = {default}")["value"] for key, default in rows}
    defaults = msgspec.to_builtins(kind())
    assert told == defaults


def test_the_example_is_a_configuration() -> None:
    [example] = re.findall(r"```toml\n(.*?)```", CONFIGURATION, flags=re.DOTALL)
    for name, table in tomllib.loads(example).items():
        if name != "apps":
            msgspec.convert(table, SECTIONS[name])


def test_each_route_has_its_place() -> None:
    routes = {f"{method} {path.replace(':key}', '}')}" for method, path in ROUTES}
    assert {heading.strip("`") for heading in sections(API, "###")} == routes


def test_each_route_stands_in_the_table_of_rights_once_and_no_other() -> None:
    assert len(ROUTES) == len(set(ROUTES))
    assert set(RIGHTS) == set(ROUTES)


def test_the_table_of_routes_has_what_the_files_have() -> None:
    files = {
        path.stem
        for path in (ROOT / "agent/api").glob("*.py")
        if re.search(r"^ROUTES = ", path.read_text(), re.MULTILINE)
    }
    assert files - {"routes"} == {room.file for room in ROOMS}
    for room in ROOMS:
        assert list(handlers_in(room.module)) == room.routes, room.file


def _counting_code() -> str:
    files = [path for folder in ("gossip", "agent") for path in (ROOT / folder).rglob("*.py")]
    counting = [path for path in files if "sim" not in path.parts and path.name != "metrics.py"]
    return "\n".join(path.read_text() for path in counting)


def test_each_family_of_counters_is_named() -> None:
    code = _counting_code()
    assert set(COUNTED.findall(code)) <= set(FAMILIES), "add it to agent/metrics.py"
    assert set(FAMILIES) <= set(KEY.findall(code)), "nobody counts it any more"


def test_each_metric_is_documented() -> None:
    rows = dict(re.findall(r"^\| `covey_(\w+)` \| (.+) \|$", API, flags=re.MULTILINE))
    gauges = set(re.findall(r'\bgauge\(\s*"(\w+)"', _counting_code()))
    counters = {f"{family}_total": text for family, text in FAMILIES.items()}
    assert {name: text for name, text in rows.items() if name.endswith("_total")} == counters
    assert {name for name in rows if not name.endswith("_total")} == gauges


def _doctors_checks() -> set[str]:
    """Return the ids that the doctor's code gives to its findings."""
    calls = (
        node
        for path in (ROOT / "agent" / "doctor").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    )
    return {
        str(call.args[0].value)
        for call in calls
        if call.func.id in ("ok", "warn", "fail", "Finding")  # type: ignore[attr-defined]
        and call.args
        and isinstance(call.args[0], ast.Constant)
    }


def test_each_check_of_the_doctor_is_in_its_table() -> None:
    ids = re.findall(r"`([a-z-]+)`", "".join(re.findall(r"^\| `[^|]*\|", CLI, re.MULTILINE)))
    assert len(_doctors_checks()) > 30
    assert _doctors_checks() <= set(ids)
