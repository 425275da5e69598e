"""``make map``: every file of the packages, by folder, with the first line that it says of itself.

Printed and never committed: a list that repeats what stands in the files is out of date the next
day. ``make map ROOM=gossip/kv`` prints one folder with what is below it.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.sources import parse

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("gossip", "edge_apps", "agent")


def lines(folder: Path) -> Iterator[str]:
    """Yield a folder's own line, those of its files, and then those of the folders in it."""
    files = sorted(folder.glob("*.py"), key=lambda path: (path.name != "__init__.py", path.name))
    if files:
        yield f"\n{folder.relative_to(ROOT)}/  {_first_line(files[0])}"
        yield from (f"    {file.name:<26} {_first_line(file)}" for file in files[1:])
    for below in sorted(path for path in folder.iterdir() if path.is_dir()):
        yield from lines(below)


def _first_line(file: Path) -> str:
    return (ast.get_docstring(parse(file)) or "").partition("\n")[0]


def main() -> None:
    """Print the map of the folders that the arguments name, or of all."""
    for folder in sys.argv[1:] or PACKAGES:
        print(*lines(ROOT / folder), sep="\n")


if __name__ == "__main__":
    main()
