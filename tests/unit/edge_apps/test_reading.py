"""Which readings are checked, and that nobody else says so."""

import ast
from pathlib import Path

import pytest

from edge_apps.reading import BadReading, Reading, check_line
from tests.support.sources import nodes

ROOT = Path(__file__).resolve().parents[3]
GOOD = Reading("cpu/user", 2.1, tags={"host": "pi"})


def test_a_line_is_checked_in_all_its_readings() -> None:
    second = Reading("cpu/idle", 97.5, tags=GOOD.tags)
    assert check_line([GOOD, second]) == [GOOD, second]
    for bad in (Reading("a b", 1, tags=GOOD.tags), Reading("a", float("nan"), tags=GOOD.tags)):
        with pytest.raises(BadReading):
            check_line([GOOD, bad])
        with pytest.raises(BadReading):
            check_line([bad, GOOD])


def test_the_tags_of_a_line_are_checked_once_and_are_those_of_all() -> None:
    long = {"text": "x" * 2000}
    with pytest.raises(BadReading, match="text"):
        check_line([Reading("a", 1, tags=long), Reading("b", 1, tags=long)])
    with pytest.raises(AssertionError, match="looked at"):
        check_line([GOOD, Reading("b", 1, tags=long)])


def test_only_the_checks_call_a_reading_checked() -> None:
    """It is a promise to the type checker alone: nothing else in the packages may make it."""
    makers = {
        str(path.relative_to(ROOT))
        for package in ("gossip", "agent", "edge_apps")
        for path in (ROOT / package).rglob("*.py")
        for node in nodes(path)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and (node.func.id == "Checked" or (node.func.id == "cast" and "Checked" in _target(node)))
    }
    assert makers == {"edge_apps/reading.py"}


def _target(call: ast.Call) -> str:
    return ast.unparse(call.args[0])
