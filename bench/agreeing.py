"""Three that agree, of Covey and of etcd: how they start, and how each is asked the same.

All six listen on loopback, keep what they agree on in one file system, and sync it before they
answer. Covey's members speak TLS with each other, etcd's do not: that is how each comes.
"""

import asyncio
import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, Self

from bench.bytecode import compile_packages
from bench.http_load import Address, RefusedError, ask_once, http

WHO = "127.0.0.1"
MEMBERS = 3
FORMED_WITHIN_S = 60.0
LOOK_S = 0.05
SETTLE = "2s"
TOKEN = "bench-bench-bench-bench-bench-bench"
VALUE = "v" * 128


class Trio(Protocol):
    """Three members that agree; a context manager that leaves nothing behind."""

    name: str
    addresses: list[Address]
    processes: list["subprocess.Popen[bytes]"]

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

    def put(self, key: str) -> bytes:
        """Return the request that writes a value of 128 bytes."""

    def get(self, key: str) -> bytes:
        """Return the request that reads a key, linearizably."""

    def leader(self) -> int:
        """Return the number of the member that leads."""

    def start(self, number: int) -> None:
        """Start a member, or start it again."""


class _Processes:
    """What both have in common: a directory, three processes, three addresses."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="covey-bench-"))
        ports = free_ports(2 * MEMBERS)
        self.addresses: list[Address] = [(WHO, port) for port in ports[:MEMBERS]]
        self._peer_ports = ports[MEMBERS:]
        self.processes: list[subprocess.Popen[bytes]] = []

    def _run(self, number: int, words: list[str]) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("COVEY_", "ETCD_"))}
        with (self.folder / f"{number}.log").open("ab") as log:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )
        self.processes[number : number + 1] = [process]

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class CoveyTrio(_Processes):
    """Three agents that vote, asked over HTTP."""

    name = "covey"

    def __enter__(self) -> Self:
        compile_packages()
        try:
            self._form()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _prepare(self, number: int, more: str = "") -> None:
        """Make a member's directory; ``more``: what its configuration says besides."""
        folder = self._folder(number)
        folder.mkdir()
        port, api_port = self._peer_ports[number], self.addresses[number][1]
        secret = folder / "token"
        secret.write_text(TOKEN)
        secret.chmod(0o600)
        (folder / "covey.toml").write_text(
            f'[apps.system]\nenabled = false\n[voters]\nsettle = "{SETTLE}"\n'
            f'[network]\nbind = ["{WHO}"]\nport = {port}\nmdns = false\nadvertise = ["{WHO}"]\n'
            f'[api]\nlisten = "{WHO}:{api_port}"\ntoken_file = "{secret}"\n{more}'
        )

    def _form(self) -> None:
        for number in range(MEMBERS):
            self._prepare(number)
        self._covey(0, "init", "bench", "--node-name", "node-0")
        self.start(0)
        eventually(lambda: bool(self._status(0)), "the first agent answers")
        joining = self._covey(0, "token", "create", "--uses", str(MEMBERS - 1)).strip()
        for number in range(1, MEMBERS):
            seed = f"{WHO}:{self._peer_ports[0]}"
            self._covey(number, "join", joining, "--node-name", f"node-{number}", "--seed", seed)
            self.start(number)
        for number in range(MEMBERS):
            eventually(lambda number=number: self._votes(number) == MEMBERS, "three vote")

    def _folder(self, number: int) -> Path:
        return self.folder / f"n{number}"

    def _words(self, number: int, *words: str) -> list[str]:
        return [sys.executable, "-m", "agent", "--dir", str(self._folder(number)), *words]

    def _covey(self, number: int, *words: str) -> str:
        done = subprocess.run(
            self._words(number, *words), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"covey {words[0]}: {done.stderr}")
        return done.stdout

    def start(self, number: int) -> None:
        """Start a member, or start it again."""
        self._run(number, self._words(number, "run"))

    def _status(self, number: int) -> dict[str, Any]:
        return ask_json(self.addresses[number], http("GET", "/api/v1/voters", token=TOKEN))

    def _votes(self, number: int) -> int:
        return sum(each["role"] in ("leader", "voter") for each in self._status(number)["voters"])

    def leader(self) -> int:
        """Return the number of the member that leads."""
        for number, process in enumerate(self.processes):
            if process.poll() is None and (name := self._status(number)["leader"]):
                return int(name.rpartition("-")[2])
        raise RefusedError("nobody leads")

    def put(self, key: str) -> bytes:
        """Return the request that writes a value of 128 bytes."""
        body = json.dumps({"then": [{"put": key, "value": VALUE}]}).encode()
        return http("POST", "/api/v1/txn", body, TOKEN)

    def get(self, key: str) -> bytes:
        """Return the request that reads a key, linearizably."""
        return http("GET", f"/api/v1/control/{key}", token=TOKEN)


