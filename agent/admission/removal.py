"""Being removed: what a node does that reads in a registry that it has no place any more.

The registry is signed by the covey's authority, so nobody else can say so. The node takes part no
more, and stops knocking: whatever it says, nobody listens. What it held for others it deletes at
the start that follows, unless it was removed though some of that may be on it alone; the
authority's key at once. Its own stays where it is, until its owner lets it join as a new node or
throws it away.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from agent.admission.former_membership import record_removal, recorded_parting
from agent.config.paths import Paths
from agent.identity.identity import Identity
from agent.loop import watched
from gossip.kv.requests import RegistryAdopted

WIPED = (
    "its copies of shared keys are deleted after a day in which `covey salvage` writes them out, "
    "its readings kept"
)
KEPT = "some of what it has may be nowhere else, so all of it is kept"

log = logging.getLogger(__name__)


class Removal:
    """Waits for the registry without this node; ``end`` is called when that is on disk."""

    def __init__(self, identity: Identity, paths: Paths, end: Callable[[], None]) -> None:
        self._identity, self._paths, self._end = identity, paths, end
        self._noting: asyncio.Task[None] | None = None

    def on_event(self, event: object) -> None:
        """Take in an event of the driver."""
        me = self._identity.node_id
        if not isinstance(event, RegistryAdopted) or event.registry.node(me):
            return
        if self._noting is None:
            others = any(each.is_issuer for each in event.registry.nodes)
            wipes = any(gone.id == me and gone.spared for gone in event.registry.removed)
            record = partial(self._record, others_sign=others, wipes=wipes)
            self._noting = watched.start("removal", record)

    async def _record(self, *, others_sign: bool, wipes: bool) -> None:
        if others_sign and await asyncio.to_thread(self._identity.forget_authority):
            log.warning("the authority's key was wiped here; others have it")
        if recorded_parting(self._paths) is None:  # otherwise it leaves by its own wish
            log.error(
                "this node, %s, was removed from the covey %s: it takes part no more; %s, and "
                "`covey join TOKEN` makes it a member again, as a new node",
                self._identity.node_name,
                self._identity.cluster_name,
                WIPED if wipes else KEPT,
            )
            await asyncio.to_thread(record_removal, self._paths, wipes=wipes)
            self._end()
