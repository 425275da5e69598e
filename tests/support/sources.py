"""The packages' own sources, parsed once for all tests that read them."""

import ast
import functools
from pathlib import Path


@functools.cache
def parse(path: Path) -> ast.Module:
    """Return a file's syntax tree, to be looked at and not changed."""
    return ast.parse(path.read_text(), filename=str(path))


@functools.cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Return all nodes of a file's syntax tree."""
    return tuple(ast.walk(parse(path)))
