"""What the agent says while it runs: on stderr, for a person, a journal or a machine.

Plain ``logging``, set up once, with three forms. On a terminal, a line has the time, the level
and the logger. Under systemd the journal has the time already and reads the priority from a
``<N>`` in front of each line (sd-daemon(3)), so a stack trace of twenty lines stays one level.
With ``format = "json"`` each event is one object on one line.

What is logged holds names and texts of others. In every form each character that is not printable
is an escape, and what an event has beyond its first line, such as a stack trace, is indented:
nobody else begins a line of our log.

Some events are caused by whoever can reach our port. ``RateLimitedLog`` makes sure that a flood of
forged packets is a counter in the metrics and a line a minute in the log, not a full disk.
"""

import datetime as dt
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from agent.config.settings import LogSettings
from agent.text.escaping import CONTINUED, json_text, lines_below, one_line

# syslog's priorities (RFC 5424, section 6.2.1), as sd-daemon(3) wants them in front of a line.
PRIORITIES = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}
COLOURS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[31m"}
DIM, RESET = "\x1b[2m", "\x1b[0m"
# From which level on the libraries may speak. Their "info" is chatter to somebody who runs an
# agent.
LIBRARY_LEVELS = {
    "zeroconf": logging.WARNING,
    "asyncio": logging.WARNING,
}
LIMITED_INTERVAL_S = 60.0
OUR_INTERVAL_S = 10.0
"""For what nobody else causes: it is our own trouble, and someone may be watching it."""
LIMITED_KEYS_MAX = 256


def configure(
    settings: LogSettings, environ: Mapping[str, str] | None = None, stream: TextIO | None = None
) -> None:
    """Send all log events to ``stream`` (stderr), in the form that the settings ask for."""
    environ = os.environ if environ is None else environ
    stream = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(settings, environ, stream))
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    for name, level in LIBRARY_LEVELS.items():
        logging.getLogger(name).setLevel(level)


def _formatter(
    settings: LogSettings, environ: Mapping[str, str], stream: TextIO
) -> logging.Formatter:
    if settings.format == "json":
        return JsonFormatter()
    if settings.format == "auto" and is_journal(environ, stream):
        return JournalFormatter()
    colour = bool(environ.get("FORCE_COLOR")) or stream.isatty()
    return ConsoleFormatter(colour=colour and not environ.get("NO_COLOR"))


def is_journal(environ: Mapping[str, str], stream: TextIO) -> bool:
    """Say whether the stream goes to the journal: ``JOURNAL_STREAM`` names its device and inode.

    The variable alone proves nothing, it is inherited by what a service starts
    (systemd.exec(5)).
    """
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class ConsoleFormatter(logging.Formatter):
    """``12:30:01.250 INFO    agent.runtime.driver: three members alive``."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Return the event's lines."""
        when = dt.datetime.fromtimestamp(record.created).astimezone()  # people's own time
        clock = when.strftime("%H:%M:%S.") + f"{record.msecs:03.0f}"
        level = f"{record.levelname:<7}"
        if self._colour:
            clock = f"{DIM}{clock}{RESET}"
            level = f"{COLOURS.get(record.levelno, '')}{level}{RESET}"
        return f"{clock} {level} {record.name}: {_text(self, record)}"


class JournalFormatter(logging.Formatter):
    """``<6>agent.runtime.driver: three members alive``, the priority before every line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the event's lines."""
        prefix = f"<{PRIORITIES.get(record.levelno, PRIORITIES[logging.INFO])}>"
        lines = f"{record.name}: {_text(self, record)}".split("\n")
        return "\n".join(prefix + line for line in lines)


class JsonFormatter(logging.Formatter):
    """One object a line: ``time``, ``level``, ``logger``, ``message``, and ``error`` if any."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the event as one line of JSON."""
        when = dt.datetime.fromtimestamp(record.created, dt.UTC)
        event = {
            "time": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            event["error"] = self.formatException(record.exc_info)
        return json_text(event)


def _text(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """Return the message on one line, with the stack trace of its exception below, indented."""
    message = one_line(record.getMessage())
    if record.exc_info:
        message += f"\n{CONTINUED}{lines_below(formatter.formatException(record.exc_info))}"
    return message


class RateLimitedLog:
    """Logs one event per key and interval, and says how many it held back.

    For events that others can cause at will. ``clock`` gives seconds that never go back. At
    most ``LIMITED_KEYS_MAX`` keys are remembered; the oldest is forgotten first, so that
    inventing keys costs an attacker lines at a bounded rate and us bounded memory.
    """

    def __init__(
        self,
        logger: logging.Logger,
        interval_s: float = LIMITED_INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._interval_s = interval_s
        self._clock = clock
        self._next: dict[str, float] = {}
        self._held_back: dict[str, int] = {}

    def warning(self, key: str, message: str, *args: object) -> None:
        """Log a warning unless one with this key was logged within the interval."""
        now = self._clock()
        if now < self._next.get(key, now):
            self._held_back[key] = self._held_back.get(key, 0) + 1
            return
        held_back = self._held_back.pop(key, 0)
        self._next.pop(key, None)
        self._next[key] = now + self._interval_s  # moves to the end: dicts keep their order
        if len(self._next) > LIMITED_KEYS_MAX:
            oldest = next(iter(self._next))
            del self._next[oldest]
            self._held_back.pop(oldest, None)
        if held_back:
            message, args = message + " (and %d more like it)", (*args, held_back)
        self._logger.warning(message, *args)
