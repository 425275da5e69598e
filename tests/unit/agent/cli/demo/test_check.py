"""What the check concludes, and what the collector counts."""

import json

import pytest
from click.testing import CliRunner

from agent.cli.demo.check import Report
from agent.cli.demo.collector import Collector
from agent.cli.demo.command import demo

GOOD = {
    "agents": 3,
    "converged_s": 1.2,
    "kv_ok": True,
    "readings_delivered": 900,
    "readings_lost": 0,
    "crash_detected_s": 2.5,
}


def report(**changes: object) -> Report:
    made = Report(**{**GOOD, **changes})  # type: ignore[arg-type]
    made.conclude()
    return made


def test_all_of_it_held() -> None:
    line = report().line()
    told = json.loads(line)
    assert "\n" not in line
    assert told == {"ok": True, **GOOD, "readings_repeated": 0}


@pytest.mark.parametrize(
    "changes",
    [
        {"converged_s": None},
        {"kv_ok": False},
        {"readings_delivered": 0},
        {"readings_lost": 1},
        {"readings_lost": None},
        {"crash_detected_s": None},
        {"error": "an outbox does not empty"},
    ],
)
def test_one_thing_missing_is_enough(changes: dict[str, object]) -> None:
    assert report(**changes).ok is False


def test_an_error_is_in_the_line() -> None:
    assert json.loads(report(error="why").line())["error"] == "why"


def test_the_collector_counts_ids() -> None:
    collector = Collector("127.0.0.1", 1, "5")
    for payload in (b'{"id": "a-1"}', b'{"id": "a-2"}', b'{"id": "a-1"}'):
        collector.take(payload)
    for payload in (b"", b"21.5", b'{"value": 1}', b"[1]"):
        collector.take(payload)
    assert collector.ids == {"a-1", "a-2"}
    assert collector.repeated == 1
    assert collector.without_id == 4
    assert collector.rate() > 0


def test_the_command_refuses_what_it_cannot_show() -> None:
    for arguments in (["--agents", "1"], ["--agents", "10"], ["--check", "--agents", "2"]):
        assert CliRunner().invoke(demo, arguments).exit_code == 2


def test_a_directory_in_use_is_left_alone(tmp_path: object) -> None:
    result = CliRunner().invoke(demo, ["--seconds", "0", "--keep", "/proc"])
    assert result.exit_code == 2
    assert "is not empty; nothing was started" in result.output
