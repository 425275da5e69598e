"""The agreed registry and tokens: all or nothing, in the place of what was expected, or not."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossip.control.bounds import (
    REGISTRY_BYTES_MAX,
    RESERVE_BYTES,
    TOKEN_BYTES_MAX,
    TOKEN_ID_BYTES_MAX,
    TOKENS_BYTES_MAX,
    TOKENS_CHANGED_MAX,
)
from gossip.control.commands import ChangeRegistry, Command, TokenChange, encode_command
from gossip.control.lookups import ReadRegistry, RegistryResult, look_up
from gossip.control.outcomes import CONFLICT, FULL, INVALID, ChangedResult
from gossip.control.registry_table import RegistryImage, TokenEntry
from gossip.control.state_image import FIRST_IMAGE_VERSION, StateImage
from gossip.control.state_machine import ControlState
from gossip.core.errors import Malformed
from gossip.registry.merge import merge
from gossip.registry.node import RegisteredNode
from gossip.registry.registry import Registry, SignedRegistry, admit
from tests.fuzz.hostile import bit_flips, truncations
from tests.support.control_log import ControlLog
from tests.support.registries import registries, signed

FIRST, SECOND, THIRD = registries(3)
OTHER_SECOND = admit(FIRST, RegisteredNode(9, "nine"))
TOKEN = TokenChange(b"t", 0, b"one use")


def change(log: ControlLog, before: Registry | None, after: Registry, *tokens: TokenChange) -> Any:
    return log.apply(ChangeRegistry(before.mark if before else b"", signed(after), tokens))


def table(log: ControlLog) -> RegistryResult:
    result = look_up(log.state, ReadRegistry())
    assert isinstance(result, RegistryResult)
    return result


def test_one_registry_follows_the_other() -> None:
    log = ControlLog()
    assert table(log) == RegistryResult(b"", b"", 0, ())
    for before, after in ((None, FIRST), (FIRST, SECOND), (SECOND, THIRD)):
        assert change(log, before, after) == ChangedResult(log.index)
        assert table(log) == RegistryResult(signed(after), after.mark, log.index, ())
    log.restore_other()
    log.check()


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        (None, FIRST, CONFLICT),
        (FIRST, THIRD, CONFLICT),
        (FIRST, OTHER_SECOND, CONFLICT),
        (SECOND, SECOND, INVALID),
        (SECOND, FIRST, INVALID),
        (SECOND, admit(OTHER_SECOND, RegisteredNode(8, "eight")), INVALID),
        (SECOND, msgspec.structs.replace(THIRD, epoch=SECOND.epoch + 2), INVALID),
        (SECOND, msgspec.structs.replace(THIRD, cluster_id=bytes(16)), INVALID),
        (SECOND, msgspec.structs.replace(THIRD, partitions=5), INVALID),
    ],
)
def test_what_does_not_follow_changes_nothing(
    before: Registry | None, after: Registry, code: str
) -> None:
    log = ControlLog()
    change(log, None, FIRST)
    change(log, FIRST, SECOND, TOKEN)
    known = table(log)
    taken = TokenChange(b"t", known.revision, b"")
    assert change(log, before, after, taken).code == code
    assert table(log) == known, "not even of its tokens"
    assert change(log, SECOND, THIRD, taken) == ChangedResult(log.index)


def test_a_change_of_two_issuers_counts_once() -> None:
    log = ControlLog()
    change(log, None, FIRST)
    assert change(log, FIRST, SECOND) == ChangedResult(log.index)
    assert change(log, FIRST, OTHER_SECOND).code == CONFLICT
    assert table(log).mark == SECOND.mark


def test_the_end_of_a_fork_may_be_further_on() -> None:
    """The other half has gone on by itself: its epochs are not given out a second time."""
    log = ControlLog()
    change(log, None, FIRST)
    change(log, FIRST, SECOND)
    theirs = admit(admit(OTHER_SECOND, RegisteredNode(8, "eight")), RegisteredNode(7, "seven"))
    mended = merge(SECOND, SECOND.mark, theirs, theirs.mark)
    assert mended.epoch > SECOND.epoch + 1
    assert change(log, SECOND, mended) == ChangedResult(log.index)


@pytest.mark.parametrize("data", [b"x", SignedRegistry(b"\x91\x01", bytes(64)).encode()])
def test_what_is_no_registry_is_declined_alike(data: bytes) -> None:
    log = ControlLog()
    outcome: Any = log.apply(ChangeRegistry(b"", data))
    assert outcome.code == INVALID
    assert log.state.registry.agreed is None


def test_whatever_stands_in_the_place_of_a_registry_ends_no_replica() -> None:
    for data in (*truncations(signed(FIRST)), *bit_flips(signed(FIRST))):
        state = ControlState()
        change = ChangeRegistry(b"", data) if data else ChangeRegistry(b"", b"", (TOKEN,))
        outcome = state.apply(1, 1, encode_command(Command(change))).outcome
        assert isinstance(outcome, ChangedResult) or outcome.code == INVALID  # type: ignore[union-attr]


def test_a_later_version_may_add_what_this_one_does_not_read() -> None:
    fields = [*msgspec.msgpack.decode(FIRST.encode()), "of later"]
    fields[4:6] = "nodes of later", ["a", "table"]
    data = SignedRegistry(msgspec.msgpack.encode(fields), bytes(64)).encode()
    assert ControlLog().apply(ChangeRegistry(b"", data)) == ChangedResult(1)


def test_tokens_are_made_used_and_taken_away() -> None:
    log = ControlLog()
    assert log.apply(ChangeRegistry(b"", b"", (TOKEN,))) == ChangedResult(1)
    again: Any = log.apply(ChangeRegistry(b"", b"", (TOKEN,)))
    assert again.code == CONFLICT
    used = TokenChange(b"t", 1, b"used")
    assert change(log, None, FIRST, used, TokenChange(b"s", 0, b"other")) == ChangedResult(3)
    assert table(log).tokens == (TokenEntry(b"s", b"other", 3), TokenEntry(b"t", b"used", 3))
    assert change(log, FIRST, SECOND, used).code == CONFLICT, "its use was counted already"
    assert table(log).mark == FIRST.mark, "and nobody was let in by it a second time"
    log.apply(ChangeRegistry(b"", b"", (TokenChange(b"t", 3, b""),)))
    assert log.state.registry.token(b"t") is None
    log.restore_other()
    log.check()


LARGE = bytes(TOKEN_BYTES_MAX)
BAD: dict[str, ChangeRegistry] = {
    "nothing": ChangeRegistry(b"", b""),
    "a base without a registry": ChangeRegistry(FIRST.mark, b"", (TOKEN,)),
    "a large registry": ChangeRegistry(b"", bytes(REGISTRY_BYTES_MAX + 1)),
    "one token twice": ChangeRegistry(b"", b"", (TOKEN, TOKEN)),
    "no id": ChangeRegistry(b"", b"", (TokenChange(b"", 0, b"x"),)),
    "a long id": ChangeRegistry(b"", b"", (TokenChange(bytes(TOKEN_ID_BYTES_MAX + 1), 0, b"x"),)),
    "a large value": ChangeRegistry(b"", b"", (TokenChange(b"t", 0, LARGE + b"x"),)),
    "taking what is not there": ChangeRegistry(b"", b"", (TokenChange(b"t", 0, b""),)),
    "many tokens": ChangeRegistry(
        b"",
        b"",
        tuple(TokenChange(n.to_bytes(2), 0, b"x") for n in range(TOKENS_CHANGED_MAX + 1)),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_no_state_could_carry_out_is_invalid(name: str) -> None:
    log = ControlLog()
    outcome: Any = log.apply(BAD[name])
    assert outcome.code == INVALID
    log.check()


def test_all_tokens_have_a_bound_together() -> None:
    log = ControlLog()
    for number in range(TOKENS_BYTES_MAX // TOKEN_BYTES_MAX - 1):
        log.apply(ChangeRegistry(b"", b"", (TokenChange(bytes([number]), 0, LARGE),)))
    more: Any = log.apply(
        ChangeRegistry(b"", b"", tuple(TokenChange(bytes([n]), 0, LARGE) for n in (100, 101)))
    )
    assert more.code == FULL
    smaller = ChangeRegistry(b"", b"", (TokenChange(bytes([0]), 1, b"x"),))
    assert log.apply(smaller) == ChangedResult(log.index), "what makes room is always done"
    log.check()


def test_the_space_of_all_counts_for_the_registry_which_has_a_reserve_of_its_own() -> None:
    log = ControlLog()
    change(log, None, FIRST)
    full = log.state.space.used_bytes
    log.state.space.limit_bytes = log.other.space.limit_bytes = full - RESERVE_BYTES
    assert change(log, FIRST, SECOND).code == FULL
    assert table(log).mark == FIRST.mark
    log.state.space.limit_bytes = log.other.space.limit_bytes = full
    change(log, FIRST, SECOND)
    assert table(log).mark == SECOND.mark, "users have filled their part, and no more than that"


def test_a_snapshot_of_before_is_read_and_written_while_nothing_is_here() -> None:
    log = ControlLog()
    log.put("a", b"1")
    image = log.state.snapshot()
    assert msgspec.msgpack.decode(image)[0] == FIRST_IMAGE_VERSION
    as_before = msgspec.msgpack.encode(msgspec.msgpack.decode(image)[:-1])
    assert ControlState.restore(as_before, log.index).snapshot() == image


def test_a_snapshot_with_a_registry_that_is_none_is_malformed() -> None:
    image = StateImage(2, (), (), (), (), (), RegistryImage(b"nonsense", 1, ()))
    with pytest.raises(Malformed):
        ControlState.restore(msgspec.msgpack.encode(image), 1)
    image = StateImage(2, (), (), (), (), (), RegistryImage(b"", 0, (TokenEntry(b"t", b"", 1),)))
    with pytest.raises(Malformed):
        ControlState.restore(msgspec.msgpack.encode(image), 1)


STEPS = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.integers(0, 4),
        st.lists(st.tuples(st.sampled_from([b"a", b"b"]), st.booleans(), st.binary(max_size=2))),
    ),
    max_size=12,
)
CHAIN = registries(5)


@given(STEPS)
@settings(max_examples=60, deadline=None)
def test_a_table_is_what_the_changes_made_of_it(steps: list[Any]) -> None:
    """Against a model: a list of what was agreed on, and a dict of tokens."""
    log = ControlLog()
    agreed: list[Registry] = []
    tokens: dict[bytes, tuple[bytes, int]] = {}
    for base, after, wanted in steps:
        found = {name: tokens.get(name, (b"", 0))[1] for name in (b"a", b"b")}
        changes = {name: TokenChange(name, found[name] + stale, v) for name, stale, v in wanted}
        before = CHAIN[base - 1] if base else None
        outcome: Any = change(log, before, CHAIN[after], *changes.values())
        # Steps that were carried out at once are one registry, some epochs further on.
        is_next = before is (agreed[-1] if agreed else None) and (not agreed or after >= base)
        is_known = all(
            each.expected == found[name] and (each.value or each.expected)
            for name, each in changes.items()
        )
        assert isinstance(outcome, ChangedResult) == (is_next and is_known)
        if is_next and is_known:
            agreed.append(CHAIN[after])
            tokens |= {name: (each.value, log.index) for name, each in changes.items()}
            tokens = {name: known for name, known in tokens.items() if known[0]}
        if len(log.entries) % 4 == 0:
            log.restore_other()
    assert table(log).mark == (agreed[-1].mark if agreed else b"")
    assert {each.id: (each.value, each.revision) for each in table(log).tokens} == tokens
    log.check()
