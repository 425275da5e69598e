"""Nothing decodes unattended: each module that reads foreign bytes is in the fuzzers' table."""

import ast

from tests.fuzz.codecs import ROOT, sources
from tests.fuzz.inventory import (
    CALLS,
    CODECS,
    COVERED,
    DAMAGE,
    KERNEL,
    OWN,
    PARSERS,
    REQUESTS,
    SIEGE,
)

WORDS = {CODECS, SIEGE, PARSERS, REQUESTS, DAMAGE, OWN, KERNEL}


def _decodes(nodes: tuple[ast.AST, ...]) -> bool:
    calls = (node.func for node in nodes if isinstance(node, ast.Call))
    names = (
        call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls
    )
    return any(name in CALLS for name in names)


def test_every_module_that_decodes_is_in_the_table() -> None:
    decoding = {path for path, nodes in sources() if _decodes(nodes)}
    assert not decoding - COVERED.keys(), "say in tests/fuzz/inventory.py by what it is attacked"
    assert not COVERED.keys() - decoding, "these decode nothing any more"


def test_what_the_table_names_exists() -> None:
    named = {word for words in COVERED.values() for word in words} - WORDS
    assert not [path for path in named if not (ROOT / path).is_file()]
