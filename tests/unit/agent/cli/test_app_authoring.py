"""``covey app new`` and ``try``: an app from nothing to its first reading, with no agent."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from agent import exits
from agent.cli.app_authoring import _readings
from agent.cli.errors import run_to_status
from agent.cli.root import root
from tests.hostile.test_cli import EVIL, check
from tests.support.patience import GIVE_UP_S


class Outcome(NamedTuple):
    status: int
    stdout: str
    stderr: str


Covey = Callable[..., Outcome]


@pytest.fixture
def covey(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Covey:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Outcome:
        status = run_to_status(root, ["--dir", str(tmp_path / "agent"), *arguments])
        captured = capfd.readouterr()
        return Outcome(status, captured.out, captured.err)

    return run


def app(text: str) -> str:
    return f"from edge_apps import App, Context\n\napp = App('probe')\n\n\n{text}"


SAMPLE = "@app.every('1h')\ndef sample(context: Context) -> None:\n    "


def test_a_new_app_measures_at_once(covey: Covey, tmp_path: Path) -> None:
    made = covey("app", "new", "attic")
    assert made.stdout == f"{tmp_path}/attic.py\n"
    assert f'path = "{tmp_path}/attic.py"' in made.stderr
    tried = covey("app", "try", "attic.py")
    assert (tried.status, tried.stderr) == (exits.YES, "1 reading.\n")
    sensor, value, unit, tags = tried.stdout.rstrip("\n").split("\t")
    assert (sensor, unit, tags) == ("attic/load", "-", "over=1m")
    assert float(value) >= 0


def test_what_is_told_to_add_is_a_good_configuration(covey: Covey, tmp_path: Path) -> None:
    made = covey("app", "new", "attic")
    (tmp_path / "agent").mkdir()
    snippet = "\n".join(line[4:] for line in made.stderr.splitlines() if line.startswith("    "))
    (tmp_path / "agent" / "covey.toml").write_text(snippet)
    assert covey("config", "check").status == exits.YES


def test_a_file_is_never_overwritten(covey: Covey, tmp_path: Path) -> None:
    (tmp_path / "attic.py").write_text("mine")
    again = covey("app", "new", "attic")
    assert again.status == exits.NO
    assert "it was left as it is" in again.stderr
    assert (tmp_path / "attic.py").read_text() == "mine"


@pytest.mark.parametrize("name", ["9x", "a-b", "../x", "", "x" * 64, "A"])
def test_a_name_that_no_module_can_have(covey: Covey, name: str) -> None:
    assert covey("app", "new", name).status == exits.USAGE


@pytest.mark.parametrize("name", ["system", "sensor_sim"])
def test_an_app_of_ones_own_does_not_take_the_name_of_one_of_ours(
    covey: Covey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = covey("app", "new", name)
    assert outcome.status == exits.NO
    assert "comes with Covey" in outcome.stderr
    assert not Path(f"{name}.py").exists()


def test_options_come_from_the_configuration_and_the_call(covey: Covey, tmp_path: Path) -> None:
    file = tmp_path / "probe.py"
    file.write_text(app(f"{SAMPLE}context.publish('o', repr(dict(context.options)))"))
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "covey.toml").write_text(
        f"[apps.anything]\npath = '{file}'\nevery = '5s'\n"
        "[apps.anything.options]\nbay = 2\nhall = 'a'\n"
    )
    given = ["--option", "hall=b", "--option", "hot=true"]
    tried = covey("app", "try", "probe.py", *given, "-o", "json")
    seen = json.loads(tried.stdout)["value"]
    for part in ("'bay': 2", "'hall': 'b'", "'hot': True", "'every': '5s'"):
        assert part in seen
    assert covey("app", "try", "probe.py", "--option", "hall").status == exits.USAGE


def test_options_are_no_words_of_a_command_that_all_can_read(covey: Covey, tmp_path: Path) -> None:
    file = tmp_path / "probe.py"
    words = "open('/proc/self/cmdline').read()"
    file.write_text(app(f"{SAMPLE}context.publish('o', {words} + context.options['password'][:1])"))
    tried = covey("app", "try", "probe.py", "--option", "password=hunter2", "-o", "json")
    assert tried.status == 0
    assert json.loads(tried.stdout)["value"].endswith("h"), "the app has it"
    assert "hunter2" not in tried.stdout


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import nonesuch_module", "No module named 'nonesuch_module'"),
        ("x = (", "was never closed"),
        (app(f"{SAMPLE}1 / 0"), "division by zero"),
    ],
)
def test_the_stack_of_a_failing_app_begins_in_the_app(
    covey: Covey, tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "probe.py").write_text(text)
    tried = covey("app", "try", "probe.py")
    assert tried.status == exits.NO
    assert says in tried.stderr
    first = re.search('File "(.*)", line', tried.stderr)
    assert first is None or Path(first[1]).name == "probe.py"
    assert "<frozen" not in tried.stderr


def test_a_wrong_period_is_called_by_its_name(covey: Covey, tmp_path: Path) -> None:
    (tmp_path / "probe.py").write_text(app(f"{SAMPLE}..."))
    tried = covey("app", "try", "probe.py", "--option", "every=5x")
    assert "every: '5x' is no duration" in tried.stderr


def test_an_app_that_only_listens_says_so(covey: Covey, tmp_path: Path) -> None:
    heard = "@app.on_event('alarm/*')\ndef alarm(context: Context, event: object) -> None: ..."
    (tmp_path / "probe.py").write_text(app(heard))
    tried = covey("app", "try", "probe.py")
    assert tried.status == exits.YES
    assert "under an agent it also hears alarm/*" in tried.stderr
    assert "It published no reading." in tried.stderr


def test_an_app_that_fails_says_why(covey: Covey, tmp_path: Path) -> None:
    (tmp_path / "probe.py").write_text(app(f"{SAMPLE}raise RuntimeError('no such bus')"))
    tried = covey("app", "try", "probe.py")
    assert tried.status == exits.NO
    assert "RuntimeError: no such bus" in tried.stderr
    assert "error: probe.py failed" in tried.stderr
    (tmp_path / "probe.py").write_text("app = 3")
    assert "has no App called app" in covey("app", "try", "probe.py").stderr


def test_what_an_app_prints_is_told_safely(covey: Covey, tmp_path: Path) -> None:
    words = f"print({EVIL!r}); context.publish('t', {EVIL!r})"
    (tmp_path / "probe.py").write_text(app(f"{SAMPLE}{words}"))
    tried = covey("app", "try", "probe.py")
    check(tried.stdout)
    check(tried.stderr.replace("\nFORGED", ""))


def test_it_goes_on_with_follow(covey: Covey, tmp_path: Path) -> None:
    count = "context.scratch['n'] = context.scratch.get('n', 0) + 1"
    tell = "context.publish('n', context.scratch['n'])"
    end = "if context.scratch['n'] == 3: raise SystemExit"
    (tmp_path / "probe.py").write_text(app("\n    ".join([SAMPLE + count, tell, end])))
    tried = covey("app", "try", "probe.py", "-f", "--option", "every=10ms")
    assert [line.split("\t")[1] for line in tried.stdout.splitlines()] == ["1", "2", "3"]


def test_the_agents_own_settings_stay_out(
    covey: Covey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COVEY_UPLINK__HOST", "broker")
    words = "import os; context.publish('n', ' '.join(n for n in os.environ if 'COVEY_' in n))"
    (tmp_path / "probe.py").write_text(app(f"{SAMPLE}{words}"))
    assert covey("app", "try", "probe.py").stdout.startswith("n\tCOVEY_APP_OPTIONS\t")


def test_who_reads_no_more_ends_the_app(tmp_path: Path) -> None:
    """As when the pipe closes, or Ctrl-C comes while a reading is shown. It once was waited for."""
    file = tmp_path / "attic.py"
    file.write_text(app(SAMPLE + 'context.publish("attic/temp", 1)'))
    readings = _readings(file, {"path": str(file)}, follow=True)
    assert next(readings)
    began_s = time.monotonic()
    readings.close()
    assert time.monotonic() - began_s < GIVE_UP_S, "the next reading is an hour away"
