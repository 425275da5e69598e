"""What a node says about itself: the only description that others accept of it."""

from collections.abc import Iterable, Mapping

import msgspec

from gossip.errors import LimitExceeded
from gossip.ids import UINT64_MAX, Boot, NodeId
from gossip.machine import Address, Instant
from gossip.membership.addresses import only_gossiped
from gossip.membership.messages import ADDRESSES_MAX, ALIVE_BYTES_MAX, DATAGRAMS, Alive

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
    ) -> None:
        self._alive = _checked(Alive(me, boot, FIRST_INCARNATION, name, _best(addresses), {**tags}))
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
        """Our latest words about ourselves."""
        return self._alive

    def describe(
        self, *, addresses: Iterable[Address] | None = None, tags: Mapping[str, str] | None = None
    ) -> None:
        """Change the description. Raises LimitExceeded; then nothing has changed."""
        changed = msgspec.structs.replace(
            self._alive,
            incarnation=self.incarnation + 1,
            addresses=self._alive.addresses if addresses is None else _best(addresses),
            tags=self._alive.tags if tags is None else {**tags},
        )
        self._alive = _checked(changed)

    def rise_above(self, incarnation: int) -> None:
        """Take an incarnation that beats everything said about this one and those before it."""
        following = max(self.incarnation, incarnation) + 1
        assert following <= UINT64_MAX, "claims about us may not jump; see plausible.py"
        self._alive = msgspec.structs.replace(self._alive, incarnation=following)


def _best(addresses: Iterable[Address]) -> tuple[Address, ...]:
    """Keep what others can use; of very many, the first ones, which the caller likes best."""
    return only_gossiped(addresses)[:ADDRESSES_MAX]


def _checked(alive: Alive) -> Alive:
    data = DATAGRAMS.encode(alive)
    if len(data) > ALIVE_BYTES_MAX:
        raise LimitExceeded(
            f"name, addresses and tags take {len(data)} bytes together, and {ALIVE_BYTES_MAX} fit "
            "into a packet; nothing was changed: use fewer or shorter tags"
        )
    try:
        msgspec.convert(msgspec.to_builtins(alive), Alive)
    except msgspec.ValidationError as error:
        raise LimitExceeded(
            f"name or tags are longer than members accept: {error}; nothing was changed"
        ) from None
    return alive
