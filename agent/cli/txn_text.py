"""Reads a transaction as people type it: ``version(door) = 0``, ``put door open``.

The words are etcdctl's where there are some. Each line becomes what ``POST /api/v1/txn`` takes.
"""

import re
import shlex
from typing import Any

import click

FIELDS = {
    "value": "value", "val": "value", "version": "version", "ver": "version",
    "created": "created", "create": "created", "c": "created", "modified": "modified",
    "mod": "modified", "m": "modified", **{each: each for each in ("session", "token", "count")},
}  # fmt: skip
_COMPARE = re.compile(r"\s*(\w+)\s*\((.*)\)\s*(!=|=|<|>)\s*(.*?)\s*", re.DOTALL)
COMPARES_ARE = 'write such as `version(KEY) = 0` or `value(KEY) = "text"`'
OPERATIONS_ARE = "write `put KEY VALUE`, `get KEY` or `del KEY`, the latter two also with --prefix"


def compare_of(text: str) -> dict[str, Any]:
    """Read a comparison. Raises BadParameter.

    >>> compare_of('version(door) = 0')
    {'key': 'door', 'field': 'version', 'relation': '=', 'operand': 0}
    >>> compare_of('val("a (b)") != "x y"')["key"]
    'a (b)'
    """
    found = _COMPARE.fullmatch(text)
    field = FIELDS.get(found[1].lower()) if found else None
    if found is None or field is None:
        raise click.BadParameter(f"{text!r} is no comparison; {COMPARES_ARE}")
    operand: str | int = _bare(found[4])
    if field not in ("value", "session"):
        try:
            operand = int(operand)
        except ValueError:
            raise click.BadParameter(f"{text!r}: {field} is compared with a whole number") from None
    return {"key": _bare(found[2]), "field": field, "relation": found[3], "operand": operand}


def operation_of(text: str) -> dict[str, Any]:
    """Read an operation. Raises BadParameter.

    >>> operation_of("put door 'wide open'")
    {'put': 'door', 'value': 'wide open'}
    >>> operation_of("get --prefix room/")
    {'range': 'room/'}
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: {error}") from None
    options = [word for word in words if word.startswith("--")]
    verb, *rest = [word for word in words if word not in options] or [""]
    session = next((each.partition("=")[2] for each in options if "--session=" in each), "")
    is_prefix = "--prefix" in options
    known = all(each == "--prefix" or each.startswith("--session=") for each in options)
    match verb, rest, is_prefix:
        case "put", [key, value], False if known:
            return {"put": key, "value": value, **({"session": session} if session else {})}
        case "get", [key], _ if known and not session:
            return {"range" if is_prefix else "get": key}
        case "del" | "delete", [key], _ if known and not session:
            return {"delete_prefix" if is_prefix else "delete": key}
    raise click.BadParameter(f"{text!r} is no operation; {OPERATIONS_ARE}")


def transaction_of(text: str) -> dict[str, Any]:
    r"""Read three blocks of lines, as etcdctl does: compare, then, else; empty lines divide them.

    >>> transaction_of("version(a) = 0\n\nput a 1\n\nget a\n")["else"]
    [{'get': 'a'}]
    """
    blocks: list[list[str]] = [[]]
    for line in text.strip("\n").split("\n"):
        if line.strip():
            blocks[-1].append(line)
        else:
            blocks.append([])
    if len(blocks) > 3:
        raise click.BadParameter("a transaction has three blocks: compare, then, else")
    compares, then, otherwise = (*blocks, [], [])[:3]
    return {
        "compare": list(map(compare_of, compares)),
        "then": list(map(operation_of, then)),
        "else": list(map(operation_of, otherwise)),
    }


def _bare(text: str) -> str:
    """Return what stands between quotes, or the text."""
    text = text.strip()
    is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1] if is_quoted else text
