"""Commands as bytes: pinned, and whoever does not know one does not go on."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.control import commands as c
from gossip.control.bounds import VALUE_BYTES_MAX
from gossip.control.state_machine import ControlState
from gossip.control.transactions import (
    Compare,
    CompareField,
    CompareRelation,
    DeleteKey,
    DeletePrefix,
    GetKey,
    GetRange,
    PutKey,
)
from gossip.core.errors import LimitExceeded, Malformed
from tests.fuzz.hostile import bit_flips, truncations

VECTORS = Path(__file__).parents[3] / "vectors" / "control-commands-v1.json"
COMPARE = Compare("k", CompareField.VALUE, CompareRelation.EQUAL, b"1")
OPERATIONS = (
    PutKey("k", b"v", 9), DeleteKey("k"), DeletePrefix("k"), GetKey("k"),
    GetRange("k", "k1", 10, keys_only=True),
)  # fmt: skip

COMMANDS: list[c.Command] = [
    c.Command(c.RegisterClient(2**63)),
    c.Command(c.Transact((COMPARE,), OPERATIONS, OPERATIONS[:1]), 5, 6, 7),
    c.Command(c.OpenSession(2**64 - 1, 10_000, 15_000, "label"), 5, 7),
    c.Command(c.CloseSession(9), 5, 8),
    c.Command(c.ExpireSession(9, 3)),
    c.Command(c.AcquireLock("door", 9, 2, wait=False, value=b"me"), 5, 9),
    c.Command(c.ReleaseLock("door", 9), 5, 10),
    c.Command(c.ProclaimValue("door", 9, b"me"), 5, 11),
    c.Command(c.EndDelay("door", 12, 3)),
    c.Command(c.EnterBarrier("start", 9, 2), 5, 12),
    c.Command(c.LeaveBarrier("start", 9), 5, 13),
    c.Command(
        c.ChangeRegistry(bytes(16), b"signed", (c.TokenChange(b"token", 8, b"value"),)), 5, 14
    ),
]


def test_every_command_has_its_pinned_bytes() -> None:
    """If this fails, an old log means something else now: add fields at the end, with a default."""
    pinned = json.loads(VECTORS.read_text())
    made = [[type(each.action).__name__, c.encode_command(each).hex()] for each in COMMANDS]
    assert made == pinned
    assert {type(each.action) for each in COMMANDS} == set(c.Action.__args__)


def test_pinned_bytes_come_back_as_their_commands() -> None:
    pinned = [bytes.fromhex(data) for _, data in json.loads(VECTORS.read_text())]
    assert [c.decode_command(data) for data in pinned] == COMMANDS


@pytest.mark.parametrize("command", COMMANDS, ids=lambda each: type(each.action).__name__)
def test_what_is_cut_short_or_flipped_is_unknown_or_decodes(command: c.Command) -> None:
    data = c.encode_command(command)
    for cut in truncations(data):
        with pytest.raises(c.UnknownCommand):
            c.decode_command(cut)
    for flipped in bit_flips(data):
        state = ControlState()
        try:
            state.apply(1, 1, flipped)
        except c.UnknownCommand:
            assert state.index == 0, "nothing of it was applied"


@pytest.mark.parametrize(
    "data",
    [
        b"\x91\x91\x50",
        b"\x91\x93\x01\x00\x00",
        b"\x95\x92\x01\x00\x00\x00\x00\x00",
        b"\x91\x92\x04\xa0",
    ],
    ids=["a new command", "a new field", "a new field of the envelope", "another type"],
)
def test_what_a_newer_version_wrote_is_not_passed_over(data: bytes) -> None:
    """Skipping it would leave this replica different from all others."""
    with pytest.raises(c.UnknownCommand, match="update this agent"):
        c.decode_command(data)


def test_a_command_has_a_size() -> None:
    large = c.Command(c.Transact((), (PutKey("k", bytes(VALUE_BYTES_MAX)),) * 9))
    with pytest.raises(LimitExceeded, match="split it"):
        c.encode_command(large)


def test_a_snapshot_that_is_none_is_malformed() -> None:
    image = ControlState().snapshot()
    for data in (*truncations(image), b"\x96\x02" + image[2:]):
        with pytest.raises(Malformed):
            ControlState.restore(data, 1)


@given(st.binary(max_size=40))
def test_any_bytes_are_a_command_or_unknown(data: bytes) -> None:
    try:
        c.decode_command(data)
    except c.UnknownCommand:
        return


if __name__ == "__main__":
    VECTORS.write_text(
        json.dumps(
            [[type(each.action).__name__, c.encode_command(each).hex()] for each in COMMANDS]
        )
        + "\n"
    )
