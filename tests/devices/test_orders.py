"""Install, enable, join, leave, join again, reboot, a pulled plug: every order ends well.

Three devices on one network, one covey. Each comes to it in another order, some as root, some with
sudo; afterwards all files of each belong to the service's user, which is what went wrong before.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.devices.rig.card import PROGRAM
from tests.devices.rig.device import Device
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.devices]

UNREACHABLE, UNHEALTHY, NOT_PERMITTED, BAD_CONFIG = 5, 6, 7, 78
INSTALL = f"{PROGRAM} service install"


@pytest.fixture(scope="module")
def ash(device: Callable[..., Device]) -> Device:
    """Give the device that founds the covey."""
    return device("ash")


@pytest.fixture(scope="module")
def beech(device: Callable[..., Device]) -> Device:
    """Give a device that joins before it has a service."""
    return device("beech")


@pytest.fixture(scope="module")
def cedar(device: Callable[..., Device]) -> Device:
    """Give a device whose service has run before it joins."""
    return device("cedar")


def status(device: Device, who: str = "root") -> dict[str, Any]:
    """Return what the agent says of itself, ready or not."""
    done = device.attempt("covey status -o json", who)
    assert done.returncode in (0, UNHEALTHY), done
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def token(device: Device) -> str:
    """Return a new token."""
    return device.run("sudo covey token create", "ada").strip()


def members(device: Device) -> dict[str, str]:
    """Return the state of each member, as this device sees it."""
    told = json.loads(device.run("covey members -o json"))
    return {each["name"]: each["state"] for each in told["members"]}


def sees(device: Device, expected: dict[str, str], within_s: float = 20.0) -> None:
    """Wait until a device sees exactly these members in these states."""
    what = f"{device.name} sees {expected}"
    eventually(lambda: members(device), lambda seen: seen == expected, within_s, what)


def is_whole(device: Device) -> None:
    """Check that the service runs, has not crashed, and owns all that is its own."""
    assert device.unit("ActiveState") == "active"
    assert device.unit("NRestarts") == "0"
    strangers = device.run("find /var/lib/covey /run/covey ! -user covey -o ! -group covey")
    assert not strangers
    assert "Permission denied" not in device.journal()


# --- the first device: installed and started, then founded --------------------------------------


def test_a_service_without_a_covey_waits(ash: Device) -> None:
    """Enabled before there is an identity: it runs, and says what it waits for."""
    ash.run(f"sudo {INSTALL} --now", "ada")
    ash.await_unit("ActiveState", "active")
    assert "covey init" in ash.unit("StatusText")
    assert status(ash)["stage"] == "waiting"
    said = ash.attempt("covey service status")
    assert "covey init" in said.stdout, said
    is_whole(ash)


@pytest.mark.parametrize(
    "command", ["covey status", "covey members", "covey kv get a", "covey init"]
)
def test_who_is_not_in_the_group_is_told_which(ash: Device, command: str) -> None:
    done = ash.attempt(command, "bob")
    assert done.returncode == NOT_PERMITTED, done
    assert "usermod -aG covey bob" in done.stderr
    assert "Traceback" not in done.stderr
    assert ash.attempt("test -e ~/.local/share/covey", "bob").returncode


def test_founded_with_sudo_through_the_waiting_agent(ash: Device) -> None:
    process = ash.unit("MainPID")
    ash.run("sudo covey init greenhouse", "ada")
    ash.await_output("covey status", "ready")
    assert ash.unit("MainPID") == process, "it goes on as a member, in the same process"
    assert "greenhouse" in ash.unit("StatusText")
    is_whole(ash)


def test_a_person_in_the_group_uses_it(ash: Device) -> None:
    ash.run("sudo usermod -aG covey ada", "ada")
    assert "greenhouse" in ash.run("covey status", "ada")
    ash.run("covey kv put lights/north on", "ada")
    assert ash.run("covey kv get lights/north", "ada").strip() == "on"
    ash.run("covey publish porch/temp 21.5", "ada")
    assert "porch/temp" in ash.run("covey readings", "ada")
    looked_at = ash.run("covey doctor || true", "ada")
    assert "it answers on /run/covey/covey.sock" in looked_at
    assert "/etc/covey/covey.toml does not exist" in looked_at, "the service's, not her own"
    done = ash.attempt("covey init", "ada")
    assert done.returncode == 1, done
    assert "greenhouse" in done.stderr, "it says which identity is there"
    assert ash.attempt("test -e ~/.local/share/covey", "ada").returncode


# --- others join --------------------------------------------------------------------------------


def test_joined_as_root_before_there_is_a_service(ash: Device, beech: Device) -> None:
    """What root wrote becomes the service's own when it starts first."""
    said = beech.attempt(f"{PROGRAM} join {token(ash)}").stderr
    assert "`covey service install --now`" in said, said
    assert beech.run("stat -c %U /var/lib/covey").strip() == "root"
    beech.run(f"{INSTALL} --now")
    sees(ash, {"ash": "alive", "beech": "alive"})
    assert beech.run("covey kv get lights/north").strip() == "on"
    is_whole(beech)


