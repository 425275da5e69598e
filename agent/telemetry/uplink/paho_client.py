"""Paho's client, less what it does for those who do not keep books of their own.

Of an answer paho makes a reason with a name, a set of properties and a wake-up for a thread that
may wait for it, and it reads each one in three calls of the kernel. Of a message it keeps what to
send again, which for us the outbox keeps, and writes each in a call of its own. That was more than
half of what a delivery cost. So here messages get their packet identifiers, answers are looked up
by them, and what arrives or leaves together does so with one call. All else is paho's.

Paho also does whatever a server asks of it: it keeps messages that nobody subscribed to, queues an
answer to each ping, and reserves memory for a packet of any length. We only publish, so a broker
has seven kinds of short packets to send to us. Whatever else comes ends the connection, and
``breach`` says why; so does an answer to what has not been sent, with which a broker could make
us write without end what it never reads.
"""

from collections.abc import Callable
from typing import Any

from paho.mqtt import client as mqtt
from paho.mqtt.enums import MessageType, MQTTErrorCode

from agent.telemetry.uplink import reason_codes
from agent.telemetry.uplink.template import Message

READ_BYTES = 4096
PACKET_BYTES_MAX = 4096
"""Of what a broker sends: most have two or four bytes, some a reason in words."""
WRITTEN_TOGETHER_BYTES = 16_384
"""Nothing is added to what is longer: the rest of it is copied for each part that is written."""
ANSWERS = frozenset({MessageType.PUBACK, MessageType.PUBREC, MessageType.PUBCOMP})


