"""``covey uplink``: by the agent, and by this process where no agent can."""

from pathlib import Path

import pytest

from agent import exits
from agent.cli.uplink import _in_flight, _write
from agent.readiness import Stage
from tests.support.command_line import Covey
from tests.support.fake_agent import Served


def test_uplink_status(served: Served, covey: Covey) -> None:
    outcome = covey("uplink", "status")
    assert outcome.status == exits.YES
    assert "broker\tbroker.lan:1883\n" in outcome.stdout
    assert covey("uplink", "status", "-o", "json").json()["client_id"] == "covey-home-1"


def test_uplink_test_by_the_agent(served: Served, covey: Covey) -> None:
    outcome = covey("uplink", "test")
    assert outcome.status == exits.NO
    assert [line.split("\t") for line in outcome.stdout.splitlines()] == [
        ["name", "ok", "12 ms", "broker.lan is 10.0.0.5", "-"],
        ["TCP", "failed", "500 ms", "nothing listens at 10.0.0.5:1883", "Start it."],
    ]
    told = covey("uplink", "test", "-o", "json").json()
    assert told["ok"] is False
    assert told["steps"][1]["hint"] == "Start it."


@pytest.mark.parametrize("arguments", [[], ["--here"]])
def test_uplink_test_by_this_process(
    tmp_path: Path, covey: Covey, arguments: list[str], request: pytest.FixtureRequest
) -> None:
    if arguments:
        request.getfixturevalue("served")
    (tmp_path / "covey.toml").write_text('[uplink]\nhost = "127.0.0.1"\nport = 1\n')
    outcome = covey("uplink", "test", *arguments)
    assert outcome.status == exits.NO
    assert outcome.stdout.splitlines()[-1].startswith("TCP\tfailed\t")
    assert "nothing listens at 127.0.0.1:1" in outcome.stdout
    assert ("this process tests" in outcome.stderr) is not bool(arguments)


def test_a_hint_of_a_step_ends_its_lines_between_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("agent.cli.output.is_terminal", lambda: True)
    monkeypatch.setattr("agent.cli.uplink.is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    hint = "A Mosquitto without a `listener` in its configuration serves its own machine alone."
    _write({"step": "TCP", "outcome": "failed", "took_s": 0.1, "message": "no", "hint": hint})
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("failed   TCP")
    assert all(line.startswith(" " * 9) and len(line) <= 60 for line in lines)
    assert " ".join(" ".join(lines).split()) == hint


@pytest.mark.parametrize(
    ("window", "told"), [(20, "3 of at most 20"), (0, "3"), (1, "3 of at most 1")]
)
def test_without_a_connection_nobody_says_how_many_may_be_in_flight(window: int, told: str) -> None:
    assert _in_flight(3, window) == told


def test_uplink_test_without_a_broker(covey: Covey) -> None:
    outcome = covey("uplink", "test")
    assert outcome.status == exits.NO
    assert "Set host in [uplink]" in outcome.stderr


def test_uplink_test_beside_an_agent_that_waits(
    served: Served, covey: Covey, tmp_path: Path
) -> None:
    served.agent.stage = Stage.WAITING
    (tmp_path / "covey.toml").write_text('[uplink]\nhost = "127.0.0.1"\nport = 1\n')
    outcome = covey("uplink", "test")
    assert outcome.status == exits.NO
    assert "nothing listens at 127.0.0.1:1" in outcome.stdout
    assert "The agent waits: this process tests" in outcome.stderr
