"""Who imports whom, read from the sources: also late imports, and those for types alone.

An import that no run of the program ever makes is an arrow all the same: whoever reads the one
file has to know the other.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from tests.support.sources import nodes

Graph = Mapping[str, set[str]]
"""From each node to those that it points to; every node is a key."""


def module_name(file: str) -> str:
    """Return ``gossip.core.hlc`` for ``gossip/core/hlc.py``; a package's file is its folder."""
    return file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def import_graph(root: Path, packages: Iterable[str]) -> dict[str, set[str]]:
    """Return which files of the packages import which others, by their paths below ``root``."""
    paths = [path for package in packages for path in (root / package).rglob("*.py")]
    files = {module_name(name): name for name in (str(p.relative_to(root)) for p in paths)}
    graph: dict[str, set[str]] = {file: set() for file in files.values()}
    for file, targets in graph.items():
        found = (_known(module, files) for module in _imported(nodes(root / file)))
        targets.update(target for target in found if target is not None and target != file)
    return graph


def _imported(tree: Iterable[ast.AST]) -> Iterator[str]:
    """Yield everything that may be a module: of ``from a import b`` that is ``a.b``, else ``a``."""
    for node in tree:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _known(module: str, files: Mapping[str, str]) -> str | None:
    return files.get(module) or files.get(module.rpartition(".")[0])


def grouped(graph: Graph, group_of: Mapping[str, str]) -> dict[str, set[str]]:
    """Return the graph of the groups: an arrow where a node of one points to a node of another."""
    groups: dict[str, set[str]] = {group: set() for group in group_of.values()}
    for node, targets in graph.items():
        groups[group_of[node]].update(group_of[target] for target in targets)
    return {group: targets - {group} for group, targets in groups.items()}


def circles(graph: Graph) -> list[list[str]]:
    """Return the sets of nodes that reach each other, and the nodes that point to themselves."""
    reached = {node: _reached(graph, node) for node in graph}
    found = {
        tuple(sorted(other for other in reached[node] if node in reached[other]))
        for node in graph
        if node in reached[node]
    }
    return [list(circle) for circle in sorted(found)]


def _reached(graph: Graph, start: str) -> set[str]:
    """Return all nodes that a way of at least one arrow leads to."""
    reached: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        node = waiting.pop()
        if node not in reached:
            reached.add(node)
            waiting.extend(graph[node])
    return reached


def folder_of(file: str) -> str:
    """Return the folder that a file lies in."""
    return str(PurePosixPath(file).parent)
