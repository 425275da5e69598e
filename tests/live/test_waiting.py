"""Devices that are switched on before anybody lets them in; who leaves stays away until told.

The agents are processes as a service manager runs them: started first, let in later, started again
in between, and never told anything but by the commands that a person types.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent import exits
from agent.system.resumption import is_virtual
from tests.live.harness.agents import AgentProcess
from tests.live.harness.fleet import FORMED_WITHIN_S, Fleet
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live]

FAKETIME = [str(path) for path in Path("/usr/lib").glob("*/faketime/libfaketime.so.1")]
STRANGER, OWNER = 54322, 54321


def status(agent: AgentProcess) -> dict[str, Any]:
    answer: dict[str, Any] = agent.covey("status", "-o", "json").json()
    return answer


def _porch(agent: AgentProcess) -> dict[str, Any]:
    found = agent.covey("readings", "--sensor", "porch/*", "-o", "json").json()["readings"]
    reading: dict[str, Any] = found[0]
    return reading


def test_every_order_works(fleet: Fleet) -> None:
    """Enable, found, join, leave, start again, come back, forget, join again."""
    ash, birch = fleet.add("ash"), fleet.add("birch")
    for agent in (ash, birch):
        agent.start()  # systemd is told READY although there is no identity
        assert status(agent)["stage"] == "waiting"
        assert agent.covey("members").status == exits.UNHEALTHY
    ash.must("init", "barn", "--node-name", "ash")
    eventually(lambda: status(ash)["stage"], lambda stage: stage == "member", 10, "founded")

    token = ash.must("token", "create", "--uses", "2").stdout.strip()
    said = birch.must("join", token, "--node-name", "birch").stderr
    assert "... asking " in said
    eventually(ash.states, lambda seen: seen.get("birch") == "alive", 10, "joined while running")
    before = birch.me()["id"]

    birch.must("leave")
    eventually(ash.states, lambda seen: seen["birch"] == "left", 10, "left")
    assert birch.stop() == 0
    birch.start()
    assert status(birch)["reasons"] == ["this node has left the covey barn"]
    assert ash.states()["birch"] == "left", "a restart is no wish to come back"

    birch.must("join")
    eventually(ash.states, lambda seen: seen["birch"] == "alive", 10, "came back")
    assert birch.me()["id"] == before

    birch.must("leave", "--forget")
    eventually(lambda: status(birch), lambda seen: "no covey yet" in seen["reasons"][0], 10, "free")
    birch.must("join", token, "--node-name", "birch")  # the name is free as well
    eventually(ash.states, lambda seen: seen.get("birch") == "alive", 10, "joined anew")
    assert birch.me()["id"] != before
    assert birch.stop() == 0
    birch.start()
    eventually(lambda: status(birch)["stage"], lambda stage: stage == "member", 10, "as before")


def faked(says: Path) -> dict[str, str]:
    """Return the variables by which a process has the clock that a file says."""
    return {
        "LD_PRELOAD": FAKETIME[0],
        "FAKETIME_TIMESTAMP_FILE": str(says),
        "FAKETIME_CACHE_DURATION": "1",
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


@pytest.mark.skipif(not FAKETIME, reason="needs Debian's faketime")
@pytest.mark.parametrize("offset", ["-20000d", "-2d"], ids=["1970s", "two-days-before"])
def test_a_device_without_a_clock_measures_and_joins_in_when_it_is_set(
    fleet: Fleet, offset: str, tmp_path: Path
) -> None:
    fleet.form("ash", "birch")
    ash, birch = fleet.agents["ash"], fleet.agents["birch"]
    assert birch.stop() == 0
    says = tmp_path / "clock"
    says.write_text(offset)
    birch.prefix = ["env", *(f"{name}={value}" for name, value in faked(says).items())]
    birch.start()
    birch.prefix = []
    assert status(birch)["stage"] == "keeping"
    assert "clock says" in status(birch)["reasons"][0]
    birch.must("publish", "porch/temperature", "21.5")
    assert _porch(birch)["clock"] == "implausible"
    assert ash.states()["birch"] == "left", "it has not said a word"
    says.write_text("+0d")
    eventually(ash.states, lambda seen: seen["birch"] == "alive", 10, "joined in")
    assert status(birch)["outbox"]["waiting"] >= 1
    eventually(lambda: birch.log, lambda log: "the clock was set by +" in log, 10, "it was noticed")
    taken = _porch(birch)
    assert taken["clock"] in ("corrected", "unsynchronised"), (
        "as the clock says now, and not before"
    )
    assert time.time() - taken["time_ns"] / 1e9 < 600, "it is known when it was"
    assert "begins anew" not in birch.log, "it got the time, and was not restored from anything"


@pytest.mark.skipif(not FAKETIME, reason="needs Debian's faketime")
@pytest.mark.skipif(not is_virtual(), reason="a jump of the clock is no sign on a real device")
def test_a_virtual_machine_whose_clock_jumps_takes_another_life(
    fleet: Fleet, tmp_path: Path
) -> None:
    fleet.admit("ash", "birch")
    ash, birch = fleet.agents["ash"], fleet.agents["birch"]
    says = tmp_path / "clock"
    birch.prefix = ["env", *(f"{name}={value}" for name, value in faked(says).items())]
    says.write_text("+0d")
    for agent in (ash, birch):
        agent.launch()
    fleet.wait_formed(FORMED_WITHIN_S)
    birch.prefix = []
    first, process = birch.me()["boot"], birch.pid
    time.sleep(3)  # a jump right at the start would be taken for the time that it got
    says.write_text("+600")
    eventually(lambda: birch.me()["boot"], lambda boot: boot != first, 30, "another life")
    fleet.wait_formed(FORMED_WITHIN_S, "back in the covey")
    assert birch.pid == process, "in the same process"
    birch.must("kv", "put", "lamp", "on")
    assert "Traceback" not in birch.log


# ---- whose files --------------------------------------------------------------------------------


@pytest.fixture
def place(networks: None) -> Iterator[Path]:
    """Give a directory that other users reach; pytest's own are root's alone."""
    made = Path(tempfile.mkdtemp(prefix="covey-owner-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def as_user(user: int, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command as another user, who may be unable to reach this interpreter's files.

    All that the command may load is loaded before root is given up.
    """
    program = (
        "import agent, encodings, importlib, os, pkgutil\n"
        "import grp, http.client, pwd, sqlite_utils.migrations\n"
        "for package in agent, encodings:\n"
        "    for found in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if not found.name.endswith(('mbcs', 'oem', '__main__')):\n"
        "            importlib.import_module(found.name)\n"
        f"os.setgroups([]); os.setgid({user}); os.setuid({user})\n"
        "from agent.cli import main; main()"
    )
    command = [sys.executable, "-c", program, "--dir", str(directory), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={"NO_COLOR": "1"}
    )


