"""A command that somebody is told can be copied: it acts on the agent that was spoken to."""

import ast
import doctest
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

from agent import exits
from agent.cli import copyable as told
from agent.cli.copyable import here, spoke_to
from agent.cli.errors import run_to_status
from agent.cli.root import root
from tests.support.fake_agent import Served, serving
from tests.support.sources import nodes

ROOT = Path(__file__).resolve().parents[4]
COMMAND = re.compile(r"`covey [a-z]")

FOR_ELSEWHERE = {
    "`covey join` there",
    "`covey keys rotate --authority --force` on a node that lets others in",
    "`covey keys rotate --authority`): make a new one on a member, with `covey token create`",
    "Make a new one on a member, with `covey token create`",
    "`covey join{} TOKEN`, and `covey run` where no agent runs yet",
    "`covey keys rotate --authority`: restore a newer backup",
    "`covey members allow {}`",
    "on {}, type `covey members remove {}` there",
    (
        "{} keeps its name and its share of the keys: {}, which lets others in, was not reached. "
        "On {}: type `covey members remove {}` there."
    ),
    (
        "Switch it off and wait until it counts as dead, or take it out: `covey members remove {}` "
        "on a member that lets others in."
    ),
    "See `covey voters` on a member.",
    "`covey members` on a member",
    "`covey recover` on the node where it shall go on",
    "`covey recover` shows where it is; recover there",
    "there: `covey recover --from-this-node`",
    "`covey registry mend` there",
    "`covey registry mend` where it is signed",
    "`covey token create` printed",
    "`covey token create` prints on a member",
    "`covey token create` where this one was made",
    "`covey token create` works there",
}
"""What is for another device, and stays as it is."""

NEVER_HERE = re.compile(r"`covey (service|demo|[a-z ]*--help)|`covey {}` failed")


@pytest.fixture(autouse=True)
def _nowhere() -> Iterator[None]:
    yield
    spoke_to(None)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as running:
        yield running


@cache
def texts() -> tuple[str, ...]:
    """Return all texts of ours that name a command, with {} for what is filled in."""
    paths = (
        path
        for folder in ("agent", "edge_apps", "gossip")
        for path in ROOT.glob(f"{folder}/**/*.py")
    )
    return tuple(
        text
        for path in sorted(paths)
        if "`covey" in path.read_text()
        for text in _texts_of(nodes(path))
    )


def _texts_of(found: Iterable[ast.AST]) -> Iterator[str]:
    skipped = {
        id(part)
        for node in found
        for part in (
            node.values
            if isinstance(node, ast.JoinedStr)
            else [node.value]
            if isinstance(node, ast.Expr)
            else []
        )
    }
    for node in found:
        text = _text_of(node)
        if id(node) not in skipped and COMMAND.search(text):
            yield text


def _text_of(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    parts = node.values if isinstance(node, ast.JoinedStr) else []
    return "".join(_text_of(part) if isinstance(part, ast.Constant) else "{}" for part in parts)


def test_the_example_in_the_docstring() -> None:
    assert doctest.testmod(told).attempted > 0
    assert doctest.testmod(told).failed == 0


def test_each_command_of_a_text_is_for_here_unless_it_is_listed() -> None:
    spoke_to(Path("/somewhere else"))
    left = set()
    for text in texts():
        for found in COMMAND.finditer(here(text)):
            rest = here(text)[found.start() :]
            if not NEVER_HERE.match(rest):
                left.add(next((each for each in FOR_ELSEWHERE if each in here(text)), text))
    assert left == FOR_ELSEWHERE
    assert len(texts()) > len(FOR_ELSEWHERE) * 2


def test_nothing_is_added_where_no_directory_was_given() -> None:
    assert all(here(text) == text for text in texts())


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["memebrs"], "did you mean `{} members`?"),
        (["members", "show", "nobody"], "`{} members` lists them"),
        (["members", "show", "--x"], "`covey members show --help` explains it"),
    ],
)
def test_hints_name_the_directory_that_was_given(
    served: Served, capsys: pytest.CaptureFixture[str], arguments: list[str], hint: str
) -> None:
    directory = str(served.paths.data.parent)
    run_to_status(root, ["--dir", directory, *arguments])
    assert hint.format(f"covey --dir {directory}") in capsys.readouterr().err


def test_who_has_no_agent_is_told_how_to_start_this_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "my agent"
    directory.mkdir()
    assert run_to_status(root, ["--dir", str(directory), "members"]) == exits.UNREACHABLE
    assert f"start one with `covey --dir '{directory}' run`" in capsys.readouterr().err
    run_to_status(root, ["--dir", str(directory), "doctor"])
    assert f"`covey --dir '{directory}' init`" in capsys.readouterr().out
