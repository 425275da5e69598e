"""Values at rest: what is sealed opens under its own name and key alone; no nonce comes twice."""

import pytest

from agent.store.value_seal import (
    HEADER_BYTES,
    MARK,
    NONCE_BYTES,
    KeyMissing,
    ValueBroken,
    ValueSeal,
    is_sealed,
)
from tests.fuzz.hostile import bit_flips, truncations

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))


def test_what_was_sealed_opens_and_shows_nothing() -> None:
    seal = ValueSeal(KEY)
    closed = seal.close("lamp", b"the secret")
    assert is_sealed(closed)
    assert b"secret" not in closed
    assert seal.open("lamp", closed) == b"the secret"
    assert ValueSeal(KEY).open("lamp", closed) == b"the secret", "after another start"


def test_it_stands_for_no_other_key_and_no_bit_of_it_can_be_changed() -> None:
    seal = ValueSeal(KEY)
    closed = seal.close("lamp", b"on")
    with pytest.raises(ValueBroken):
        seal.open("door", closed)
    for bad in (*bit_flips(closed), *truncations(closed)):
        if is_sealed(bad):
            with pytest.raises((ValueBroken, KeyMissing)):
                seal.open("lamp", bad)
        else:
            assert seal.open("lamp", bad) == bad, "taken for what was never sealed"


def test_no_nonce_comes_twice_under_a_key() -> None:
    seen = set()
    for _ in range(20):
        seal = ValueSeal(KEY)  # a start each
        for _ in range(200):
            closed = seal.close("lamp", b"on")
            seen.add(closed[len(MARK) : HEADER_BYTES])
            count = closed[HEADER_BYTES - NONCE_BYTES + 4 : HEADER_BYTES]
            assert 1 <= int.from_bytes(count) <= 200, "it counts"
    assert len(seen) == 20 * 200


def test_without_the_key_it_says_which_one_is_missing() -> None:
    closed = ValueSeal(KEY).close("lamp", b"on")
    for seal in (ValueSeal(), ValueSeal(OTHER)):
        with pytest.raises(KeyMissing, match="nothing was changed") as error:
            seal.open("lamp", closed)
        assert closed[2:10].hex() in error.value.message
        assert "storage.key_file" in error.value.hint


def test_former_keys_open_and_do_not_close() -> None:
    before = ValueSeal(KEY).close("lamp", b"on")
    seal = ValueSeal(OTHER, [KEY])
    assert seal.open("lamp", before) == b"on"
    assert not seal.is_current(before)
    assert not seal.is_current(b"\x92\x90\x90")
    assert seal.is_current(seal.close("lamp", b"on"))
    off = ValueSeal(None, [KEY])
    assert off.close("lamp", b"on") == b"on"
    assert off.open("lamp", before) == b"on"
    assert off.is_current(b"on")
    assert not off.is_current(before)
