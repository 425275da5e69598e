"""Multicast DNS: saying "here I am", and hearing others say it (RFC 6762, RFC 6763).

Each agent announces ``<node id>._covey._udp.local.`` with its port, its addresses and, as TXT, its
covey's id, its own id and the version of this format. What is heard is a *hint*: nothing is
believed until a sealed datagram or a certificate has proved it, and no silence means that anybody
is gone. Wi-Fi sends multicast at the lowest rate and without acknowledgement: misses are normal.

zeroconf asks who is there when it starts and when it forgets somebody, and answers at once. So two
devices whose networks are joined later would never meet: each repeats its announcement with each
``update``, once a minute, in one packet a family. What zeroconf does not do by itself, either, is
to notice interfaces that come later: ``update`` hands it the present list. Nor does it notice that
an interface is another one under an old address: a USB stick was pulled and put back, or
``netplan apply`` made it anew. The kernel's group memberships went with the old one, so whoever
goes on with them is deaf and mute there. What each handle is plugged into is compared, too, and the
groups are joined anew when that has changed (RFC 6762 section 8.3 wants a new announcement then).
"""

import asyncio
import ipaddress
import logging
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from zeroconf import ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from agent.config.logs import RateLimitedLog
from agent.loop import watched
from gossip.core.ids import ClusterId, NodeId, format_cluster_id, format_node_id, parse_node_id
from gossip.core.machine import Address

SERVICE_TYPE = "_covey._udp.local."
FORMAT_VERSION = "1"
RESOLVE_MS = 3000
SIGHTINGS_MAX = 1024
RESOLVING_MAX = 64
ADDRESSES_MAX = 8

log = logging.getLogger(__name__)


class DiscoveredNode(NamedTuple):
    """Somebody who says to be a member of some covey."""

    cluster_id: ClusterId
    node_id: NodeId
    addresses: tuple[Address, ...]


class Announcement(NamedTuple):
    """What we say about ourselves."""

    cluster_id: ClusterId
    node_id: NodeId
    addresses: tuple[Address, ...]
    """All with the same port: a service has one."""


