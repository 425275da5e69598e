"""Compiles gossip/ with mypyc, for a wheel or into a folder of its own.

A source install never comes here: the wheel's hook is off unless HATCH_BUILD_HOOK_ENABLE_CUSTOM is
true, so nobody needs a compiler. Every module is compiled, but for the classes that mypyc cannot:
``lift.py`` says which, and takes them out.

Each compiled module keeps its source beside it, as in mypy's and black's wheels: Python prefers
the library, tracebacks show the source. All code lies in one library, ``gossip__mypyc``, and each
module is a small one that points into it, so that calls between modules are calls of C.

As a program, ``build.py DIR [ROOM ...]`` lays gossip/ out in DIR as a compiled wheel would; with
rooms (``core membership``), only these are compiled, which takes less long.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # hatchling loads this file by its path
from lift import FORMS, Module, interpreted_classes, lift  # noqa: E402

PACKAGE = "gossip"
OPTIMISATION = "1"
"""gcc takes half as long again for 2."""
MYPY_SETTINGS = "[mypy]\nstrict = true\npython_version = 3.11\nexplicit_package_bases = true\n"


class CompiledHook(BuildHookInterface[Any]):
    """Puts the libraries into the wheel, and this Python's tag on it."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Return what a build in isolation installs for it."""
        project = tomllib.loads((Path(self.root) / "pyproject.toml").read_text())
        return list(project["dependency-groups"]["compiled"])

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the wheel is put together; not for an editable install."""
        if version != "standard":
            return
        self._work = tempfile.mkdtemp()
        files = compile_package(Path(self.root), Path(self._work))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"].update({str(file): name for name, file in files.items()})

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what the wheel was made of."""
        del build_data, artifact_path
        if version == "standard":
            shutil.rmtree(self._work)


def stage(root: Path, rooms: Sequence[str] = ()) -> list[Path]:
    """Take the forms out of the package's copy at ``root``; return what compiles, from there."""
    wanted = tuple(f"{PACKAGE}/{room}/" for room in rooms) or (PACKAGE,)
    with chdir(root):
        sources = {path: Module(path.read_text()) for path in sorted(Path(PACKAGE).rglob("*.py"))}
        interpreted = interpreted_classes(sources.values())
        return [
            staged
            for path, module in sources.items()
            if path.name != "__init__.py" and path.as_posix().startswith(wanted)
            if (staged := lift(path, module, interpreted))
        ]


def compile_package(root: Path, work: Path, rooms: Sequence[str] = ()) -> dict[str, Path]:
    """Compile what compiles; return the files that a wheel needs for it, by their paths in there.

    Everything is made in ``work``. Raises CalledProcessError when the compiler fails.
    """
    staged = work / "source"
    shutil.copytree(root / PACKAGE, staged / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    paths = stage(staged, rooms)
    made = {path.relative_to(staged).as_posix(): path for path in staged.rglob(f"*{FORMS}.py")}
    for extension in _generate(staged, paths, work):
        name = extension.name.replace(".", "/") + sysconfig.get_config_var("EXT_SUFFIX")
        made[name] = work / "lib" / name
        made[name].parent.mkdir(parents=True, exist_ok=True)
        # Not the interpreter's own words for it: they may name folders of the machine it is from.
        objects = _objects(extension, work)
        _run([*_compiler(), "-shared", "-Wl,--strip-all", *objects, "-o", str(made[name])])
    return made


def _generate(root: Path, paths: list[Path], work: Path) -> list[Any]:
    """Have mypyc write C; return what is to become a library each, as setuptools describes it."""
    # Not before a wheel is to be compiled: it is there for nothing else.
    from mypyc.build import mypycify

    settings = work / "mypy.ini"
    settings.write_text(MYPY_SETTINGS + f"cache_dir = {work / 'cache'}\n")
    with chdir(root):  # tracebacks show the paths that are given here
        return mypycify(
            [f"--config-file={settings}", *map(str, paths)],
            opt_level=OPTIMISATION, debug_level="0", multi_file=True,
            group_name=PACKAGE, target_dir=str(work / "c"),
        )  # fmt: skip


def _compiler() -> list[str]:
    return str(sysconfig.get_config_var("CC")).split()


def _objects(extension: Any, work: Path) -> Iterator[str]:
    """Compile the sources of one library, as many at once as there are processors."""
    folders = (*extension.include_dirs, sysconfig.get_path("include"))
    words = [
        "-DNDEBUG",
        "-fwrapv",
        "-fPIC",
        *extension.extra_compile_args,
        *(f"-I{each}" for each in folders),
    ]

    def compile_one(source: str) -> str:
        target = work / "o" / extension.name / f"{Path(source).relative_to(work / 'c')}.o"
        target.parent.mkdir(parents=True, exist_ok=True)
        _run([*_compiler(), *words, "-c", source, "-o", str(target)])
        return str(target)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        yield from threads.map(compile_one, extension.sources)


def _run(command: list[str]) -> None:
    subprocess.run(  # noqa: S603 - this Python's own compiler
        command, check=True, stdout=subprocess.DEVNULL
    )


def lay_out(root: Path, folder: Path, rooms: Sequence[str]) -> None:
    """Make ``folder`` what a compiled wheel would unpack to, as far as gossip/ goes."""
    with tempfile.TemporaryDirectory() as work:
        files = compile_package(root, Path(work), rooms)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(
            root / PACKAGE, folder / PACKAGE, ignore=shutil.ignore_patterns("__pycache__")
        )
        for name, file in files.items():
            shutil.copy(file, folder / name)


if __name__ == "__main__":
    lay_out(HERE.parents[1], Path(sys.argv[1]).resolve(), sys.argv[2:])
