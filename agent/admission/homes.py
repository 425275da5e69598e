"""Homes of the devices (``gossip/registry/places.py``): given once all members know what they are.

A covey that was founded before there were homes gets them like one that was founded a moment ago:
as soon as every member that is there says of itself, as a fact, that it finds keys in them. From
then on each registry has one for whoever is heard. An issuer of a version before, which may be back
from long ago, does not write down what it cannot read; then they are given again, with the same
numbers, and what lay in them is found there.
"""

import logging

from agent.admission.registry_issuer import RegistryIssuer
from agent.cluster.cluster_view import ClusterView
from agent.config.fact_rules import HOMES
from agent.config.logs import RateLimitedLog
from agent.exits import AgentError
from agent.identity.identity import Identity
from agent.loop.periodic import until_next

LOOK_S, LOOK_AGAIN_S = 1.0, 60.0
"""How often is looked while there are none, and whether there are still some."""

log = logging.getLogger(__name__)


class HomeKeeper:
    """On an issuer: sees to it that the devices have homes."""

    def __init__(self, identity: Identity, registries: RegistryIssuer, covey: ClusterView) -> None:
        self._identity, self._registries, self._covey = identity, registries, covey
        self._quiet = RateLimitedLog(log)

    async def run(self) -> None:
        """Look again and again."""
        while True:
            is_housed = bool(self._covey.registry().places)
            await until_next(LOOK_AGAIN_S if is_housed else LOOK_S)
            if not self._covey.registry().places and self._identity.is_issuer:
                await self._give()

    async def _give(self) -> None:
        """Have homes agreed on, unless somebody is there who would look elsewhere."""
        if not self._covey.acts():
            return
        if behind := self._covey.lacking(HOMES):
            self._quiet.warning(
                "homes",
                "devices have no homes for their own state yet: it is not known of %s that it "
                "finds keys there; update it if its version does not, the rest goes on by itself",
                ", ".join(behind),
            )
            return
        try:
            if await self._registries.house():
                log.info("each device has a home of its own for its state from now on")
        except AgentError as error:  # it is tried again while it is so
            self._quiet.warning("homes", "devices have no homes yet: %s", error.message)
