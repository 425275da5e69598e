"""Changes of typed values, as the JSON of a request says them.

{"type": "counter", "by": 1}            {"type": "set", "add": "ada"}    or "remove"
{"type": "max", "number": 3.5}          {"type": "map", "field": "colour", "value": "red"}
{"type": "min", "number": 3}            a value of null removes the field
"""

from collections.abc import Callable, Mapping
from typing import Any

from agent.api.errors import BadRequest
from gossip.kv.changes import Change, CounterUpdate, LimitUpdate, MapUpdate, SetUpdate
from gossip.kv.limits import VALUE_BYTES_MAX
from gossip.kv.typed_values import COUNTER, MAP, MAX, MIN, SET

CHANGE_BYTES_MAX = VALUE_BYTES_MAX
CHANGE_WORDS = frozenset({"type", "by", "add", "remove", "field", "value", "number"})

Body = Mapping[str, Any]


def read_change(body: Body) -> Change:
    """Return the change that is asked for. Raises BadRequest."""
    kind = body.get("type")
    reader = READERS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise BadRequest("`type` says what is changed", f"one of {', '.join(READERS)}")
    return reader(body)


def _counter(body: Body) -> Change:
    by = _only(body, "by").get("by", 1)
    if not isinstance(by, int) or isinstance(by, bool):
        raise BadRequest("`by` is a whole number", "1 unless given; below 0 to count down")
    return CounterUpdate(by)


def _set(body: Body) -> Change:
    _only(body, "add", "remove")
    if ("add" in body) == ("remove" in body):
        raise BadRequest("a set takes one of `add` and `remove`", "one member in a request")
    removes = "remove" in body
    return SetUpdate(_text(body, "remove" if removes else "add"), removes)


def _map(body: Body) -> Change:
    _only(body, "field", "value")
    if "value" not in body:
        raise BadRequest("a map takes `field` and `value`", "a value of null removes the field")
    return MapUpdate(_text(body, "field"), None if body["value"] is None else _text(body, "value"))


def _limit(body: Body) -> Change:
    number = _only(body, "number").get("number")
    if not isinstance(number, int | float) or isinstance(number, bool):
        raise BadRequest("`number` is what it is to be raised or lowered to", "5 or 3.25, say")
    return LimitUpdate(number, body["type"])


READERS: dict[str, Callable[[Body], Change]] = {
    COUNTER: _counter,
    SET: _set,
    MAP: _map,
    MAX: _limit,
    MIN: _limit,
}


def _only(body: Body, *words: str) -> Body:
    if unknown := sorted(body.keys() - {"type", *words}):
        raise BadRequest(f"a {body['type']} takes no `{unknown[0]}`", f"but {', '.join(words)}")
    return body


def _text(body: Body, name: str) -> str:
    text = body.get(name)
    if not isinstance(text, str):
        raise BadRequest(f"`{name}` is a text", "write it in quotation marks")
    return text
