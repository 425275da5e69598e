"""One connection to the broker, step by step, for whoever wonders why no readings arrive.

Name, TCP, TLS, login, publication, acknowledgement: each is tried as the uplink does it, timed,
and told as soon as it is known; the first that fails ends the trial, with advice. The login has
a client id of its own (``-test`` behind the uplink's), so that a broker does not end the
connection of the agent that runs; the message is one reading of the sensor ``uplink_test``.
"""

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from enum import StrEnum
from typing import Any

import msgspec

from agent.config.settings import UplinkSettings
from agent.telemetry.outbox import Accepted
from agent.telemetry.uplink import advice, reason_codes
from agent.telemetry.uplink.mqtt import ConnectError, ConnectResult, publish_bytes
from agent.telemetry.uplink.mqtt_client import PahoMqttClient, tls_context
from agent.telemetry.uplink.template import Message, Template, TemplateContext
from agent.telemetry.uplink.threads import in_thread
from agent.telemetry.uplink.version_fallback import BRIEF_S, PATIENT_S, Version
from edge_apps.reading import Reading

STEP_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 10.0
ADDRESSES_MAX = 8
CLIENT_ID_SUFFIX = "-test"
SENSOR = "uplink_test"


class StepOutcome(StrEnum):
    """How a step ended."""

    OK = "ok"
    SKIPPED = "skipped"
    FAILED = "failed"


class ConnectStep(msgspec.Struct, frozen=True):
    """One step: what was found, how long it took in seconds, and advice where it failed."""

    step: str
    outcome: StepOutcome
    took_s: float
    message: str
    hint: str = ""


class _Failed(Exception):
    """The step failed, and with it the trial."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


class _Skipped(Exception):
    """The step is not part of how this uplink connects; the message says why."""


class BrokerTest:
    """Tries the broker of ``[uplink]``; ``run`` once. Raises AgentError for unusable settings."""

    def __init__(self, settings: UplinkSettings, place: TemplateContext, client_id: str) -> None:
        self._settings = settings
        self._template = Template(settings.topic, settings.payload, place)
        self._id = f"{place.node_id}-test"
        self._link = PahoMqttClient(settings, client_id + CLIENT_ID_SUFFIX)
        self._addresses: list[tuple[int, str]] = []  # family, address
        self._socket: socket.socket | None = None
        self._session: ConnectResult | None = None
        self._answers = _Answers()
        self._message: Message | None = None

    async def run(self) -> AsyncIterator[ConnectStep]:
        """Yield each step as it ends; none after the first that failed."""
        steps: tuple[tuple[str, Callable[[], Awaitable[str]]], ...] = (
            ("name", self._resolve),
            ("TCP", self._connect),
            ("TLS", self._secure),
            ("login", self._log_in),
            ("publish", self._publish),
            ("acknowledgement", self._await_answer),
        )
        try:
            for name, work in steps:
                step = await _timed(name, work)
                yield step
                if step.outcome is StepOutcome.FAILED:
                    return
        finally:
            self._close()
            await self._link.disconnect()

    # ---- the steps ------------------------------------------------------------------------------

    async def _resolve(self) -> str:
        host, port = self._settings.host, self._settings.broker_port
        with contextlib.suppress(ValueError):
            address = ipaddress.ip_address(host)
            family = socket.AF_INET if address.version == 4 else socket.AF_INET6
            self._addresses = [(family, host)]
            return f"{host} is an address"
        try:
            async with asyncio.timeout(STEP_TIMEOUT_S):
                found = await in_thread(
                    lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                )
        except (TimeoutError, OSError, UnicodeError) as error:
            raise _Failed(*advice.on_name(host, error)) from None
        self._addresses = [(family, str(address[0])) for family, _, _, _, address in found]
        return f"{host} is {', '.join(dict.fromkeys(each for _, each in self._addresses))}"

    async def _connect(self) -> str:
        """Connect to the first address that takes us, in the order of the resolver."""
        port = self._settings.broker_port
        failures: list[tuple[str, OSError]] = []
        for family, address in self._addresses[:ADDRESSES_MAX]:
            try:
                self._socket = await _open(family, address, port)
            except OSError as error:
                failures.append((address, error))
            else:
                self._addresses = [(family, address)]
                return f"connected to {advice.endpoint(address, port)}"
        address, first = failures[0]
        elsewhere = await self._other_port() if isinstance(first, ConnectionRefusedError) else 0
        raise _Failed(*advice.on_tcp(address, port, first, elsewhere))

    async def _secure(self) -> str:
        """Shake hands on the open connection, which then ends: the login brings its own."""
        opened, self._socket = self._socket, None
        assert opened is not None, "connected in the step before"
        context = tls_context(self._settings)
        if context is None:
            opened.close()
            raise _Skipped("not used: tls = false")
        host = self._settings.host
        try:
            version = await in_thread(lambda: _shake_hands(opened, context, host))
        except OSError as error:
            names = await self._names_of_peer() if advice.is_about_names(error) else ()
            raise _Failed(*advice.on_tls(host, error, names)) from None
        return f"{version}, and the broker's certificate is good for {host}"

    async def _log_in(self) -> str:
        try:
            self._session = await self._greet()
        except ConnectError as error:
            silent = error.code in reason_codes.SILENT and not self._settings.tls
            speaks_tls = silent and await self._names_of_peer() is not None
            raise _Failed(
                *advice.on_login(str(error), error.code, self._link.client_id, tls=speaks_tls)
            ) from None
        who = f"user {self._settings.username!r}" if self._settings.username else "no user name"
        return f"MQTT {self._session.version}, {who}, client id {self._link.client_id!r}"

    async def _greet(self) -> ConnectResult:
        """Connect with the version of the settings, and with the older one if that is why."""
        wanted = self._settings.version
        try:
            patience_s = BRIEF_S if wanted == "5" else PATIENT_S
            return await self._link.connect(wanted, self._answers, patience_s)
        except ConnectError as error:
            unknown = error.code in (*reason_codes.SILENT, reason_codes.UNSUPPORTED_VERSION)
            if wanted != "5" or not unknown:
                raise
            older: Version = "3.1.1"
            try:
                return await self._link.connect(older, self._answers, BRIEF_S)
            except ConnectError as again:
                raise (error if again.code in reason_codes.SILENT else again) from None

    async def _publish(self) -> str:
        session = self._session
        assert session is not None, "logged in in the step before"
        now_ns = time.time_ns()
        reading = Reading(SENSOR, True, "", now_ns)  # noqa: FBT003 - its value
        self._message = self._template.message(Accepted(0, self._id, reading))
        topic, qos = self._message.topic, min(self._settings.qos, session.qos_max)
        size = publish_bytes(self._message, qos, session.version)
        if size > session.packet_bytes_max:
            raise _Failed(*advice.on_size(size, session.packet_bytes_max))
        self._link.publish(0, self._message, qos)
        return f"{len(self._message.payload)} bytes to {topic}, QoS {qos}"

    async def _await_answer(self) -> str:
        session, message = self._session, self._message
        assert session is not None and message is not None, "published in the step before"  # noqa: PT018
        if min(self._settings.qos, session.qos_max) == 0:
            raise _Skipped("QoS 0 asks for none")
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                code = await self._answers.code
        except TimeoutError:
            code = reason_codes.NO_ANSWER
        if self._answers.was_lost or not reason_codes.is_good(code):
            raise _Failed(*advice.on_answer(code, message.topic, ended=self._answers.was_lost))
        doubt = " (3.1.1 acknowledges also what it throws away)" if session.version != "5" else ""
        return f"the broker has it{doubt}"

    # ---- looking closer at what failed ----------------------------------------------------------

    async def _other_port(self) -> int:
        """Return the usual port of the other kind, if somebody listens there; else 0."""
        port = advice.OTHER_PORT.get(self._settings.broker_port, 0)
        family, address = self._addresses[0]
        try:
            (await _open(family, address, port)).close()
        except OSError:
            return 0
        return port

    async def _names_of_peer(self) -> tuple[str, ...] | None:
        """Return the names in the broker's certificate; None if it does not speak TLS."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        family, address = self._addresses[0]
        try:
            opened = await _open(family, address, self._settings.broker_port)
            certificate = await in_thread(lambda: _certificate(opened, context))
        except OSError:
            return None
        return advice.names_in(certificate)

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()


