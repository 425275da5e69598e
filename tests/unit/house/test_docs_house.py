"""Pages that nobody compiles rot first: links, commands and decisions are checked here."""

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted(
    page
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/*/README.md")]
    if ".venv" not in page.parts
)
DECISIONS = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
ATTACKS = (ROOT / "docs" / "attacks.md").read_text()
HELD_BY = re.compile(r"`([a-z_/]+/test_\w+\.py)::(test_\w+)`")
PACKAGES = ("agent", "gossip", "edge_apps")
DECISION_LINES_MAX = 60
SECTIONS = ["Context", "Decision", "Cost accepted", "Revisit when"]


def _rows_of_attacks() -> list[list[str]]:
    """Return the cells of the rows of all tables, without heads and rules."""
    rows = re.findall(r"^\|(.+)\|$", ATTACKS, flags=re.MULTILINE)
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)] for row in rows]
    return [row for row in cells if row[-1] != "held by" and not set(row[0]) <= set("-:")]


@cache
def _tests_in(file: str) -> set[str]:
    every = ast.walk(ast.parse((ROOT / "tests" / file).read_text()))
    return {each.name for each in every if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}


def _targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text()
    return set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text())
    broken = [link for link in links if not (page.parent / link).exists()]
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_exist(page: Path) -> None:
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), flags=re.MULTILINE))
    assert named <= _targets()


def test_nobody_is_sent_to_pypi() -> None:
    """No project there is ours: anyone could claim the name, and be installed as root."""
    from_pypi = re.compile(r"install(?: --?[\w-]+)* ['\"]?covey(?:\[\w+\])?['\"]?(?![\w./-])")
    assert all(map(from_pypi.search, ("pipx install --global covey", "install 'covey[demo]'")))
    pages = [*PAGES, *(ROOT / "agent").rglob("*.py")]
    assert not [str(page) for page in pages if from_pypi.search(page.read_text())]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_exist(page: Path) -> None:
    """A page may say `gossip/core/machine.py`: then that file is there."""
    named = re.findall(
        r"`((?:agent|gossip|edge_apps|tests|docs|bench|packaging|deploy)/[\w./-]+)`",
        page.read_text(),
    )
    gone = [name for name in named if not (ROOT / name).exists()]
    assert not gone


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_decision_fits_one_page(page: Path) -> None:
    text = page.read_text()
    assert len(text.splitlines()) <= DECISION_LINES_MAX
    assert text.startswith(f"# {page.name[:4]} ")
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE) == SECTIONS


def test_decisions_are_listed() -> None:
    """Numbers are given out when a page is begun, so one may be missing for as long as it takes."""
    index = (ROOT / "docs" / "adr" / "README.md").read_text()
    assert re.findall(r"\((\d{4}-[\w-]+\.md)\)", index) == [page.name for page in DECISIONS]
    numbers = [int(page.name[:4]) for page in DECISIONS]
    assert numbers == sorted(set(numbers))


def test_every_dependency_has_its_reason() -> None:
    """A decision page says why it is there, by the name that pip knows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    reasons = " ".join(page.read_text() for page in DECISIONS)
    names = [re.split(r"[<>=\[ ]", text)[0] for text in project["dependencies"]]
    assert not [name for name in names if name not in reasons]


def test_module_texts_name_files_that_are_there() -> None:
    """Also those that a text calls by their bare names."""
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    known = {path.name for path in files}
    gone = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        for name in re.findall(r"``(\w+\.py)``", path.read_text())
        if name not in known
    ]
    assert not gone


def test_glossary_gives_each_word_once() -> None:
    words = re.findall(r"^\| \*\*([^*]+)\*\*", (ROOT / "GLOSSARY.md").read_text(), re.MULTILINE)
    assert len(words) > 20
    assert words == sorted(set(words), key=str.lower)


def test_changelog_has_a_place_for_what_comes() -> None:
    assert "## Unreleased" in (ROOT / "CHANGELOG.md").read_text()


def test_makefile_explains_each_target() -> None:
    """`make` alone lists the targets that carry a description; all but two do."""
    makefile = (ROOT / "Makefile").read_text()
    described = set(re.findall(r"^([a-z-]+):.*## ", makefile, flags=re.MULTILINE))
    assert _targets() - described == {"debian"}


def test_every_table_of_attacks_says_what_holds_it() -> None:
    heads = re.findall(r"^(\|.+)\|\n\|[-| ]+\|$", ATTACKS, flags=re.MULTILINE)
    assert len(heads) > 5
    assert all(head.endswith("| held by ") for head in heads)


@pytest.mark.parametrize("row", _rows_of_attacks(), ids=lambda row: row[0][:40])
def test_each_row_of_attacks_is_held_by_tests_that_exist(row: list[str]) -> None:
    """A row without a test is a hope."""
    assert len(row) == 3
    named = HELD_BY.findall(row[-1])
    assert named, "no test holds it"
    assert not HELD_BY.sub("", row[-1]).strip(" ,"), "this column has tests alone"
    assert not [f"{file}::{test}" for file, test in named if test not in _tests_in(file)]
