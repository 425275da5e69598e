"""Overhears datagrams: ``python -m tests.live.harness.eavesdropper PORT COUNT``.

Prints the payload of COUNT packets that enter or leave this host by UDP on PORT, one in
hexadecimal on each line. Needs root, for a packet socket (packet(7)).
"""

import socket
import struct
import sys

from tests.support.patience import GIVE_UP_S

ETHERNET_BYTES = 14
IPV4, IPV6 = 0x0800, 0x86DD
UDP = 17
UDP_HEADER_BYTES = 8
ALL_PROTOCOLS = 0x0003


def _payload(frame: bytes, port: int) -> bytes | None:
    """Return what a UDP datagram on this port carries; None for any other frame."""
    (kind,) = struct.unpack_from("!H", frame, 12)
    packet = frame[ETHERNET_BYTES:]
    if kind == IPV4 and packet[9] == UDP:
        datagram = packet[(packet[0] & 0x0F) * 4 :]
    elif kind == IPV6 and packet[6] == UDP:
        datagram = packet[40:]
    else:
        return None
    source, target, length = struct.unpack_from("!HHH", datagram)
    return datagram[UDP_HEADER_BYTES:length] if port in (source, target) else None


def main() -> None:
    """Print the payloads and end."""
    port, count = int(sys.argv[1]), int(sys.argv[2])
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS)) as ear:
        ear.settimeout(GIVE_UP_S)
        while count:
            payload = _payload(ear.recv(65535), port)
            if payload:
                print(payload.hex(), flush=True)
                count -= 1


if __name__ == "__main__":
    main()
