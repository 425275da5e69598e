"""How much a space may hold: a put that would bring more than that is refused by its coordinator.

Every owner counts what it holds of the spaces that have a quota, and every node asks all of them
every few seconds (``agent/cluster/kv_quotas.py``). So a coordinator knows what was *told* last, and
adds what it has itself taken since it began to ask. Nothing is agreed on before a write.

What that allows is an overrun, and how much of one: no coordinator takes more in one round than
what was left when the round before ended, so C coordinators that write at once take up to C times
that. And what they take more than that was written within one round. Then all of them refuse.
What a coordinator took while it asked may be counted twice until the next round.

Refused is what adds: a key where there is none here, with the keys at their bound, and a value
that makes its key larger, with the bytes at theirs. Deletes, reads, values that are not larger,
increments of counters that are there, repairs and keys on their way to other owners all go on:
records and merging know nothing of quotas, so nothing is lost by one.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from gossip.core.ids import NodeId
from gossip.kv.records import Version
from gossip.kv.spaces import Spaces, space_of
from gossip.registry.ownership import Ownership


class Use(NamedTuple):
    """So many keys that have a value, and so many bytes of one copy of each."""

    keys: int
    size_bytes: int

    def plus(self, other: "Use") -> "Use":
        """Return both together."""
        return Use(self.keys + other.keys, self.size_bytes + other.size_bytes)


NO_USE = Use(0, 0)
Uses = Mapping[str, Mapping[int, Use]]
"""What one owner holds of each space that it knows to have a quota, by partition."""


class Quotas:
    """Manages what this node knows of how full the spaces are that have a quota."""

    def __init__(self, spaces: Spaces) -> None:
        self.spaces = spaces
        self._told: dict[str, dict[int, Use]] = {}
        self._sums: dict[str, Use] = {}
        self._taken: dict[str, Use] = {}
        """What was written here since the round began whose answers are known."""
        self._taken_meanwhile: dict[str, Use] = {}
        """Of that, since the round began that is under way."""

    def names(self) -> tuple[str, ...]:
        """Return the spaces that have a quota."""
        return self.spaces.with_quota

    def use(self, name: str) -> Use | None:
        """Return what is known to be in a space; None before anybody has told."""
        told = self._sums.get(name)
        return None if told is None else told.plus(self._taken.get(name, NO_USE))

    def begin_round(self) -> None:
        """Take note that all owners are being asked, from now on."""
        self._taken_meanwhile = {}

    def end_round(
        self, told: Mapping[NodeId, Uses], ownerships: Iterable[tuple[int, Ownership]]
    ) -> None:
        """Take in what owners have answered; who did not answer counts as it did before.

        Of a partition its owners are believed, the fullest of them, and nobody else.
        """
        before, self._told = self._told, {name: {} for name in self.names()}
        for partition, ownership in ownerships:
            there = [told[node] for node in ownership.holders if node in told]
            for name, now in self._told.items():
                found = [uses[name].get(partition, NO_USE) for uses in there if name in uses]
                use = _fullest(found) if found else before.get(name, {}).get(partition, NO_USE)
                if use != NO_USE:
                    now[partition] = use
        self._sums = {name: _sum(uses.values()) for name, uses in self._told.items()}
        self._taken, self._taken_meanwhile = self._taken_meanwhile, {}

    def counts(self, key: str) -> bool:
        """Tell whether the space of a key has a quota, and somebody has told what is there."""
        name = space_of(key)
        return name in self._sums and name in self.names()

    def refuses(self, key: str, grown: Use) -> bool:
        """Tell whether a write that adds so much to its space would bring more than its quota."""
        if not self.counts(key):
            return False
        asked, use = self.spaces.asked_for(key), self.use(space_of(key)) or NO_USE
        keys, size_bytes = use.plus(grown)
        return _is_beyond(keys, grown.keys, asked.quota_keys) or _is_beyond(
            size_bytes, grown.size_bytes, asked.quota_bytes
        )

    def wrote(self, key: str, before: Iterable[Version], after: Iterable[Version]) -> None:
        """Take note of a write that was committed here."""
        name = space_of(key)
        if name not in self.names():
            return
        grown = growth(use_of(before), use_of(after))
        for taken in (self._taken, self._taken_meanwhile):
            taken[name] = taken.get(name, NO_USE).plus(grown)


def use_of(live: Iterable[Version]) -> Use:
    """Return what a key with these versions takes."""
    sizes = [len(version.value) for version in live]
    return Use(min(1, len(sizes)), sum(sizes))


def growth(before: Use, after: Use) -> Use:
    """Return how much more it is than before; less is below zero."""
    return Use(after.keys - before.keys, after.size_bytes - before.size_bytes)


def _is_beyond(after: int, grown: int, quota: int | None) -> bool:
    return quota is not None and grown > 0 and after > quota


def _fullest(found: list[Use]) -> Use:
    """Return the most that any owner has, by keys and by bytes: one that is behind has less."""
    return Use(max(use.keys for use in found), max(use.size_bytes for use in found))


def _sum(uses: Iterable[Use]) -> Use:
    keys = size_bytes = 0
    for use in uses:
        keys, size_bytes = keys + use.keys, size_bytes + use.size_bytes
    return Use(keys, size_bytes)
