"""A host that means no good: ``python -m tests.live.harness.attacker HOST PORT API PACKETS SEED``.

It has no credentials. It knows the ports, of the covey and of the HTTP API, and PACKETS, a file
with one datagram in hexadecimal on each line, overheard on the wire. It sends only to the one
address that it is given, a bounded number of times, and ends by itself.
"""

import contextlib
import random
import socket
import ssl
import sys
import time
from pathlib import Path

RANDOM_DATAGRAMS = 3000
MUTATIONS_OF_EACH = 20
DATAGRAM_BYTES_MAX = 60_000
RANDOM_STREAMS = 40
HALF_OPEN_STREAMS = 150
DRIP_FOR_S = 5.0
PACE_S = 0.0002
MDNS_PORT = 5353

# The first bytes of a TLS record that announces more than any record may hold, and a frame that
# announces four gigabytes.
HUGE_TLS_RECORD = b"\x16\x03\x01\xff\xff" + b"\x01\xff\xff\xff"
HUGE_FRAME = b"\xff\xff\xff\xff"
HUGE_REQUEST = b"PUT /api/v1/kv/a HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999\r\n\r\n"
STRANGE_REQUEST = b"GET /" + b"%ff" * 3000 + b" HTTP/9.9\r\n" + b"A: b\r\n" * 2000 + b"\r\n"
NOISES = (HUGE_TLS_RECORD, HUGE_FRAME, HUGE_REQUEST, STRANGE_REQUEST, b"")


def _datagrams(rng: random.Random, overheard: list[bytes]) -> list[bytes]:
    """Return noise, and overheard packets: as they were, cut short, with bits flipped, longer."""
    packets = [rng.randbytes(rng.randrange(0, 1500)) for _ in range(RANDOM_DATAGRAMS)]
    packets.append(rng.randbytes(DATAGRAM_BYTES_MAX))
    for packet in overheard:
        packets.append(packet)
        for _ in range(MUTATIONS_OF_EACH):
            packets.append(packet[: rng.randrange(len(packet))])
            flipped = bytearray(packet)
            flipped[rng.randrange(len(packet))] ^= 1 << rng.randrange(8)
            packets.append(bytes(flipped))
            packets.append(packet + rng.randbytes(rng.randrange(1, 64)))
    rng.shuffle(packets)
    return packets


def _send_datagrams(host: str, port: int, packets: list[bytes]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for packet in packets:
            # An ICMP answer to the last packet is raised at this one, and means nothing here.
            with contextlib.suppress(ConnectionRefusedError):
                sender.sendto(packet, (host, port))
            time.sleep(PACE_S)


def _send_streams(rng: random.Random, host: str, port: int) -> None:
    for number in range(RANDOM_STREAMS):
        noise = NOISES[number % len(NOISES)]
        with contextlib.suppress(OSError), socket.create_connection((host, port), 5) as stream:
            stream.sendall(noise + rng.randbytes(1000))


def _greet_without_certificate(host: str, port: int) -> None:
    """Finish a TLS handshake as a stranger, and announce a frame of four gigabytes."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        contextlib.suppress(OSError),
        socket.create_connection((host, port), 5) as raw,
        context.wrap_socket(raw) as stream,
    ):
        stream.sendall(HUGE_FRAME + bytes(1000))
        stream.recv(100)


def _hold_half_open(rng: random.Random, host: str, port: int) -> None:
    """Open many streams, and send one byte now and then on each."""
    streams: list[socket.socket] = []
    for _ in range(HALF_OPEN_STREAMS):
        with contextlib.suppress(OSError):
            streams.append(socket.create_connection((host, port), 2))
    give_up = time.monotonic() + DRIP_FOR_S
    while time.monotonic() < give_up:
        for stream in streams:
            with contextlib.suppress(OSError):
                stream.send(rng.randbytes(1))
        time.sleep(0.5)
    for stream in streams:
        stream.close()


def main() -> None:
    """Attack one agent, in every way once."""
    host, path = sys.argv[1], Path(sys.argv[4])
    port, api, seed = (int(sys.argv[number]) for number in (2, 3, 5))
    rng = random.Random(seed)
    overheard = [bytes.fromhex(line) for line in path.read_text().split()]
    packets = _datagrams(rng, overheard)
    _send_datagrams(host, port, packets)
    _send_datagrams(host, MDNS_PORT, packets[:1000])
    _send_streams(rng, host, port)
    _send_streams(rng, host, api)
    _greet_without_certificate(host, port)
    _hold_half_open(rng, host, api)
    _hold_half_open(rng, host, port)


if __name__ == "__main__":
    main()
