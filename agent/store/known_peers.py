"""All peers ever known, so that a device that reboots alone finds the others again.

Nobody is taken out for being dead: a site may have been without power for a year, and the first
device that wakes up has to know where the others were. Entries are written a few seconds after they
change, together, because a disk has other things to do while a covey forms.
"""

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Iterable

import msgspec

from agent.exits import AgentError
from agent.identity.identity import Peer
from agent.loop import watched
from agent.store.control import ControlStore
from gossip.core.ids import NodeId
from gossip.core.machine import Address
from gossip.membership.model.members import MemberChanged

WRITE_DELAY_S = 5.0
INSTANT_S = 0.001

log = logging.getLogger(__name__)


class KnownPeers:
    """Keeps ``control.db`` up to date with the members that this node hears of."""

    def __init__(
        self,
        store: ControlStore,
        me: NodeId,
        addresses_of: Callable[[NodeId], Iterable[Address]],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare; ``addresses_of`` says where a node is reached, best first, as far as known."""
        self._store, self._me, self._wall_clock = store, me, wall_clock
        self._addresses_of = addresses_of
        self._unwritten: dict[NodeId, Peer] = {}
        known = store.peers()
        self._known = {peer.id for peer in known}
        self.seen = {peer.id for peer in known if peer.seen_at > 0}
        """Whoever was ever known to be alive."""
        self._newest_at = max((peer.seen_at for peer in known), default=0.0)
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def addresses(self) -> list[Address]:
        """Return where peers were reached, those seen last first.

        The best address of each comes before the second of any: who cannot take all of them in
        should rather know many peers by one address than few by all of theirs.
        """
        books = [peer.addresses for peer in self._store.peers() if peer.id != self._me]
        by_rank = itertools.zip_longest(*books)
        found = (address for rank in by_rank for address in rank if address is not None)
        return list(dict.fromkeys(found))

    async def start(self, first_peers: list[Peer]) -> None:
        """Begin to write; ``first_peers`` came with the credentials and never replace an entry."""
        fresh = [peer for peer in first_peers if peer.id not in self._known]
        if fresh:
            self._known.update(peer.id for peer in fresh)
            await self._store.save_peers(fresh)
        self._task = watched.start("peer-book", self._write_later)

    async def stop(self) -> None:
        """Write what is not yet written."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._write()

    def record(self, event: object) -> None:
        """Take in an event of the driver; all but changes of members are ignored.

        Who is dead or gone was seen when it was written down, and is no newer for being dead.
        """
        if not isinstance(event, MemberChanged) or event.member.id == self._me:
            return
        member = event.member
        if member.is_live or member.id not in self._known:
            seen_at = self._later() if member.is_live else 0.0
            self._unwritten[member.id] = Peer(member.id, member.name, member.addresses, seen_at)
            self._known.add(member.id)
            if member.is_live:
                self.seen.add(member.id)
            self._changed.set()

    def _later(self) -> float:
        """Return the time, as something later than all that is in the table.

        A device without a clock begins in 1970, and whom it sees now it sees after all others.
        """
        self._newest_at = max(self._wall_clock(), self._newest_at + INSTANT_S)
        return self._newest_at

    def _with_ways(self, peer: Peer) -> Peer:
        """Add where the peer is really reached: its packets may have come after the news of it."""
        ways = dict.fromkeys((*self._addresses_of(peer.id), *peer.addresses))
        return msgspec.structs.replace(peer, addresses=tuple(ways))

    async def _write_later(self) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(WRITE_DELAY_S)
            self._changed.clear()
            await self._write()

    async def _write(self) -> None:
        entries, self._unwritten = self._unwritten, {}
        if not entries:
            return
        try:
            await self._store.save_peers([self._with_ways(peer) for peer in entries.values()])
        except AgentError as error:
            self._unwritten = entries | self._unwritten  # with the next change
            # The table is a convenience; a full disk must not end the agent on its account.
            log.warning("the known peers were not written: %s", error)
            self._unwritten = {**entries, **self._unwritten}
        except BaseException:
            self._unwritten = {**entries, **self._unwritten}
            self._changed.set()  # whoever goes on with the table writes these first
            raise