def owners(directory: Path) -> dict[str, int]:
    return {str(each.relative_to(directory)): each.lstat().st_uid for each in directory.rglob("*")}


def test_root_leaves_no_file_that_the_owner_cannot_open(place: Path) -> None:
    data = place / "data"
    data.mkdir(mode=0o700)
    for each in (place, data):
        os.chown(each, OWNER, OWNER)
    agent = AgentProcess("ash", place)
    agent.must("init", "barn", "--node-name", "ash")
    made = owners(place)
    assert {"data/identity/node.key", "data/control.db", "data/lock"} <= set(made)
    assert set(made.values()) == {OWNER}
    again = as_user(OWNER, place, "init")
    assert again.returncode == exits.NO
    assert "already holds node ash of covey barn" in again.stderr


def test_what_root_makes_below_somebodys_directory_is_theirs(place: Path) -> None:
    """Also where the data directory is not there yet: its owner has to open it later."""
    os.chown(place, OWNER, OWNER)
    AgentProcess("ash", place).must("init", "barn", "--node-name", "ash")
    made = owners(place)
    assert "data/identity/node.key" in made
    assert set(made.values()) == {OWNER}


def test_a_directory_that_its_own_mode_closes(place: Path) -> None:
    """It is its owner's all the same, and no service has to be started for it."""
    agent = AgentProcess("ash", place)
    os.chown(place, OWNER, OWNER)
    agent.must("init", "barn", "--node-name", "ash")
    for closed in ("data/identity", "data"):
        (place / closed).chmod(0)
        for done in (as_user(OWNER, place, "init"), as_user(0, place, "init")):
            assert done.returncode in (exits.NO, exits.NOT_PERMITTED), done.stderr
            assert "another user" not in done.stderr
            assert "systemctl" not in done.stderr
        assert f"chmod u+rwx {place}/data" in done.stderr or closed == "data/identity"
        (place / closed).chmod(0o700)


def test_root_keeps_what_is_its_own(place: Path) -> None:
    agent = AgentProcess("ash", place)
    agent.must("init", "barn", "--node-name", "ash")
    assert set(owners(place).values()) == {0}


def test_strangers_get_a_sentence(place: Path) -> None:
    """The directory of the socket is open to a group, as that of the service is."""
    agent = AgentProcess("ash", place)
    place.chmod(0o750)
    agent.start()
    try:
        for arguments in (["status"], ["join", "covey1-x"], ["init"]):
            done = as_user(STRANGER, place, *arguments)
            assert done.returncode == exits.NOT_PERMITTED, done.stderr
            assert done.stderr.startswith("error: this user may not speak to the agent at ")
            assert "Traceback" not in done.stderr
    finally:
        agent.close()
