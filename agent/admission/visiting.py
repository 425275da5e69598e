"""A visit to a member's admission desk, by a device that shows no certificate.

The member shows its own, and who visits makes sure that it is one of its covey before it says more:
its authority must be the one that the visitor knows, by the token or because it belongs already.
The member's dates are not looked at; the visitor's clock may be the one that is wrong.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent.admission.messages import (
    FRAME_BYTES_MAX,
    GUEST_CODEC,
    MEMBER_CODEC,
    Greeting,
    Welcome,
)
from agent.net.frames import framed, read_frame
from agent.net.link import Connection
from agent.net.tls import guest_context
from gossip.errors import Forged, Malformed
from gossip.ids import ClusterId
from gossip.machine import Address

FOREIGN = "answered, but belongs to another covey"


@asynccontextmanager
async def visit(
    address: Address, cluster_id: ClusterId, fingerprint: bytes
) -> AsyncIterator[tuple[Connection, bytes]]:
    """Give a stream to the desk of the member at this address, and the authority's certificate.

    Raises RemoteError when no member of this covey is there, OSError, EOFError.
    """
    reader, writer = await asyncio.open_connection(
        address.host, address.port, ssl=guest_context(), server_hostname=""
    )
    try:
        writer.write(framed(GUEST_CODEC.encode(Greeting(cluster_id))))
        welcome = MEMBER_CODEC.decode(await read_frame(reader, FRAME_BYTES_MAX))
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        authority = _check_member(welcome, certificate, cluster_id, fingerprint)
        yield (reader, writer), authority
    finally:
        writer.transport.abort()


def _check_member(
    welcome: object, certificate: bytes | None, cluster_id: ClusterId, fingerprint: bytes
) -> bytes:
    """Return the authority if a member of the covey is at the other end. Raises RemoteError."""
    from agent.security import certificates

    if not isinstance(welcome, Welcome) or certificate is None:
        raise Malformed("it does not speak Covey's admission protocol")
    if welcome.cluster_id != cluster_id:
        raise Forged(FOREIGN)
    if certificates.fingerprint(welcome.authority) != fingerprint:
        raise Forged("its certificate authority is not the one that the token names")
    subject, _ = certificates.check_issued(certificate, welcome.authority)
    if subject.cluster_id != cluster_id:
        raise Forged(FOREIGN)
    return welcome.authority