class EtcdTrio(_Processes):
    """Three members of etcd 3.4, asked over the JSON gateway that comes with it."""

    name = "etcd"

    def __enter__(self) -> Self:
        try:
            for number in range(MEMBERS):
                self.start(number)
            eventually(lambda: self.leader() >= 0, "etcd has a leader")
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self, number: int) -> None:
        """Start a member, or start it again."""
        peer = f"http://{WHO}:{self._peer_ports[number]}"
        client = "http://{}:{}".format(*self.addresses[number])
        all_peers = ",".join(
            f"node-{each}=http://{WHO}:{port}" for each, port in enumerate(self._peer_ports)
        )
        self._run(
            number,
            ["etcd", "--name", f"node-{number}", "--data-dir", str(self.folder / f"n{number}"),
             "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
             "--listen-client-urls", client, "--advertise-client-urls", client,
             "--initial-cluster", all_peers, "--initial-cluster-state", "new",
             "--logger", "zap", "--log-level", "error"],
        )  # fmt: skip

    def leader(self) -> int:
        """Return the number of the member that leads."""
        for number, process in enumerate(self.processes):
            if process.poll() is not None:
                continue
            status = ask_json(self.addresses[number], http("POST", "/v3/maintenance/status", b"{}"))
            if int(status.get("leader", 0)):
                return self._number_of(number, status["leader"])
        raise RefusedError("nobody leads")

    def _number_of(self, asked: int, member: str) -> int:
        listed = ask_json(self.addresses[asked], http("POST", "/v3/cluster/member/list", b"{}"))
        name = next(each["name"] for each in listed["members"] if each["ID"] == member)
        return int(name.rpartition("-")[2])

    def put(self, key: str) -> bytes:
        """Return the request that writes a value of 128 bytes."""
        return http("POST", "/v3/kv/put", _base64(key=key, value=VALUE))

    def get(self, key: str) -> bytes:
        """Return the request that reads a key, linearizably."""
        return http("POST", "/v3/kv/range", _base64(key=key))


def read_serializably(key: str) -> bytes:
    """Return the request by which one member of etcd answers from what it has."""
    asked = json.loads(_base64(key=key)) | {"serializable": True}
    return http("POST", "/v3/kv/range", json.dumps(asked).encode())


def _base64(**texts: str) -> bytes:
    told = {name: base64.b64encode(text.encode()).decode() for name, text in texts.items()}
    return json.dumps(told).encode()


def ask_json(address: Address, request: bytes) -> Any:
    """Ask once; return the JSON of the answer. Raises OSError, RefusedError, EOFError."""
    return json.loads(asyncio.run(ask_once(address, request)))


def eventually(is_so: Callable[[], bool], what: str, within_s: float = FORMED_WITHIN_S) -> float:
    """Wait until it is so; return after how long. Raises RuntimeError when it takes too long."""
    begun = time.monotonic()
    while time.monotonic() - begun < within_s:
        with suppress(OSError, EOFError, RefusedError, TimeoutError):
            if is_so():
                return time.monotonic() - begun
        time.sleep(LOOK_S)
    raise RuntimeError(f"not within {within_s:.0f} s: {what}")


def kill(trio: Trio, number: int) -> None:
    """End a member as a power cut would."""
    trio.processes[number].send_signal(signal.SIGKILL)
    trio.processes[number].wait()


def free_ports(count: int) -> list[int]:
    """Return ports that nobody has just now; each system asks for its own in time."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((WHO, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
