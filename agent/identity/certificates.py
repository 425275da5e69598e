"""Certificates: how a node shows on a TCP stream that it belongs.

Each covey has a certificate authority of its own, an Ed25519 key made by ``covey init``. A node
keeps its private key to itself and sends a signing request; what it gets back is an ordinary
X.509 certificate (RFC 5280) whose subject alternative name says all that matters::

    covey://<cluster id, 32 hexadecimal digits>/<node id, 16 hexadecimal digits>

There are no addresses in it: they change, an identity does not. Both ends of a stream have OpenSSL
check the chain, and read the node id from that name. Beside it stands the node's name in the
registry as a host name, for clients of the HTTP API, which know an agent by nothing else.

Clocks. Small devices start in 1970 or wherever the last shutdown left them. A node's certificate
begins a day before it was made, lasts ninety days and is renewed long before its end
(``agent/admission/renewal.py``). The authority's lasts ten years: between the beginning of the one
and the end of the other the clock can be right. Nothing replaces an authority that begins later
than now, because a clock was ahead when it was made, and OpenSSL asks for its dates in each
handshake; so all of them begin when Covey did.

Importing this costs 3 MiB of X.509 code, so only what signs or checks certificates does: the
founding of a covey, admission and joining. Streams leave it to OpenSSL.
"""

import contextlib
import datetime as dt
from collections.abc import Sequence
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.identity.node_uri import node_uri, parse_node_uri
from agent.system.wall_clock import BACKDATED_S, EARLIEST_S
from gossip.core.errors import Forged, Malformed
from gossip.core.ids import ClusterId, NodeId, format_cluster_id
from gossip.core.names import is_name
from gossip.registry.node import SERIAL_BYTES
from gossip.registry.succession import Authority

AUTHORITY_FROM = dt.datetime.fromtimestamp(EARLIEST_S, dt.UTC)
BACKDATED = dt.timedelta(seconds=BACKDATED_S)
AUTHORITY_VALIDITY = dt.timedelta(days=3653)
NODE_VALIDITY = dt.timedelta(days=90)
REQUEST_BYTES_MAX = 4096
NOT_OURS = "the certificate is not signed by this covey's authority"
UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What the library raises for bytes that somebody else wrote."""


class Subject(NamedTuple):
    """Whom a certificate or a signing request is for."""

    cluster_id: ClusterId
    node_id: NodeId
    name: str


def make_authority(key: Ed25519PrivateKey, cluster_id: ClusterId, cluster_name: str) -> bytes:
    """Return the covey's own certificate (DER): self-signed, and good for signing nodes only."""
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, cluster_name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, format_cluster_id(cluster_id)),
        ]
    )
    public = key.public_key()
    usage = _key_usage(signs_certificates=True)
    return (
        x509.CertificateBuilder()
        .not_valid_before(AUTHORITY_FROM)
        .not_valid_after(_now() + AUTHORITY_VALIDITY)
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, None)
        .public_bytes(Encoding.DER)
    )


def make_request(key: Ed25519PrivateKey, subject: Subject) -> bytes:
    """Return a signing request (DER, PKCS #10), which proves that the sender has the key."""
    uri = x509.UniformResourceIdentifier(node_uri(subject.cluster_id, subject.node_id))
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject.name)]))
        .add_extension(x509.SubjectAlternativeName([uri]), critical=True)
        .sign(key, None)
        .public_bytes(Encoding.DER)
    )


def read_request(der: bytes) -> tuple[Subject, bytes]:
    """Return whom a signing request is for and its raw public key.

    Raises Malformed, or Forged when the sender does not have the key that it names.
    """
    if len(der) > REQUEST_BYTES_MAX:
        raise Malformed("the signing request is too large")
    try:
        request = x509.load_der_x509_csr(der)
        authentic = request.is_signature_valid
        subject, key = _subject(request), _raw_key(request)
    except UNREADABLE as error:
        raise Malformed(f"not a signing request: {error}") from None
    if not authentic:
        raise Forged("the signing request is not signed by its own key")
    return subject, key


def new_serial() -> bytes:
    """Draw the serial of a certificate, as the registry names it."""
    return x509.random_serial_number().to_bytes(SERIAL_BYTES)


