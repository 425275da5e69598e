"""``covey simulate``: its words, its picture, and that it needs no agent."""

import json
import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from click import unstyle

from agent import exits
from agent.cli.errors import run_to_status
from agent.cli.plot import bars, svg
from agent.cli.progress import Progress
from agent.cli.root import root

CLI = Path(__file__).resolve().parents[4] / "docs" / "cli.md"
EXAMPLE = re.compile(r"^```\n(\$ (covey simulate .*)\n(?:(?!```).*\n)+)^```$", re.MULTILINE)
SMALL = ("simulate", "--nodes", "4", "--seconds", "60", "--seed", "5")
CURVE = [(1.0, 0.5), (3.0, 1.0)]


def covey(*arguments: str) -> int:
    return run_to_status(root, [*arguments])


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert covey(*SMALL, "-o", "json", *arguments) == exits.YES
    return json.loads(capsys.readouterr().out)


def test_the_table_has_the_seed_and_all_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert covey(*SMALL) == exits.YES
    shown = dict(line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert shown["seed"] == "5"
    assert shown["false deaths"] == "0 per node and hour, of 0 members"
    assert "median" in shown["crash, last to know"]
    assert shown["bytes sent"].endswith("MB a day")


def test_json_is_the_same_again(capsys: pytest.CaptureFixture[str]) -> None:
    first = as_json(capsys)
    assert first == as_json(capsys)
    assert first["settings"]["nodes"] == 4
    assert first["findings"]["last_s"]["max"] == first["findings"]["knowing"][-1][0]
    assert as_json(capsys, "--loss", "50", "--burst")["settings"]["loss"] == 0.5


def test_without_a_seed_one_is_drawn_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("simulate", "--nodes", "2", "--seconds", "10", "--crash", "0", "-o", "json")
    assert covey(*arguments) == exits.YES
    settings = json.loads(capsys.readouterr().out)["settings"]
    assert settings["seed"] >= 0
    assert settings["crash"] == 0


def test_the_picture_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "crash.svg"
    assert covey(*SMALL, "--plot", str(file)) == exits.YES
    tree = ET.fromstring(file.read_text())
    assert tree.tag.endswith("svg")
    assert "seed 5" in file.read_text()
    assert covey(*SMALL, "--plot", str(tmp_path / "missing" / "crash.svg")) == exits.NO
    assert "was not written" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        ("--crash", "4"),
        ("--crash", "0", "--plot", "crash.svg"),
        ("--profile", "moon"),
        ("--loss", "100"),
        ("--nodes", "1"),
    ],
)
def test_what_cannot_be_is_a_usage_error(wrong: tuple[str, ...]) -> None:
    assert covey(*SMALL, *wrong) == exits.USAGE


def test_bars_rise_to_all() -> None:
    lines = list(bars(CURVE, 4.0))
    assert lines[0].split() == ["0.5", "s", "0%"]
    assert lines[1].split()[-1] == "50%"
    assert lines[-1].split()[0] == "4"
    assert lines[-1].endswith("100%")


def test_the_curve_is_a_staircase() -> None:
    picture = svg(CURVE, 4.0, "a < b")
    ET.fromstring(picture)
    assert "a &lt; b" in picture
    assert "H198.0V176.0H482.0V40.0" in picture


def test_progress_shows_after_a_second_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress(clock=lambda: now[0]) as progress:
        progress.show(0.1)
        assert not capsys.readouterr().err
        now[0] = 1.5
        progress.show(0.5)
        assert "50%" in capsys.readouterr().err
    with Progress(quiet=True, clock=lambda: now[0]) as progress:
        now[0] = 9.0
        progress.show(0.5)
    assert "%" not in capsys.readouterr().err


def test_the_example_of_the_reference_is_what_its_seed_shows(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """``--rewrite`` puts what it shows now into the page."""
    page = CLI.read_text(encoding="utf-8")
    [(block, command)] = EXAMPLE.findall(page)
    for module in ("output", "simulate"):
        monkeypatch.setattr(f"agent.cli.{module}.is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    assert covey(*command.split()[1:]) == exits.YES
    shown = re.sub(r" +$", "", unstyle(capsys.readouterr().out), flags=re.MULTILINE)
    today = f"$ {command}\n{shown}"
    if request.config.getoption("--rewrite"):
        CLI.write_text(page.replace(block, today), encoding="utf-8")
        return
    assert block == today
