"""The book of all peers ever known, so that a device that reboots alone finds the others again.

Nobody is taken out for being dead: a site may have been without power for a year, and the first
device that wakes up has to know where the others were. Entries are written a few seconds after they
change, together, because a disk has other things to do while a covey forms.
"""

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Callable

from agent import watched
from agent.exits import AgentError
from agent.security.identity import Peer
from agent.store.control import ControlStore
from gossip.ids import NodeId
from gossip.machine import Address
from gossip.membership.members import Member, MemberChanged

WRITE_DELAY_S = 5.0

log = logging.getLogger(__name__)


class PeerBook:
    """Keeps ``control.db`` up to date with the members that this node hears of."""

    def __init__(
        self, store: ControlStore, me: NodeId, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._store, self._me, self._wall_clock = store, me, wall_clock
        self._unwritten: dict[NodeId, Peer] = {}
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
        known = {peer.id for peer in self._store.peers()}
        fresh = [peer for peer in first_peers if peer.id not in known]
        if fresh:
            await self._store.save_peers(fresh)
        self._task = watched.start("peer-book", self._write_later)

    async def stop(self) -> None:
        """Write what is not yet written."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._write()

    def note(self, event: object) -> None:
        """Take in an event of the driver; all but changes of members are ignored."""
        if isinstance(event, MemberChanged) and event.member.id != self._me:
            self._unwritten[event.member.id] = self._entry(event.member)
            self._changed.set()

    def _entry(self, member: Member) -> Peer:
        addresses = (member.path, *member.addresses) if member.path else member.addresses
        seen_at = self._wall_clock()
        return Peer(member.id, member.name, tuple(dict.fromkeys(addresses)), seen_at)

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
            await self._store.save_peers(entries.values())
        except AgentError as error:
            # The book is a convenience; a full disk must not end the agent on its account.
            log.warning("the peer book was not written: %s", error)
            self._unwritten = {**entries, **self._unwritten}
        except BaseException:
            self._unwritten = {**entries, **self._unwritten}
            self._changed.set()  # whoever goes on with the book writes these first
            raise
