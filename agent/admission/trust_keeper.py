"""Follows the registry in whom to trust, and keeps that on the disk.

In memory it counts from the moment at which the registry does. On the disk the registry comes
first, then who is trusted: cut off in between, a start finds a registry that those whom it trusts
have led to.
"""

import asyncio
import logging
from collections.abc import Callable

from agent.identity.identity import Identity
from agent.loop.watched import TaskSet
from agent.store.control import ControlStore
from gossip.core.ids import NodeId
from gossip.kv.requests import RegistryAdopted
from gossip.registry.registry import Registry, SignedRegistry

log = logging.getLogger(__name__)


class TrustKeeper:
    """Keeps on disk whom a node trusts; ``record`` each registry that it adopts."""

    def __init__(self, who: Identity, control: ControlStore, changed: Callable[[], None]) -> None:
        self._who, self._control, self._changed = who, control, changed
        self._saves = TaskSet()
        self._saving = asyncio.Lock()
        self._issuers: frozenset[NodeId] = frozenset()
        """As the registry says that lies with the identity."""

    def start(self, registry: Registry, signed: bytes) -> None:
        """Trust whom the first registry says, before anybody is spoken to."""
        self._who.trust.adopt(registry)
        self._issuers = _issuers(
            Registry.decode(SignedRegistry.decode(self._who.first_registry()).payload)
        )
        if self._who.facts.authorities != self._who.trust.authorities:
            self._save(registry, signed)
        else:
            self._note_issuers(registry, signed)

    def record(self, event: object) -> None:
        """Take in what the driver publishes."""
        if isinstance(event, RegistryAdopted) and self._who.trust.adopt(event.registry):
            number = event.registry.authority_number
            still = ", beside the one before" if event.registry.overlaps else " alone"
            log.warning("authority %d of this covey is trusted from now on%s", number, still)
            self._save(event.registry, event.signed)
            # Not now: the event comes while the driver performs effects.
            asyncio.get_running_loop().call_soon(self._changed)
        elif isinstance(event, RegistryAdopted):
            self._note_issuers(event.registry, event.signed)

    def _note_issuers(self, registry: Registry, signed: bytes) -> None:
        """Have it with the identity that others hold the authority's key, too.

        A founder that lost its databases would found another log else, beside theirs.
        """
        if self._issuers != (issuers := _issuers(registry)):
            self._issuers = issuers
            self._save(registry, signed)

    async def finish(self) -> None:
        """Return when all is on the disk."""
        await self._saves.finish()

    def _save(self, registry: Registry, signed: bytes) -> None:
        authorities = self._who.trust.authorities

        async def save() -> None:
            async with self._saving:
                await self._control.save_registry(registry.epoch, signed)
                await asyncio.to_thread(self._who.keep_trust, authorities, signed)

        self._saves.start("trust-save", save)


def _issuers(registry: Registry) -> frozenset[NodeId]:
    return frozenset(each.id for each in registry.nodes if each.is_issuer)
