"""The locks are what pyproject.toml asks for, whole: forgetting `make lock` fails here.

Packages of the running environment tell what they need; so the set that the tests themselves were
installed from is followed to its last package, and nothing may be in it that nobody needs.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution, packages_distributions
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

from tests.support.sources import nodes

ROOT = Path(__file__).resolve().parents[3]
LOCKS = ROOT / "packaging" / "locks"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
ENTRY = re.compile(r"^([\w.-]+)==(\S+)(?: ; (.+?))? \\\n((?:    --hash=.*\n)+)", re.MULTILINE)
HASHES = re.compile(r"--hash=sha256:([0-9a-f]{64})(?: \\)?$", re.MULTILINE)
# Which extras and groups each lock is for; all but those in ALONE begin with what Covey runs on.
SETS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "run": ((), ()),
    "demo": (("demo",), ("build",)),
    "test": (("demo", "fast"), ("build", "test", "lint")),
    "bench": (("demo", "fast"), ("build", "test", "lint", "bench")),
    "build": ((), ("build",)),
    "compiled": ((), ("build", "compiled")),
    "release": ((), ("build", "release")),
    "lock": ((), ("lock",)),
}
ALONE = ("build", "compiled", "release", "lock")
# No upper bound, with the reason beside `dependencies` in pyproject.toml.
WITHOUT_END = ("cryptography",)


class Pin(NamedTuple):
    """One package of a lock."""

    version: str
    marker: Marker | None
    hashes: tuple[str, ...]

    def is_for_us(self) -> bool:
        """Tell whether this Python on this machine installs it."""
        return self.marker is None or self.marker.evaluate()


def _lock(name: str) -> dict[NormalizedName, Pin]:
    text = (LOCKS / f"{name}.txt").read_text()
    pins = {
        canonicalize_name(found[1]): Pin(
            found[2], Marker(found[3]) if found[3] else None, tuple(HASHES.findall(found[4]))
        )
        for found in ENTRY.finditer(text)
    }
    assert len(pins) == len(re.findall(r"^\w", text, re.MULTILINE)), "each entry is understood"
    return pins


def _asked(name: str) -> list[Requirement]:
    """Return what pyproject.toml asks for in one set."""
    extras, groups = SETS[name]
    project = PROJECT["project"]
    texts = [] if name in ALONE else list(project["dependencies"])
    for extra in extras:
        texts += project["optional-dependencies"][extra]
    for group in groups:
        texts += PROJECT["dependency-groups"][group]
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize("name", SETS)
def test_lock_answers_what_is_asked(name: str) -> None:
    pins = _lock(name)
    for asked in _asked(name):
        if asked.marker is None or asked.marker.evaluate():
            assert canonicalize_name(asked.name) in pins, f"{asked}: run `make lock`"
        if pin := pins.get(canonicalize_name(asked.name)):
            assert asked.specifier.contains(pin.version), f"{asked}: run `make lock`"


@pytest.mark.parametrize("name", SETS)
def test_every_file_has_its_hash(name: str) -> None:
    bare = [package for package, pin in _lock(name).items() if not pin.hashes]
    assert not bare


def test_locks_agree() -> None:
    """They are laid over each other in one environment."""
    widest = _lock("bench")
    for name in SETS:
        for package, pin in _lock(name).items():
            if package in widest:
                assert (pin.version, pin.hashes) == (
                    widest[package].version,
                    widest[package].hashes,
                ), f"{package} of {name}: run `make lock`"


def test_no_lock_is_without_a_rule() -> None:
    assert {path.stem for path in LOCKS.iterdir()} == set(SETS)
    written = re.findall(
        r"^compile (\w+)", (ROOT / "packaging" / "lock.sh").read_text(), re.MULTILINE
    )
    assert sorted(written) == sorted(SETS)


def _needs(package: str, extras: frozenset[str]) -> Iterator[Requirement]:
    """Return what an installed package needs here, with these extras of it."""
    for text in distribution(package).requires or ():
        asked = Requirement(text)
        places = ({"extra": extra} for extra in (extras or {""}))
        if asked.marker is None or any(map(asked.marker.evaluate, places)):
            yield asked


def _closure(roots: list[Requirement]) -> set[str]:
    """Return the packages that these need here, and what those need, to the last."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [root for root in roots if root.marker is None or root.marker.evaluate()]
    while waiting:
        asked = waiting.pop()
        key = (canonicalize_name(asked.name), frozenset(asked.extras))
        if key not in seen:
            seen.add(key)
            waiting += _needs(*key)
    return {name for name, _ in seen}


@pytest.mark.parametrize("name", ["run", "demo", "test", "build"])
def test_lock_is_whole_and_holds_nothing_else(name: str) -> None:
    here = {package for package, pin in _lock(name).items() if pin.is_for_us()}
    assert here == _closure(_asked(name)), "run `make lock`"


def test_environment_is_the_locked_one() -> None:
    """The tests judge what is shipped, and nothing newer."""
    pins = {package: pin for package, pin in _lock("test").items() if pin.is_for_us()}
    found = {package: distribution(package).version for package in pins}
    assert found == {package: pin.version for package, pin in pins.items()}


def test_build_group_is_what_the_build_asks_for() -> None:
    assert set(PROJECT["build-system"]["requires"]) <= set(PROJECT["dependency-groups"]["build"])


def test_ranges_end_where_a_project_breaks() -> None:
    tables = [PROJECT["project"]["dependencies"]]
    tables += PROJECT["project"]["optional-dependencies"].values()
    for asked in (Requirement(text) for table in tables for text in table):
        ends = [Version(part.version) for part in asked.specifier if part.operator == "<"]
        assert bool(ends) != (asked.name in WITHOUT_END), asked


def test_nothing_is_installed_past_the_locks() -> None:
    """Every `pip install` of Makefile, image and release asks for hashes, or brings only Covey."""
    files = [ROOT / "Makefile", *(ROOT / "packaging").rglob("*.sh"), *(ROOT / ".ci").iterdir()]
    files += [ROOT / "packaging" / "container" / "Containerfile"]
    commands = [
        (path.name, command)
        for path in files
        for command in re.split(r"&&|[;\n]", path.read_text().replace("\\\n", " "))
        if re.search(r"^[^#]*(?:\bpip\b|\$\(PIP\)).* install ", command)
    ]
    assert {name for name, _ in commands} >= {"Makefile", "Containerfile", "release.sh"}
    loose = [each for each in commands if not re.search(r"--require-hashes|--no-deps", each[1])]
    assert not loose


def test_what_the_packages_import_is_asked_for() -> None:
    """Here more is installed than on a device: what a test brings along must not be leaned on."""
    project = PROJECT["project"]
    lines = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    asked = {canonicalize_name(Requirement(line).name) for line in lines}
    bring = packages_distributions()
    ours = {"agent", "edge_apps", "gossip"}
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for package in sorted(ours)
        for path in (ROOT / package).rglob("*.py")
        for name in _imported(path) - sys.stdlib_module_names - ours
        if not asked & {canonicalize_name(each) for each in bring.get(name, [])}
    }
    assert not missing


def _imported(path: Path) -> set[str]:
    """Return the top-level packages that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found
