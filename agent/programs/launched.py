"""What systemd starts for each program of the agent: ``covey-app@.service``.

It runs as a user that exists for this one program, and is handed the agent's connection as its
stdin. Over it comes one order, with the files that the program is to have, and later signals for
it; back go the program's number and how it ended. The end of the connection is the end of the
agent, and of all that was started here.

The standard library is enough for this, and it starts with each program: keep it light.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
from typing import Any

ORDER_BYTES_MAX = 1024 * 1024
FILES = 3
CONNECTION = 0


def main() -> None:
    """Serve the connection that is stdin to its end."""
    with socket.socket(fileno=os.dup(CONNECTION)) as agent:
        handles: list[int] = []
        try:
            order = _read_order(agent, handles)
            program = _start(order, handles)
        except (OSError, ValueError, KeyError, TypeError) as error:
            _say(agent, error=str(error), errno=getattr(error, "errno", None) or 0)
            return
        finally:
            for handle in handles:
                os.close(handle)
        _say(agent, pid=program.pid)
        try:
            _watch(agent, program)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(program.pid, signal.SIGKILL)


def _read_order(agent: socket.socket, handles: list[int]) -> dict[str, Any]:
    """Return the first line, and put the files that came with it into ``handles``."""
    data = b""
    while not data.endswith(b"\n"):
        more, files, _, _ = socket.recv_fds(agent, 65536, FILES)
        handles += files
        data += more
        if not more or len(data) > ORDER_BYTES_MAX:
            raise ValueError("the order is not whole")
    order = json.loads(data)
    if not isinstance(order, dict) or len(handles) != FILES:
        raise ValueError("this is no order")
    return order


def _start(order: dict[str, Any], handles: list[int]) -> "subprocess.Popen[bytes]":
    own = {name: os.environ[name] for name in ("HOME", "USER", "LOGNAME") if name in os.environ}
    return subprocess.Popen(  # noqa: S603 - the agent says what; this user may do nothing else
        order["command"],
        stdin=handles[0],
        stdout=handles[1],
        stderr=handles[2],
        env={**order["environment"], **own, "TMPDIR": "/tmp"},  # noqa: S108 - private, by the unit
        start_new_session=True,
    )


def _watch(agent: socket.socket, program: "subprocess.Popen[bytes]") -> None:
    """Pass signals on, until the program or the agent ends."""
    ended = os.pidfd_open(program.pid)
    waiting = select.poll()
    waiting.register(ended, select.POLLIN)
    waiting.register(agent, select.POLLIN)
    orders = b""
    while ended not in [handle for handle, _ in waiting.poll()]:
        if not (data := agent.recv(4096)):
            return
        *lines, orders = (orders + data).split(b"\n")
        for line in lines:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(program.pid, int(json.loads(line)["signal"]))
    _say(agent, status=program.wait())


def _say(agent: socket.socket, **words: object) -> None:
    with contextlib.suppress(OSError):  # then nobody listens any more
        agent.sendall(json.dumps(words).encode() + b"\n")


if __name__ == "__main__":
    main()
