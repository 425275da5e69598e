"""Framing: tags, lengths, and what newer versions may send."""

import msgspec
import pytest

from gossip.core.errors import LimitExceeded, Malformed
from gossip.core.wire import ITEM_BYTES_MAX, Codec, pack, tag_of, unpack


class Old(msgspec.Struct, array_like=True, tag=7):
    number: int


class Newer(msgspec.Struct, array_like=True, tag=7):
    number: int
    added: str = ""


class Unknown(msgspec.Struct, array_like=True, tag=8):
    number: int


OLD: Codec[Old] = Codec(Old)


def test_items_come_out_as_they_went_in() -> None:
    items = [b"", b"a", bytes(300), bytes(ITEM_BYTES_MAX)]
    assert list(unpack(pack(items))) == items
    assert list(unpack(b"")) == []


def test_an_item_that_is_too_long_is_refused() -> None:
    with pytest.raises(LimitExceeded):
        pack([bytes(ITEM_BYTES_MAX + 1)])


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_length_that_runs_past_the_end_is_malformed(cut: int) -> None:
    body = pack([b"abcdef"])
    with pytest.raises(Malformed):
        list(unpack(body[:-cut]))


def test_what_precedes_the_malformed_item_is_still_read() -> None:
    read: list[bytes] = []
    with pytest.raises(Malformed):
        read.extend(unpack(pack([b"good"]) + b"\x00\x09bad"))
    items = unpack(pack([b"good"]) + b"\x00\x09bad")
    assert next(items) == b"good"


def test_a_tag_is_read_without_decoding() -> None:
    assert tag_of(msgspec.msgpack.encode(Old(1))) == 7
    assert tag_of(msgspec.msgpack.encode([7, *range(40)])) == 7


@pytest.mark.parametrize(
    "data", [b"", b"\x90", b"\x91", b"\xc0", b"\xa1a", b"\xdc\x00\x10", b"\x91\xcc\x07", b"\x80"]
)
def test_what_has_no_tag_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        tag_of(data)


def test_an_unknown_kind_is_skipped_not_refused() -> None:
    assert OLD.decode(msgspec.msgpack.encode(Unknown(1))) is None


def test_old_and_new_versions_talk() -> None:
    newer: Codec[Newer] = Codec(Newer)
    assert OLD.decode(newer.encode(Newer(3, "more"))) == Old(3)
    assert newer.decode(OLD.encode(Old(3))) == Newer(3, "")


@pytest.mark.parametrize("fields", [[], ["text"], [None], [[1]]])
def test_a_known_kind_with_wrong_fields_is_malformed(fields: list[object]) -> None:
    with pytest.raises(Malformed):
        OLD.decode(msgspec.msgpack.encode([7, *fields]))


def test_deep_nesting_is_malformed_and_nothing_worse() -> None:
    with pytest.raises(Malformed):
        OLD.decode(b"\x92\x07" + b"\x91" * 100_000)


def test_two_messages_may_not_share_a_tag() -> None:
    class Twin(msgspec.Struct, array_like=True, tag=8):
        other: int

    assert Codec(Old | Unknown).tags == {7, 8}
    with pytest.raises((AssertionError, TypeError, ValueError)):
        Codec(Unknown | Twin)
