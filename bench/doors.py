"""What a stranger's knock costs an agent, at each of its doors: processor time, log, memory.

One agent on loopback, without members. A stranger that has no credentials knocks at one door after
the other: a garbage datagram, a silent connection, a handshake, a wrong token. What the agent's
threads used of the processor meanwhile, less what an idle agent uses, is divided by the number of
knocks. ``--tree DIR`` measures the code of another checkout, to compare with.
"""

import argparse
import asyncio
import os
import random
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from agent.admission.messages import GUEST_CODEC, AdmissionRequest, Greeting
from agent.identity import identity
from agent.net.framing import framed, read_frame
from agent.net.tls import guest_context
from bench.report import finish, table
from edge_apps.client import Client
from gossip.core.envelope import HEADER, MAGIC_AND_VERSION, SALT_BITS

ROOT = Path(__file__).resolve().parents[1]
QUIET = "[apps.system]\nenabled = false\n"
PACKET_BYTES = 120
DATAGRAMS, BURST = 60_000, 100
CONNECTIONS, AT_ONCE = 3000, 50
HANDSHAKES, HANDSHAKES_AT_ONCE = 600, 8
"""So few at once that none of them loses its place."""
IDLE_S = 3.0
ANSWER_S = 0.1
"""For so long somebody waits for the answer to a wrong token."""
NS_PER_S = 1_000_000_000
READY_S = 30.0
WHO = "127.0.0.1"


class Cost(NamedTuple):
    """What one knock cost."""

    cpu_us: float
    log_bytes: float
    memory_kib: float
    """By how much the agent grew in all."""


class Target:
    """An agent to knock at."""

    def __init__(self, directory: Path, tree: Path) -> None:
        self.directory, self.tree = directory, tree
        self.port, self.api_port = _free_ports()
        self.log = directory / "agent.log"
        (directory / "covey.toml").write_text(
            f'{QUIET}[network]\nbind = ["{WHO}"]\nport = {self.port}\nmdns = false\n'
            f'[api]\nlisten = "{WHO}:{self.api_port}"\n'
        )
        self._run("init", "bench", "--node-name", "bench").check_returncode()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._words("run"), stderr=log, cwd=tree)
        self.client = Client(directory / "covey.sock", timeout_s=READY_S)

    def _words(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "agent", "--dir", str(self.directory), *words]

    def _run(self, *words: str) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(self._words(*words), cwd=self.tree, check=False, capture_output=True)

    def wait_ready(self) -> None:
        """Return when the agent answers and is ready."""
        give_up = time.monotonic() + READY_S
        while time.monotonic() < give_up:
            with suppress(Exception):
                if self.client.get("/healthz")["ready"]:
                    return
            time.sleep(0.1)
        raise SystemExit(f"the agent did not become ready:\n{self.log.read_text()}")

    def cpu_s(self) -> float:
        """Return what all threads used so far."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((t / "schedstat").read_text().split()[0]) for t in tasks) / NS_PER_S

    def memory_kib(self) -> int:
        """Return what the process holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line)

    def datagrams_read(self) -> float:
        """Return how many datagrams the agent has received."""
        text = self.client.request("GET", "/metrics").body.decode()
        lines = [line for line in text.splitlines() if 'datagrams_total{kind="received"}' in line]
        return float(lines[0].split()[-1]) if lines else 0.0

    def identity(self) -> identity.Identity:
        """Return who the agent is."""
        return identity.load(self.directory / "data" / "identity")


@contextmanager
def target(tree: Path) -> Iterator[Target]:
    """Run an agent to its end."""
    with tempfile.TemporaryDirectory(prefix="covey-doors-") as folder:
        made = Target(Path(folder), tree)
        try:
            made.wait_ready()
            yield made
        finally:
            made.process.terminate()
            made.process.wait(READY_S)


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind((WHO, 0))
        other.bind((WHO, 0))
        return one.getsockname()[1], other.getsockname()[1]


# ---- knocking -----------------------------------------------------------------------------------


