"""Names and keys of files, and records that others may have spoiled."""

from typing import Any

import pytest

from gossip.bodies.block_limits import BLOCK_BYTES, BLOCKS_MAX, FILE_NAME_BYTES_MAX
from gossip.bodies.file_records import (
    OWN_LAST,
    OWN_PREFIX,
    BlockName,
    BlockRecord,
    FileRecord,
    UploadRecord,
    block_of,
    decode_record,
    digest_of,
    encode,
    file_key,
    file_of_upload,
    upload_key,
)
from gossip.core.errors import InvalidRequest, Malformed
from gossip.kv.limits import KEY_BYTES_MAX
from gossip.kv.requests import check_key

FILE = bytes(range(16))
LONG = "x" * (FILE_NAME_BYTES_MAX + 1)
MOVED = FileRecord(FILE, 5, digest_of(b"x"), 7, is_shared=True)


def test_all_own_keys_sort_before_those_of_applications() -> None:
    longest = "é" * (FILE_NAME_BYTES_MAX // 2)
    keys = [BlockName(FILE, 4095).key, file_key(longest), file_key("\U00020000"), upload_key(FILE)]
    for key in keys:
        check_key(key)
        assert key.startswith(OWN_PREFIX)
        assert key < OWN_LAST < "\x01"
        assert len(key.encode()) <= KEY_BYTES_MAX


def test_a_key_tells_its_block_and_nothing_else_does() -> None:
    name = BlockName(FILE, 4095)
    assert block_of(name.key) == name
    for key in (name.key.upper(), name.key + "0", BlockName(FILE, 4096).key, "\0b/", "\0b/zz/1",
                name.key.replace("/000fff", "/0xfff0"), BlockName(FILE[:-1], 1).key):  # fmt: skip
        with pytest.raises(Malformed):
            block_of(key)


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "dir/é b",
        "..a/b..",
        "x" * FILE_NAME_BYTES_MAX,
        "Screenshot at 1.01.11\u202fAM.png",
        "obrazovky v\u00a013.05.png",
        "写真\u3000一.jpg",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\U0001f469\u200d\U0001f4bb.txt",
    ],
)
def test_what_can_be_a_name(name: str) -> None:
    assert file_key(name).endswith(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/a",
        "a/",
        "a//b",
        ".",
        "a/../b",
        "a\nb",
        "a\0b",
        "a\x1b[2Jb",
        "a\u2028b",
        "gpj.\u202eexe",
        "a\u200bb",
        "a\ufeffb",
        "\ud800",
        "x" * (FILE_NAME_BYTES_MAX + 1),
    ],
)
def test_what_can_be_no_name(name: str) -> None:
    with pytest.raises(InvalidRequest):
        file_key(name)


def test_a_file_has_as_many_blocks_as_it_takes() -> None:
    sizes = (0, 1, BLOCK_BYTES, BLOCK_BYTES + 1)
    assert [FileRecord(FILE, n, digest_of(b""), 0).blocks for n in sizes] == [0, 1, 1, 2]


@pytest.mark.parametrize(
    "record",
    [
        FileRecord(FILE, 5, digest_of(b"x"), 7, True),
        BlockRecord(5, digest_of(b"")),
        UploadRecord("a"),
    ],
)
def test_records_are_read_as_they_were_written_or_not_at_all(
    record: FileRecord | BlockRecord | UploadRecord,
) -> None:
    data, kind = encode(record), type(record)
    read: Any = decode_record
    assert read(data, kind) == record
    for spoiled in (data[:-1], b"", b"\xc1", data[1:], b"text"):
        with pytest.raises(Malformed):
            read(spoiled, kind)


def test_no_record_says_that_a_file_has_more_blocks_than_one_can_have() -> None:
    """Whoever lists it would count them one by one, until its memory is full."""
    most = BLOCKS_MAX * BLOCK_BYTES
    assert decode_record(encode([FILE, most, digest_of(b""), 7]), FileRecord).blocks == BLOCKS_MAX
    for size_bytes in (most + 1, 2**63):
        with pytest.raises(Malformed):
            decode_record(encode([FILE, size_bytes, digest_of(b""), 7]), FileRecord)


def test_a_key_tells_of_which_upload_it_is() -> None:
    assert file_of_upload(upload_key(FILE)) == FILE
    for key in ("\0u/", "\0u/zz", upload_key(FILE).upper(), upload_key(FILE) + "00", FILE.hex()):
        assert file_of_upload(key) is None


def test_fields_of_versions_to_come_are_passed_over() -> None:
    later = encode([FILE, 5, digest_of(b"x"), 7, False, "new"])
    assert decode_record(later, FileRecord) == FileRecord(FILE, 5, digest_of(b"x"), 7)
