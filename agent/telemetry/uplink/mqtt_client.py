"""The MQTT client of the uplink, by way of paho-mqtt, driven by the agent's event loop.

Paho has a loop of its own, a queue of its own and reconnects on its own. None of them is used.
Its queue lives in memory and, after an outage, writes all of itself to a broker that allowed
twenty; so a message is handed to paho only when it may be sent at once, and every connection
gets a new paho client, which cannot remember anything.

What blocks (name lookup, TCP and TLS handshakes) runs in a thread; after that, the socket
belongs to the event loop: paho reads when it is readable, writes when it is writable, and is
asked once a second whether a ping is due. Files with certificates and passwords are read at
every connection, so that a renewed one counts without a restart.
"""

import asyncio
import contextlib
import socket
import ssl
from typing import Any

from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from agent.config.credentials import file_at
from agent.config.loader import read_secret
from agent.config.settings import UplinkSettings
from agent.exits import BAD_CONFIG, AgentError
from agent.telemetry.uplink import reason_codes
from agent.telemetry.uplink.mqtt import ConnectError, ConnectResult, MqttListener
from agent.telemetry.uplink.paho_client import PACKET_BYTES_MAX, PahoClient
from agent.telemetry.uplink.template import Message
from agent.telemetry.uplink.threads import in_thread
from agent.telemetry.uplink.version_fallback import Version

CONNECT_TIMEOUT_S = 10.0
MISC_INTERVAL_S = 1.0
GOODBYE_TIMEOUT_S = 1.0
CLEAN_SESSION_EXPIRY_S = 0

PROTOCOLS = {"5": mqtt.MQTTv5, "3.1.1": mqtt.MQTTv311}


