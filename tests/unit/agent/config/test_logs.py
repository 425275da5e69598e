"""Log events in their three forms, and the brake for what strangers can cause."""

import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.config.logs import (
    LIMITED_KEYS_MAX,
    JournalFormatter,
    RateLimitedLog,
    configure,
    is_journal,
)
from agent.config.settings import LogSettings


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def logged(settings: LogSettings, **environ: str) -> io.StringIO:
    stream = io.StringIO()
    configure(settings, environ, stream)
    return stream


def fail() -> None:
    try:
        int("broken")
    except ValueError:
        logging.getLogger("agent.x").exception("it failed")


def test_console_has_level_logger_and_message() -> None:
    stream = logged(LogSettings())
    logging.getLogger("agent.runtime.driver").info("three members, %d dead", 1)
    line = stream.getvalue()
    assert line.endswith(" INFO    agent.runtime.driver: three members, 1 dead\n")
    assert "\x1b" not in line


def test_colour_when_forced_and_never_against_the_will() -> None:
    stream = logged(LogSettings(), FORCE_COLOR="1")
    logging.getLogger("a").error("x")
    assert "\x1b[31m" in stream.getvalue()
    stream = logged(LogSettings(), FORCE_COLOR="1", NO_COLOR="1")
    logging.getLogger("a").error("x")
    assert "\x1b" not in stream.getvalue()


def test_level_holds_back() -> None:
    stream = logged(LogSettings(level="warning"))
    logging.getLogger("agent").info("x")
    assert stream.getvalue() == ""


def test_libraries_chat_less() -> None:
    stream = logged(LogSettings(level="debug"))
    logging.getLogger("zeroconf").info("x")
    assert stream.getvalue() == ""


def test_json_is_one_object_a_line() -> None:
    stream = logged(LogSettings(format="json"))
    fail()
    logging.getLogger("agent").warning("two\nlines")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["level"], first["logger"], first["message"]) == ("error", "agent.x", "it failed")
    assert "'broken'" in first["error"]
    assert second["message"] == "two\nlines"
    assert second["time"].endswith("Z")


def test_journal_gets_a_priority_on_every_line(tmp_path: Path) -> None:
    with (tmp_path / "journal").open("w+") as stream:
        status = os.fstat(stream.fileno())
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        configure(LogSettings(), environ, stream)
        fail()
        logging.getLogger("agent").info("fine")
        stream.flush()
        stream.seek(0)
        lines = stream.read().splitlines()
    assert lines[0] == "<3>agent.x: it failed"
    assert lines[-1] == "<6>agent: fine"
    assert all(line.startswith("<3>") for line in lines[:-1])


def test_an_inherited_journal_variable_proves_nothing(tmp_path: Path) -> None:
    with (tmp_path / "other").open("w") as stream:
        assert not is_journal({"JOURNAL_STREAM": "8:1"}, stream)
    assert not is_journal({"JOURNAL_STREAM": "8:1"}, io.StringIO())


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_one_event_a_key_and_interval(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    log = RateLimitedLog(logging.getLogger("agent.net"), interval_s=10, clock=clock)
    for _ in range(1000):
        log.warning("forged", "forged packet from %s", "1.2.3.4")
    log.warning("replayed", "replayed packet")
    assert caplog.messages == ["forged packet from 1.2.3.4", "replayed packet"]
    clock.now = 110.0
    log.warning("forged", "forged packet from %s", "1.2.3.4")
    assert caplog.messages[-1] == "forged packet from 1.2.3.4 (and 999 more like it)"


def test_invented_keys_cost_bounded_memory() -> None:
    clock = Clock()
    logger = logging.getLogger("agent.quiet")
    logger.disabled = True
    log = RateLimitedLog(logger, clock=clock)
    for number in range(10 * LIMITED_KEYS_MAX):
        log.warning(str(number), "x")
        log.warning(str(number), "x")
    assert len(log._next) <= LIMITED_KEYS_MAX
    assert len(log._held_back) <= LIMITED_KEYS_MAX


EVIL = "a\x1b[2J\x9b\u202e\r\n12:00:00 ERROR agent: FORGED\u2028\x85"


@pytest.mark.parametrize(
    "settings", [LogSettings(), LogSettings(format="json")], ids=["console", "json"]
)
def test_no_text_of_others_forges_a_line(settings: LogSettings) -> None:
    stream = logged(settings)
    logging.getLogger("agent").info("%s is alive", EVIL)
    try:
        int(EVIL)
    except ValueError:
        logging.getLogger("agent").exception("it failed")
    told = stream.getvalue()
    assert "FORGED" in told
    for line in told.split("\n"):
        assert line.isprintable()
        assert not line.startswith("12:00:00 ERROR agent")


def test_the_journal_gets_no_forged_line_either() -> None:
    record = logging.LogRecord("agent", logging.INFO, "", 0, "%s", (EVIL,), None)
    assert JournalFormatter().format(record).count("\n") == 0
    assert JournalFormatter().format(record).isprintable()
