"""gossip/ can be compiled: what mypyc cannot is taken out of each module, nothing else changes.

Compiling takes minutes (`make test-compiled`). Here the modules are taken apart as for mypyc and
loaded as they are: each name is there, and each message is laid out as it is by its source.
"""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "packaging" / "compiled"
LIFT = runpy.run_path(str(FOLDER / "lift.py"))
SOURCE = '''"""Says why."""

import msgspec

LIMIT = 3


class Limit(msgspec.Struct, frozen=True, tag=7):
    """A form, with what it needs."""

    most: int = LIMIT

    def half(self) -> "Half":
        return halve(self)


class Half(Limit):
    """Inherits from a form."""


def halve(limit: Limit) -> Half:
    return Half(limit.most // 2)


assert LIMIT, "done once"


class Counter:
    """Logic."""

    def next(self) -> Limit:
        return Limit(4)
'''
# What each module defines, and how each message is written: the struct's whole shape.
TELL = """
import importlib, json, pathlib, types, msgspec
told, forms = {}, 0
for path in sorted(pathlib.Path("gossip").rglob("*.py")):
    name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    if name.endswith("__forms"):
        forms += 1
        continue
    for word, value in vars(importlib.import_module(name)).items():
        if not word.startswith("__") and not isinstance(value, types.ModuleType):
            told[f"{name}.{word}"] = getattr(value, "__qualname__", "")
        if isinstance(value, type) and issubclass(value, msgspec.Struct):
            config = value.__struct_config__
            shape = {each: str(getattr(config, each)) for each in dir(config) if each[0] != "_"}
            fields, defaults = value.__struct_fields__, len(value.__struct_defaults__)
            told[f"{name}.{word}"] = [shape, fields, defaults]
print(json.dumps([forms, told]))
"""


def _staged(root: Path) -> list[Path]:
    """Take the package at this root apart, as before it is compiled."""
    program = (
        "import sys, build, pathlib; "
        "print('\\n'.join(map(str, build.stage(pathlib.Path(sys.argv[1])))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(root)], cwd=FOLDER,
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return [Path(line) for line in done.stdout.split()]


def _told(root: Path) -> tuple[int, dict[str, Any]]:
    """Return what the modules of the package at this root define."""
    done = subprocess.run(
        [sys.executable, "-c", TELL], cwd=root, env={**os.environ, "PYTHONPATH": str(root)},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    forms, told = json.loads(done.stdout)
    return forms, told


def test_forms_and_what_they_need_are_taken_out(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("gossip_like.py")
    path.write_text(SOURCE)
    module = LIFT["Module"](SOURCE)
    interpreted = LIFT["interpreted_classes"]([module])
    assert interpreted == {"Limit", "Half"}
    assert LIFT["lift"](path, module, interpreted) == path
    rest, forms = path.read_text(), Path("gossip_like__forms.py").read_text()
    assert rest.splitlines()[4] == (
        "from gossip_like__forms import "
        "Half as Half, LIMIT as LIMIT, Limit as Limit, halve as halve"
    )
    assert "class Counter" in rest
    assert "assert LIMIT" in rest
    assert "class Limit" not in rest
    assert "class Counter" not in forms
    assert "assert LIMIT" not in forms
    lines = SOURCE.splitlines()
    for half in (rest, forms):
        assert all(
            line in ("", there) or line.startswith("from gossip_like__forms")
            for line, there in zip(half.splitlines(), lines, strict=True)
        ), "each line stays where it was"


def test_what_has_forms_alone_stays_as_it_is(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    text = SOURCE.partition("class Counter")[0]
    Path("alone.py").write_text(text)
    module = LIFT["Module"](text)
    assert LIFT["lift"](Path("alone.py"), module, LIFT["interpreted_classes"]([module])) is None
    assert Path("alone.py").read_text() == text


def test_the_package_is_the_same_taken_apart(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "gossip", tmp_path / "gossip", ignore=ignored)
    assert len(_staged(tmp_path)) > 150
    forms, apart = _told(tmp_path)
    none, whole = _told(ROOT)
    assert forms > 50
    assert none == 0, "the source tree has no forms of its own"
    assert apart == whole
