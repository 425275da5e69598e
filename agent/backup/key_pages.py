"""Pages of shared keys as the API gives them for a backup, and takes them back.

Versions are here as owners have them: with their types, stamps, and whatever else a version has.
The number of a version's fields goes along, so that no field of a later version is lost without a
word by who does not know it.
"""

from typing import Annotated

import msgspec

from agent.exits import NO, USAGE, AgentError
from gossip.kv.limits import LIST_ENTRIES_MAX, RESTORED_VERSIONS_MAX
from gossip.kv.records import Version
from gossip.kv.requests import Key

MEDIA_TYPE = "application/msgpack"
PAGE_KEYS = 500
PAGE_BYTES_MAX = 4 * 1024 * 1024
"""Of a request; a client sends 1 MiB or so, and a key may have 768 KiB."""
PAGE_BYTES_WANTED = 1024 * 1024
VERSION_FIELDS = len(Version.__struct_fields__)


class SavedKey(msgspec.Struct, frozen=True, array_like=True):
    """A key with its live versions."""

    key: Key
    versions: Annotated[
        tuple[Version, ...], msgspec.Meta(min_length=1, max_length=RESTORED_VERSIONS_MAX)
    ]

    def size_bytes(self) -> int:
        """Return roughly how much of a page it takes."""
        per_version = 40
        return len(self.key) + sum(len(v.value) + per_version for v in self.versions)


class SavedPage(msgspec.Struct, frozen=True, array_like=True):
    """Keys in their order, and of a listing how it goes on, and whether enough owners answered."""

    fields: int
    keys: Annotated[tuple[SavedKey, ...], msgspec.Meta(max_length=LIST_ENTRIES_MAX)]
    next: str = ""
    is_whole: bool = True


encode_page = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(SavedPage).decode


def decode_page(data: bytes) -> SavedPage:
    """Read a page. Raises AgentError for what is none, or of a later version."""
    try:
        page = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        hint = "send what `covey backup create` saved"
        raise AgentError(f"this is no page of shared keys: {error}", hint, USAGE) from None
    if page.fields > VERSION_FIELDS:
        raise AgentError(
            "these keys have fields that this version does not know, and would lose; nothing was"
            " changed",
            "update this agent",
            NO,
        )
    return page
