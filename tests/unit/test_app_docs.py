"""docs/apps.md is a tutorial: what it tells people to type has to work."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from agent.apps import log, supervisor
from agent.config import load
from agent.paths import Paths
from edge_apps import publisher
from edge_apps.builtin import sensor_sim
from edge_apps.sdk import Context

TEXT = (Path(__file__).parents[2] / "docs/apps.md").read_text()
BLOCK = r"```\w*\n(.*?)```"


@pytest.fixture
def tutorial(tmp_path: Path) -> Path:
    for name, content in re.findall(r"<!-- test: file=(\S+) -->\n" + BLOCK, TEXT, re.DOTALL):
        (tmp_path / name).write_text(content)
    return tmp_path


def run(directory: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *command], cwd=directory, capture_output=True, text=True, timeout=60
    )


def test_the_tutorials_app_passes_its_test(tutorial: Path) -> None:
    done = run(tutorial, "-m", "pytest", "-q", "--rootdir", str(tutorial), "test_attic.py")
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_the_tutorials_command_starts_the_app(tutorial: Path) -> None:
    match = re.search(r"python (-m edge_apps .*)--options '(.*)'", TEXT)
    assert match
    process = subprocess.Popen(
        [sys.executable, *match[1].split(), "--options", match[2]],
        cwd=tutorial, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with pytest.raises(subprocess.TimeoutExpired):  # it runs: no such bus here, no readings
        process.wait(0.8)
    process.terminate()
    _, said = process.communicate(timeout=30)
    assert "stopping: SIGTERM" in said, said


def test_the_tutorials_configuration_is_accepted(tmp_path: Path) -> None:
    match = re.search("<!-- test: config -->\n" + BLOCK, TEXT, re.DOTALL)
    assert match
    paths = Paths.find(tmp_path, {})
    paths.config_file.write_text(match[1])
    apps = load(paths, {}).apps
    assert apps["attic"].options == {"path": "/home/pi/attic.py"}
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
