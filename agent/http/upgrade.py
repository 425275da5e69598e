"""A connection that goes on as something else than HTTP (RFC 9110, 7.8)."""

import asyncio
from typing import Protocol

from agent.http.asgi import Receive, Scope, Send
from agent.http.response import Response

UPGRADE = "covey.upgrade"
"""In the extensions of a request's scope, where it may be upgraded: what does it."""
SWITCHING_PROTOCOLS = 101


class UpgradedProtocol(Protocol):
    """Who has a connection after its upgrade. Takes what asyncio tells a protocol."""

    def begin(self, transport: asyncio.Transport) -> None:
        """Take the connection over: its first bytes follow."""

    def data_received(self, data: bytes) -> None:
        """Take in what has come."""

    def pause_writing(self) -> None:
        """See that the client does not keep up."""

    def resume_writing(self) -> None:
        """Go on."""

    def connection_lost(self) -> None:
        """See that the client is gone."""

    def shut_down(self) -> None:
        """Begin nothing more, and end when all is answered."""

    async def ended(self) -> None:
        """Return when there is nothing more to do. Cancelled when the client may do no more."""


class UpgradeResponse(Response):
    """The answer that hands a connection over, and lasts as long as that goes on."""

    def __init__(self, protocol: str, taker: UpgradedProtocol) -> None:
        super().__init__(status_code=SWITCHING_PROTOCOLS)
        self._protocol, self._taker = protocol, taker

    async def __call__(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        """Hand it over."""
        scope["extensions"][UPGRADE](self._protocol, self._taker)
        await self._taker.ended()


def may_upgrade(scope: Scope) -> bool:
    """Tell whether the connection of this request can go on as something else."""
    return UPGRADE in scope.get("extensions", {})
