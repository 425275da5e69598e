"""Looking for a member to ask, before there is an agent: mDNS and seeds, one address at a time."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self

from agent.loop.watched import TaskSet
from agent.net.interfaces import WILDCARDS, all_addresses, choose, multicast_plugs, scan
from agent.net.mdns import DiscoveredNode, Mdns
from agent.net.seeds import parse_seeds, resolve
from gossip.core.ids import ClusterId
from gossip.core.machine import Address

AGAIN_S = 2.0
"""How long an address that did not help is left alone."""


class MemberSearch:
    """Finds members by mDNS and seeds: ``async with`` it, then ask for each ``next_address``."""

    def __init__(
        self,
        cluster_id: ClusterId,
        seeds: Sequence[str],
        port: int,
        interfaces: Sequence[str],
        *,
        mdns: bool,
        say: Callable[[str], None] = lambda _text: None,
    ) -> None:
        """Prepare to look. Raises AgentError for a seed that cannot be read.

        ``say`` is told, once, of each seed that cannot be looked up.
        """
        self._say = say
        self.others_seen = False
        """Whether members of other coveys were seen."""
        self._cluster_id, self._wanted, self._uses_mdns = cluster_id, interfaces, mdns
        self._seeds, self._port = parse_seeds(seeds, port), port
        self._seed_texts = tuple(seeds)
        self._found: asyncio.Queue[Address] = asyncio.Queue()
        self._known: set[Address] = set()
        self._own: frozenset[Address] = frozenset()
        self._unresolved: dict[str, str] = {}
        self._looked_on: list[str] = []
        self._mdns = Mdns(self._on_sighting, Counter())
        self._tasks = TaskSet()
        self._last: Address | None = None

    async def __aenter__(self) -> Self:
        interfaces = scan()
        self._own = all_addresses(interfaces, WILDCARDS, self._port)
        self._tasks.start("search-seeds", self._resolve_seeds)
        if self._uses_mdns:
            chosen = choose(interfaces, self._wanted)
            self._looked_on = [each.name for each in chosen]
            await self._mdns.update(multicast_plugs(chosen))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._tasks.stop()
        await self._mdns.stop()

    async def next_address(self) -> Address:
        """Return somebody to ask, waiting for one. The last one returned comes again later."""
        if self._last is not None:
            asyncio.get_running_loop().call_later(AGAIN_S, self._found.put_nowait, self._last)
        self._last = await self._found.get()
        return self._last

    def describe(self) -> str:
        """Say where was looked, for an error message."""
        where = []
        if self._uses_mdns:
            where.append(f"mDNS on {', '.join(self._looked_on) or 'no interface (none is up)'}")
        if self._seed_texts:
            where.append(f"seeds {', '.join(dict.fromkeys(self._seed_texts))}")
        told = f"Looked at: {' and '.join(where) or 'nothing (mDNS is off and no seed given)'}."
        return " ".join([told, *self._unresolved.values()])

    def _on_sighting(self, sighting: DiscoveredNode) -> None:
        if sighting.cluster_id == self._cluster_id:
            self._add(sighting.addresses)
        else:
            self.others_seen = True

    def _add(self, addresses: Iterable[Address]) -> None:
        """Take addresses down; last those of this very machine, which others may have as well."""
        for address in sorted(addresses, key=lambda each: each in self._own):
            if address not in self._known:
                self._known.add(address)
                self._found.put_nowait(address)

    async def _resolve_seeds(self) -> None:
        while True:
            for seed in self._seeds:
                try:
                    self._add(await resolve(seed))
                except OSError as error:
                    self._report_unresolved(seed[0], error.strerror or "no answer in time")
                else:
                    self._unresolved.pop(seed[0], None)
            await asyncio.sleep(AGAIN_S)

    def _report_unresolved(self, host: str, why: str) -> None:
        told = f"The seed {host} cannot be looked up: {why}."
        if self._unresolved.get(host) != told:
            self._say(told)
        self._unresolved[host] = told
