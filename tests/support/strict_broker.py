"""A small MQTT broker for tests that is stricter, and nastier, than the real ones.

It speaks as much of MQTT 5 and 3.1.1 as a publisher needs, on asyncio, and checks what Debian's
Mosquitto lets pass: a client that exceeds the Receive Maximum is thrown out with 0x93, a packet
above the Maximum Packet Size with 0x95. It answers late on purpose, so that a client which does
not count its messages in flight is caught. Rules make it refuse readings by reason code, keep
silent, or drop the connection.

Everything a test asks for afterwards is in plain attributes: ``published``, ``sessions``,
``violations``.
"""

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Self

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 1, 2, 3, 4, 5, 6, 7
PINGREQ, PINGRESP, DISCONNECT = 12, 13, 14

RECEIVE_MAXIMUM, MAXIMUM_QOS, MAXIMUM_PACKET_SIZE = 0x21, 0x24, 0x27

Verdict = int | Literal["drop", "silence"]
Rule = Callable[[str, bytes], Verdict]


def accept_all(_topic: str, _payload: bytes) -> Verdict:
    return 0


@dataclass
class StrictBroker:
    """``async with StrictBroker(...) as broker`` listens on ``broker.port`` of the loopback."""

    receive_maximum: int | None = None
    packet_bytes_max: int | None = None
    qos_max: int | None = None
    answer_delay_s: float = 0.0
    drops_refused: bool = False  # ends the connection after each refusal
    held: bool = False  # answers wait while this is set
    rule: Rule = accept_all
    connack: int = 0  # the reason code of every CONNACK
    versions: frozenset[int] = frozenset({4, 5})
    silent_versions: frozenset[int] = frozenset()  # closed without a word
    mute_versions: frozenset[int] = frozenset()  # never answered, and kept open
    tls: ssl.SSLContext | None = None
    takeover: int | None = None  # one client an id; the earlier one is told this, if not 0
    announces_limits: bool = True
    published: list[tuple[str, bytes]] = field(default_factory=list)
    sessions: list[dict[str, object]] = field(default_factory=list)
    violations: Counter[str] = field(default_factory=Counter)
    in_flight_max: int = 0
    port: int = 0

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def listen(self) -> None:
        self._clients: set[Client] = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        self.drop_all()
        await self._server.wait_closed()

    def drop_all(self) -> None:
        """End every connection without a word."""
        for client in tuple(self._clients):
            client.writer.transport.abort()

    def disconnect_all(self, code: int) -> None:
        """End every connection with a DISCONNECT."""
        for client in tuple(self._clients):
            client.disconnect(code)

    def take_over(self, newer: "Client", client_id: str, code: int) -> None:
        """End an earlier connection of the same client id (MQTT 5, section 3.1.4)."""
        for client in tuple(self._clients):
            if client is not newer and client.client_id == client_id:
                client.disconnect(code) if code else client.writer.close()
        newer.client_id = client_id

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Client(self, reader, writer)
        self._clients.add(client)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await client.run()
        finally:
            self._clients.discard(client)
            client.stop()


