"""The house rules that no linter knows: sizes, words, and what is left for later.

Sizes are the limits, not the aim. A file that grows past them has found a second noun.
"""

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sources import nodes, parse

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("gossip", "edge_apps", "agent")
CODE_FOLDERS = (*PACKAGES, "bench", "tests")

FUNCTION_LINES_MAX = 60
FILE_LINES_MAX = 700
LINE_CHARACTERS_MAX = 100
GOSSIP_ASSERTS_PER_1000_LINES_MIN = 10

UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX|HA" r"CK)\b")
# Words that GLOSSARY.md gives up in favour of others. `server` is missing from this list because
# brokers and HTTP have them.
BANNED_WORDS = re.compile(r"\b(sla" r"ve|mas" r"ter|white" r"list|black" r"list)\b", re.IGNORECASE)

PRAGMA = re.compile(r"\s+# (noqa|type: ignore)\b.*")

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


def _files(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert found, f"no Python files in {folders}"
    return sorted(path for path in found if "__pycache__" not in path.parts)


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _functions(path: Path) -> Iterator[FunctionNode]:
    for node in nodes(path):
        if isinstance(node, FunctionNode):
            yield node


def _code_lines(function: FunctionNode) -> int:
    """Count a function's lines without its docstring: explaining is never punished."""
    length = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is not None:
        length -= (first.end_lineno or first.lineno) - first.lineno + 1
    return length


def test_functions_fit_on_a_screen() -> None:
    long = [
        f"{_name(path)}:{function.lineno} {function.name}: {_code_lines(function)} lines"
        for path in _files(*CODE_FOLDERS)
        for function in _functions(path)
        if _code_lines(function) > FUNCTION_LINES_MAX
    ]
    assert not long, f"more than {FUNCTION_LINES_MAX} lines:\n" + "\n".join(long)


def test_files_hold_one_subject() -> None:
    long = [
        f"{_name(path)}: {count} lines"
        for path in _files(*CODE_FOLDERS)
        if (count := len(path.read_text().splitlines())) > FILE_LINES_MAX
    ]
    assert not long, "split these by their nouns:\n" + "\n".join(long)


def test_lines_fit_side_by_side() -> None:
    wide = [
        f"{_name(path)}:{number}"
        for path in _files(*CODE_FOLDERS)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(PRAGMA.sub("", line)) > LINE_CHARACTERS_MAX
    ]
    assert not wide, f"more than {LINE_CHARACTERS_MAX} characters:\n" + "\n".join(wide)


def test_no_relative_imports() -> None:
    relative = [
        f"{_name(path)}:{node.lineno}"
        for path in _files(*PACKAGES)
        for node in nodes(path)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not relative, "one spelling for one module: write the full name:\n" + "\n".join(relative)


def test_every_module_says_why_it_exists() -> None:
    silent = [_name(path) for path in _files(*CODE_FOLDERS) if not ast.get_docstring(parse(path))]
    assert not silent, "no module docstring:\n" + "\n".join(silent)


@pytest.mark.parametrize("folder", ["packaging", "deploy"])
def test_folder_is_no_python_package(folder: str) -> None:
    """An ``__init__.py`` in packaging/ would shadow PyPI's ``packaging``, which pip needs."""
    assert (ROOT / folder).is_dir()
    assert not list((ROOT / folder).rglob("__init__.py"))


def test_nothing_is_left_for_later() -> None:
    left = [
        f"{_name(path)}:{number}: {line.strip()}"
        for path in _files(*CODE_FOLDERS)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert not left, "\n".join(left)


def test_names_follow_the_glossary() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    banned = [
        f"{_name(path)}:{number}: {found.group()}"
        for path in [*_files(*PACKAGES), *pages]
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (found := BANNED_WORDS.search(line))
    ]
    assert not banned, "\n".join(banned)


def test_no_file_is_empty() -> None:
    empty = [_name(path) for path in _files(*CODE_FOLDERS) if not path.read_text().strip()]
    assert not empty, "\n".join(empty)


def _lines_of_code(path: Path) -> int:
    """Count the lines that hold code: no comments, no docstrings, no blank lines."""
    nothing = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines: set[int] = set()
    at_start = True
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type in nothing or token.type == tokenize.ENCODING:
                at_start = True
                continue
            if not (at_start and token.type == tokenize.STRING):
                lines.update(range(token.start[0], token.end[0] + 1))
            at_start = False
    return len(lines)


def test_gossip_states_its_invariants() -> None:
    """A rule that is asserted is checked in every test and every simulated hour."""
    files = _files("gossip")
    lines = sum(_lines_of_code(path) for path in files)
    asserts = sum(isinstance(node, ast.Assert) for path in files for node in nodes(path))
    assert 1000 * asserts / lines >= GOSSIP_ASSERTS_PER_1000_LINES_MIN, (
        f"{asserts} asserts in {lines} lines: state what holds, with the reason as the message"
    )


NAMED_FILE = re.compile(r"(?:``|\bsee )((?:\w+/)*[a-z_]+\.py)\b")


def test_comments_name_files_that_exist() -> None:
    """Whoever follows a name in a comment finds the file, whatever it was called before."""
    assert NAMED_FILE.findall("see a_b.py, ``c/d.py``") == ["a_b.py", "c/d.py"]
    paths = [f"/{_name(path)}" for path in _files(*CODE_FOLDERS)]
    gone = [
        f"{_name(path)}: {name}"
        for path in _files(*CODE_FOLDERS)
        if path != Path(__file__)
        for name in NAMED_FILE.findall(path.read_text())
        if not any(each.endswith(f"/{name}") for each in paths)
    ]
    assert not gone, "\n".join(gone)


def test_no_group_is_possessive() -> None:
    """Python 3.11.2, which Debian 12 has, takes a character too few after one (gh-106052)."""
    possessive = re.compile(r"(?<!\\)\)[*+?]\+|\(\?>|\}\+")
    assert possessive.search("(?:a|b)++")
    found = [_name(path) for path in _files(*PACKAGES) if possessive.search(path.read_text())]
    assert not found


def _shown_texts(tree: ast.Module) -> Iterator[str]:
    """Yield the texts of a program that are no docstrings: some of them are shown to people."""
    explaining = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node not in explaining
        ):
            yield node.value


def test_nobody_is_sent_to_a_page_that_a_wheel_does_not_carry() -> None:
    """Messages say what is needed themselves."""
    sent = [
        f"{_name(path)}: {text}"
        for path in _files(*PACKAGES)
        for text in _shown_texts(parse(path))
        if re.search(r"\bdocs/|\w\.md\b", text)
    ]
    assert not sent
