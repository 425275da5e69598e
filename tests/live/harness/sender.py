"""Sends datagrams at a pace: ``python -m tests.live.harness.sender HOST PORT FILE PER_SECOND``.

FILE has one datagram in hexadecimal on each line; each is sent once, PER_SECOND of them a second,
and then the program ends. It says on stdout how many it sent a second.
"""

import contextlib
import socket
import sys
import time
from pathlib import Path

CHUNK_S = 0.005


def main() -> None:
    """Send them all."""
    host, port, path = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    chunk = max(1, int(int(sys.argv[4]) * CHUNK_S))
    packets = [bytes.fromhex(line) for line in path.read_text().split()]
    begun = time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for first in range(0, len(packets), chunk):
            for packet in packets[first : first + chunk]:
                # An ICMP answer to the last packet is raised at this one, and means nothing here.
                with contextlib.suppress(ConnectionRefusedError):
                    sender.sendto(packet, (host, port))
            next_at = begun + (first + chunk) / chunk * CHUNK_S
            time.sleep(max(0.0, next_at - time.monotonic()))
    print(f"{len(packets) / (time.monotonic() - begun):.0f}")


if __name__ == "__main__":
    main()
