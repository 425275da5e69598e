"""A visit to a member's admission server, by a device that shows no certificate.

The member shows its own, and who visits makes sure that it is one of its covey before it says more:
its authority must be the one that the token names, or follow the one that the visitor trusts.
The member's dates are not looked at; the visitor's clock may be the one that is wrong.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from agent.admission.messages import (
    GUEST_CODEC,
    GUEST_FRAME_BYTES_MAX,
    MEMBER_CODEC,
    Greeting,
    Welcome,
)
from agent.net.framing import framed, read_frame
from agent.net.outgoing import Connection
from agent.net.tls import guest_context
from gossip.core.errors import Forged, Malformed
from gossip.core.ids import ClusterId
from gossip.core.machine import Address

FOREIGN = "answered, but belongs to another covey"

Judge = Callable[[Welcome], Sequence[bytes]]
"""Returns whose certificates (DER) the member may show. Raises Forged for a false authority."""


@asynccontextmanager
async def visit(
    address: Address, cluster_id: ClusterId, judge: Judge
) -> AsyncIterator[tuple[Connection, Welcome]]:
    """Give a stream to the admission server of the member at this address, and its welcome.

    Raises RemoteError when no member of this covey is there, OSError, EOFError.
    """
    reader, writer = await asyncio.open_connection(
        address.host, address.port, ssl=guest_context(), server_hostname=""
    )
    try:
        writer.write(framed(GUEST_CODEC.encode(Greeting(cluster_id))))
        welcome = MEMBER_CODEC.decode(await read_frame(reader, GUEST_FRAME_BYTES_MAX))
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        yield (reader, writer), _check_member(welcome, certificate, cluster_id, judge)
    finally:
        writer.transport.abort()


def _check_member(
    welcome: object, certificate: bytes | None, cluster_id: ClusterId, judge: Judge
) -> Welcome:
    """Return the welcome if a member of the covey is at the other end. Raises RemoteError."""
    from agent.identity import certificates

    if not isinstance(welcome, Welcome) or certificate is None:
        raise Malformed("it does not speak Covey's admission protocol")
    if welcome.cluster_id != cluster_id:
        raise Forged(FOREIGN)
    subject = certificates.check_issued_by_any(certificate, judge(welcome))
    if subject.cluster_id != cluster_id:
        raise Forged(FOREIGN)
    return welcome
