"""Makes two modules of one, where mypyc could not compile the whole: forms, and the rest.

mypyc drops the keywords of a ``msgspec.Struct`` (frozen, array_like, tag) and most types of its
fields, without a word; and the agent's errors inherit from ours, which a compiled class forbids. So
each module with such classes is compiled without them. They go, to the letter, with everything of
the module that they need, into ``NAME__forms.py``, which stays interpreted; the rest imports them
from there. Both keep every line where it was, so tracebacks are true. Nobody writes or imports
such a module by hand, and the source tree has none.
"""

import ast
import builtins
from collections.abc import Iterable
from pathlib import Path

FORMS = "__forms"
INTERPRETED_BASES = {"Struct"} | {
    name for name in dir(builtins) if name.endswith(("Error", "Exception"))
}
Definition = ast.ClassDef | ast.FunctionDef | ast.Assign | ast.AnnAssign
Import = ast.Import | ast.ImportFrom | ast.If


class Module:
    """One source file: what it defines at its top level, and what each definition needs."""

    def __init__(self, text: str) -> None:
        self.lines = text.splitlines(keepends=True)
        body = ast.parse(text).body
        self.definitions = {
            name: node for node in body if isinstance(node, Definition) for name in _names(node)
        }
        # What is done once: the rest does it, and the forms need no more than what is imported.
        self.done = [node for node in body if not isinstance(node, Definition | Import)]

    def forms(self, interpreted: Iterable[str]) -> set[str]:
        """Return the names of the interpreted classes and, transitively, of what they need."""
        wanted = [name for name in interpreted if name in self.definitions]
        found: set[str] = set()
        while wanted:
            name = wanted.pop()
            if name not in found:
                found.update(_names(self.definitions[name]))
                wanted += [
                    each for each in _used(self.definitions[name]) if each in self.definitions
                ]
        return found

    def without(self, names: Iterable[str], done: Iterable[ast.stmt] = ()) -> list[str]:
        """Return the lines, with empty ones where these are defined, and these done."""
        lines = list(self.lines)
        for node in (*(self.definitions[name] for name in names), *done):
            for number in _span(node):
                lines[number] = "\n"
        return lines

    def line_of(self, names: Iterable[str]) -> int:
        """Return the index of the first line that defines one of these."""
        return min(_span(self.definitions[name]).start for name in names)


def interpreted_classes(modules: Iterable[Module]) -> set[str]:
    """Return the names of all classes that cannot be compiled, those that inherit from one too."""
    bases = {
        name: {_last(base) for base in node.bases}
        for module in modules
        for name, node in module.definitions.items()
        if isinstance(node, ast.ClassDef)
    }
    found: set[str] = set()
    while more := {
        name for name in bases.keys() - found if bases[name] & (found | INTERPRETED_BASES)
    }:
        found |= more
    return found


def lift(path: Path, module: Module, interpreted: set[str]) -> Path | None:
    """Take the forms out of the module at this path; return the path of what is to be compiled.

    None when nothing is left that would gain.
    """
    forms = module.forms(interpreted)
    rest = module.definitions.keys() - forms
    if not any(
        isinstance(module.definitions[name], ast.ClassDef | ast.FunctionDef) for name in rest
    ):
        return None
    if forms:
        lines = module.without(forms)
        moved = sorted(name for name in forms if not _is_type_variable(module.definitions[name]))
        source = ".".join(path.with_suffix("").parts) + FORMS
        words = ", ".join(f"{name} as {name}" for name in moved)
        lines[module.line_of(forms)] = f"from {source} import {words}\n"
        for name in forms - set(moved):
            for number in _span(module.definitions[name]):
                lines[number] = module.lines[number]
        path.with_stem(path.stem + FORMS).write_text("".join(module.without(rest, module.done)))
        path.write_text("".join(lines))
    return path


def _names(node: Definition) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [
        each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)
    ]


def _used(node: ast.AST) -> set[str]:
    """Return each name in it, those in annotations in quotes too."""
    found = set()
    for each in ast.walk(node):
        if isinstance(each, ast.Name):
            found.add(each.id)
        for field in ("annotation", "returns"):
            for word in ast.walk(getattr(each, field, None) or ast.Pass()):
                if isinstance(word, ast.Constant) and isinstance(word.value, str):
                    found |= _used(ast.parse(word.value))
    return found


def _last(base: ast.expr) -> str:
    return base.attr if isinstance(base, ast.Attribute) else ast.unparse(base).partition("[")[0]


def _is_type_variable(node: Definition) -> bool:
    """Whether both halves define it: a variable of types is bound where it is made."""
    value = node.value if isinstance(node, ast.Assign) else None
    return isinstance(value, ast.Call) and _last(value.func) in {"TypeVar", "ParamSpec"}


def _span(node: ast.stmt) -> range:
    first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])
    return range(first - 1, node.end_lineno or first)
