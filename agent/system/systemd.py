"""What the agent tells systemd about itself: ready, still alive, stopping.

The protocol is a datagram of ``NAME=value`` lines to the socket in ``NOTIFY_SOCKET``
(sd_notify(3)); without the variable nothing is sent. The watchdog's message is sent by a task
on the event loop, never by a thread: it then proves that the loop still turns, which is what
the agent lives by. A caller can add a condition, so that a loop that turns without getting
anywhere is restarted too.

A start takes as long as the disk takes: what is damaged is carried over row by row, on a slow card
for minutes, and ended after systemd's 90 seconds it would begin anew, for ever. So an agent that
starts asks for more time again and again.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping

from agent.text.escaping import one_line

logger = logging.getLogger(__name__)

ABSTRACT_MARK = "@"
MICROSECONDS = 1_000_000
# sd_watchdog_enabled(3) recommends to speak at half of the interval after which systemd kills.
WATCHDOG_SHARE = 0.5
START_PAUSE_S, START_EXTENSION_S = 10.0, 40.0
"""How often an agent that starts asks for time, and for how much, so that a word may be late."""
PATIENCE_S = 1.0
"""For how long the event loop may wait for a manager that has other things to do."""
START_S_MAX = 3600.0
"""Whoever has not started by then hangs."""


class Notifier:
    """Sends state changes to the service manager; does nothing when there is none."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self.is_awaited = self._address is not None
        """Whether somebody waits for the agent to be ready."""
        self.watchdog_s = _watchdog_s(environ)

    def ready(self, status: str) -> None:
        """Say that the agent serves; ``systemctl start`` returns now."""
        self.is_awaited = False
        self._send(f"READY=1\nSTATUS={one_line(status)}")

    def starting(self) -> None:
        """Ask for time to start, counted from now (EXTEND_TIMEOUT_USEC, since systemd 236)."""
        more_us = int(START_EXTENSION_S * MICROSECONDS)
        self._send(
            f"EXTEND_TIMEOUT_USEC={more_us}\nSTATUS=starting: it opens its stores", patience_s=0
        )

    def status(self, text: str) -> None:
        """Set the line that ``systemctl status`` shows."""
        self._send(f"STATUS={one_line(text)}")

    def stopping(self) -> None:
        """Say that the agent has begun to stop."""
        self._send("STOPPING=1\nSTATUS=leaving the covey")

    def alive(self) -> None:
        """Reset the watchdog."""
        self._send("WATCHDOG=1", patience_s=0)

    def _send(self, message: str, patience_s: float = PATIENCE_S) -> None:
        """Send one datagram. A manager that does not listen must not stop us: logged, no more.

        Where it does not read either, its queue is full after ten, and sending would wait for ever;
        what is said again soon does not wait at all.
        """
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.settimeout(patience_s)
                channel.connect(self._address)
                channel.sendall(message.encode())
        except OSError as error:  # also when there is no file descriptor for a socket
            logger.debug("the service manager did not take %r: %s", message, error)


def _address(text: str) -> str | None:
    """Return the socket's address; one that begins with ``@`` is in the abstract namespace."""
    if text.startswith(ABSTRACT_MARK):
        return "\0" + text[1:]
    return text or None


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """Return the seconds after which a silent service is killed; None without a watchdog."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None  # meant for another process of the service
    interval = environ.get("WATCHDOG_USEC", "")
    return int(interval) / MICROSECONDS if interval.isdigit() and int(interval) else None


async def keep_alive(notifier: Notifier, is_well: Callable[[], bool] = lambda: True) -> None:
    """Reset the watchdog for as long as the event loop turns and ``is_well`` says yes.

    Returns at once when systemd set no watchdog; otherwise runs until cancelled.
    """
    while notifier.watchdog_s is not None:
        if is_well():
            notifier.alive()
        else:
            logger.error("the agent does not get on; the watchdog will restart it")
        await asyncio.sleep(notifier.watchdog_s * WATCHDOG_SHARE)


async def ask_for_time(notifier: Notifier) -> None:
    """Have the service manager wait for the start while the event loop turns.

    Returns when nobody waits any more, or it has taken ``START_S_MAX``.
    """
    for _ in range(int(START_S_MAX / START_PAUSE_S)):
        if not notifier.is_awaited:
            return
        notifier.starting()
        await asyncio.sleep(START_PAUSE_S)
