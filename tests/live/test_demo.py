"""`covey demo --check` where nothing is installed but Covey: the PATH leads nowhere."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.live, pytest.mark.alone]

# Hides packages from the command, as on a machine for which there is no wheel.
WITHOUT = "import sys; sys.modules.update(dict.fromkeys(sys.argv.pop(1).split(',')));"
COVEY = "from agent.cli import main; main()"


def demo(*arguments: str, without: str = "_") -> subprocess.CompletedProcess[str]:
    environ = {"PATH": "/nonexistent", "HOME": os.environ["HOME"], "LANG": "C.UTF-8"}
    return subprocess.run(
        [sys.executable, "-P", "-c", WITHOUT + COVEY, without, "demo", *arguments],
        env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("without", "broker", "version"),
    [("_", "iotcore", "5"), ("iotcore", "amqtt", "3.1.1")],
)
def test_the_check_holds_with_either_broker(without: str, broker: str, version: str) -> None:
    ended = demo("--check", without=without)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    assert json.loads(ended.stdout)["ok"] is True
    assert f"broker: {broker}, MQTT {version}, on 127.0.0.1:" in ended.stderr
    assert f"uplinks: connected, MQTT {version}" in ended.stderr


def test_without_a_broker_it_says_what_to_install() -> None:
    ended = demo("--check", without="iotcore,amqtt")
    assert ended.returncode == 1
    told = ended.stderr + ended.stdout
    assert "install iotcore" in told
    assert "`make demo` in a clone" in told