class PahoMqttClient:
    """An ``MqttClient`` to the broker of ``[uplink]``. AgentError: files that do not fit."""

    def __init__(self, settings: UplinkSettings, client_id: str) -> None:
        self._settings = settings
        self.client_id = client_id
        self._connection: _Connection | None = None
        tls_context(settings)
        _password(settings)

    async def connect(
        self, version: Version, listener: MqttListener, patience_s: float
    ) -> ConnectResult:
        """Connect anew, with a clean session. Raises ConnectError."""
        self.abort()
        client = self._new_client(version)
        await self._opened(client, version)
        self._connection = _Connection(client, version, self._settings.qos, listener)
        try:
            async with asyncio.timeout(patience_s):
                return await self._connection.greeted()
        except TimeoutError:
            self.abort()
            raise ConnectError(
                f"the broker did not answer the CONNECT within {patience_s:g} s",
                reason_codes.NO_ANSWER,
            ) from None
        except BaseException:
            self.abort()
            raise

    async def _opened(self, client: PahoClient, version: Version) -> None:
        """Open the client's connection, in a thread. Raises ConnectError."""
        opening = in_thread(lambda: self._open(client, version))
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            if not opening.done():  # the thread cannot be stopped: close what it comes back with
                opening.add_done_callback(lambda done: done.exception() or client.disconnect())
            raise
        except (OSError, ValueError) as error:
            raise ConnectError(_explain(error), reason_codes.UNREACHABLE) from error

    def publish(self, token: int, message: Message, qos: int) -> None:
        """Send now; the listener hears of it under ``token``."""
        if self._connection is not None:
            self._connection.publish(token, message, qos)

    async def disconnect(self) -> None:
        """Say goodbye and close."""
        if self._connection is not None:
            await self._connection.say_goodbye()
        self.abort()

    def abort(self) -> None:
        """Close without a word."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _new_client(self, version: Version) -> PahoClient:
        settings = self._settings
        client = PahoClient(
            CallbackAPIVersion.VERSION2,
            self.client_id,
            protocol=PROTOCOLS[version],
            clean_session=None if version == "5" else True,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        try:
            context = tls_context(settings)
            password = _password(settings)
        except AgentError as error:
            raise ConnectError(error.message, reason_codes.BAD_CREDENTIALS) from error
        if context is not None:
            client.tls_set_context(context)
        if settings.username:
            client.username_pw_set(settings.username, password)
        return client

    def _open(self, client: PahoClient, version: Version) -> None:
        """Connect the socket and write the CONNECT. Blocks; runs in a thread."""
        keepalive = max(1, round(self._settings.keepalive_s))
        address = (self._settings.host, self._settings.broker_port, keepalive)
        if version != "5":
            client.connect(*address)
            return
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = CLEAN_SESSION_EXPIRY_S
        properties.MaximumPacketSize = PACKET_BYTES_MAX
        client.connect(*address, clean_start=True, properties=properties)


class _Connection:
    """One connection: a paho client whose socket is served by the event loop."""

    def __init__(
        self, client: PahoClient, version: Version, qos: int, listener: MqttListener
    ) -> None:
        self._client = client
        self._version = version
        self._qos = qos
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._greeting: asyncio.Future[ConnectResult] = self._loop.create_future()
        self._socket: socket.socket | None = None
        self._misc: asyncio.TimerHandle | None = None
        self._ended = asyncio.Event()
        self._silent = False  # we closed it ourselves: nobody wants to hear of its end

    async def greeted(self) -> ConnectResult:
        """Serve the socket until the broker's CONNACK. Raises ConnectError."""
        client = self._client
        opened = client.socket()
        if not isinstance(opened, socket.socket):
            raise ConnectError("the connection ended at once")
        self._socket = opened
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_answer = self._answered
        client.on_socket_close = lambda *_: self._forget_socket()
        client.on_socket_register_write = lambda *_: self._watch_writes()
        client.on_socket_unregister_write = lambda *_: self._unwatch_writes()
        self._loop.add_reader(opened, self._readable)
        if client.want_write():
            self._watch_writes()
        self._misc = self._loop.call_later(MISC_INTERVAL_S, self._tick)
        return await self._greeting

    def publish(self, token: int, message: Message, qos: int) -> None:
        if not self._client.send(token, message, qos):
            self._loop.call_soon(self._end, reason_codes.SILENCE)

    async def say_goodbye(self) -> None:
        """Send DISCONNECT, and wait a moment until it is written."""
        self._silent = True
        if self._socket is not None:
            self._client.disconnect()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), GOODBYE_TIMEOUT_S)

    def close(self) -> None:
        """Close the socket; safe in any state."""
        self._silent = True
        opened = self._socket
        self._forget_socket()
        if opened is not None:
            opened.close()
        if not self._greeting.done():
            self._greeting.cancel()

    # ---- the event loop ---------------------------------------------------------------------

    def _readable(self) -> None:
        self._client.read()
        # Bytes that TLS has already decrypted do not make the socket readable again.
        while isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            self._client.read()

    def _tick(self) -> None:
        self._client.loop_misc()
        if self._socket is not None:
            self._misc = self._loop.call_later(MISC_INTERVAL_S, self._tick)

    def _watch_writes(self) -> None:
        if self._socket is not None:
            self._loop.add_writer(self._socket, self._client.loop_write)

    def _unwatch_writes(self) -> None:
        if self._socket is not None:
            self._loop.remove_writer(self._socket)

    def _forget_socket(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
        self._socket = None
        if self._misc is not None:
            self._misc.cancel()

    # ---- paho's callbacks -------------------------------------------------------------------

    def _on_connect(
        self, _client: Any, _userdata: Any, _flags: Any, reason: Any, properties: Any
    ) -> None:
        if self._greeting.done():
            return
        if not reason_codes.is_good(reason.value):
            self._greeting.set_exception(
                ConnectError(reason_codes.name_of(reason.value), reason.value)
            )
            return
        limits = {
            name: getattr(properties, property_name)
            for name, property_name in LIMITS.items()
            if hasattr(properties, property_name)
        }
        result = ConnectResult(self._version, **limits)
        if flaw := _flaw(result, self._qos):
            self._greeting.set_exception(flaw)
            return
        self._greeting.set_result(result)

    def _on_disconnect(
        self, _client: Any, _userdata: Any, flags: Any, reason: Any, _properties: Any
    ) -> None:
        known = (
            flags.is_disconnect_packet_from_server
            or reason.value == reason_codes.KEEP_ALIVE_TIMEOUT
        )
        self._end(self._client.breach or (reason.value if known else reason_codes.SILENCE))

    def _answered(self, token: int, code: int) -> None:
        if not self._silent:
            self._listener.acknowledged(token, code)

    def _end(self, code: int) -> None:
        """Tell whoever waits that the connection is over; once."""
        if self._ended.is_set():
            return
        self._ended.set()
        if not self._greeting.done():
            self._greeting.set_exception(ConnectError(reason_codes.name_of(code), code))
        elif not self._silent and not self._greeting.exception():
            self._silent = True
            self._listener.lost(code)


LIMITS = {
    "receive_maximum": "ReceiveMaximum",
    "packet_bytes_max": "MaximumPacketSize",
    "qos_max": "MaximumQoS",
}


def _flaw(result: ConnectResult, qos: int) -> ConnectError | None:
    """Return why a session with these limits is of no use; None if it is of use."""
    if qos and not result.qos_max:
        return ConnectError(
            f"the broker acknowledges nothing: it takes QoS 0 alone, and qos in [uplink] is {qos}",
            reason_codes.QOS_NOT_SUPPORTED,
        )
    return None


def _explain(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the broker's certificate is not trusted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "nothing answers at its address"
    if isinstance(error, socket.gaierror):
        return "the broker's name cannot be resolved"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


def tls_context(settings: UplinkSettings) -> ssl.SSLContext | None:
    """Build the TLS context, or None without TLS. AgentError: files that do not fit."""
    if not settings.tls:
        return None
    try:
        authority = file_at(settings.ca_file) if settings.ca_file else None
        context = ssl.create_default_context(cafile=authority)
        # Python 3.13 refuses whoever made their own certificates without the extensions that RFC
        # 5280 asks for, as openssl long did by itself. A broker that was good enough on Debian 12
        # is on Debian 13; the chain, its dates and its names are checked on both.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if settings.certificate_file:
            context.load_cert_chain(file_at(settings.certificate_file), file_at(settings.key_file))
    except (OSError, ssl.SSLError) as error:
        raise AgentError(
            f"The uplink's TLS files cannot be used: {error}.",
            hint="Check ca_file, certificate_file and key_file in [uplink].",
            status=BAD_CONFIG,
        ) from error
    return context


def _password(settings: UplinkSettings) -> str | None:
    """Return the password, without the newline that editors add. Raises AgentError."""
    if not settings.password_file:
        return None
    try:
        return read_secret(file_at(settings.password_file))
    except AgentError as error:
        raise AgentError(
            f"The uplink's password file cannot be used: {error.message}.",
            hint=f"Check password_file in [uplink]: {error.hint}.",
            status=error.status,
        ) from None
