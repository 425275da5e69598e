"""``gossip/`` is a pure floor: nothing in it can read a clock, a socket, a file or a die.

That is what lets the simulator replay any run from a seed. Two guards stand at the door: the
nested lint configuration, which teaches whoever edits, and this test, which cannot be switched
off with a ``noqa``.
"""

import ast
import sys
import tomllib
from pathlib import Path

from tests.support.sources import nodes

GOSSIP = Path(__file__).resolve().parents[3] / "gossip"
THIRD_PARTY = {"msgspec"}
BANNED_MODULES = {
    "asyncio", "concurrent", "datetime", "ctypes", "fcntl", "io", "multiprocessing", "os",
    "pathlib", "secrets", "select", "selectors", "shutil", "signal", "socket", "ssl",
    "sqlite3", "subprocess", "tempfile", "threading", "time", "uuid",
}  # fmt: skip
BANNED_CALLS = {"open", "print", "input", "exec", "eval", "__import__"}
# The class may be named, to be handed in; its module's functions share one hidden state.
RANDOM_ALLOWED = {"Random"}


def _modules() -> list[tuple[Path, tuple[ast.AST, ...]]]:
    files = sorted(GOSSIP.rglob("*.py"))
    assert len(files) > 5, "the pure floor has moved; this test looks at nothing"
    return [(path, nodes(path)) for path in files]


def _imports(found: tuple[ast.AST, ...]) -> set[str]:
    names: set[str] = set()
    for node in found:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_imports_are_the_standard_library_and_msgspec() -> None:
    allowed = set(sys.stdlib_module_names) | THIRD_PARTY | {"gossip"}
    foreign = {
        (path.name, name) for path, found in _modules() for name in _imports(found) - allowed
    }
    assert not foreign


def test_no_module_that_touches_the_world() -> None:
    touching = {
        (path.name, name) for path, found in _modules() for name in _imports(found) & BANNED_MODULES
    }
    assert not touching


def test_no_call_that_touches_the_world() -> None:
    calls = {
        (path.name, node.lineno, node.func.id)
        for path, found in _modules()
        for node in found
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in BANNED_CALLS
    }
    assert not calls


def test_randomness_is_handed_in() -> None:
    shared = {
        (path.name, node.lineno, node.attr)
        for path, found in _modules()
        for node in found
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "random"
        and node.attr not in RANDOM_ALLOWED
    }
    from_random = {
        (path.name, alias.name)
        for path, found in _modules()
        for node in found
        if isinstance(node, ast.ImportFrom) and node.module == "random"
        for alias in node.names
        if alias.name not in RANDOM_ALLOWED
    }
    assert not shared
    assert not from_random


def test_the_lint_configuration_teaches_the_same() -> None:
    config = tomllib.loads((GOSSIP / "ruff.toml").read_text())
    assert config["extend"] == "../pyproject.toml"
    banned = config["lint"]["flake8-tidy-imports"]["banned-api"]
    for module in ("agent", "edge_apps", "asyncio", "socket", "threading", "time", "os"):
        assert banned[module]["msg"], f"gossip/ruff.toml no longer bans {module}"
