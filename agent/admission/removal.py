"""Being removed: what a node does that reads in a registry that it has no place any more.

The registry is signed by the covey's authority, so nobody else can say so. The node takes part no
more, and stops knocking: whatever it says, nobody listens. All that it has stays where it is, until
its owner lets it join as a new node or throws it away.
"""

import asyncio
import logging
from collections.abc import Callable

from agent.admission.former_membership import FormerMembership, note_parting, noted_parting
from agent.config.paths import Paths
from agent.identity.identity import Identity
from agent.loop import watched
from gossip.kv.requests import RegistryAdopted

log = logging.getLogger(__name__)


class Removal:
    """Waits for the registry without this node; ``end`` is called when that is on disk."""

    def __init__(self, identity: Identity, paths: Paths, end: Callable[[], None]) -> None:
        self._identity, self._paths, self._end = identity, paths, end
        self._noting: asyncio.Task[None] | None = None

    def on_event(self, event: object) -> None:
        """Take in an event of the driver."""
        gone = isinstance(event, RegistryAdopted) and not event.registry.node(
            self._identity.node_id
        )
        if gone and self._noting is None:
            self._noting = watched.start("removal", self._record)

    async def _record(self) -> None:
        if noted_parting(self._paths) is None:  # otherwise it leaves by its own wish
            log.error(
                "this node, %s, was removed from the covey %s: it takes part no more; what it has "
                "is kept, and `covey join TOKEN` makes it a member again, as a new node",
                self._identity.node_name,
                self._identity.cluster_name,
            )
            await asyncio.to_thread(note_parting, self._paths, FormerMembership.REMOVED)
            self._end()
