"""What a node says about itself: the only description that others accept of it."""

from collections.abc import Iterable, Mapping

import msgspec

from gossip.core.errors import LimitExceeded
from gossip.core.ids import UINT64_MAX, Boot, NodeId
from gossip.core.machine import Address, Instant
from gossip.core.names import NAME_RULE, is_name
from gossip.membership.model.addresses import only_gossiped
from gossip.membership.model.messages import (
    ADDRESSES_MAX,
    ALIVE_BYTES_MAX,
    TAG_KEY_CHARACTERS_MAX,
    TAG_VALUE_CHARACTERS_MAX,
    TAGS_MAX,
    Alive,
    described_bytes,
)
from gossip.membership.model.signatures import Signatures

FIRST_INCARNATION = 1


class LocalMember:
    """Ourselves. Each change of what we say gets the next incarnation."""

    def __init__(
        self,
        me: NodeId,
        boot: Boot,
        name: str,
        addresses: Iterable[Address],
        tags: Mapping[str, str],
        signatures: Signatures | None = None,
    ) -> None:
        self.wishes = only_gossiped(addresses)
        """Where we are reached, best first: what we would tell if all of it had room."""
        self.own = frozenset(self.wishes)
        """Where we would meet ourselves; nobody else is there, whatever somebody says."""
        words = Alive(me, boot, FIRST_INCARNATION, name, (), {**tags})
        self._alive = _checked(_with_addresses(words, self.wishes), self.wishes)
        self._signatures = signatures or Signatures()
        self._signed_alive: tuple[Alive, Alive] | None = None
        """The latest words that were asked for, without their signature and with it."""
        self.asleep_until: Instant | None = None
        """When the sleep ends that we announced; None while we are awake."""

    @property
    def id(self) -> NodeId:
        """Our node id."""
        return self._alive.member

    @property
    def boot(self) -> Boot:
        """Which of our lives this is."""
        return self._alive.boot

    @property
    def incarnation(self) -> int:
        """The number that our latest words about ourselves carry."""
        return self._alive.incarnation

    @property
    def alive(self) -> Alive:
        """Our latest words about ourselves; signed once, when they are first asked for."""
        if self._signed_alive is None or self._signed_alive[0] is not self._alive:
            signature = self._signatures.sign(self._alive.said())
            signed = msgspec.structs.replace(self._alive, signature=signature)
            self._signed_alive = self._alive, signed
        return self._signed_alive[1]

    def describe(
        self, *, addresses: Iterable[Address] | None = None, tags: Mapping[str, str] | None = None
    ) -> None:
        """Change the description. Raises LimitExceeded for tags; then nothing has changed.

        Of the addresses, as many as have room are told, possibly none: a device cannot help which
        it has, and whoever hears it learns where it is from its packets.
        """
        wishes = self.wishes if addresses is None else only_gossiped(addresses)
        words = msgspec.structs.replace(
            self._alive,
            incarnation=self.incarnation + 1,
            addresses=(),
            tags=self._alive.tags if tags is None else {**tags},
        )
        described = _with_addresses(words, wishes)
        self._alive = described if tags is None else _checked(described, wishes)
        self.wishes = wishes

    def rise_above(self, incarnation: int) -> None:
        """Take an incarnation that beats everything said about this one and those before it."""
        following = max(self.incarnation, incarnation) + 1
        assert following <= UINT64_MAX, "updates about us may not jump; see sanity.py"
        self._alive = msgspec.structs.replace(self._alive, incarnation=following)


def _with_addresses(words: Alive, wishes: tuple[Address, ...]) -> Alive:
    """Add the best of the addresses, as many as have room."""
    for count in range(min(len(wishes), ADDRESSES_MAX), 0, -1):
        alive = msgspec.structs.replace(words, addresses=wishes[:count])
        if described_bytes(alive) <= ALIVE_BYTES_MAX:
            return alive
    return words


def _checked(alive: Alive, wishes: tuple[Address, ...]) -> Alive:
    """Return the words if name and tags leave room for an address. Raises LimitExceeded."""
    needed = msgspec.structs.replace(alive, addresses=alive.addresses or wishes[:1])
    if (size_bytes := described_bytes(needed)) > ALIVE_BYTES_MAX:
        raise LimitExceeded(
            f"name, addresses and tags take {size_bytes} bytes together, and {ALIVE_BYTES_MAX} "
            "fit into a packet; nothing was changed: use fewer or shorter tags"
        )
    if not is_name(alive.name):
        raise LimitExceeded(f"a node's name has {NAME_RULE}; nothing was changed")
    if problem := flaw_of_tags(alive.tags):
        raise LimitExceeded(f"{problem}; nothing was changed")
    msgspec.convert(msgspec.to_builtins(alive), Alive)  # no other limit is the caller's
    return alive


def flaw_of_tags(tags: Mapping[str, str]) -> str:
    """Say which tag other members would not accept, and why; empty if there is none.

    >>> flaw_of_tags({"room": "attic"}), flaw_of_tags({"room": 300 * "x"})
    ('', "the value of the tag 'room' has 300 characters; it may have 256")
    """
    if len(tags) > TAGS_MAX:
        return f"there are {len(tags)} tags; a node has at most {TAGS_MAX}"
    for name, value in tags.items():
        if len(name) > TAG_KEY_CHARACTERS_MAX:
            longest = TAG_KEY_CHARACTERS_MAX
            return f"the tag {name[:20]!r}... has a name of {len(name)} characters, not {longest}"
        if len(value) > TAG_VALUE_CHARACTERS_MAX:
            longest = TAG_VALUE_CHARACTERS_MAX
            return (
                f"the value of the tag {name!r} has {len(value)} characters; it may have {longest}"
            )
    return ""
