"""Seeds: where to find a member when multicast does not get through.

A seed is an address or a DNS name, with or without a port. Names are looked up again and again, for
ever: a container gets another address, a DHCP lease ends, a resolver starts later than we do.
"""

import asyncio
import ipaddress
import random
import socket
from collections.abc import Iterable

from agent import exits
from agent.exits import AgentError
from agent.net.sockets import family_of
from agent.text.units import parse_endpoint
from gossip.core.machine import Address

LOOKUP_S = 5.0
ADDRESSES_MAX = 16

Seed = tuple[str, int]


def parse_seeds(texts: Iterable[str], default_port: int) -> list[Seed]:
    """Read seeds as people write them. Raises AgentError."""
    try:
        return [parse_endpoint(text, default_port) for text in texts]
    except ValueError as error:
        raise AgentError(
            f"a seed cannot be read: {error}; nothing was started.",
            hint="Write HOST, HOST:PORT or [IPV6]:PORT.",
            status=exits.USAGE,
        ) from None


async def resolve(seed: Seed) -> list[Address]:
    """Return the seed's addresses. Raises OSError when the name cannot be looked up in time."""
    host, port = seed
    if family_of(host) is not None:
        return [Address(str(ipaddress.ip_address(host)), port)]
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(LOOKUP_S):
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    hosts = list(dict.fromkeys(str(address[0]) for *_, address in found))
    # Resolvers sort: of too many, the same ones would never be tried.
    chosen = hosts if len(hosts) <= ADDRESSES_MAX else random.sample(hosts, ADDRESSES_MAX)
    return [Address(each, port) for each in chosen]
