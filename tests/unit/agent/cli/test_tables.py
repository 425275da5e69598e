"""Tables: they fit the terminal, line up whatever is in them, and lose nothing with --wide."""

import doctest
import re
from pathlib import Path

import pytest

import agent.cli.tables
import agent.text.escaping
from agent.cli import output
from agent.cli.tables import laid_out
from agent.text.escaping import columns

HEADER = ("NAME", "STATE", "ADDRESSES", "TAGS", "ID")
ADDRESSES = ["192.168.1.7:7747", "[2001:db8:1234:5678:9abc:def0:1234:5678]:7747"]
TAGS = {"room": "attic", "floor": "three", "owner": "the-greenhouse-people"}
ROWS = [
    ("ada (this node)", "alive", ADDRESSES, TAGS, "5d6be0ed4c0a7b11"),
    ("küche-南", "asleep (2h)", ADDRESSES[:1], {}, "9be1f4c20a3377d0"),
]


def test_the_examples_in_the_docstrings() -> None:
    for module in (agent.text.escaping, agent.cli.tables):
        assert doctest.testmod(module).failed == 0
        assert doctest.testmod(module).attempted > 0


def shown(monkeypatch: pytest.MonkeyPatch, width: int, *, wide: bool = False) -> None:
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    output.write_table(HEADER, ROWS, wide=wide, spare=("ID",))


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 120, 200])
def test_no_line_is_wider_than_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    shown(monkeypatch, width)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(columns, lines)) <= width
    assert lines[0].startswith("NAME")
    state = lines[0].index("STATE")
    assert all(line[:state].endswith("  ") for line in lines if line.isascii()), "columns line up"


def test_wide_shows_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown(monkeypatch, 60, wide=True)
    text = capsys.readouterr().out
    assert ",".join(ADDRESSES) in text
    assert "owner=the-greenhouse-people" in text
    assert "5d6be0ed4c0a7b11" in text
    assert "…" not in text


def test_the_id_goes_first_and_items_stay_whole() -> None:
    lines, _ = laid_out(HEADER, ROWS, 80, ("ID",))
    assert lines[0] == list(HEADER[:4])
    assert lines[1][0] == "ada (this node)"
    assert lines[1][2] == "192.168.1.7:7747,+1"


def test_a_wide_character_takes_two_columns() -> None:
    lines, widths = laid_out(("A", "B"), [("南", "x"), ("ab", "y")], 80)
    assert widths[0] == 2
    assert [columns(line[0]) for line in lines[1:]] == [2, 2]


def test_a_pipe_gets_everything(capsys: pytest.CaptureFixture[str]) -> None:
    output.write_table(HEADER, ROWS, spare=("ID",))
    first, second = capsys.readouterr().out.splitlines()
    assert first.split("\t")[2:] == [
        ",".join(ADDRESSES), "floor=three,owner=the-greenhouse-people,room=attic",
        "5d6be0ed4c0a7b11",
    ]  # fmt: skip
    assert second.startswith("küche-南\t")


def test_what_a_list_leaves_over_is_for_the_texts() -> None:
    sensor, tags = "greenhouse/north/bench-3/temperature", {"row": "north", "shelf": "upper-left"}
    row = ("2026-11-29T09:57:32.278Z", sensor, 21.5, "C", tags)
    lines, widths = laid_out(("TIME", "SENSOR", "VALUE", "UNIT", "TAGS"), [row], 80)
    assert lines[1][4] == "row=north,+1"
    assert len(lines[1][1]) > 20
    assert sum(widths) + 8 == 80


def test_long_facts_end_between_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    text = "one two three four five six seven `covey token create` eight nine ten"
    output.write_facts({"because": text})
    output.write_paragraph(output.Styled("warn"), f"  disk: {text}", "      ")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 40
    assert sum("`covey token create`" in line for line in lines) == 2
    assert " ".join(" ".join(lines).split()) == f"because {text} warn disk: {text}"


def test_a_row_of_a_stream_is_cut_at_its_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    output.write_row(("ash", "5ms", "x" * 100), (20, 8, 0))
    output.write_row(("ash", "5ms", "x" * 100), (20, 8, 0), wide=True)
    cut, whole = capsys.readouterr().out.splitlines()
    assert len(cut) == 40
    assert whole.endswith("x" * 100)


def test_one_place_writes() -> None:
    """What is shown passes through agent/text/escaping.py: nobody writes past these files."""
    root = Path(__file__).resolve().parents[4]
    writers = re.compile(
        r"click\.echo\(|(?<!>>> )\bprint\(|sys\.std(?:out|err)\.(?:buffer\.)?write\("
    )
    allowed = {
        "agent/cli/output.py", "agent/cli/errors.py", "agent/cli/session.py",
        "agent/cli/root.py", "agent/cli/progress.py", "agent/cli/demo/command.py",
        "agent/cli/demo/screen.py",
    }  # fmt: skip
    found = {
        str(path.relative_to(root))
        for path in (root / "agent").rglob("*.py")
        if writers.search(path.read_text())
    }
    assert found <= allowed, "use agent/cli/output.py"
