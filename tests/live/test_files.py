"""A device that has no file descriptors left for a while: it survives, and nothing stays broken."""

import os
import resource
import time
from pathlib import Path

import pytest

from tests.live.harness.agents import AgentProcess
from tests.live.harness.fleet import Fleet
from tests.live.harness.network import run
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live]

WITHOUT_S = 6.0
"""As long as three looks at the own addresses, each of which needs a descriptor."""


def leave_no_descriptor(agent: AgentProcess) -> tuple[int, int]:
    """Allow the agent no descriptor beyond those that it has; return what it was allowed."""
    taken = {int(each.name) for each in Path(f"/proc/{agent.pid}/fd").iterdir()}
    lowest_free = min(set(range(len(taken) + 1)) - taken)
    before = resource.prlimit(agent.pid, resource.RLIMIT_NOFILE)
    # The lowest free number is the next to be given out; those above stay open.
    resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (lowest_free, before[1]))
    return before


def test_six_seconds_without_a_file_descriptor(fleet: Fleet) -> None:
    fleet.form("ash", "birch")
    ash, birch = fleet.agents["ash"], fleet.agents["birch"]
    birch.must("app", "start", "sensor_sim")
    before = leave_no_descriptor(birch)
    try:
        run("ip", "-n", birch.at.namespace, "address", "add", "10.77.0.99/24", "dev", "eth0")
        for app in _children(birch):
            os.kill(app, 9)  # its next start needs descriptors that are not there
        birch.covey("status")
        time.sleep(WITHOUT_S)
    finally:
        resource.prlimit(birch.pid, resource.RLIMIT_NOFILE, before)
    eventually(
        lambda: _addresses(ash, "birch"),
        lambda told: any("10.77.0.99" in each for each in told),
        15,
        "the new address is known to others",
    )
    eventually(
        lambda: {app["name"]: app["state"] for app in birch.api.get("/api/v1/apps")["apps"]},
        lambda apps: apps["sensor_sim"] == "running",
        30,
        "the app runs again",
    )
    birch.must("kv", "put", "lamp", "on")
    assert ash.must("kv", "get", "lamp").stdout.strip() == "on"
    birch.must("publish", "porch/temperature", "21.5")
    eventually(lambda: birch.api.get("/healthz")["ready"], lambda ready: ready, 60, "ready again")
    fleet.wait_formed(15.0, "nobody is lost")


def _addresses(agent: AgentProcess, name: str) -> list[str]:
    [found] = [each for each in agent.members() if each["name"] == name]
    told: list[str] = found["addresses"]
    return told


def _children(agent: AgentProcess) -> list[int]:
    children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text()
    return [int(each) for each in children.split()]
