"""docs/apps.md is a tutorial: what it tells people to type has to work."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.apps import log, supervisor
from agent.config.loader import load
from agent.config.paths import Paths
from agent.exits import INTERRUPTED
from edge_apps import publisher
from edge_apps.app import Context
from edge_apps.builtin import sensor_sim
from tests.support.patience import GIVE_UP_S

TEXT = (Path(__file__).parents[3] / "docs/apps.md").read_text()
BLOCK = r"```\w*\n(.*?)```"


@pytest.fixture
def tutorial(tmp_path: Path) -> Path:
    for name, content in re.findall(r"<!-- test: file=(\S+) -->\n" + BLOCK, TEXT, re.DOTALL):
        (tmp_path / name).write_text(content)
    return tmp_path


def run(directory: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *command], cwd=directory, capture_output=True, text=True, timeout=GIVE_UP_S
    )


def test_the_tutorials_app_passes_its_test(tutorial: Path) -> None:
    done = run(tutorial, "-m", "pytest", "-q", "--rootdir", str(tutorial), "test_attic.py")
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_the_tutorials_command_starts_the_app(tutorial: Path) -> None:
    """With a bus that has a sensor, there is a reading."""
    sensor = tutorial / "bus" / "28-01"
    sensor.mkdir(parents=True)
    (sensor / "w1_slave").write_text("crc=8d YES\n t=22750\n")
    once, following = re.findall(r"^covey (app try attic.py.*)$", TEXT, flags=re.MULTILINE)
    arguments = [*once.split(), "--option", f"bus={tutorial}/bus"]
    done = run(tutorial, "-m", "agent", "--dir", str(tutorial / "agent"), *arguments)
    assert (done.returncode, done.stdout) == (0, "attic/28-01\t22.75\tC\tfloor=3\n"), done.stderr
    words = [sys.executable, "-m", "agent", "--dir", str(tutorial / "agent"), *following.split()]
    words[-1] = f"bus={tutorial}/bus"
    with subprocess.Popen(words, cwd=tutorial, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "22.75" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(GIVE_UP_S) == INTERRUPTED


def test_the_tutorials_configuration_is_accepted(tmp_path: Path) -> None:
    match = re.search("<!-- test: config -->\n" + BLOCK, TEXT, re.DOTALL)
    assert match
    paths = Paths.find(tmp_path, {})
    paths.config_file.write_text(match[1])
    apps = load(paths, {}).apps
    assert apps["attic"].path == "/etc/covey/attic.py"
    assert (apps["barn"].every_s, apps["barn"].options["floor"]) == (60.0, 2)


def test_the_numbers_are_those_of_the_code() -> None:
    tuning = supervisor.RestartTuning()
    assert (tuning.pause_first_s, tuning.pause_max_s, tuning.healthy_s) == (1, 60, 60)
    assert (tuning.failing_after, tuning.stop_grace_s) == (5, 10)
    assert "After five such ends" in TEXT
    assert "After ten seconds SIGKILL" in TEXT
    assert f"{publisher.BUFFER_READINGS_MAX:,} of them" in TEXT
    assert publisher.PAUSE_MAX_S == 30
    assert 2 * log.FILE_BYTES_MAX == supervisor.OUTPUT_BYTES_PER_S_MAX == 1024 * 1024


def test_everything_that_a_function_can_do_is_told() -> None:
    public = {name for name in vars(Context) if not name.startswith("_")}
    public |= {"kv", "log", "options", "scratch"}
    for name in public:
        assert f"`context.{name}" in TEXT, f"docs/apps.md does not tell of context.{name}"
    for sensor in sensor_sim.UNITS:
        assert sensor in TEXT
