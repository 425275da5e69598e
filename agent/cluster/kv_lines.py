"""Shared keys as lines of JSON: what ``covey kv export`` writes, and ``covey kv import`` reads.

One key a line, with all its versions, newest first, as ``GET /api/v1/kv`` has them. Text where the
bytes are UTF-8, else base64, so that each value comes back byte for byte. A field that is not known
here is refused and not passed over: what it means would be lost without a word.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, NamedTuple

import msgspec

from gossip.bodies.file_records import OWN_PREFIX
from gossip.core.errors import InvalidRequest
from gossip.core.hlc import stamp_ms
from gossip.kv.limits import TTL_S_MIN
from gossip.kv.records import Version, encode_context
from gossip.kv.requests import Value, check_key, values_of
from gossip.kv.typed_values import COUNTER, MAP, MAX, MIN, REGISTER, SET

VERSIONS_MAX = 1024
CONTENTS: dict[str, tuple[type, ...]] = {
    COUNTER: (int,),
    SET: (list,),
    MAP: (dict,),
    MAX: (int, float),
    MIN: (int, float),
}
"""What the value of each type is in JSON."""


class BadKeyLine(ValueError):
    """A line that is no key with its values; the message says why."""


class KeyLine(NamedTuple):
    """A key, and the values that it is to have: one, or several that knew nothing of each other.

    A counter, set, map, max or min has one value, as JSON.
    """

    key: str
    values: tuple[bytes, ...]
    type: str = REGISTER
    expires_ms: tuple[int, ...] = ()
    """When each of the values expires, in Unix milliseconds; 0: it does not. Empty: none does."""

    def living(self, now_ms: float) -> list[tuple[bytes, float | None]]:
        """Return the values that have not expired, with the seconds that each has left."""
        left = [(each - now_ms) / 1000 if each else None for each in self.expires_ms]
        values = zip(self.values, left or [None] * len(self.values), strict=True)
        return [(value, ttl_s) for value, ttl_s in values if ttl_s is None or ttl_s > TTL_S_MIN]

    def changes(self) -> Iterator[dict[str, Any]]:
        """Yield what makes of nothing a key of this type with this value, as the API takes it."""
        content = json.loads(self.values[0])
        match self.type:
            case "counter":
                yield {"type": self.type, "by": content}
            case "set":
                yield from ({"type": self.type, "add": member} for member in content)
            case "map":
                for name, text in content.items():
                    yield {"type": self.type, "field": name, "value": text}
            case _:
                yield {"type": self.type, "number": content}


class _Version(msgspec.Struct, forbid_unknown_fields=True):
    value: str | int | float | list[str] | dict[str, str] | None = None
    type: str = REGISTER
    value_base64: str | None = None
    written_ms: int = 0
    expires_ms: Annotated[int, msgspec.Meta(ge=0)] = 0


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    values: Annotated[list[_Version], msgspec.Meta(min_length=1, max_length=VERSIONS_MAX)]


_decode = msgspec.json.Decoder(_Entry).decode


def is_own(key: str) -> bool:
    """Return whether a key is Covey's own, which no line has: of a file, without its blocks."""
    return key.startswith(OWN_PREFIX)


def read_line(line: bytes) -> KeyLine:
    """Return what a line says. Raises BadKeyLine."""
    try:
        entry = _decode(line)
        check_key(entry.key)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidRequest) as error:
        raise BadKeyLine(str(error)) from None
    if is_own(entry.key):
        raise BadKeyLine("keys that begin with the character U+0000 are Covey's own")
    types = {version.type for version in entry.values}
    if types == {REGISTER}:
        ends = tuple(version.expires_ms for version in entry.values)
        values = tuple(map(_data, entry.values))
        return KeyLine(entry.key, values, expires_ms=ends if any(ends) else ())
    if len(entry.values) > 1:
        raise BadKeyLine("a key of several types cannot be written as it was; keep one of them")
    (version,) = entry.values
    if not isinstance(version.value, CONTENTS.get(version.type, ())):
        raise BadKeyLine(f"`value` is not what a {version.type!r} has")
    return KeyLine(entry.key, (as_json(version.value),), version.type)


def line_of(key: str, live: Iterable[Version]) -> dict[str, Any]:
    """Return a key with these versions as a line, newest first; the inverse of ``read_line``."""
    return {"key": key, "values": [_described(value) for value in values_of(tuple(live))]}


def _described(value: Value) -> dict[str, Any]:
    written = {"written_ms": stamp_ms(value.stamp)}
    if value.expires_ms:
        written["expires_ms"] = value.expires_ms
    if value.type != REGISTER:
        return {"value": json.loads(value.data), "type": value.type, **written}
    try:
        return {"value": value.data.decode(), **written}
    except UnicodeDecodeError:
        return {"value_base64": base64.b64encode(value.data).decode(), **written}


def as_json(content: object) -> bytes:
    """Return what a typed value comes to, as the API has it."""
    return json.dumps(content, ensure_ascii=False).encode(errors="replace")


def _data(version: _Version) -> bytes:
    if (version.value is None) == (version.value_base64 is None):
        raise BadKeyLine("a version has either `value` or `value_base64`")
    try:
        if version.value is not None:
            if not isinstance(version.value, str):
                raise BadKeyLine("a `value` without a type is text")
            return version.value.encode()
        return base64.b64decode(version.value_base64 or "", validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError) as error:
        raise BadKeyLine(f"a value cannot be read: {error}") from None


def unseen(key: str) -> str:
    """Return the context of who has seen nothing of a key: what it writes replaces nothing."""
    return base64.urlsafe_b64encode(encode_context(key, ())).decode()