class Client:
    """One connection."""

    def __init__(
        self, broker: StrictBroker, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.broker = broker
        self.reader = reader
        self.writer = writer
        self.version = 4
        self.client_id = ""
        self.in_flight: set[int] = set()
        self.tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        kind, _, body = await self._packet()
        if kind != CONNECT or not self._greet(body):
            await self.writer.drain()
            return
        while True:
            kind, flags, body = await self._packet()
            if kind == PUBLISH:
                self._publish(flags, body)
            elif kind == PUBREL:
                self._later(self._complete(int.from_bytes(body[:2])))
            elif kind == PINGREQ:
                self._send(PINGRESP, b"")
            elif kind == DISCONNECT:
                return
            else:
                self.broker.violations[f"packet type {kind}"] += 1

    def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        self.writer.close()

    def disconnect(self, code: int) -> None:
        if self.version == 5:
            self._send(DISCONNECT, bytes([code, 0]))
        self.writer.close()

    async def _packet(self) -> tuple[int, int, bytes]:
        (first,) = await self.reader.readexactly(1)
        length, shift = 0, 0
        while True:
            (byte,) = await self.reader.readexactly(1)
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        size = 1 + shift // 7 + length
        limit = self.broker.packet_bytes_max
        if limit is not None and size > limit:
            self.broker.violations["packet too large"] += 1
            self.disconnect(0x95)
            raise OSError("packet too large")
        return first >> 4, first & 0x0F, await self.reader.readexactly(length)

    def _greet(self, body: bytes) -> bool:
        """Answer the CONNECT; tell whether the session goes on."""
        version, flags = body[6], body[7]
        if version in self.broker.silent_versions:
            return False
        if version in self.broker.mute_versions:
            self.broker.violations["not answered"] += 1
            return True
        if version not in self.broker.versions:
            self._send(CONNACK, b"\x00\x01")  # what a broker of 3.1.1 says to a newer client
            return False
        self.version = version
        credentials = _credentials(body, flags, version)
        self.broker.sessions.append({"version": version, **credentials})
        if self.broker.takeover is not None:
            self.broker.take_over(self, str(credentials["client_id"]), self.broker.takeover)
        properties = self._limits() if version == 5 else b""
        length = bytes([len(properties)]) if version == 5 else b""
        self._send(CONNACK, bytes([0, self.broker.connack]) + length + properties)
        return self.broker.connack == 0

    def _limits(self) -> bytes:
        out = b""
        if self.broker.receive_maximum is not None:
            out += bytes([RECEIVE_MAXIMUM]) + self.broker.receive_maximum.to_bytes(2)
        if self.broker.qos_max is not None:
            out += bytes([MAXIMUM_QOS, self.broker.qos_max])
        if self.broker.packet_bytes_max is not None and self.broker.announces_limits:
            out += bytes([MAXIMUM_PACKET_SIZE]) + self.broker.packet_bytes_max.to_bytes(4)
        return out

    def _publish(self, flags: int, body: bytes) -> None:
        qos = flags >> 1 & 3
        topic_end = 2 + int.from_bytes(body[:2])
        topic = body[2:topic_end].decode()
        at = topic_end + (2 if qos else 0)
        message_id = int.from_bytes(body[topic_end:at])
        if self.version == 5:
            at += 1 + body[at]  # properties; ours are short
        payload = body[at:]
        verdict = self.broker.rule(topic, payload)
        if verdict == "drop":
            self.writer.transport.abort()
            return
        if not self._count_in_flight(message_id, qos):
            return
        if verdict == "silence":
            return
        if verdict == 0:
            self.broker.published.append((topic, payload))
        if qos:
            self._later(self._answer(message_id, qos, verdict))

    def _count_in_flight(self, message_id: int, qos: int) -> bool:
        if not qos:
            return True
        if message_id in self.in_flight:
            self.broker.violations["packet identifier in use"] += 1
        self.in_flight.add(message_id)
        self.broker.in_flight_max = max(self.broker.in_flight_max, len(self.in_flight))
        limit = self.broker.receive_maximum
        if self.version == 5 and limit is not None and len(self.in_flight) > limit:
            self.broker.violations["receive maximum exceeded"] += 1
            self.disconnect(0x93)
            return False
        return True

    async def _answer(self, message_id: int, qos: int, verdict: int) -> None:
        await self._delay()
        reason = bytes([verdict]) if self.version == 5 and verdict else b""
        if qos == 1 or (reason and verdict >= 0x80):
            self.in_flight.discard(message_id)
        self._send(PUBACK if qos == 1 else PUBREC, message_id.to_bytes(2) + reason)
        if reason and verdict >= 0x80 and self.broker.drops_refused:
            self.writer.close()

    async def _complete(self, message_id: int) -> None:
        await self._delay()
        self.in_flight.discard(message_id)
        self._send(PUBCOMP, message_id.to_bytes(2))

    async def _delay(self) -> None:
        await asyncio.sleep(self.broker.answer_delay_s)
        while self.broker.held:  # noqa: ASYNC110 - a test flips it
            await asyncio.sleep(0.002)

    def _later(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _send(self, kind: int, body: bytes) -> None:
        assert len(body) < 128, "short packets only"
        if not self.writer.is_closing():
            self.writer.write(bytes([kind << 4, len(body)]) + body)


def _credentials(body: bytes, flags: int, version: int) -> dict[str, object]:
    """Read client id, clean flag, user name and password from a CONNECT without a will."""
    at = 10
    if version == 5:
        at += 1 + body[at]
    texts = []
    for present in (1, flags & 0x80, flags & 0x40):
        text = None
        if present:
            end = at + 2 + int.from_bytes(body[at : at + 2])
            text, at = body[at + 2 : end].decode(), end
        texts.append(text)
    return {
        "client_id": texts[0],
        "username": texts[1],
        "password": texts[2],
        "clean": bool(flags & 2),
        "keepalive": int.from_bytes(body[8:10]),
    }
