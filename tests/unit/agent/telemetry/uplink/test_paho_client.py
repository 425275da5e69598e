"""Paho's client without its books: what it tells of answers, and how often it asks the kernel."""

import itertools
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from agent.telemetry.uplink import reason_codes
from agent.telemetry.uplink.mqtt_client import PROTOCOLS
from agent.telemetry.uplink.paho_client import PACKET_BYTES_MAX, READ_BYTES, PahoClient
from agent.telemetry.uplink.template import Message

PUBACK, PUBREC, PUBREL, PUBCOMP = 0x40, 0x50, 0x62, 0x70
MESSAGE = Message("t", b"21.5")


class Broker:
    """The other end of a client's socket, and what the client told."""

    def __init__(self, client: PahoClient, end: socket.socket) -> None:
        self.client = client
        self.told: list[tuple[int, int]] = []
        self._end = end
        client.on_answer = lambda token, code: self.told.append((token, code))

    def answer(self, kind: int, message_id: int, rest: bytes = b"") -> None:
        """Send an answer, and let the client read once."""
        self.write(packet(kind, message_id, rest))

    def write(self, data: bytes) -> None:
        """Have the client write what it has; send bytes, and let it read once."""
        self.client.loop_write()
        self.say(data)

    def say(self, data: bytes) -> None:
        """Send bytes, and let the client read once, whatever it has yet to write."""
        self._end.sendall(data)
        self.client.read()

    def read(self) -> bytes:
        """Let the client write once; return what it wrote."""
        self.client.loop_write()
        return self._end.recv(1 << 20)


def packet(kind: int, message_id: int, rest: bytes = b"") -> bytes:
    body = message_id.to_bytes(2) + rest
    return bytes([kind, len(body)]) + body


