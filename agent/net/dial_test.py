"""A stream opened on trial, to say how far it gets: what a failed dial leaves unsaid.

A firewall, a process that is not there and a path that loses large packets look the same from
above: frames do not arrive. Here they are told apart by the step that fails. TCP's first packets
are small; the first large ones are the certificates of the TLS handshake.
"""

import asyncio
import contextlib
import ssl
from enum import StrEnum

import msgspec

from agent.net.sockets import connected_to, family_of
from gossip.core.machine import Address

STEP_S = 3.0


class DialOutcome(StrEnum):
    """How far a stream got."""

    OPEN = "open"
    REFUSED = "refused"
    """The host, or a firewall, says that nobody is at this port."""
    NO_ANSWER = "no answer"
    """Nothing comes back, not even a refusal."""
    NO_ROUTE = "no route"
    """This device has no way there: no such address family, network or interface."""
    STALLED = "stalled"
    """TCP opens, and the TLS handshake does not get through."""
    FAILED = "failed"
    """The other side answered, and ended the handshake."""


class DialTest(msgspec.Struct, frozen=True):
    """A stream opened on trial: where the best attempt went, and how far it got."""

    address: Address
    outcome: DialOutcome


async def try_stream(address: Address, context: ssl.SSLContext, path_bytes: int) -> DialTest:
    """Open a stream and close it again; takes two steps of three seconds at most."""
    if family_of(address.host) is None:
        return DialTest(address, DialOutcome.NO_ROUTE)
    try:
        async with asyncio.timeout(STEP_S):
            connected = await connected_to(address.host, address.port, path_bytes)
    except TimeoutError:
        return DialTest(address, DialOutcome.NO_ANSWER)
    except ConnectionRefusedError:
        return DialTest(address, DialOutcome.REFUSED)
    except OSError:
        return DialTest(address, DialOutcome.NO_ROUTE)
    try:
        async with asyncio.timeout(STEP_S):
            _, writer = await asyncio.open_connection(
                sock=connected, ssl=context, server_hostname=""
            )
    except TimeoutError:
        return DialTest(address, DialOutcome.STALLED)
    except OSError:
        return DialTest(address, DialOutcome.FAILED)
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(STEP_S):
            await writer.wait_closed()
    return DialTest(address, DialOutcome.OPEN)
