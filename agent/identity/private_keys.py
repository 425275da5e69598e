"""Private keys as files hold them: Ed25519 in PKCS #8, as PEM (RFC 8410).

Such a file has one form, sixteen bytes before the key's own, which OpenSSL reads as well. What the
library has for every other kind of key is 1.3 MiB, and an agent never meets another kind.
"""

import base64
import re
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import exits
from agent.exits import AgentError
from agent.files.private_files import closed
from agent.identity.at_rest import read_secret

HEAD = bytes.fromhex("302e020100300506032b657004220420")
"""PrivateKeyInfo, version 0, of the algorithm id-Ed25519, and the lengths up to the key itself."""
KEY_BYTES = 32
PEM = re.compile(
    rb"-----BEGIN PRIVATE KEY-----\s+([0-9A-Za-z+/=\s]+)-----END PRIVATE KEY-----", re.ASCII
)


def private_pem(key: Ed25519PrivateKey) -> bytes:
    """Return a private key as its file holds it."""
    text = base64.b64encode(HEAD + key.private_bytes_raw())
    return b"-----BEGIN PRIVATE KEY-----\n" + text + b"\n-----END PRIVATE KEY-----\n"


def parse_private_pem(text: bytes) -> Ed25519PrivateKey:
    """Return the first private key that stands in a text, whatever else does. Raises ValueError."""
    found = PEM.search(text)
    if found is None:
        raise ValueError("there is no private key in it")
    der = base64.b64decode(b"".join(found[1].split()), validate=True)
    if not der.startswith(HEAD) or len(der) != len(HEAD) + KEY_BYTES:
        raise ValueError("it is no Ed25519 key")
    return Ed25519PrivateKey.from_private_bytes(der[len(HEAD) :])


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key's file. Raises AgentError; its message shows nothing of the content."""
    try:
        return parse_private_pem(read_secret(path))
    except PermissionError:
        raise closed(path) from None
    except (OSError, ValueError) as error:
        raise AgentError(
            f"the key {path} cannot be used ({type(error).__name__}); nothing was changed.",
            hint="Restore the identity directory from a backup.",
            status=exits.NOT_PERMITTED,
        ) from None
