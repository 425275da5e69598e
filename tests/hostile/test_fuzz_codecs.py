"""Hostile bytes at every codec: they decode or are malformed, and nothing is left unlooked at."""

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossip.core.errors import Malformed
from gossip.core.wire import Codec
from tests.fuzz.codecs import EXAMPLES, Golden, codecs, goldens, kinds_of
from tests.fuzz.hostile import RAW, Mutator, bit_flips, truncations

CODECS = sorted(codecs())


def decoded(codec: Codec[Any], data: bytes) -> object:
    """Return the message, or Malformed as a value: any other exception ends the test."""
    try:
        return codec.decode(data)
    except Malformed as error:
        return error


# Nothing is forgotten.


def test_all_planes_are_found() -> None:
    """If a plane is missing here, its messages go untested."""
    assert {name.split(":")[0] for name in CODECS} >= {
        "gossip.membership.model.messages",
        "gossip.kv.messages",
        "gossip.consensus.messages",
        "agent.admission.messages",
        "agent.keys.messages",
        "agent.doctor.messages",
    }
    assert len({id(codec) for codec in codecs().values()}) == len(CODECS)


@pytest.mark.parametrize("name", CODECS)
def test_every_struct_of_a_codec_has_a_vector_and_is_fuzzed(name: str) -> None:
    """Whoever adds a message adds an example to the vectors of its plane; the fuzzer takes it."""
    codec = codecs()[name]
    missing = {kind.__name__ for kind in kinds_of(codec)} - {
        type(codec.decode(golden.data)).__name__ for golden in goldens() if golden.codec is codec
    }
    assert not missing, f"no golden vector for {sorted(missing)} of {name}"


def test_every_example_is_somebodys() -> None:
    read = {kind for codec in codecs().values() for kind in kinds_of(codec)}
    assert not [message for message in EXAMPLES if type(message) not in read]


def test_planes_that_share_a_stream_share_no_tag() -> None:
    by_tag: dict[int, str] = {}
    for name in CODECS:
        for tag in codecs()[name].tags:
            # What a guest and a member say before there is a stream between members: its own.
            assert by_tag.setdefault(tag, name) == name
    assert set(by_tag) <= set(range(1, 128))


# Every truncation and every bit flip of every message: the whole set.


@pytest.mark.parametrize("golden", goldens(), ids=lambda golden: golden.name)
def test_every_truncation_is_malformed(golden: Golden) -> None:
    """No message is the beginning of another: what is cut short is never taken for whole."""
    for data in truncations(golden.data):
        assert isinstance(decoded(golden.codec, data), Malformed), data.hex()


@pytest.mark.parametrize("golden", goldens(), ids=lambda golden: golden.name)
def test_every_bit_flip_decodes_or_is_malformed(golden: Golden) -> None:
    for data in bit_flips(golden.data):
        decoded(golden.codec, data)


@pytest.mark.parametrize("golden", goldens(), ids=lambda golden: golden.name)
def test_what_decodes_encodes_again(golden: Golden) -> None:
    """A message that was let in can be passed on; an unencodable one would end the sender."""
    for data in bit_flips(golden.data):
        with contextlib.suppress(Malformed):
            message = golden.codec.decode(data)
            if message is not None:
                golden.codec.encode(message)


# With knowledge of the format.


@pytest.mark.parametrize("raw", RAW, ids=lambda raw: raw[:6].hex())
def test_no_value_in_any_field_does_more_than_be_malformed(raw: bytes) -> None:
    """Each of the nastiest values in each field of each message."""
    for golden in goldens():
        head, count = golden.data[:2], golden.data[0] & 0x0F
        for at in range(1, count):
            fields = [b"\x01"] * (at - 1) + [raw] + [b"\x01"] * (count - 1 - at)
            decoded(golden.codec, head + b"".join(fields))


@settings(max_examples=300)
@given(st.sampled_from(goldens()), st.randoms(use_true_random=False))
def test_any_lie_decodes_or_is_malformed(golden: Golden, rng: Any) -> None:
    message = decoded(golden.codec, Mutator(rng).spoil(golden.data))
    if message is not None and not isinstance(message, Malformed):
        golden.codec.encode(message)
