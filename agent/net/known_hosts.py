"""The hosts at which members are known to be: who connects from there may well be one.

An address is no proof; whoever connects proves by its certificate who it is.
"""

from collections.abc import Callable

from gossip.core.machine import Instant
from gossip.node import Node

COLLECT_AGAIN_S = 1.0
"""How old the answer may be: under a flood it is asked thousands of times a second."""


class KnownHosts:
    """``host in known_hosts``: whether a listed member is reached there, or says so."""

    def __init__(self, node: Node, clock: Callable[[], Instant]) -> None:
        self._node, self._clock = node, clock
        self._hosts: frozenset[str] = frozenset()
        self._collected_at: Instant | None = None

    def __contains__(self, host: str) -> bool:
        now = self._clock()
        if self._collected_at is None or now - self._collected_at >= COLLECT_AGAIN_S:
            self._collected_at, self._hosts = now, self._collect()
        return host.partition("%")[0] in self._hosts

    def _collect(self) -> frozenset[str]:
        node = self._node
        return frozenset(
            address.host.partition("%")[0]
            for member in node.swim.members
            for address in node.addresses_of(member.id)
        )
