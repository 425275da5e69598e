"""Values as people type and pipe them: below zero, with a comma, in long lines, over a restart."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from agent.cli import publish
from agent.cli.errors import run_to_status
from agent.cli.param_types import ValueCommand
from agent.cli.root import root
from agent.exits import UNREACHABLE
from edge_apps.client import AgentUnreachable, Client, Response
from edge_apps.reading import Reading
from tests.support.command_line import Covey, feed
from tests.support.fake_agent import Served, serving
from tests.support.patience import GIVE_UP_S


def eventually(condition: Callable[[], object]) -> None:
    """Wait for what comes true; the test's own time limit ends it otherwise."""
    while not condition():
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("value", "means"),
    [("-5", -5), ("-5.25", -5.25), ("-.5", -0.5), ("-1e3", -1000.0), ("-x", "-x"), ("-5C", "-5C")],
)
def test_a_value_may_begin_with_a_dash(
    served: Served, covey: Covey, value: str, means: object
) -> None:
    for arguments in ([value], ["--unit", "C", value], [value, "--unit", "-"], ["--", value]):
        assert covey("publish", "porch/temp", *arguments).status == 0
    assert [one.reading.value for one in served.agent.telemetry.accepted] == [means] * 4


def test_keys_payloads_and_facts_may_begin_with_a_dash(served: Served, covey: Covey) -> None:
    assert covey("kv", "put", "k", "-5").status == 0
    assert covey("kv", "put", "-k", "-x5").status == 0
    assert served.agent.kv.values == {"k": [b"-5"], "-k": [b"-x5"]}
    assert covey("kv", "get", "-k").stdout == "-x5"
    assert covey("event", "send", "frost", "-5").status == 0
    assert covey("query", "set", "-5", "--timeout", "1s").status == 0
    assert covey("facts", "set", "frost=-5").status == 0
    assert covey("ring", "-k").status == 0


@pytest.mark.parametrize(
    "arguments",
    [["publish", "t", "1", "--unti", "C"], ["kv", "put", "k", "--valeu"], ["event", "send", "--x"]],
)
def test_two_dashes_are_an_option_and_a_wrong_one_is_told(
    covey: Covey, arguments: list[str]
) -> None:
    outcome = covey(*arguments)
    assert outcome.status == 2
    assert "no such option" in outcome.stderr.lower()


def test_a_comma_is_asked_about(served: Served, covey: Covey) -> None:
    outcome = covey("publish", "t", "21,5")
    assert outcome.status == 2
    assert "21.5" in outcome.stderr
    assert "--text" in outcome.stderr
    assert covey("publish", "t", "21,5", "--text").status == 0
    assert [one.reading.value for one in served.agent.telemetry.accepted] == ["21,5"]


