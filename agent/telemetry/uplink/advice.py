"""What went wrong on the way to a broker, and what to do about it: one sentence each.

Each function returns what happened and what to do. What the operating system, OpenSSL or the
broker said stands in the tables here; whatever is not in them is passed on as it is.
"""

import errno
import socket
import ssl
from datetime import UTC, datetime

from agent.config.settings import MQTT_PORT, MQTT_TLS_PORT
from agent.telemetry.uplink import reason_codes

Advice = tuple[str, str]

OTHER_PORT = {MQTT_PORT: MQTT_TLS_PORT, MQTT_TLS_PORT: MQTT_PORT}

_UNKNOWN_NAME = "Check host in [uplink]; for a name in .local the package libnss-mdns is needed."
_NO_NAME_SERVER = "Is the network up? The name servers are in /etc/resolv.conf."
_NO_ROUTE = "Is the network up, and is this the broker's address?"
_NOT_LISTENING = (
    "Is the broker running, and is this its port? A Mosquitto without a `listener` in its "
    "configuration serves its own machine alone."
)
_ON_ERRNO = {
    errno.ECONNREFUSED: (
        "nothing listens at {where}",
        _NOT_LISTENING,
    ),
    errno.EHOSTUNREACH: ("there is no way to {where}", _NO_ROUTE),
    errno.ENETUNREACH: ("there is no way to {where}", _NO_ROUTE),
    errno.ENETDOWN: ("the network is down", "Bring it up, and try again."),
}
# Numbers of X509_V_ERR_*, x509_vfy.h of OpenSSL.
_EXPIRED, _NOT_YET_VALID, _HOST_MISMATCH, _ADDRESS_MISMATCH = 10, 9, 62, 64
_UNKNOWN_AUTHORITY = frozenset({18, 19, 20, 21})
_CLOSED = (
    "Its log may say why: a listener of another kind, a certificate that it misses "
    "(certificate_file, key_file), or a client id that it does not take."
)
_PLAIN_PORT = "Set tls = false, or port to the broker's port with TLS, mostly 8883."


def endpoint(address: str, port: int) -> str:
    """Return an address with its port, as people write it."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def on_name(host: str, error: Exception) -> Advice:
    """Explain why a name has no address."""
    if isinstance(error, TimeoutError):
        return f"no name server answered for {host!r}", _NO_NAME_SERVER
    if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
        return f"no name server could be asked for {host!r}", _NO_NAME_SERVER
    return f"nobody knows the name {host!r}", _UNKNOWN_NAME


def on_tcp(address: str, port: int, error: OSError, elsewhere: int) -> Advice:
    """Explain why there is no connection; ``elsewhere`` is a port at which somebody listens."""
    where = endpoint(address, port)
    if isinstance(error, TimeoutError) or error.errno == errno.ETIMEDOUT:
        return (
            f"{where} does not answer",
            f"Is the machine on, and does a firewall let TCP port {port} through?",
        )
    message, hint = _ON_ERRNO.get(error.errno or 0, ("{where}: " + str(error), _NO_ROUTE))
    if elsewhere:
        tls = "true" if elsewhere == MQTT_TLS_PORT else "false"
        hint = f"Somebody listens at port {elsewhere}: set port = {elsewhere} and tls = {tls}."
    return message.format(where=where), hint


def is_about_names(error: Exception) -> bool:
    """Tell whether the names in the broker's certificate are the matter."""
    return isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in (
        _HOST_MISMATCH,
        _ADDRESS_MISMATCH,
    )


def on_tls(host: str, error: OSError, names: tuple[str, ...] | None) -> Advice:
    """Explain why there is no TLS; ``names`` are those of the broker's certificate, if asked."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _on_certificate(host, error, names or ())
    if isinstance(error, TimeoutError):
        return "the broker does not answer to TLS", f"It may speak without it here. {_PLAIN_PORT}"
    # Python says SSLZeroReturnError until 3.11.3, and SSLEOFError from there on.
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError)):
        return "the broker closed the connection in the midst of TLS", _PLAIN_PORT
    if isinstance(error, ssl.SSLError) and error.reason in (
        "WRONG_VERSION_NUMBER",
        "RECORD_LAYER_FAILURE",
        "PACKET_LENGTH_TOO_LONG",
    ):
        return "the broker answers, but not in TLS", _PLAIN_PORT
    said = str(getattr(error, "reason", "") or error).lower().replace("_", " ")
    return f"TLS failed: {said}", "Check certificate_file and key_file in [uplink]."


def _on_certificate(
    host: str, error: ssl.SSLCertVerificationError, names: tuple[str, ...]
) -> Advice:
    code, today = error.verify_code, f"{datetime.now(UTC):%Y-%m-%d}"
    if is_about_names(error):
        hint = "Set host to a name in it"
        hint += f": {', '.join(map(repr, names))}." if names else "; it holds none."
        return f"the broker's certificate is not for {host!r}", hint
    if code == _EXPIRED:
        return "the broker's certificate has expired", f"Renew it; here it is {today}."
    if code == _NOT_YET_VALID:
        return "the broker's certificate is not valid yet", f"Is it {today}? Check this clock."
    if code in _UNKNOWN_AUTHORITY:
        return (
            f"the broker's certificate is not trusted: {error.verify_message}",
            "Set ca_file in [uplink] to the certificate of the authority that signed it.",
        )
    return f"the broker's certificate is not good: {error.verify_message}", "Ask for another."


def on_login(said: str, code: int, client_id: str, *, tls: bool) -> Advice:
    """Explain why the broker did not let us in; ``tls`` says that it speaks TLS on this port."""
    if tls:
        return "the broker expects TLS at this port", "Set tls = true in [uplink]."
    if code == reason_codes.NO_ANSWER:
        return (
            "something accepts connections and answers nothing",
            "Is it an MQTT broker that listens there? Check host and port in [uplink].",
        )
    if code == reason_codes.SILENCE:
        return (
            "the broker closed the connection without an answer",
            _CLOSED,
        )
    hint = reason_codes.CONNECT_HINTS.get(code, "The broker's log may say more.")
    if code in (reason_codes.CLIENT_ID_REFUSED, reason_codes.NOT_AUTHORIZED):
        hint += f" This test logs in as {client_id!r}."
    return f"the broker refused: {said}", hint


def on_size(size: int, limit: int) -> Advice:
    """Explain why the message is too large to be sent."""
    return (
        f"a reading makes a packet of {size} bytes, and the broker takes {limit}",
        "Raise the broker's limit, or shorten topic and payload in [uplink].",
    )


def on_answer(code: int, topic: str, *, ended: bool) -> Advice:
    """Explain why the message did not arrive."""
    allowed = f"May this user publish to {topic!r}? Check the broker's access list."
    if ended:
        return f"the broker ended the connection over it: {reason_codes.name_of(code)}", allowed
    if code == reason_codes.NO_ANSWER:
        return "the broker did not acknowledge it", "The broker's log may say why."
    if code == reason_codes.NOT_AUTHORIZED:
        return f"the broker refused it: {reason_codes.name_of(code)}", allowed
    return (
        f"the broker refused it: {reason_codes.name_of(code)}",
        reason_codes.HINTS.get(code, "The broker's log may say more."),
    )


def names_in(certificate: bytes) -> tuple[str, ...]:
    """Return the names and addresses that a certificate (DER) is for; none if it is unreadable."""
    from cryptography import x509

    try:
        found = x509.load_der_x509_certificate(certificate).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except (ValueError, x509.ExtensionNotFound):
        return ()
    return tuple(str(each.value) for each in found.value)