@contextmanager
def connected(version: Any = "5") -> Iterator[Broker]:
    client = PahoClient(
        CallbackAPIVersion.VERSION2,
        "id",
        protocol=PROTOCOLS[version],
        clean_session=None if version == "5" else True,
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        client.connect("127.0.0.1", server.getsockname()[1])
        client.on_socket_register_write = lambda *_: None  # a loop writes when it is its turn
        end, _ = server.accept()
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # no answer waits for the next
        with end:
            broker = Broker(client, end)
            broker.read()
            yield broker
            client.disconnect()
            client.loop_write()


@pytest.mark.parametrize(
    ("version", "rest", "code"),
    [
        ("5", b"", 0x00),
        ("5", b"\x00", 0x00),
        ("5", b"\x10", 0x10),
        ("5", b"\x97", 0x97),
        ("5", b"\x97\x00", 0x97),
        ("5", b"\x97\x05\x1f\x00\x02no", 0x97),  # with a reason in words
        ("5", b"\xc3", 0xC3),  # a reason that version 5 does not know
        ("3.1.1", b"", 0x00),
    ],
)
def test_an_answer_is_told_with_its_reason(version: str, rest: bytes, code: int) -> None:
    with connected(version) as broker:
        broker.client.send(7, MESSAGE, 1)
        broker.answer(PUBACK, 1, rest)
        assert broker.told == [(7, code)]


@pytest.mark.parametrize(
    ("version", "wrong"),
    [("5", b"\x40\x01\x00"), ("5", b"\x40\x00"), ("3.1.1", b"\x40\x03\x00\x01\x00")],
)
@pytest.mark.parametrize("kind", [PUBACK, PUBREC, PUBCOMP])
def test_what_is_no_answer_ends_the_connection(version: str, wrong: bytes, kind: int) -> None:
    with connected(version) as broker:
        broker.client.send(7, MESSAGE, 1)
        broker.write(bytes([kind]) + wrong[1:])
        assert (broker.told, broker.client.socket()) == ([], None)


def test_an_answer_that_nothing_waits_for_is_not_told() -> None:
    with connected() as broker:
        broker.client.send(7, MESSAGE, 1)
        broker.answer(PUBACK, 2)
        broker.answer(PUBACK, 1)
        broker.answer(PUBACK, 1)
        assert broker.told == [(7, 0)]


def test_qos_2_goes_on_when_it_is_received_and_ends_when_it_is_complete_or_refused() -> None:
    with connected() as broker:
        for token in (7, 8):
            broker.client.send(token, MESSAGE, 2)
        broker.read()
        broker.answer(PUBREC, 1)
        broker.answer(PUBREC, 2, b"\x97")
        broker.answer(PUBREC, 3)  # of no message
        assert broker.told == [(8, 0x97)]
        assert broker.read() == packet(PUBREL, 1)
        broker.answer(PUBCOMP, 1)
        assert broker.told == [(8, 0x97), (7, 0)]


def test_answers_may_come_in_pieces() -> None:
    answers = packet(PUBACK, 1) + packet(PUBACK, 2, b"\x97")
    for cut in range(1, len(answers)):
        with connected() as broker:
            for token in (7, 8):
                broker.client.send(token, MESSAGE, 1)
            broker.write(answers[:cut])
            broker.write(answers[cut:])
            assert broker.told == [(7, 0), (8, 0x97)]


def test_what_comes_and_goes_together_takes_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def counted(name: str) -> None:
        of_paho = getattr(mqtt.Client, name)

        def call(client: mqtt.Client, argument: Any) -> Any:
            calls.append(name)
            return of_paho(client, argument)

        monkeypatch.setattr(mqtt.Client, name, call)

    with connected() as broker:
        counted("_sock_send")
        counted("_sock_recv")
        for token in range(20):
            broker.client.send(token, MESSAGE, 1)
        written = broker.read()
        assert written.count(MESSAGE.payload) == 20
        broker.write(b"".join(packet(PUBACK, 1 + token) for token in range(20)))
        assert broker.told == [(token, 0) for token in range(20)]
        assert calls == ["_sock_send", "_sock_recv"]


def test_more_answers_than_one_call_gives_are_all_told() -> None:
    count = READ_BYTES
    with connected() as broker:
        for token in range(count):
            broker.client.send(token, MESSAGE, 1)
        broker.write(b"".join(packet(PUBACK, 1 + token) for token in range(count)))
        for _ in range(count):
            broker.client.read()
        assert broker.told == [(token, 0) for token in range(count)]


def test_qos_0_is_answered_message_by_message_when_it_is_written() -> None:
    with connected() as broker:
        for token in (7, 8):
            broker.client.send(token, MESSAGE, 0)
        assert broker.told == []
        broker.read()
        assert broker.told == [(7, 0), (8, 0)]


def test_an_identifier_that_is_in_flight_is_not_given_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with connected() as broker:
        again = itertools.chain([1, 1, 2])  # as after 65,535 others
        monkeypatch.setattr(broker.client, "_mid_generate", lambda: next(again))
        for token in (7, 8):
            broker.client.send(token, MESSAGE, 1)
        broker.answer(PUBACK, 2)
        broker.answer(PUBACK, 1)
        assert broker.told == [(8, 0), (7, 0)]


def test_who_has_no_connection_any_more_is_told_so() -> None:
    with connected() as broker:
        assert broker.client.send(7, MESSAGE, 1)
        broker.write(b"\x00\x00")  # no packet that a broker sends
        assert not broker.client.send(8, MESSAGE, 1)


ANSWERS = st.tuples(
    st.sampled_from([PUBACK, PUBREC, PUBCOMP]),
    st.sampled_from([b"", b"\0", b"\0\1", b"\0\2", b"\0\3", b"\0\4"]),
    st.binary(max_size=6),
)


@given(st.lists(ANSWERS, max_size=8), st.sampled_from(["5", "3.1.1"]))
def test_whatever_a_broker_answers_hurts_nobody(
    answers: list[tuple[int, bytes, bytes]], version: str
) -> None:
    with connected(version) as broker:
        for token in range(3):
            broker.client.send(token, MESSAGE, 2)
        for kind, message_id, rest in answers:
            if broker.client.socket() is not None:
                body = message_id + rest
                broker.write(bytes([kind, len(body)]) + body)
        tokens = [token for token, _ in broker.told]
        assert len(set(tokens)) == len(tokens)
        assert set(tokens) <= {0, 1, 2}


CONNACK = b"\x20\x03\x00\x00\x00"
PINGRESP = b"\xd0\x00"
NOT_FOR_US = {
    "CONNECT": b"\x10\x00",
    "a second CONNACK": CONNACK,
    "PUBLISH": b"\x30\x04\x00\x01t\x00",
    "PUBLISH, QoS 2": b"\x34\x06\x00\x01t\x00\x01\x00",
    "PUBREL": packet(PUBREL, 1),
    "SUBSCRIBE": b"\x82\x00",
    "SUBACK": b"\x90\x04\x00\x01\x00\x00",
    "UNSUBACK": b"\xb0\x04\x00\x01\x00\x00",
    "PINGREQ": b"\xc0\x00",
    "a PINGRESP to no PINGREQ": PINGRESP,
    "AUTH": b"\xf0\x00",
}


@pytest.mark.parametrize("said", NOT_FOR_US.values(), ids=NOT_FOR_US)
def test_what_is_not_for_a_publisher_ends_the_connection_and_nothing_of_it_is_kept(
    said: bytes,
) -> None:
    with connected() as broker:
        broker.write(CONNACK)
        broker.say(said * 100)
        client = broker.client
        assert (client.socket(), client.breach) == (None, reason_codes.UNASKED)
        assert not client._out_packet
        assert not client._in_messages


def test_each_ping_has_one_answer() -> None:
    with connected() as broker:
        broker.write(CONNACK)
        broker.client._send_pingreq()
        broker.write(PINGRESP)
        assert broker.client.socket() is not None
        broker.write(PINGRESP)
        assert broker.client.breach == reason_codes.UNASKED


@pytest.mark.parametrize("kind", [0x30, PUBACK, 0xE0])
def test_a_packet_that_is_announced_too_large_is_not_waited_for(kind: int) -> None:
    with connected() as broker:
        length = PACKET_BYTES_MAX + 1
        broker.write(bytes([kind, length & 0x7F | 0x80, length >> 7]) + b"x")
        assert (broker.client.socket(), broker.client.breach) == (None, reason_codes.OVERSIZED)
        assert not broker.client._in_packet["packet"]


def test_an_answer_may_be_as_large_as_was_announced() -> None:
    rest = b"\x97" + b"\x8a\x1f\x1f\x05\x07" + b"r" * 1287  # a long reason in words
    with connected() as broker:
        broker.client.send(7, MESSAGE, 1)
        size = 2 + len(rest)
        broker.write(bytes([PUBACK, size & 0x7F | 0x80, size >> 7]) + b"\x00\x01" + rest)
        assert broker.told == [(7, 0x97)]


@pytest.mark.parametrize("kind", [PUBACK, PUBREC, PUBCOMP])
def test_an_answer_to_what_is_not_yet_written_is_none(kind: int) -> None:
    """Else a broker that reads nothing has the whole outbox written into our memory."""
    with connected() as broker:
        broker.client.send(7, MESSAGE, 2)
        broker.say(packet(kind, 1))
        assert (broker.told, broker.client.breach) == ([], reason_codes.UNSENT)
        assert broker.client.socket() is None


def test_one_pubrel_is_sent_however_often_the_broker_has_received() -> None:
    with connected() as broker:
        broker.client.send(7, MESSAGE, 2)
        broker.read()
        broker.write(packet(PUBREC, 1) * 100)
        assert broker.read() == packet(PUBREL, 1)
        broker.write(packet(PUBREC, 1) * 100)
        assert not broker.client.want_write()
        broker.answer(PUBCOMP, 1)
        assert broker.told == [(7, 0)]


@given(st.lists(st.binary(min_size=1, max_size=12), max_size=12), st.sampled_from(["5", "3.1.1"]))
def test_whatever_a_broker_says_makes_us_keep_no_more_than_it_was_sent(
    said: list[bytes], version: str
) -> None:
    with connected(version) as broker:
        for token in range(3):
            broker.client.send(token, MESSAGE, 2)
        broker.write(CONNACK if version == "5" else b"\x20\x02\x00\x00")
        for each in said:
            if broker.client.socket() is not None:
                broker.say(each)
        assert sum(each["to_process"] for each in broker.client._out_packet) <= 3 * 4
        assert not broker.client._in_messages