def test_a_batch_is_bounded_by_what_a_request_may_have(
    served: Served, covey: Covey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand lines of a thousand fields were more than the agent takes at once."""
    fields = ",".join(f"f{n}=1" for n in range(100))
    feed(monkeypatch, tmp_path, (f"m,place={'x' * 1000} {fields}\n" * 200).encode())
    assert covey("publish", "--format", "influx").stdout == "accepted 20000\n"


def test_bodies_are_bounded_in_bytes_and_in_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "POST_BYTES_MAX", 1000)
    monkeypatch.setattr(publish, "POST_READINGS_MAX", 7)
    made = list(publish.bodies(Reading("t", "x" * (n * 37 % 900)) for n in range(100)))
    assert sum(count for _, count in made) == 100
    assert max(count for _, count in made) <= 7
    assert max(len(body) for body, _ in made) <= 1000 + 2


def test_bytes_that_are_not_utf8_are_told_and_the_others_go(
    served: Served, covey: Covey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(monkeypatch, tmp_path, b"t 1\nt gr\xfcn\nt 2\n")
    outcome = covey("publish", "-")
    assert outcome.status == 1
    assert "line 2: byte 5 of the line is not UTF-8" in outcome.stderr
    assert [one.reading.value for one in served.agent.telemetry.accepted] == [1, 2]


def test_a_text_may_go_on_from_one_batch_to_the_next(
    served: Served, covey: Covey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "BATCH_LINES_MAX", 2)
    feed(monkeypatch, tmp_path, b'm v=1\nm t="a\nb\nc"\nbad\nm v=2\nm v=3')
    outcome = covey("publish", "--format", "influx")
    assert [one.reading.value for one in served.agent.telemetry.accepted] == [1, "a\nb\nc", 2, 3]
    assert (outcome.status, outcome.stdout) == (1, "accepted 4\n")
    assert outcome.stderr.startswith("line 5: ")


class Pipe:
    """`covey publish -` in a process of its own, fed line by line."""

    def __init__(self, directory: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agent", "publish", "-"],
            env={**os.environ, "COVEY_DIR": str(directory)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.said += iter(self.process.stderr.readline, "")

    def line(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()

    def end(self) -> tuple[int, str]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        told = self.process.stdout.read()
        status = self.process.wait(GIVE_UP_S)
        self._reader.join(GIVE_UP_S)
        return status, told


def test_an_agent_that_is_restarted_under_a_pipe_is_waited_for(tmp_path: Path) -> None:
    values: list[object] = []
    with serving(tmp_path / "a") as first:
        pipe = Pipe(tmp_path / "a")
        pipe.line("t 1")
        eventually(lambda: len(first.agent.telemetry.accepted) == 1)
        values += [one.reading.value for one in first.agent.telemetry.accepted]
    pipe.line("t 2")
    eventually(lambda: any("waiting for it" in line for line in pipe.said))
    pipe.line("t 3")
    with serving(tmp_path / "a") as second:
        eventually(lambda: len(second.agent.telemetry.accepted) >= 1)
        status, told = pipe.end()
        values += [one.reading.value for one in second.agent.telemetry.accepted]
    assert (status, told) == (0, "accepted 3\n")
    assert values == [1, 2, 3], "nobody was asked in between: nothing is twice"
    assert not [line for line in pipe.said if "twice" in line]


def test_without_an_agent_from_the_beginning_a_pipe_ends_at_once(tmp_path: Path) -> None:
    pipe = Pipe(tmp_path / "nobody")
    pipe.line("t 1")
    status, told = pipe.end()
    assert (status, told) == (5, "")
    assert "no agent listens" in "".join(pipe.said)


def test_every_command_with_a_value_takes_a_dash() -> None:
    """Whoever adds a command with a free argument chooses the kind that takes a dash."""

    def commands(command: click.Command) -> Iterator[click.Command]:
        yield command
        if isinstance(command, click.Group):
            for name in command.list_commands(click.Context(command)):
                below = command.get_command(click.Context(command), name)
                assert below is not None
                yield from commands(below)

    free = {"value", "payload", "key", "prefix", "given"}
    missing = [
        command.name
        for command in commands(root)
        if any(isinstance(p, click.Argument) and p.name in free for p in command.params)
        and not isinstance(command, ValueCommand)
    ]
    assert not missing


def test_what_was_sent_when_the_agent_went_away_is_sent_again_and_told(
    served: Served, covey: Covey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "BATCH_LINES_MAX", 2)
    monkeypatch.setattr(publish, "RETRY_S", 0.0)
    request, calls = Client.request, [0]

    def losing_an_answer(self: Client, *arguments: Any, **options: Any) -> Response:
        answer = request(self, *arguments, **options)
        calls[0] += 1
        if calls[0] in (2, 3):
            raise AgentUnreachable("the agent hung up")
        return answer

    monkeypatch.setattr(Client, "request", losing_an_answer)
    feed(monkeypatch, tmp_path, b"t 1\nt 2\nt 3\nt 4\nt 5\n")
    outcome = covey("publish", "-")
    assert (outcome.status, outcome.stdout) == (0, "accepted 5\n")
    assert "handed 2 readings" in outcome.stderr
    values = [one.reading.value for one in served.agent.telemetry.accepted]
    assert values == [1, 2, 3, 4, 3, 4, 3, 4, 5], "at least once, and only those in hand more often"


@pytest.mark.parametrize("context", ["a\nX: y", "a\r\n\r\n", "ä", "\u202e"])
def test_a_context_is_no_other_header(served: Served, covey: Covey, context: str) -> None:
    for arguments in (["put", "lamp", "on"], ["delete", "lamp"]):
        outcome = covey("kv", *arguments, "--context", context)
        assert outcome.status == 2
        assert "what `covey kv get -o json` shows as the context" in outcome.stderr
    assert served.agent.kv.asked == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["members", "show", "\udcff"],
        ["kv", "get", "\udcff"],
        ["kv", "put", "\udcff", "on"],
        ["ring", "\udcff"],
        ["app", "stop", "\udcff"],
        ["readings", "--sensor", "\udcff"],
    ],
)
def test_a_word_that_is_not_utf8_is_refused_plainly(covey: Covey, arguments: list[str]) -> None:
    outcome = covey(*arguments)
    assert outcome.status == 2
    assert "UTF-8" in outcome.stderr


def test_a_directory_need_not_be_utf8(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    directory = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    assert run_to_status(root, ["--dir", directory, "members"]) == UNREACHABLE
    assert "no agent listens" in capfd.readouterr().err


@pytest.mark.usefixtures("served")
def test_a_time_without_end_is_no_stack_trace(covey: Covey) -> None:
    outcome = covey("kv", "get", "lamp", "--timeout", "999999999999h")
    assert outcome.status == 2
    assert "--timeout" in outcome.stderr
