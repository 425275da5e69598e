"""What the shared keys hold of files: their names, their blocks, and uploads under way.

These are records like all others, so that they are placed, handed over, repaired and deleted like
all others (``gossip/kv``)::

    NUL f/NAME        FileRecord     a name, and the file that it stands for
    NUL b/FILE/INDEX  BlockRecord    one block of a file; who owns this key is to have its body
    NUL u/FILE        UploadRecord   somebody writes this file; gone when it has its name

The bodies of blocks are no records: they lie beside, and whoever owns a block's record has to get
its body (``block_keeper.py``). No key of an application begins with NUL.

Fields are added at the end, with a default.
"""

from hashlib import blake2b
from typing import Annotated, NamedTuple, TypeVar

import msgspec

from gossip.bodies.block_limits import (
    BLOCK_BYTES,
    BLOCKS_MAX,
    DIGEST_BYTES,
    FILE_ID_BYTES,
    FILE_NAME_BYTES_MAX,
)
from gossip.core.errors import InvalidRequest, Malformed

OWN_PREFIX = "\0"
"""Begins the keys that are Covey's own, and no other."""
FILE_PREFIX, BLOCK_PREFIX, UPLOAD_PREFIX = "\0f/", "\0b/", "\0u/"
OWN_LAST = OWN_PREFIX + "\U0010ffff"
"""Sorts behind all of Covey's own keys, and before those of applications."""
INDEX_DIGITS = 6
ALSO_IN_NAMES = dict.fromkeys(
    (0xA0, *range(0x2000, 0x200B), 0x200C, 0x200D, 0x202F, 0x205F, 0x3000), "x"
)
"""What devices put into names, though ``str.isprintable`` has it not: spaces of other widths (a Mac
before the AM of a screenshot, all Japan), and the joiners of Persian and of emoji."""

FileId = Annotated[bytes, msgspec.Meta(min_length=FILE_ID_BYTES, max_length=FILE_ID_BYTES)]
Digest = Annotated[bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
BlockNumber = Annotated[int, msgspec.Meta(ge=0, lt=BLOCKS_MAX)]
BlockBytes = Annotated[int, msgspec.Meta(ge=0, le=BLOCK_BYTES)]
FileBytes = Annotated[int, msgspec.Meta(ge=0, le=BLOCKS_MAX * BLOCK_BYTES)]
"""Whoever lists or removes a file counts its blocks: none has more than one can have."""
Number = Annotated[int, msgspec.Meta(ge=0)]


class BlockName(NamedTuple):
    """Which block of which file. A file id is random and is never given to other content."""

    file: FileId
    number: BlockNumber

    @property
    def key(self) -> str:
        """The key of its record."""
        return f"{BLOCK_PREFIX}{self.file.hex()}/{self.number:0{INDEX_DIGITS}x}"


class FileRecord(msgspec.Struct, frozen=True, array_like=True):
    """The file that a name stands for. ``digest`` is of the digests of its blocks, in order.

    ``is_shared``: it was moved, so that for a moment two names stood for it. Its blocks are not
    taken away with a name, but when no name is left.
    """

    file: FileId
    size_bytes: FileBytes
    digest: Digest
    written_ms: Number
    is_shared: bool = False

    @property
    def blocks(self) -> int:
        """How many blocks it has."""
        return -(-self.size_bytes // BLOCK_BYTES)


class BlockRecord(msgspec.Struct, frozen=True, array_like=True):
    """How large a block is, and the BLAKE2b of its body."""

    size_bytes: BlockBytes
    digest: Digest


class UploadRecord(msgspec.Struct, frozen=True, array_like=True):
    """The name that a file under way is to get, and a mark by which its writer finds it again.

    Without a name: the file has one, and gets another. Until that is over nobody takes its blocks.
    """

    name: str
    mark: str = ""


R = TypeVar("R", FileRecord, BlockRecord, UploadRecord)

encode = msgspec.msgpack.Encoder().encode


def decode_record(data: bytes, kind: type[R]) -> R:
    """Read what ``encode`` wrote. Raises Malformed."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"no {kind.__name__}: {error}") from None


def block_of(key: str) -> BlockName:
    """Return the block that a key is of. Raises Malformed."""
    file, _, index = key.removeprefix(BLOCK_PREFIX).partition("/")
    try:
        name = BlockName(bytes.fromhex(file), int(index, 16))
    except ValueError:
        raise Malformed("no key of a block") from None
    if name.key != key or len(name.file) != FILE_ID_BYTES or name.number >= BLOCKS_MAX:
        raise Malformed("no key of a block")
    return name


def file_key(name: str) -> str:
    """Return the key of a file's name. Raises InvalidRequest for what can be none."""
    check_file_name(name)
    return FILE_PREFIX + name


def upload_key(file: bytes) -> str:
    """Return the key under which stands that a file is being written."""
    return UPLOAD_PREFIX + file.hex()


def file_of_upload(key: str) -> bytes | None:
    """Return which file an upload's key is of; None for what no version of ours wrote."""
    try:
        file = bytes.fromhex(key.removeprefix(UPLOAD_PREFIX))
    except ValueError:
        return None
    return file if len(file) == FILE_ID_BYTES and upload_key(file) == key else None


def check_file_name(name: str) -> None:
    """Raise InvalidRequest unless this can be the name of a file."""
    try:
        size_bytes = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidRequest("a file's name is text in UTF-8") from None
    if not 1 <= size_bytes <= FILE_NAME_BYTES_MAX:
        raise InvalidRequest(f"a file's name has 1 to {FILE_NAME_BYTES_MAX} bytes")
    if not name.translate(ALSO_IN_NAMES).isprintable():
        raise InvalidRequest(
            "a file's name has no control characters, no line breaks, and nothing that turns the "
            "direction of writing"
        )
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise InvalidRequest("a file's name has no empty part, no . and no .. between its slashes")


def digest_of(body: bytes | bytearray | memoryview) -> bytes:
    """Return the BLAKE2b of a body."""
    return blake2b(body, digest_size=DIGEST_BYTES).digest()
