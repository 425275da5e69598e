"""An agent's way to taking part: what has to be so first, and how each of it is waited for.

A place in a covey, room on the disk, a clock that can be right, a certificate that is good. What is
missing may come while the agent runs, so it waits, says for what, and serves what it can meanwhile
(``readiness.py``). Each step returns when it is done, or when the agent is to stop.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from functools import partial

from agent.admission import renewal
from agent.admission.allegiance import Keep
from agent.admission.newcomer import Newcomer
from agent.api.listeners import Listeners
from agent.apps.host import AppHost
from agent.config.loader import Config
from agent.config.paths import Paths
from agent.exits import AgentError
from agent.identity.at_rest import seal_identity
from agent.identity.identity import Identity
from agent.readiness import Lack
from agent.runtime.waiting import Waiting
from agent.store.ballast import Ballast
from agent.store.control import ControlStore
from agent.store.database import Database
from agent.store.errors import until_room
from agent.system.wall_clock import EARLIEST_S, LOOK_S, WallClock, date
from agent.telemetry.timekeeping import kernel_keeps_clock

log = logging.getLogger(__name__)

OpenStores = Callable[[AsyncExitStack], Awaitable[Iterable[Database]]]


class Approach:
    """The steps of one agent; what they open is closed with ``opened``."""

    def __init__(
        self,
        config: Config,
        paths: Paths,
        clock: WallClock,
        waiting: Waiting,
        listeners: Listeners,
        opened: AsyncExitStack,
    ) -> None:
        self._network, self._paths, self._clock = config.network, paths, clock
        self._waiting, self._listeners, self._opened = waiting, listeners, opened

    @property
    def is_over(self) -> bool:
        """Whether the agent is to stop."""
        return self._waiting.stopping.is_set()

    async def until_admitted(self, newcomer: Newcomer) -> None:
        """Wait until this node is part of a covey; then nothing of it lies in clear needlessly.

        Raises AgentError.
        """
        newcomer.forget()
        while (lack := newcomer.lack()) is not None:
            await self._listeners.open()
            await self._waiting.without(lack, newcomer.arrived.wait())
            if self.is_over:
                return
            newcomer.arrived.clear()
        seal_identity(self._paths.identity)

    async def until_stores_open(self, open_stores: OpenStores, keep: Keep) -> None:
        """Open the stores; on a full disk with what is in reserve, or as soon as there is room."""
        ballast = Ballast(self._paths.ballast)
        while not self.is_over:
            shortage = await ballast.open_stores(open_stores, self._opened)
            if shortage is None:
                keep("ballast", ballast.keep)
                break
            await self._listeners.open()
            lack = Lack(shortage.message, shortage.hint)
            await self._waiting.without(lack, until_room(self._paths.data_db))

    async def until_clock_is_plausible(
        self, who: Identity, store: ControlStore, apps: AppHost
    ) -> None:
        """Take readings and run apps, without a word to others, while the clock cannot be right.

        Unless the certificate is what is wrong: it begins later than now when it was made while a
        clock was ahead. Whose clock is right the issuer says.
        """
        while not self.is_over and (lack := self._clock.lack(*who.plausible)) is not None:
            await self.serve(apps)
            right = self._clock.until_plausible(*who.plausible)
            await self._waiting.without(lack, right, self._until_begun(who, store))

    async def _until_begun(self, who: Identity, store: ControlStore) -> None:
        """Have a certificate replaced that begins later than now. Raises AgentError.

        An issuer has nobody to ask but the kernel, whether somebody keeps its clock right.
        """

        def may_be_right() -> bool:
            is_in_range = self._clock.lack(EARLIEST_S, who.plausible[1]) is None
            return is_in_range and (not who.is_issuer or kernel_keeps_clock() is True)

        while not may_be_right():  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(LOOK_S)
        if not await _has_renewed_own(who, store):
            at = renewal.places(who, self._network, store.peers)
            await renewal.renew_as_guest(who, at, partial(renewal.adopt_early, who, store))

    async def until_certificate_is_good(
        self, who: Identity, store: ControlStore, apps: AppHost
    ) -> None:
        """Have an expired certificate renewed: the issuer by itself, others as guests.

        It is good again, too, when the clock was what was wrong and is set.
        """
        while not self.is_over and self._clock.now_s() > who.valid_until:
            if await _has_renewed_own(who, store):
                continue
            await self.serve(apps)
            lack = Lack(
                f"this node's certificate was good until {date(who.valid_until)}",
                "members that it can reach renew it, with one that lets others in; if the clock is "
                "wrong, set it (NTP: `timedatectl set-ntp true`)",
            )
            at = renewal.places(who, self._network, store.peers)
            right = self._clock.until_plausible(who.valid_from, who.valid_until)
            adopt = partial(renewal.adopt_early, who, store)
            await self._waiting.without(lack, right, renewal.renew_as_guest(who, at, adopt))

    async def serve(self, apps: AppHost) -> None:
        """Answer on the sockets and run the apps; what does so already goes on.

        Whatever was opened in between is closed after both.
        """
        await self._listeners.open()
        self._opened.push_async_callback(self._listeners.close)
        await apps.open()
        self._opened.push_async_callback(apps.close)


async def _has_renewed_own(who: Identity, store: ControlStore) -> bool:
    """Have an issuer certify itself; False if it is none, or another authority has followed."""
    if not who.is_issuer:
        return False
    try:
        await renewal.renew_own(who, store)
    except AgentError as error:
        log.warning("this node did not certify itself: %s", error.message)
        return False
    return True
