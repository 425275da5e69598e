"""Private keys in files: written as others read and write them, and nothing else is taken."""

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.exits import NOT_PERMITTED, AgentError
from agent.identity import identity
from agent.identity.private_keys import parse_private_pem, private_pem, read_private_key

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def by_the_library(key: Ed25519PrivateKey | EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def test_the_file_is_the_one_that_the_library_writes() -> None:
    assert private_pem(KEY) == by_the_library(KEY)
    assert parse_private_pem(by_the_library(KEY)).private_bytes_raw() == bytes(range(32))


def test_openssl_reads_it_beside_its_certificate(tmp_path: Path) -> None:
    who = identity.found(tmp_path / "identity", "barn", "pi1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(who.certificate_file, who.key_file)
    assert isinstance(read_private_key(who.key_file), Ed25519PrivateKey)


@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
def test_what_else_stands_in_the_text_does_not_matter(ends: bytes) -> None:
    text = b"a comment\n" + private_pem(KEY) + b"-----BEGIN CERTIFICATE-----\nx\n"
    found = parse_private_pem(text.replace(b"\n", ends))
    assert found.private_bytes_raw() == KEY.private_bytes_raw()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n",
        private_pem(KEY)[:-30],
        private_pem(KEY).replace(b"MC4C", b"MC4D"),
        private_pem(KEY).replace(b"\n-----END", b"AAAA\n-----END"),
        private_pem(KEY).replace(b"BEGIN PRIVATE", b"BEGIN RSA PRIVATE"),
        by_the_library(generate_private_key(SECP256R1())),
    ],
)
def test_another_key_or_half_of_one_is_refused(text: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"key|base64|padding|characters"):
        parse_private_pem(text)
    (tmp_path / "node.key").write_bytes(text)
    with pytest.raises(AgentError, match="nothing was changed") as refused:
        read_private_key(tmp_path / "node.key")
    assert refused.value.status == NOT_PERMITTED
