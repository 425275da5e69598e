"""Programs as users of their own, started by systemd on the agent's order.

The agent itself may change no user, and shall not: whoever broke into one that may could become
anybody. ``covey-app.socket`` belongs to the agent alone; for each connection systemd starts a
``covey-app@.service``, as a user that exists for this one program, which sees neither our files nor
our memory. What runs there is ``launched.py``; it gets the program and its pipes over the socket.
"""

import asyncio
import json
import signal
import socket
from pathlib import Path
from typing import Any

from agent.programs.child import Ends, Launch, Process

START_S = 30.0
"""systemd has to make a user and a mount namespace, on a small device that has other work."""
LINE_BYTES_MAX = 64 * 1024


class ByService:
    """Starts each program in a service of its own; ``socket_path`` is where systemd listens."""

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path

    async def start(self, launch: Launch, ends: Ends) -> Process:
        """Start a program with these files. Raises OSError; then nothing runs."""
        order = {"command": list(launch.command), "environment": dict(launch.environment)}
        data = json.dumps(order).encode() + b"\n"
        try:
            async with asyncio.timeout(START_S):
                return await self._order(data, ends)
        except TimeoutError:
            raise OSError(f"systemd did not start it within {START_S:g} s") from None

    async def _order(self, data: bytes, ends: Ends) -> Process:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            connection.settimeout(0)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(connection, str(self._path))
            sent = socket.send_fds(connection, [data], list(ends))
            await loop.sock_sendall(connection, data[sent:])
            reader, writer = await asyncio.open_unix_connection(
                sock=connection, limit=LINE_BYTES_MAX
            )
        except BaseException:
            connection.close()
            raise
        pid = 0
        try:
            pid = _pid_in(await _line(reader))
        finally:
            if not pid:
                writer.close()
        return ServiceProcess(pid, reader, writer)


class ServiceProcess:
    """A process in a service of its own."""

    def __init__(
        self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.pid = pid
        self._reader, self._writer = reader, writer
        self._turn = asyncio.Lock()
        self._status: int | None = None

    async def wait(self) -> int:
        """Return its exit status, negative for a signal, once it has ended.

        A service that ends without a word was killed as a whole, for its memory for example.
        """
        async with self._turn:
            if self._status is None:
                said = await _line(self._reader)
                self._status = int(said.get("status", -signal.SIGKILL))
        return self._status

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal; what is left at the end is killed with the service."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps({"signal": int(number)}).encode() + b"\n")

    def release(self) -> None:
        """Hang up."""
        self._writer.close()


def _pid_in(said: dict[str, Any]) -> int:
    """Return the number of the process that was started. Raises OSError if there is none."""
    if "pid" in said:
        return int(said["pid"])
    words = str(said.get("error", "the service ended before it had started the program"))
    raise OSError(int(said.get("errno", 0)), words)


async def _line(reader: asyncio.StreamReader) -> dict[str, Any]:
    """Return what is said next; nothing when the service is gone, or talks nonsense."""
    try:
        said = json.loads(await reader.readline() or b"{}")
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}