class PahoClient(mqtt.Client):
    """Sends messages under tokens; ``on_answer(token, reason code)`` hears of each, at most once.

    With QoS 0, the answer is that all its bytes went into the socket.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """The arguments are paho's."""
        super().__init__(*arguments, **options)
        self.on_answer: Callable[[int, int], None] = lambda _token, _code: None
        self.on_publish = lambda _client, _data, message_id, *_: self._answered(message_id)
        self.breach = 0
        """The reason why we ended the connection, of ``reason_codes.BREACHES``; 0 for none."""
        self._tokens: dict[int, int] = {}  # of what is in flight, by packet identifier
        self._ends: dict[int, int] = {}  # how much is written when its last packet is
        self._released: set[int] = set()  # what PUBREL was sent for
        self._queued_bytes = self._written_bytes = 0
        self._is_greeted = False
        self._pings = 0  # that wait for their answer
        self._received = b""
        self._taken = 0  # bytes of it
        self._has_read = False

    def send(self, token: int, message: Message, qos: int) -> bool:
        """Send as soon as the socket takes it; tell whether there still is a connection."""
        if qos:
            message_id = self._free_id()
            topic = message.topic.encode()
            outcome = self._send_publish(message_id, topic, message.payload, qos)
        else:
            info = self.publish(message.topic, message.payload)
            message_id, outcome = info.mid, info.rc
        self._tokens[message_id] = token
        return outcome == MQTTErrorCode.MQTT_ERR_SUCCESS

    def read(self) -> None:
        """Take in what one call of the kernel gives. To be called when there is something."""
        self._has_read = False
        self.loop_read()
        while self._taken < len(self._received) and self._sock is not None:
            self.loop_read()

    def _free_id(self) -> int:
        """Return a packet identifier that is not in flight: one of 65,535 may wait for long."""
        message_id = self._mid_generate()
        while message_id in self._tokens:
            message_id = self._mid_generate()
        return message_id

    # ---- in place of paho's ---------------------------------------------------------------------

    def _sock_recv(self, bufsize: int) -> bytes:
        """Return at most so many bytes; none are left when one call's are taken.

        ``bufsize`` is what is left of a packet, also before its first byte.
        """
        if bufsize > PACKET_BYTES_MAX:
            self.breach = reason_codes.OVERSIZED
            raise ConnectionAbortedError(reason_codes.name_of(self.breach))
        if self._taken == len(self._received):
            if self._has_read:
                raise BlockingIOError
            self._received, self._taken = super()._sock_recv(READ_BYTES), 0
            self._has_read = True
        start = self._taken
        self._taken = min(start + bufsize, len(self._received))
        return self._received[start : self._taken]

    def _sock_send(self, buf: bytes | bytearray) -> int:
        written: int = super()._sock_send(buf)
        self._written_bytes += written
        return written

    def _packet_queue(
        self, command: int, packet: bytes | bytearray, mid: int, qos: int, info: Any = None
    ) -> MQTTErrorCode:
        """Let what waits for an answer be written together; of QoS 0 each is answered by itself."""
        self._queued_bytes += len(packet)
        if qos:
            self._ends[mid] = self._queued_bytes
        last = self._out_packet[-1] if self._out_packet else None
        if last and last["qos"] and qos and last["to_process"] < WRITTEN_TOGETHER_BYTES:
            last["packet"] += packet
            last["to_process"] += len(packet)
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        return super()._packet_queue(command, packet, mid, qos, info)

    def _packet_handle(self) -> MQTTErrorCode:
        kind = self._in_packet["command"] & 0xF0
        if not self._is_expected(kind):
            return self._break_off(reason_codes.UNASKED)
        self._is_greeted |= kind == MessageType.CONNACK
        self._pings -= kind == MessageType.PINGRESP
        return super()._packet_handle()

    def _is_expected(self, kind: int) -> bool:
        """Tell whether a broker may send such a packet now, to a client that only publishes."""
        match kind:
            case MessageType.CONNACK:
                return not self._is_greeted
            case MessageType.PINGRESP:
                return self._pings > 0
        return kind in ANSWERS or kind == MessageType.DISCONNECT

    def _break_off(self, breach: int) -> MQTTErrorCode:
        """Have paho end the connection."""
        self.breach = breach
        return MQTTErrorCode.MQTT_ERR_PROTOCOL

    def _send_pingreq(self) -> MQTTErrorCode:
        self._pings += 1
        return super()._send_pingreq()

    def _handle_pubackcomp(self, _kind: str) -> MQTTErrorCode:
        answer = self._answer()
        if answer is None:
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        if not self._is_sent(answer[0]):
            return self._break_off(reason_codes.UNSENT)
        self._answered(*answer)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _handle_pubrec(self) -> MQTTErrorCode:
        """Take a PUBREC with a reason from 0x80 on as the end of its message.

        That is what it is (MQTT 5, section 4.3.3); paho would go on to PUBREL, and some brokers
        answer that with a success.
        """
        answer = self._answer()
        if answer is None:
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        message_id, code = answer
        if message_id in self._released:  # we have answered that
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        if not self._is_sent(message_id):
            return self._break_off(reason_codes.UNSENT)
        if not reason_codes.is_good(code):
            self._answered(message_id, code)
        elif message_id in self._tokens:
            self._released.add(message_id)
            return self._send_pubrel(message_id)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _answer(self) -> tuple[int, int] | None:
        """Return the identifier and the reason of the answer that was read; None if it is none.

        What version 5 may add behind the reason (MQTT 5, section 3.4.2) decides nothing.
        """
        packet = self._in_packet["packet"]
        if len(packet) == 2:
            return int.from_bytes(packet), reason_codes.SUCCESS
        if len(packet) > 2 and self._protocol == mqtt.MQTTv5:
            return int.from_bytes(packet[:2]), packet[2]
        return None

    def _is_sent(self, message_id: int) -> bool:
        """Tell whether the kernel has all of what this would be an answer to."""
        return self._ends.get(message_id, 0) <= self._written_bytes

    def _answered(self, message_id: int, code: int = reason_codes.SUCCESS) -> None:
        self._ends.pop(message_id, None)
        self._released.discard(message_id)
        token = self._tokens.pop(message_id, None)
        if token is not None:
            self.on_answer(token, code)
