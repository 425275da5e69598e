"""TLS 1.3 between agents: both sides show a certificate of an authority that is trusted now.

OpenSSL checks the chain and the dates; what remains for us is to read which node it is from the
certificate's name (``agent/identity/certificates.py``) and to see that it is the node that we
meant to dial. Host names play no part.

The listening side makes the client's certificate optional, because a device that is about to join
has none yet. Such a *guest* may speak the few messages of admission and nothing else.

A member that dials to be put through to another says so in the handshake, by ALPN (RFC 7301): such
a connection carries no frames (``relay.py``).
"""

import ssl
from typing import Any

from agent import exits
from agent.exits import AgentError
from agent.identity import at_rest
from agent.identity.identity import Identity
from agent.identity.node_uri import parse_node_uri
from agent.identity.seal import SealBroken
from agent.net.authorization import ShownCertificate
from gossip.core.errors import Forged
from gossip.core.ids import ClusterId
from gossip.registry.node import SERIAL_BYTES

HANDSHAKE_TIMEOUT_S = 10.0
RELAY_PROTOCOL = "covey-relay/1"
STRANGE_AUTHORITY = frozenset({7, 18, 19, 20, 21})
"""OpenSSL's X509_V_ERR codes for a chain that ends in no certificate that we trust."""


def listening_context(identity: Identity) -> ssl.SSLContext:
    """Return the context for accepted connections: members and guests."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, identity)
    context.verify_mode = ssl.CERT_OPTIONAL
    # Sessions would be resumed without looking at the certificate again, and cost memory.
    context.num_tickets = 0
    context.set_alpn_protocols([RELAY_PROTOCOL])
    return context


def api_context(identity: Identity) -> ssl.SSLContext:
    """Return the context of the HTTP API, whose clients show a token and no certificate."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, identity)
    context.num_tickets = 0
    return context


def dialling_context(identity: Identity) -> ssl.SSLContext:
    """Return the context for connections to members."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, identity)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def relayed_context(identity: Identity) -> ssl.SSLContext:
    """Return the context for connections to members through which we want to reach others."""
    context = dialling_context(identity)
    context.set_alpn_protocols([RELAY_PROTOCOL])
    return context


def guest_context() -> ssl.SSLContext:
    """Return the context of a device that joins.

    It has no certificate, and checks the member's by the fingerprint in its token, once it has
    seen it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def shown_by(connection: Any, cluster_id: ClusterId) -> ShownCertificate | None:
    """Return which node of this covey is at the other end, and its serial; None for a guest.

    ``connection`` is the transport's ``ssl_object``. Raises Forged when the certificate, though
    signed by the authority, is for another covey, and
    Malformed when it names no node.
    """
    certificate = connection.getpeercert()
    if not certificate:
        return None
    names = [text for kind, text in certificate.get("subjectAltName", ()) if kind == "URI"]
    if len(names) != 1:
        raise Forged("the certificate does not name exactly one node")
    covey, node = parse_node_uri(names[0])
    if covey != cluster_id:
        raise Forged("the certificate is for another covey")
    # Of our authority's certificates none has a longer serial; a longer one is not in a registry.
    return ShownCertificate(node, int(certificate["serialNumber"], 16).to_bytes(SERIAL_BYTES))


def is_strange_authority(error: BaseException) -> bool:
    """Tell whether a handshake failed because one side trusts another authority than the other.

    Nobody can prove that to us: it is a reason to ask, and none to believe anything.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_code in STRANGE_AUTHORITY
    return isinstance(error, ssl.SSLError) and "UNKNOWN_CA" in (error.reason or "")


def _load_credentials(context: ssl.SSLContext, identity: Identity) -> None:
    """Have a context show this node's certificate. Raises AgentError."""
    try:
        at_rest.load_chain(context, identity.certificate_file, identity.key_file)
        context.load_verify_locations(cadata=identity.trust.bundle)
    except (OSError, SealBroken) as error:
        raise AgentError(
            f"the certificates in {identity.directory} cannot be used: {error}.",
            hint="Nothing was started. Restore the identity directory from a backup, or move it "
            "away and join again.",
            status=exits.BAD_CONFIG,
        ) from None


def _context(protocol: int, identity: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    _load_credentials(context, identity)
    return context