def test_joined_with_sudo_while_the_service_is_stopped(
    ash: Device, beech: Device, cedar: Device
) -> None:
    """It has run, so the directory is its own; root then writes as its owner."""
    cedar.run(f"sudo {INSTALL} --now", "ada")
    cedar.await_unit("ActiveState", "active")
    cedar.run("sudo systemctl stop covey", "ada")
    cedar.run("sudo covey join -", "ada", text=token(ash))
    assert cedar.run("stat -c %U /var/lib/covey/identity/identity.json").strip() == "covey"
    cedar.run("sudo systemctl start covey", "ada")
    everybody = dict.fromkeys(("ash", "beech", "cedar"), "alive")
    for each in (ash, beech, cedar):
        sees(each, everybody)
    is_whole(cedar)


# --- away and back ------------------------------------------------------------------------------


def test_left_for_as_long_as_it_says(ash: Device, beech: Device) -> None:
    """Also over a reboot, and although systemd starts what has ended."""
    node = status(beech)["node"]["id"]
    beech.run("sudo covey leave", "ada")
    sees(ash, {"ash": "alive", "beech": "left", "cedar": "alive"})
    beech.await_output("covey status || true", "waiting")
    again = beech.attempt("sudo covey leave", "ada")
    assert again.returncode == 1, again
    assert "already" in again.stderr
    is_whole(beech)  # systemd was not told that it stops: it would kill it in a while
    beech.reboot()
    beech.await_unit("ActiveState", "active")
    assert status(beech)["stage"] == "waiting"
    assert "covey join" in beech.unit("StatusText")
    assert members(ash)["beech"] == "left"
    beech.run("sudo covey join", "ada")
    sees(ash, dict.fromkeys(("ash", "beech", "cedar"), "alive"))
    assert status(beech)["node"]["id"] == node
    is_whole(beech)


def test_rebooted(ash: Device, beech: Device) -> None:
    node = status(ash)["node"]["id"]
    ash.reboot()
    ash.await_unit("ActiveState", "active")
    sees(beech, dict.fromkeys(("ash", "beech", "cedar"), "alive"))
    assert status(ash)["node"]["id"] == node
    assert ash.run("covey kv get lights/north", "ada").strip() == "on"
    is_whole(ash)


def test_run_by_hand_while_the_service_is_stopped(ash: Device) -> None:
    """Its keys are sealed for the service, so a run by hand says so and changes nothing."""
    ash.run("systemctl stop covey")
    for command in ("covey members", "covey init"):
        done = ash.attempt(command, "ada")
        assert done.returncode == UNREACHABLE, done
        assert "`sudo systemctl start covey`" in done.stderr
    done = ash.attempt("covey run")
    assert done.returncode == BAD_CONFIG, done
    assert "is sealed with a key that this process was not given" in done.stderr
    assert "`systemctl start covey`" in done.stderr
    ash.run("systemctl start covey")
    ash.await_output("covey status || true", "ready", "ada")
    is_whole(ash)


def test_what_root_runs_below_somebodys_directory_is_theirs(ash: Device) -> None:
    ash.run("systemd-run --quiet --unit=barn covey --dir /home/ada/barn run")
    ash.await_output("ls /home/ada/barn || true", "covey.sock")
    assert not ash.run("find /home/ada/barn ! -user ada")
    assert "waiting" in ash.attempt("covey --dir ~/barn status", "ada").stdout
    ash.run("systemctl stop barn")


def test_a_pulled_plug(ash: Device, cedar: Device) -> None:
    """It comes back as itself, by itself, also at another address."""
    node = status(cedar)["node"]["id"]
    cedar.pull_plug()
    sees(ash, {"ash": "alive", "beech": "alive", "cedar": "dead"})
    cedar.plug_in()
    cedar.await_unit("ActiveState", "active")
    sees(ash, dict.fromkeys(("ash", "beech", "cedar"), "alive"))
    assert status(cedar)["node"]["id"] == node
    is_whole(cedar)


def test_forgotten_and_joined_as_another(ash: Device, cedar: Device) -> None:
    node = status(cedar)["node"]["id"]
    cedar.run("sudo covey leave --forget", "ada")
    cedar.await_output("covey status -o json || true", '"waiting"')
    cedar.run(f"sudo covey join {token(ash)} --node-name cedar2", "ada")
    cedar.await_output("covey status", "ready")
    assert status(cedar)["node"]["id"] != node
    is_whole(cedar)


# --- whose identity -----------------------------------------------------------------------------


def test_a_person_with_an_agent_of_her_own(device: Callable[..., Device]) -> None:
    """The installation says which is which, and the guide's way gives the service hers."""
    elm = device("elm")
    said = elm.attempt(f"{PROGRAM} init garden", "ada").stderr
    assert "an agent of your own, in /home/ada/.local/share/covey" in said
    done = elm.attempt(f"sudo {INSTALL} --now", "ada")
    assert done.returncode == 0, done
    assert "not the agent of ada" in done.stderr
    assert "/home/ada/.local/share/covey" in done.stderr
    elm.await_unit("ActiveState", "active")
    assert status(elm)["stage"] == "waiting"
    elm.run("systemctl stop covey; mv /var/lib/covey /var/lib/covey.unused")
    elm.run("cp -r /home/ada/.local/share/covey /var/lib/covey; systemctl start covey")
    elm.await_output("covey status", "garden")
    is_whole(elm)


# --- without what others have -------------------------------------------------------------------


def test_switched_on_without_a_network(cedar: Device) -> None:
    """The unit waits for no network: the agent runs, and takes what sensors say."""
    cedar.disconnect()
    cedar.reboot()
    cedar.await_unit("ActiveState", "active")
    cedar.run("covey publish porch/temp 3")
    assert "porch/temp" in cedar.run("covey readings")
    is_whole(cedar)
