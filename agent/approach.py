"""An agent's way to taking part: what has to be so first, and how each of it is waited for.

A place in a covey, room on the disk, a clock that can be right, a certificate that is good. What is
missing may come while the agent runs, so it waits, says for what, and serves what it can meanwhile
(``stages.py``). Each step returns when it is done, or when the agent is to stop.
"""

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from agent.admission import renewing
from agent.api.listen import Listeners
from agent.stages import Lack
from agent.store.ballast import Ballast
from agent.store.control import ControlStore
from agent.store.database import Database
from agent.store.failures import until_room
from agent.waiting import Waiting
from agent.wall_clock import date

if TYPE_CHECKING:
    from agent.agent import Agent

OpenStores = Callable[[AsyncExitStack], Awaitable[Iterable[Database]]]


class Approach:
    """The steps of one agent; what they open is closed with ``opened``."""

    def __init__(
        self, agent: "Agent", waiting: Waiting, listeners: Listeners, opened: AsyncExitStack
    ) -> None:
        self._agent, self._waiting, self._listeners = agent, waiting, listeners
        self._opened = opened

    @property
    def is_over(self) -> bool:
        """Whether the agent is to stop."""
        return self._waiting.stopping.is_set()

    async def until_admitted(self) -> None:
        """Wait until this node is part of a covey."""
        newcomer = self._agent.newcomer
        newcomer.forget()
        while (lack := newcomer.lack()) is not None:
            await self._listeners.open()
            await self._waiting.without(lack, newcomer.arrived.wait())
            if self.is_over:
                return
            newcomer.arrived.clear()

    async def until_stores_open(self, open_stores: OpenStores) -> None:
        """Open the stores; on a full disk with what is in reserve, or as soon as there is room."""
        paths = self._agent.paths
        ballast = Ballast(paths.ballast)
        while not self.is_over:
            shortage = await ballast.open_stores(open_stores, self._opened)
            if shortage is None:
                self._agent.keep("ballast", ballast.keep)
                break
            await self._listeners.open()
            lack = Lack(shortage.message, shortage.hint)
            await self._waiting.without(lack, until_room(paths.data_db))

    async def until_clock_is_plausible(self) -> None:
        """Take readings and run apps, without a word to others, while the clock cannot be right."""
        agent = self._agent
        while not self.is_over and (lack := agent.clock_lack()) is not None:
            await self.serve()
            dates = agent.identity.plausible
            await self._waiting.without(lack, agent.clock.until_plausible(*dates))

    async def until_certificate_is_good(self, store: ControlStore) -> None:
        """Have an expired certificate renewed: the issuer by itself, others as guests."""
        agent, who = self._agent, self._agent.identity
        while not self.is_over and agent.clock.now_s() > who.valid_until:
            if who.is_issuer:
                await renewing.renew_own(who, store)
                continue
            await self.serve()
            lack = Lack(
                f"this node's certificate was good until {date(who.valid_until)}",
                "members that it can reach renew it, with the one that founded the covey; if "
                "the clock is wrong, set it (NTP: `timedatectl set-ntp true`)",
            )
            at = renewing.places(who, agent.config.network, store.peers())
            await self._waiting.without(lack, renewing.renew_as_guest(who, at))

    async def serve(self) -> None:
        """Answer on the sockets and run the apps; what does so already goes on.

        Whatever was opened in between is closed after both.
        """
        await self._listeners.open()
        self._opened.push_async_callback(self._listeners.close)
        await self._agent.apps.open()
        self._opened.push_async_callback(self._agent.apps.close)
