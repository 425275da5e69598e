"""Identities: their ranges, and their written forms."""

import random

import pytest

from gossip.core.ids import (
    UINT64_MAX,
    format_cluster_id,
    format_node_id,
    new_node_id,
    next_boot,
    parse_node_id,
)


class Lowest(random.Random):
    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        return start


def test_a_node_id_is_never_nobody() -> None:
    assert new_node_id(Lowest()) == 1
    rng = random.Random(1)
    assert all(0 < new_node_id(rng) <= UINT64_MAX for _ in range(1000))


def test_a_later_start_has_a_larger_boot_whatever_chance_says() -> None:
    boots = [next_boot(starts, random.Random(seed)) for starts in range(1, 6) for seed in (1, 2)]
    assert [boot >> 32 for boot in boots] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_two_lives_that_share_a_count_differ() -> None:
    rng = random.Random(1)
    assert next_boot(3, rng) != next_boot(3, rng)


@pytest.mark.parametrize("starts", [0, -1, 2**32])
def test_a_boot_has_a_count_of_starts(starts: int) -> None:
    with pytest.raises(AssertionError):
        next_boot(starts, random.Random(1))


@pytest.mark.parametrize("node", [1, 0xC0FFEE, UINT64_MAX])
def test_a_node_id_is_read_as_it_was_written(node: int) -> None:
    assert parse_node_id(format_node_id(node)) == node
    assert len(format_node_id(node)) == 16


@pytest.mark.parametrize("text", ["", "c0ffee", "0" * 17, "zzzzzzzzzzzzzzzz"])
def test_what_is_not_a_node_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"hex|literal"):
        parse_node_id(text)


def test_a_cluster_id_is_written_in_full() -> None:
    assert format_cluster_id(bytes(range(16))) == "000102030405060708090a0b0c0d0e0f"
    with pytest.raises(AssertionError):
        format_cluster_id(b"short")
