"""Errors as ``/metrics`` calls them: dashboards of others go by these words."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support.sources import nodes

ROOT = Path(__file__).resolve().parents[3]
LABELS = {
    "RemoteError": "refused",
    "Malformed": "malformed",
    "Forged": "forged",
    "UnknownKey": "unknownkey",
    "Replayed": "replayed",
    "SetAside": "setaside",
    "WrongPartition": "wrongpartition",
    "NotAdmitted": "notadmitted",
}


def classes() -> Iterator[ast.ClassDef]:
    for package in ("gossip", "agent"):
        for path in sorted((ROOT / package).rglob("*.py")):
            yield from (node for node in nodes(path) if isinstance(node, ast.ClassDef))


def label_of(error: ast.ClassDef) -> object:
    """Return what the class itself says that its label is; None if it says nothing."""
    for line in error.body:
        targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
        if any(isinstance(each, ast.Name) and each.id == "label" for each in targets):
            return getattr(line.value, "value", None)  # type: ignore[attr-defined]
    return None


def test_each_error_of_a_peer_says_its_label_and_none_changes() -> None:
    """One without a label of its own would be counted as what it is derived from."""
    all_classes, found = list(classes()), {"RemoteError"}
    while True:
        more = {
            each.name
            for each in all_classes
            if found & {base.id for base in each.bases if isinstance(base, ast.Name)}
        }
        if more <= found:
            break
        found |= more
    assert {each.name: label_of(each) for each in all_classes if each.name in found} == LABELS


def test_no_counter_has_the_name_of_a_class() -> None:
    for path in [*(ROOT / "agent").rglob("*.py"), *(ROOT / "gossip").rglob("*.py")]:
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not ("counts[" in line and "__name__" in line), f"{path}: {line.strip()}"
