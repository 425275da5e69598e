"""Shared keys as lines: what is written comes back byte for byte, and what is no key is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.api.kv import describe_value
from agent.cluster.kv_lines import BadKeyLine, KeyLine, read_line, unseen
from agent.text.escaping import json_text
from gossip.bodies.file_records import OWN_PREFIX
from gossip.kv.records import decode_context
from gossip.kv.requests import Value

KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(
    lambda key: not key.startswith(OWN_PREFIX)
)


@given(KEYS, st.lists(st.binary(max_size=60), min_size=1, max_size=4))
def test_what_the_api_lists_comes_back_byte_for_byte(key: str, values: list[bytes]) -> None:
    described = [describe_value(Value(value, 1 << 16, (1, 1))) for value in values]
    line = json_text({"key": key, "values": described}).encode()
    assert b"\n" not in line
    assert read_line(line) == KeyLine(key, tuple(values))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"no json",
        b"[]",
        b'{"key": "a"}',
        b'{"key": "a", "values": []}',
        b'{"key": "", "values": [{"value": "x"}]}',
        rb'{"key": "\u0000f/image", "values": [{"value": "x"}]}',
        b'{"key": "a", "values": [{}]}',
        b'{"key": "a", "values": [{"value": "x", "value_base64": "eA=="}]}',
        b'{"key": "a", "values": [{"value_base64": "!"}]}',
        b'{"key": "a", "values": [{"value": "x", "later": 1}]}',
        b'{"key": "a", "values": [{"value": "x"}], "later": 1}',
        b'{"key": "a", "values": [{"value": 5}]}',
        b'{"key": "a", "values": [{"value": "5", "type": "counter"}]}',
        b'{"key": "a", "values": [{"value": 5, "type": "queue"}]}',
        b'{"key": "a", "values": [{"value": 5, "type": "max"}, {"value": "x"}]}',
        b'{"key": "\xff", "values": [{"value": "x"}]}',
        json.dumps({"key": "k" * 513, "values": [{"value": "x"}]}).encode(),
        json.dumps({"key": "a", "values": [{"value": "x"}] * 1025}).encode(),
        b"[" * 100_000,
    ],
)
def test_what_is_no_key_with_values_is_refused(line: bytes) -> None:
    with pytest.raises(BadKeyLine):
        read_line(line)


def test_a_lone_surrogate_is_refused() -> None:
    for line in (
        rb'{"key": "\ud800", "values": [{"value": "x"}]}',
        rb'{"key": "a", "values": [{"value": "\ud800"}]}',
    ):
        with pytest.raises(BadKeyLine):
            read_line(line)


def test_the_context_of_who_has_seen_nothing_names_no_version() -> None:
    import base64

    assert decode_context("k", base64.urlsafe_b64decode(unseen("k"))) == ()


@pytest.mark.parametrize(
    ("kind", "data", "changes"),
    [
        ("counter", b"-5", [{"type": "counter", "by": -5}]),
        ("set", b'["a", "b"]', [{"type": "set", "add": "a"}, {"type": "set", "add": "b"}]),
        ("map", b'{"f": "v"}', [{"type": "map", "field": "f", "value": "v"}]),
        ("max", b"2.5", [{"type": "max", "number": 2.5}]),
        ("min", b"3", [{"type": "min", "number": 3}]),
    ],
)
def test_a_typed_value_comes_back_as_what_makes_it(
    kind: str, data: bytes, changes: list[object]
) -> None:
    described = describe_value(Value(data, 1 << 16, (1, 1), kind))
    line = read_line(json_text({"key": "k", "values": [described]}).encode())
    assert line == KeyLine("k", (data,), kind)
    assert list(line.changes()) == changes