class Mdns:
    """One listener, and at most one announcement, on a changing set of interfaces."""

    def __init__(self, on_sighting: Callable[[DiscoveredNode], None], counts: Counter[str]) -> None:
        self.counts = counts
        self.sightings: dict[str, DiscoveredNode] = {}
        self._on_sighting = on_sighting
        self._quiet = RateLimitedLog(log)
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._announced: tuple[Announcement, AsyncServiceInfo] | None = None
        self._resolving: dict[str, asyncio.Task[None]] = {}
        self._unresolved: dict[str, None] = {}
        self._plugs: dict[str | int, object] = {}
        self.failure = ""
        """Why it does not work now; empty when it does."""

    async def update(
        self, plugs: Mapping[str | int, object], announcement: Announcement | None = None
    ) -> None:
        """Be heard and hear on these interfaces (``multicast_plugs``), starting if need be.

        Never raises for the network's sake: what does not work now may work in a minute.
        """
        try:
            await self._update_interfaces(plugs)
            if announcement is not None and announcement.addresses and self._zeroconf is not None:
                await self._announce(self._zeroconf, announcement)
            self.failure = ""
        except (OSError, RuntimeError) as error:
            self.failure = str(error)
            self.counts["discovery/mdns_failed"] += 1
            self._quiet.warning("mdns", "mDNS does not work now: %s; trying again", error)

    async def stop(self) -> None:
        """Say goodbye and close the sockets."""
        self._unresolved.clear()
        for task in self._resolving.values():
            task.cancel()
        if self._browser is not None:
            await self._browser.async_cancel()
        if self._zeroconf is not None:
            await self._zeroconf.async_unregister_all_services()
            await self._zeroconf.async_close()
        self._browser = self._zeroconf = self._announced = None

    async def _update_interfaces(self, plugs: Mapping[str | int, object]) -> None:
        if not plugs:
            return
        if self._zeroconf is None:
            self._zeroconf = AsyncZeroconf(interfaces=list(plugs))
            await self._browse(self._zeroconf)
        else:
            await self._plug_in(self._zeroconf, plugs)
        self._plugs = dict(plugs)

    async def _plug_in(self, zeroconf: AsyncZeroconf, plugs: Mapping[str | int, object]) -> None:
        same = [handle for handle, plug in plugs.items() if self._plugs.get(handle) == plug]
        replaced = self._plugs.keys() & plugs.keys() - set(same)
        if replaced:
            # The library tells interfaces apart by what we call them: let go first, then join.
            self.counts["discovery/mdns_joined_anew"] += len(replaced)
            await zeroconf.async_update_interfaces(same)
        await zeroconf.async_update_interfaces(list(plugs))
        if len(same) < len(plugs):
            await self._browse(zeroconf)

    async def _browse(self, zeroconf: AsyncZeroconf) -> None:
        """Ask who is there, now and then ever more rarely."""
        if self._browser is not None:
            await self._browser.async_cancel()
        self._browser = AsyncServiceBrowser(
            zeroconf.zeroconf, SERVICE_TYPE, handlers=[self._on_change]
        )

    async def _announce(self, zeroconf: AsyncZeroconf, what: Announcement) -> None:
        if self._announced is not None and self._announced[0] == what:
            again = zeroconf.zeroconf.generate_service_broadcast(self._announced[1], None)
            zeroconf.zeroconf.async_send(again)
            return
        info = service_info(what)
        if self._announced is None:
            # Node ids are unique, so there is no name to defend by probing first.
            await zeroconf.async_register_service(info, cooperating_responders=True)
        else:
            await zeroconf.async_update_service(info)
        self._announced = what, info

    def _on_change(
        self,
        zeroconf: Zeroconf,
        service_type: str,  # noqa: ARG002 - ours is the only type that is browsed
        name: str,
        state_change: ServiceStateChange,
    ) -> None:
        """Called by zeroconf, with these very parameter names, for each service of our type."""
        if state_change is ServiceStateChange.Removed:
            self.sightings.pop(name, None)
            self._unresolved.pop(name, None)
            return
        if name in self._resolving or name in self._unresolved:
            return
        if len(self._unresolved) >= SIGHTINGS_MAX:
            self.counts["discovery/too_many_services"] += 1
            return
        self._unresolved[name] = None
        self._resolve_more(zeroconf)

    def _resolve_more(self, zeroconf: Zeroconf) -> None:
        """Look a few services up at a time: many devices are switched on together."""
        while self._unresolved and len(self._resolving) < RESOLVING_MAX:
            name = next(iter(self._unresolved))
            del self._unresolved[name]
            work = partial(self._resolve, zeroconf, SERVICE_TYPE, name)
            task = watched.start("mdns-resolve", work)
            self._resolving[name] = task
            task.add_done_callback(partial(self._resolved, zeroconf, name))

    def _resolved(self, zeroconf: Zeroconf, name: str, task: asyncio.Task[None]) -> None:
        self._resolving.pop(name, None)
        if not task.cancelled():
            self._resolve_more(zeroconf)

    def _record(self, name: str, sighting: DiscoveredNode) -> None:
        """Keep the latest; what was told longest ago makes room: it has been a hint already."""
        self.sightings.pop(name, None)
        self.sightings[name] = sighting
        if len(self.sightings) > SIGHTINGS_MAX:
            self.counts["discovery/too_many_services"] += 1
            del self.sightings[next(iter(self.sightings))]
        self._on_sighting(sighting)

    async def _resolve(self, zeroconf: Zeroconf, service_type: str, name: str) -> None:
        info = AsyncServiceInfo(service_type, name)
        try:
            answered = await info.async_request(zeroconf, RESOLVE_MS)
            sighting = parse_service(info) if answered else None
            if sighting is None:
                self.counts["discovery/unreadable"] += 1
                return
            self.counts["discovery/sightings"] += 1
            self._record(name, sighting)
        except Exception as error:  # noqa: BLE001 - the library meets arbitrary packets here
            self.counts["discovery/unreadable"] += 1
            self._quiet.warning("resolve", "cannot use the mDNS service %s: %s", name, error)


def service_info(what: Announcement) -> AsyncServiceInfo:
    """Return our announcement as zeroconf wants it."""
    node = format_node_id(what.node_id)
    return AsyncServiceInfo(
        SERVICE_TYPE,
        f"{node}.{SERVICE_TYPE}",
        port=what.addresses[0].port,
        parsed_addresses=[address.host.partition("%")[0] for address in what.addresses],
        properties={
            "cluster": format_cluster_id(what.cluster_id),
            "node": node,
            "version": FORMAT_VERSION,
        },
        server=f"covey-{node}.local.",
    )


def parse_service(info: AsyncServiceInfo) -> DiscoveredNode | None:
    """Read somebody's announcement; None when it is not one of this format."""
    facts = info.decoded_properties
    try:
        cluster_id = bytes.fromhex(facts.get("cluster") or "")
        node_id = parse_node_id(facts.get("node") or "")
    except ValueError:
        return None
    found = (_reachable_here(host) for host in info.parsed_scoped_addresses())
    hosts = [host for host in found if host is not None][:ADDRESSES_MAX]
    if not hosts or not info.port:
        return None
    return DiscoveredNode(cluster_id, node_id, tuple(Address(host, info.port) for host in hosts))


def _reachable_here(host: str) -> str | None:
    """Return the address as our sockets have it; None for one that leads nowhere from here.

    A link-local one means what it says on the link on which it was heard. The library names that
    by its number, and the kernel, when it tells where a datagram is from, by its name.
    """
    plain, _, zone = host.partition("%")
    if not ipaddress.ip_address(plain).is_link_local or ":" not in plain:
        return plain
    try:
        return f"{plain}%{socket.if_indextoname(int(zone))}"
    except (OSError, ValueError):
        return None
