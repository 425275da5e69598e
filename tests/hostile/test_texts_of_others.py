"""One hostile text through every way out of an agent: the ways are a table, and each is fed.

What commands write is in ``test_cli.py``, command by command; this is the list of sinks.
"""

import asyncio
import io
import logging
import re
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from agent.apps.log import AppLog
from agent.cli import errors, output, session
from agent.cli.completion import offered
from agent.cluster.event_handlers import EventHandlers
from agent.config import logs
from agent.config.logs import ConsoleFormatter, JournalFormatter, JsonFormatter
from agent.config.settings import HandlerSettings
from agent.exits import AgentError
from agent.system.systemd import Notifier
from tests.support.patience import GIVE_UP_S

EVIL = "a\x1b[2J\x1b]0;t\x07\x9b35m\u202e\u2066\u2028\x85\x7f\r\n-- FORGED\n<3>FORGED"
PRINTABLE_BUT = re.compile(r"[\t\n]")
Written = Callable[[Path], str]


def formatted(formatter: logging.Formatter) -> Written:
    def written(_directory: Path) -> str:
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(formatter)
        error = ValueError(EVIL)
        trace = (ValueError, error, None)
        record = logging.LogRecord("x", logging.ERROR, "", 1, "%s", (EVIL,), trace)
        handler.emit(record)
        return stream.getvalue()

    return written


def app_log(directory: Path) -> str:
    log = AppLog(directory / "app.log", Counter(), lambda: 0.0)
    log.feed(EVIL.encode() + b"\n")
    log.record(EVIL)
    return (directory / "app.log").read_text()


def handlers_complaint(_directory: Path) -> str:
    """Return what the log has of a handler that fails with what it was sent."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(ConsoleFormatter(colour=False))
    logger = logging.getLogger("agent.cluster.event_handlers")
    logger.addHandler(handler)
    command = ["/bin/sh", "-c", "cat >&2; exit 1"]
    handlers = EventHandlers(HandlerSettings(timeout="60s"), 1000, Counter())
    try:
        asyncio.run(asyncio.wait_for(handlers.run(command, EVIL.encode(), {}), GIVE_UP_S))
    finally:
        logger.removeHandler(handler)
    return stream.getvalue()


def systemd_status(directory: Path) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(directory / "notify"))
        told = Notifier({"NOTIFY_SOCKET": manager.getsockname()})
        told.status(EVIL)
        return manager.recv(4096).decode().removeprefix("STATUS=")


def printed(write: Callable[[], object]) -> Written:
    def written(_directory: Path) -> str:
        write()
        return ""  # what the command line prints is what capsys sees

    return written


@click.command()
def refused() -> None:
    raise AgentError(EVIL, EVIL)


SINKS: dict[str, Written] = {
    "console log": formatted(ConsoleFormatter(colour=False)),
    "journal": formatted(JournalFormatter()),
    "JSON log": formatted(JsonFormatter()),
    "log of an app": app_log,
    "complaint of a handler": handlers_complaint,
    "status of the service": systemd_status,
    "table": printed(lambda: output.write_table(("A",), [(EVIL,), ([EVIL],), ({EVIL: EVIL},)])),
    "row": printed(lambda: output.write_row((EVIL, EVIL), (3, 0))),
    "facts": printed(lambda: output.write_facts({EVIL: EVIL})),
    "pairs": printed(lambda: output.write_pairs([(EVIL, EVIL)])),
    "line": printed(lambda: output.write_line(EVIL, output.Styled(EVIL, "red"))),
    "paragraph": printed(lambda: output.write_paragraph(output.Styled(EVIL), EVIL, "")),
    "JSON": printed(lambda: output.write_json({EVIL: [EVIL]})),
    "JSON line": printed(lambda: output.write_json_line(EVIL)),
    "JSON lines": printed(lambda: output.write_json_lines([EVIL, {EVIL: EVIL}])),
    "columns": printed(lambda: output.write_tsv((EVIL,), [(EVIL,)])),
    "complaint": printed(lambda: output.complain(EVIL)),
    "remark": printed(lambda: session.Session(None).say(EVIL)),
    "error and hint": printed(lambda: errors.run_to_status(refused, [])),
    "completion": lambda _directory: "\n".join(offered([EVIL, "ash"], "")),
}


@pytest.mark.parametrize("sink", SINKS)
def test_nothing_acts_and_no_line_is_forged(
    sink: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = SINKS[sink](tmp_path)
    captured = capsys.readouterr()
    text = written + captured.out + captured.err
    assert text, "something was written"
    plain = PRINTABLE_BUT.sub("", text.replace("\x1b[31m", "").replace("\x1b[36m", ""))
    assert plain.replace("\x1b[0m", "").isprintable(), ascii(text)
    for line in text.split("\n"):
        assert not line.startswith(("FORGED", "-- FORGED", "<3>FORGED")), line


def test_every_way_to_write_a_log_is_here() -> None:
    kinds = {name for name in vars(logs) if name.endswith("Formatter")}
    assert kinds == {"ConsoleFormatter", "JournalFormatter", "JsonFormatter"}


def test_every_way_to_write_a_result_is_here() -> None:
    ways = {name for name in vars(output) if name.startswith("write_")}
    own = {"write_own", "write_value"}  # ours alone; exact bytes, or lines of a value
    named = {name for name in ways - own if name in Path(__file__).read_text()}
    assert named == ways - own
