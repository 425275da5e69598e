"""The node's keys are sealed by the service's first start, open nowhere else, and can be moved."""

import json
from collections.abc import Callable

import pytest

from agent.identity.seal import MAGIC
from tests.devices.rig.card import PROGRAM
from tests.devices.rig.device import Device

pytestmark = [pytest.mark.devices]

IDENTITY = "/var/lib/covey/identity"
SEAL = "/etc/credstore.encrypted/covey.seal"
DROP_IN = "/etc/systemd/system/covey.service.d/20-sealed.conf"
UNIT = "/etc/systemd/system/covey.service"
INSTALL = f"{PROGRAM} service install --now"
NO, BAD_CONFIG = 1, 78


@pytest.fixture(scope="module")
def ash(device: Callable[..., Device]) -> Device:
    """Give the device that founds the covey."""
    return device("ash")


@pytest.fixture(scope="module")
def beech(device: Callable[..., Device]) -> Device:
    """Give a machine to which data are moved."""
    return device("beech")


def node_id(device: Device) -> str:
    return str(json.loads(device.run(f"cat {IDENTITY}/identity.json"))["node_id"])


def in_clear(device: Device) -> str:
    """Return which files have a key or a ring in clear, at any depth."""
    words = "-e 'PRIVATE KEY' -e '\"secrets\"'"
    return device.attempt(f"grep --recursive --files-with-matches {words} /var/lib/covey").stdout


def finding(device: Device) -> tuple[str, str]:
    checks = json.loads(device.attempt("covey doctor -o json").stdout)["checks"]
    [found] = [each for each in checks if each["id"] == "sealed-keys"]
    return found["status"], found["message"]


def test_keys_made_in_clear_are_sealed_by_the_first_start(ash: Device) -> None:
    ash.run(f"{PROGRAM} init greenhouse")
    assert f"{IDENTITY}/node.key" in in_clear(ash)
    done = ash.run(INSTALL)
    assert f"written\t{SEAL}" in done
    assert f"written\t{DROP_IN}" in done
    ash.await_unit("ActiveState", "active")
    assert not in_clear(ash)
    assert ash.run(f"head -c {len(MAGIC)} {IDENTITY}/authority.key").encode() == MAGIC
    assert finding(ash)[0] == "ok"
    assert ash.run(f"stat -c '%U %a' {SEAL}").split() == ["root", "600"]
    assert f"unchanged\t{SEAL}" in ash.run(INSTALL)


def test_what_is_replaced_while_it_runs_is_sealed(ash: Device) -> None:
    before = ash.run(f"sha256sum {IDENTITY}/keyring.json {IDENTITY}/authority.key").split()[::2]
    ash.await_output("covey status -o json", '"stage": "member"')
    ash.run("covey keys rotate --force")
    ash.run("covey keys rotate --authority --force")
    after = ash.run(f"sha256sum {IDENTITY}/keyring.json {IDENTITY}/authority.key").split()[::2]
    assert not set(before) & set(after)
    assert not in_clear(ash)
    ash.run("systemctl restart covey")
    ash.await_unit("ActiveState", "active")
    assert "Traceback" not in ash.journal()


def test_without_the_credential_it_ends_and_says_what_to_do(ash: Device) -> None:
    ash.run(f"systemctl stop covey; rm {DROP_IN}; systemctl daemon-reload")
    before = ash.run(f"find {IDENTITY} -type f -exec sha256sum {{}} +")
    assert ash.attempt("systemctl start covey").returncode
    ash.await_unit("ActiveState", "failed")
    assert (ash.unit("ExecMainStatus"), ash.unit("NRestarts")) == (str(BAD_CONFIG), "0")
    assert "is sealed with a key that this process was not given" in ash.journal()
    assert "sudo covey service install" in ash.journal()
    assert ash.run(f"find {IDENTITY} -type f -exec sha256sum {{}} +") == before
    ash.run(INSTALL)
    ash.await_unit("ActiveState", "active")


