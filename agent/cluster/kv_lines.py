"""Shared keys as lines of JSON: what ``covey kv export`` writes, and ``covey kv import`` reads.

One key a line, with all its versions, newest first, as ``GET /api/v1/kv`` has them. Text where the
bytes are UTF-8, else base64, so that each value comes back byte for byte. A field that is not known
here is refused and not passed over: what it means would be lost without a word.
"""

import base64
import binascii
from typing import Annotated, NamedTuple

import msgspec

from gossip.core.errors import InvalidRequest
from gossip.kv.records import encode_context
from gossip.kv.requests import check_key

VERSIONS_MAX = 1024


class BadKeyLine(ValueError):
    """A line that is no key with its values; the message says why."""


class KeyLine(NamedTuple):
    """A key, and the values that it is to have: one, or several that knew nothing of each other."""

    key: str
    values: tuple[bytes, ...]


class _Version(msgspec.Struct, forbid_unknown_fields=True):
    value: str | None = None
    value_base64: str | None = None
    written_ms: int = 0


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    values: Annotated[list[_Version], msgspec.Meta(min_length=1, max_length=VERSIONS_MAX)]


_decode = msgspec.json.Decoder(_Entry).decode


def read_line(line: bytes) -> KeyLine:
    """Return what a line says. Raises BadKeyLine."""
    try:
        entry = _decode(line)
        check_key(entry.key)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidRequest) as error:
        raise BadKeyLine(str(error)) from None
    return KeyLine(entry.key, tuple(map(_data, entry.values)))


def _data(version: _Version) -> bytes:
    if (version.value is None) == (version.value_base64 is None):
        raise BadKeyLine("a version has either `value` or `value_base64`")
    try:
        if version.value is not None:
            return version.value.encode()
        return base64.b64decode(version.value_base64 or "", validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError) as error:
        raise BadKeyLine(f"a value cannot be read: {error}") from None


def unseen(key: str) -> str:
    """Return the context of who has seen nothing of a key: what it writes replaces nothing."""
    return base64.urlsafe_b64encode(encode_context(key, ())).decode()
