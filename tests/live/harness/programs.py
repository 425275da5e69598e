"""Programs of this package on a host of the network: whoever listens, and whoever means no good."""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.live.harness.network import Host

ROOT = Path(__file__).resolve().parents[3]
PORT = 7747


def run_on(host: Host, module: str, *arguments: str) -> "subprocess.Popen[str]":
    """Start ``python -m tests.live.harness.MODULE`` on a host; its stdout is for the caller."""
    return subprocess.Popen(
        [*host.enter(), sys.executable, "-m", f"tests.live.harness.{module}", *arguments],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
    )  # fmt: skip


def overhear(host: Host, count: int) -> list[bytes]:
    """Record so many real datagrams that enter or leave a host."""
    heard, _ = run_on(host, "eavesdropper", str(PORT), str(count)).communicate()
    packets = [bytes.fromhex(line) for line in heard.split()]
    assert len(packets) == count, "the covey was silent"
    return packets


def write_packets(path: Path, packets: Iterable[bytes]) -> Path:
    """Write datagrams down as the programs of this package read them."""
    path.write_text("".join(f"{packet.hex()}\n" for packet in packets))
    return path


def send(at: Host, to: Host, packets: Path, per_second: int) -> "subprocess.Popen[str]":
    """Send datagrams from one host to another, once each, at this pace; do not wait for the end."""
    return run_on(at, "sender", to.ipv4, str(PORT), str(packets), str(per_second))
