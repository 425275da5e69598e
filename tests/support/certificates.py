"""Certificates for tests: an authority that lives for one test, and what it signs."""

import datetime as dt
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = dt.timedelta(days=1)
LOOPBACK = ("127.0.0.1",)


class Authority:
    """Signs certificates; its own is in the file ``certificate``."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(folder.name)
        self._issued = 0
        self.certificate = self._write("ca", self._key, x509.BasicConstraints(True, None))[0]

    def issue(self, *names: str, begins: int = -1, ends: int = 1) -> tuple[Path, Path]:
        """Return files with a certificate for these names or addresses, and its key.

        It is valid from ``begins`` to ``ends`` days from now.
        """
        self._issued += 1
        names_in_it = x509.SubjectAlternativeName([_alternative(each) for each in names])
        key = ec.generate_private_key(ec.SECP256R1())
        return self._write(f"issued-{self._issued}", key, names_in_it, begins, ends)

    def server(self, *names: str, begins: int = -1, ends: int = 1) -> ssl.SSLContext:
        """Return the context of a server with such a certificate."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*self.issue(*names, begins=begins, ends=ends))
        return context

    def _write(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        extension: x509.ExtensionType,
        begins: int = -1,
        ends: int = 1,
    ) -> tuple[Path, Path]:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(self._name if name == "ca" else _named(name))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins * DAY)
            .not_valid_after(now + ends * DAY)
            .add_extension(extension, critical=name == "ca")
        )
        certificate = builder.sign(self._key, hashes.SHA256())
        paths = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return paths


def _named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