def issue(
    authority_key: Ed25519PrivateKey,
    authority: bytes,
    subject: Subject,
    key: bytes,
    serial: bytes,
) -> bytes:
    """Return a node's certificate (DER) for the raw public key, signed by the authority."""
    issuer = x509.load_der_x509_certificate(authority)
    public = Ed25519PublicKey.from_public_bytes(key)
    uri = x509.UniformResourceIdentifier(node_uri(subject.cluster_id, subject.node_id))
    host = x509.DNSName(subject.name)
    peers = x509.ExtendedKeyUsage(
        [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    )
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    return (
        x509.CertificateBuilder()
        .not_valid_before(_now() - BACKDATED)
        .not_valid_after(_now() + NODE_VALIDITY)
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject.name)]))
        .issuer_name(issuer.subject)
        .public_key(public)
        .serial_number(int.from_bytes(serial))
        .add_extension(x509.SubjectAlternativeName([uri, host]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(peers, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(issuer_key, critical=False)
        .sign(authority_key, None)
        .public_bytes(Encoding.DER)
    )


def check_issued(certificate: bytes, authority: bytes) -> tuple[Subject, bytes]:
    """Return whom the authority issued this certificate to, and the raw public key.

    Dates are not looked at: that is a question about clocks, and asked elsewhere.
    Raises Malformed, or Forged when the authority did not sign it.
    """
    try:
        leaf = x509.load_der_x509_certificate(certificate)
        issuer = x509.load_der_x509_certificate(authority)
        named = _subject(leaf), _raw_key(leaf)
    except UNREADABLE as error:
        raise Malformed(f"not a node's certificate: {error}") from None
    try:
        leaf.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):  # ValueError: the names do not fit
        raise Forged(NOT_OURS) from None
    return named


def issuer_among(certificate: bytes, authorities: Sequence[Authority]) -> Authority:
    """Return the authority that signed a node's certificate. Raises Malformed, Forged."""
    for each in authorities:
        with contextlib.suppress(Forged):
            check_issued(certificate, each.certificate)
            return each
    raise Forged(NOT_OURS)


def check_issued_by_any(certificate: bytes, authorities: Sequence[bytes]) -> Subject:
    """Return whom one of the authorities issued this certificate to. Raises Malformed, Forged."""
    for each in authorities:
        with contextlib.suppress(Forged):
            return check_issued(certificate, each)[0]
    raise Forged(NOT_OURS)


def authority_key_of(authority: bytes) -> bytes:
    """Return the raw public key of an authority's certificate (DER). Raises Malformed."""
    try:
        return _raw_key(x509.load_der_x509_certificate(authority))
    except UNREADABLE as error:
        raise Malformed(f"not an authority's certificate: {error}") from None


def validity_of(certificate: bytes) -> tuple[float, float]:
    """Return from and until when (Unix seconds) a certificate (DER) is valid."""
    leaf = x509.load_der_x509_certificate(certificate)
    return leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()


def serial_of(certificate: bytes) -> bytes:
    """Return the serial of a certificate (DER), as the registry names it."""
    return x509.load_der_x509_certificate(certificate).serial_number.to_bytes(SERIAL_BYTES)


def to_pem(certificate: bytes) -> bytes:
    """Return a certificate in the text form that OpenSSL loads from files."""
    return x509.load_der_x509_certificate(certificate).public_bytes(Encoding.PEM)


def from_pem(text: bytes) -> bytes:
    """Return the certificate (DER) that stands in a text, whatever else does."""
    return x509.load_pem_x509_certificate(text).public_bytes(Encoding.DER)


def fingerprint(certificate: bytes) -> bytes:
    """Return the SHA-256 of a certificate (DER), by which a token names its authority."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(certificate)
    return digest.finalize()


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(document: x509.Certificate | x509.CertificateSigningRequest) -> Subject:
    names = document.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    commons = document.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(uris) != 1 or len(commons) != 1:
        raise ValueError("it does not name exactly one node")
    name = str(commons[0].value)
    if not is_name(name):
        raise ValueError("what it calls the node is no name")
    return Subject(*parse_node_uri(uris[0]), name)


def _raw_key(document: x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    key = document.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise TypeError("its key is not Ed25519")
    return key.public_bytes_raw()
