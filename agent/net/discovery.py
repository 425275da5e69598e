"""Finding the others, for ever: mDNS, seeds and the known peers.

All three only ever say "somebody may be there": the addresses go to the node, which knocks with a
sealed Hello and lets the answer decide. They are told again every minute, because a hint that came
to nothing an hour ago may be right now, and because the sockets, interfaces and names behind them
change while the agent runs. The node keeps its own slow list of whom to try, so telling it twice
costs nothing. Our own addresses are looked at more often: what a new lease changes is known to the
others within seconds.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from agent.config.logs import RateLimitedLog
from agent.loop.periodic import until_next
from agent.loop.watched import TaskSet
from agent.net.interfaces import (
    all_addresses,
    choose,
    link_local_addresses,
    multicast_plugs,
    own_addresses,
    scan,
)
from agent.net.mdns import Announcement, DiscoveredNode, Mdns
from agent.net.netlink import Notices
from agent.net.seeds import Seed, parse_seeds, resolve
from gossip.core.ids import ClusterId, NodeId
from gossip.core.machine import Address

RESCAN_S = 60.0
ADDRESSES_S = 2.0
"""How often the kernel's notices are looked at. Our addresses themselves take half a millisecond, a
tenth of all that an idle agent does in these seconds."""
SEEDS_S = 60.0
SEEDS_AT_FIRST_S = 5.0

log = logging.getLogger(__name__)


class Plan(NamedTuple):
    """Where to look and where to be found; the fields are those of ``[network]``."""

    bind: Sequence[str]
    port: int
    """The number that is really bound, never 0."""
    advertise: Sequence[str] = ()
    seeds: Sequence[str] = ()
    mdns: bool = True
    interfaces: Sequence[str] = ()


class Here(NamedTuple):
    """Where this node is at this moment."""

    told: tuple[Address, ...] = ()
    """Where the others reach it, best first."""
    own: frozenset[Address] = frozenset()
    """Every address at which it would meet itself."""
    neighbourly: tuple[Address, ...] = ()
    """Where direct neighbours reach it, each with a zone of their own; told when all else fails."""
    plugs: Mapping[str | int, object] = {}
    """What multicast groups are joined with."""
    is_private: bool = False
    """Whether all that is told leads to containers of this device."""
    without_multicast: tuple[str, ...] = ()
    """Interfaces for which there was no room among the plugs."""


def find_addresses(plan: Plan) -> Here:
    """Return where this node is now. Raises OSError, when the kernel has no room to answer."""
    interfaces = scan()
    chosen = choose(interfaces, plan.interfaces)
    told = own_addresses(chosen, plan.bind, plan.port, plan.advertise)
    private = {host for each in chosen if each.is_private for host in each.addresses}
    plugs = multicast_plugs(chosen)
    return Here(
        told=told,
        own=all_addresses(interfaces, plan.bind, plan.port) | frozenset(told),
        neighbourly=link_local_addresses(chosen, plan.bind, plan.port),
        plugs=plugs,
        is_private=bool(told) and all(address.host in private for address in told),
        without_multicast=tuple(
            each.name
            for each in chosen
            if each.carries_mdns and plugs.keys().isdisjoint((each.number, *each.addresses))
        ),
    )


class Discovery:
    """Looks for members until it is stopped."""

    def __init__(
        self,
        cluster_id: ClusterId,
        node_id: NodeId,
        plan: Plan,
        *,
        on_found: Callable[[Iterable[Address]], None],
        on_moved: Callable[[Here], None],
        counts: Counter[str],
        known: Iterable[Address] = (),
    ) -> None:
        """Prepare; ``start`` begins.

        ``on_found`` gets addresses where a member may be; ``on_moved`` gets where this node is,
        at the start and whenever that has changed; ``known`` is where members were in earlier
        lives.
        """
        self.counts = counts
        self._cluster_id, self._node_id, self._plan = cluster_id, node_id, plan
        self._on_found, self._on_moved = on_found, on_moved
        self._known = list(known)
        self._seeds: list[Seed] = parse_seeds(plan.seeds, plan.port)
        self.here = Here()
        self.failure = ""
        """Why our own addresses cannot be listed now; empty when they can."""
        self._mdns = Mdns(self._on_sighting, counts)
        self._quiet = RateLimitedLog(log)
        self._notices = Notices()
        self._tasks = TaskSet()

    async def start(self) -> None:
        """Say Hello to all known peers, and begin to look for more."""
        self._on_addresses(self._find_addresses())
        if self._known:
            self._on_found(self._known)
        self._tasks.start("discovery-rescan", self._rescan)
        if self._seeds:
            self._tasks.start("discovery-seeds", self._resolve)

    async def stop(self) -> None:
        """Stop looking, and tell the LAN that we are gone."""
        await self._tasks.stop()
        self._notices.close()
        await self._mdns.stop()

    def sightings(self) -> tuple[DiscoveredNode, ...]:
        """Return who announces itself by mDNS now, of this covey and of others."""
        return tuple(self._mdns.sightings.values())

    @property
    def mdns_failure(self) -> str:
        """Why mDNS does not work now; empty when it does."""
        return self._mdns.failure

    async def _rescan(self) -> None:
        while True:
            here = self._find_addresses()
            self._on_addresses(here)
            if self._plan.mdns:
                where = here.told or here.neighbourly or self.here.told
                await self._mdns.update(
                    here.plugs, Announcement(self._cluster_id, self._node_id, where)
                )
            await self._until_moved(here)
            for sighting in tuple(self._mdns.sightings.values()):
                self._on_sighting(sighting)

    def _find_addresses(self) -> Here:
        """Return where we are; as before, while the kernel has no room to answer."""
        try:
            here = find_addresses(self._plan)
        except OSError as error:
            self.failure = error.strerror or str(error)
            self.counts["discovery/look_failed"] += 1
            self._quiet.warning("look", "cannot list the addresses of this device: %s", error)
            return self.here
        self.failure = ""
        return here

    async def _until_moved(self, here: Here) -> None:
        """Wait until this node is elsewhere, or plugged in anew; a minute at most."""
        waited_s = 0.0
        while waited_s < RESCAN_S and not (
            self._may_have_moved() and self._find_addresses() != here
        ):
            await until_next(ADDRESSES_S)
            waited_s += ADDRESSES_S

    def _may_have_moved(self) -> bool:
        """Say whether a look is worth it: the kernel told of a change, or had no room to answer."""
        return self._notices.any() or bool(self.failure)

    def _on_addresses(self, here: Here) -> None:
        """Tell where we are now. Without any address the last ones stay: they may come back."""
        before, self.here = self.here, here if here.told else here._replace(told=self.here.told)
        if self.here.told != before.told:
            log.info("this node is now reached at %s", ", ".join(map(str, self.here.told)))
        if (self.here.told, self.here.own) != (before.told, before.own):
            self._on_moved(self.here)

    def _on_sighting(self, sighting: DiscoveredNode) -> None:
        if sighting.cluster_id != self._cluster_id:
            self.counts["discovery/other_covey"] += 1
            log.debug("another covey, %s, is near", sighting.cluster_id.hex())
        elif sighting.node_id != self._node_id:
            self._on_found(sighting.addresses)

    async def _resolve(self) -> None:
        """Look all seeds up, at first often, then every minute, for ever."""
        pause_s = SEEDS_AT_FIRST_S
        while True:
            for seed in self._seeds:
                try:
                    self._on_found(await resolve(seed))
                except OSError as error:
                    self.counts["discovery/seed_failed"] += 1
                    reason = str(error) or "no answer in time"
                    self._quiet.warning(seed[0], "cannot look up the seed %s: %s", seed[0], reason)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, SEEDS_S)