def _send_datagrams(at: Target, packet: Callable[[], bytes]) -> int:
    """Send in bursts that the agent's buffer takes; return how many it has read."""
    before = at.datagrams_read()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(DATAGRAMS // BURST):
            for _ in range(BURST):
                sender.sendto(packet(), (WHO, at.port))
            time.sleep(0.003)
    time.sleep(0.5)
    return int(at.datagrams_read() - before)


def noise(at: Target) -> int:
    """Send random bytes."""
    rng = random.Random(1)
    return _send_datagrams(at, lambda: rng.randbytes(PACKET_BYTES))


def forged(at: Target) -> int:
    """Send packets whose head is right, as one sees it on the wire, each of another sender."""
    rng, key_id = random.Random(2), at.identity().keyring().primary

    def packet() -> bytes:
        sender, boot = rng.getrandbits(63) + 1, rng.getrandbits(63)
        head = MAGIC_AND_VERSION, key_id, sender, boot, 1 << SALT_BITS
        return HEADER.pack(*head) + rng.randbytes(PACKET_BYTES - HEADER.size)

    return _send_datagrams(at, packet)


def _knock(count: int, at_once: int, knock: Callable[[], Awaitable[object]]) -> int:
    """Knock so many times, some at once; what the other side closes is a knock all the same."""

    async def all_of_them() -> None:
        places = asyncio.Semaphore(at_once)

        async def one() -> None:
            async with places:
                with suppress(OSError, EOFError):
                    await knock()

        await asyncio.gather(*(one() for _ in range(count)))

    asyncio.run(all_of_them())
    return count


def _silent(port: int) -> Callable[[], Awaitable[object]]:
    async def knock() -> None:
        _, writer = await asyncio.open_connection(WHO, port)
        await asyncio.sleep(0.05)
        writer.transport.abort()

    return knock


def silent_stream(at: Target) -> int:
    """Connect where members do, and say nothing."""
    return _knock(CONNECTIONS, AT_ONCE, _silent(at.port))


def silent_api(at: Target) -> int:
    """Connect to the HTTP API, and say nothing."""
    return _knock(CONNECTIONS, AT_ONCE, _silent(at.api_port))


def wrong_api_token(at: Target) -> int:
    """Ask the HTTP API with a token that is none."""
    question = b"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n\r\n"

    async def knock() -> None:
        reader, writer = await asyncio.open_connection(WHO, at.api_port)
        writer.write(question)
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    return _knock(CONNECTIONS, AT_ONCE, knock)


def handshake(at: Target) -> int:
    """Shake hands as a guest, and say nothing."""
    context = guest_context()

    async def knock() -> None:
        opened: Any = asyncio.open_connection(WHO, at.port, ssl=context, server_hostname="")
        _, writer = await opened
        writer.transport.abort()

    return _knock(HANDSHAKES, HANDSHAKES_AT_ONCE, knock)


def wrong_join_token(at: Target) -> int:
    """Ask to be let in with a token that nobody made; the answer comes later each time."""
    cluster_id, context, rng = at.identity().cluster_id, guest_context(), random.Random(3)

    async def knock() -> None:
        reader, writer = await asyncio.open_connection(
            WHO, at.port, ssl=context, server_hostname=""
        )
        try:
            writer.write(framed(GUEST_CODEC.encode(Greeting(cluster_id))))
            await read_frame(reader)
            now_ms = int(time.time() * 1000)
            asked = AdmissionRequest(rng.randbytes(8), rng.randbytes(32), b"x", now_ms, 1.0, "")
            writer.write(framed(GUEST_CODEC.encode(asked)))
            async with asyncio.timeout(ANSWER_S):
                await read_frame(reader)
        finally:
            writer.transport.abort()

    return _knock(HANDSHAKES, HANDSHAKES_AT_ONCE, knock)


DOORS: dict[str, Callable[[Target], int]] = {
    "random datagram": noise,
    "forged datagram": forged,
    "silent stream": silent_stream,
    "guest's handshake": handshake,
    "wrong join token": wrong_join_token,
    "silent HTTP connection": silent_api,
    "wrong HTTP token": wrong_api_token,
}


def measure(at: Target, knock: Callable[[Target], int]) -> Cost:
    """Knock, and say what one knock cost beyond what the agent does anyway."""
    idle_from, idle_since = at.cpu_s(), time.monotonic()
    time.sleep(IDLE_S)
    idle_share = (at.cpu_s() - idle_from) / (time.monotonic() - idle_since)
    cpu, said, held = at.cpu_s(), at.log.stat().st_size, at.memory_kib()
    began = time.monotonic()
    count = max(1, knock(at))
    used_s = at.cpu_s() - cpu - idle_share * (time.monotonic() - began)
    return Cost(
        1e6 * used_s / count,
        (at.log.stat().st_size - said) / count,
        float(at.memory_kib() - held),
    )


def main() -> None:
    """Measure every door of one agent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tree", type=Path, default=ROOT, help="a checkout to measure")
    tree = parser.parse_args().tree.resolve()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.environ.pop("NOTIFY_SOCKET", None)
    with target(tree) as at:
        costs = {name: measure(at, knock) for name, knock in DOORS.items()}
    rows = [(name, cost.cpu_us, cost.log_bytes, cost.memory_kib) for name, cost in costs.items()]
    head = ("one of them", "CPU, µs", "bytes of log", "agent grew in all, KiB")
    table("What a stranger's knock costs", head, rows)
    finish("doors", {name: cost._asdict() for name, cost in costs.items()})


if __name__ == "__main__":
    main()
