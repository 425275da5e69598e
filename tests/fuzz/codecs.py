"""Every codec of the packages with a good example of every message that it reads.

Nobody keeps this list by hand: whatever module makes a ``Codec`` is found by reading the sources,
so that a plane which is added next year is fuzzed on its first day, or fails a test that says what
is missing (``tests/hostile/test_fuzz_codecs.py``). The examples are those of the golden vectors.
"""

import ast
import functools
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gossip.core.wire import Codec, tag_of
from tests.support.sources import nodes
from tests.unit.gossip.consensus.test_vectors import MESSAGES as CONSENSUS
from tests.unit.gossip.control.test_vectors import MESSAGES as CONTROL
from tests.unit.gossip.kv.test_vectors import MESSAGES as STATE
from tests.unit.gossip.membership.test_vectors import EXAMPLES as MEMBERSHIP
from tests.unit.house.test_agent_vectors import EXAMPLES as AGENTS

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("gossip", "agent", "edge_apps")

EXAMPLES: tuple[Any, ...] = (
    *MEMBERSHIP.values(),
    *STATE,
    *CONSENSUS,
    *CONTROL,
    *(message for _, message in AGENTS.values()),
)


class Golden(NamedTuple):
    """One good message: what it is, who reads it, and its bytes."""

    name: str
    codec: Codec[Any]
    data: bytes

    @property
    def tag(self) -> int:
        return tag_of(self.data)


def sources(word: str = "") -> Iterator[tuple[str, tuple[ast.AST, ...]]]:
    """Yield the path and all syntax nodes of every module of the packages that has this word."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if word in path.read_text():
                yield str(path.relative_to(ROOT)), nodes(path)


@functools.cache
def codecs() -> dict[str, Codec[Any]]:
    """Return every codec that a module of the packages makes, by "module:NAME"."""
    found: dict[str, Codec[Any]] = {}
    for path, all_nodes in sources("Codec"):
        if any(_makes_codec(node) for node in all_nodes):
            module = path.removesuffix(".py").replace("/", ".")
            for name, value in vars(importlib.import_module(module)).items():
                if isinstance(value, Codec) and not any(value is known for known in found.values()):
                    found[f"{module}:{name}"] = value
    return found


def _makes_codec(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Codec"
    )


@functools.cache
def goldens() -> tuple[Golden, ...]:
    """Return the good messages of all codecs, in a fixed order."""
    return tuple(
        Golden(f"{where}:{type(message).__name__}:{number}", codec, codec.encode(message))
        for where, codec in codecs().items()
        for number, message in enumerate(EXAMPLES)
        if type(message) in kinds_of(codec)
    )


def kinds_of(codec: Codec[Any]) -> tuple[type[Any], ...]:
    """Return the structs that a codec reads."""
    union = codec._decoder.type
    return tuple(getattr(union, "__args__", (union,)))