class _Answers:
    """Hears what becomes of the one message."""

    def __init__(self) -> None:
        self.code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.was_lost = False

    def acknowledged(self, token: int, code: int) -> None:  # noqa: ARG002 - there is one
        """Take the broker's answer."""
        if not self.code.done():
            self.code.set_result(code)

    def lost(self, code: int) -> None:
        """Take the end of the connection."""
        if not self.code.done():
            self.was_lost = True
            self.code.set_result(code)


async def _timed(name: str, work: Callable[[], Awaitable[str]]) -> ConnectStep:
    began = time.monotonic()

    def ended(outcome: StepOutcome, message: str, hint: str = "") -> ConnectStep:
        return ConnectStep(name, outcome, round(time.monotonic() - began, 4), message, hint)

    try:
        return ended(StepOutcome.OK, await work())
    except _Skipped as why:
        return ended(StepOutcome.SKIPPED, str(why))
    except _Failed as why:
        return ended(StepOutcome.FAILED, why.message, why.hint)


async def _open(family: int, address: str, port: int) -> socket.socket:
    """Connect to one address. Raises OSError, TimeoutError after a while."""
    loop = asyncio.get_running_loop()
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.settimeout(0)
        async with asyncio.timeout(STEP_TIMEOUT_S):
            await loop.sock_connect(opened, (address, port))
    except BaseException:
        opened.close()
        raise
    return opened


def _shake_hands(opened: socket.socket, context: ssl.SSLContext, host: str) -> str:
    """Return the version of TLS. Blocks; closes the socket."""
    opened.settimeout(STEP_TIMEOUT_S)
    with opened, context.wrap_socket(opened, server_hostname=host) as secured:
        return str(secured.version()).replace("TLSv", "TLS ")


def _certificate(opened: socket.socket, context: ssl.SSLContext) -> Any:
    """Return the peer's certificate in DER, unchecked. Blocks; closes the socket."""
    opened.settimeout(STEP_TIMEOUT_S)
    with opened, context.wrap_socket(opened) as secured:
        return secured.getpeercert(binary_form=True)