def commands_of(machine: Device) -> list[str]:
    """Return what `service install` and `doctor` say is to be done where the seal is missing."""
    done = machine.attempt(INSTALL)
    assert done.returncode == NO, done
    assert f"{SEAL}, to open it, is not on this machine" in " ".join(done.stderr.split())
    machine.run(f"test ! -e {SEAL} -a ! -e {UNIT}")
    checks = json.loads(machine.attempt(f"{PROGRAM} doctor -o json").stdout)["checks"]
    [agent] = [each for each in checks if each["id"] == "agent"]
    [found] = [each for each in checks if each["id"] == "sealed-keys"]
    assert (agent["status"], found["status"]) == ("fail", "fail")
    assert "covey run" not in agent["hint"]
    assert "the agent does not start" in found["message"]
    words = found["hint"].split("`")[1::2]
    commands = [word for word in words if word.startswith("sudo ")]
    assert len(commands) == 3, commands
    return [word.replace("sudo covey", PROGRAM).removeprefix("sudo ") for word in commands]


def test_a_copy_of_the_data_opens_on_another_machine_with_the_kept_key_alone(
    ash: Device, beech: Device
) -> None:
    who = node_id(ash)
    kept = ash.run(f"systemd-creds decrypt --name=covey.seal {SEAL} - | base64 --wrap=0")
    ash.run("systemctl stop covey")
    data = ash.run("tar -C /var/lib -c covey | base64 --wrap=0")
    beech.run(INSTALL)
    beech.run("systemctl stop covey; rm -r /var/lib/covey")
    beech.run("base64 --decode | tar -C /var/lib -x", text=data)
    beech.attempt("systemctl start covey")
    beech.await_unit("ActiveState", "failed")
    assert beech.unit("ExecMainStatus") == str(BAD_CONFIG)
    assert "is sealed with another key than the one that this process was given" in beech.journal()
    beech.run("base64 --decode > /root/KEPT", text=kept)
    beech.run(f"{PROGRAM} service uninstall; rm -r {SEAL.rpartition('/')[0]}")
    for command in commands_of(beech):
        beech.run(command.replace("KEPT", "/root/KEPT"))
    beech.await_unit("ActiveState", "active")
    assert node_id(beech) == who
    assert not in_clear(beech)


def test_a_seal_that_this_machine_cannot_open_is_told_at_the_installation(beech: Device) -> None:
    secret = "/var/lib/systemd/credential.secret"
    beech.run(f"systemctl stop covey; mv {secret} /root/secret")
    done = beech.attempt(INSTALL)
    assert done.returncode == NO, done
    assert f"systemd cannot open {SEAL} on this machine" in done.stderr
    beech.run(f"rm -f {secret}; mv /root/secret {secret}")
    beech.run(INSTALL)
    beech.await_unit("ActiveState", "active")


def test_uninstall_keeps_the_seal_with_the_data(beech: Device) -> None:
    assert SEAL in beech.attempt(f"{PROGRAM} service uninstall").stderr
    beech.run(f"test -e {SEAL} -a ! -e {DROP_IN}")
    assert f"unchanged\t{SEAL}" in beech.run(INSTALL)
    beech.await_unit("ActiveState", "active")


def test_where_systemd_hands_out_nothing_the_agent_runs_and_says_so(
    device: Callable[..., Device],
) -> None:
    """A container whose mounts are its own: a credential would never arrive."""
    cedar = device("cedar", command=["/sbin/init"])
    cedar.run(f"{PROGRAM} init greenhouse")
    assert f"not made: systemd cannot hand credentials to a service here\t{SEAL}" in cedar.run(
        INSTALL
    )
    cedar.await_unit("ActiveState", "active")
    cedar.run(f"test ! -e {SEAL} -a ! -e {DROP_IN}")
    status, said = finding(cedar)
    assert status == "warn"
    assert "lie in clear: systemd gives the service no key" in said
