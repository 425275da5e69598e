"""The service is put in place from the installed wheel, runs as its unit says, and goes again."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.programs.root_user import USERS
from tests.devices.rig.card import PROGRAM
from tests.devices.rig.device import Device
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.devices]

UNIT = "/etc/systemd/system/covey.service"
NO_USER_NAMESPACES = "/etc/systemd/system/covey.service.d/10-no-user-namespaces.conf"
NOT_FOUND, UNHEALTHY, NOT_PERMITTED, BAD_CONFIG = 3, 6, 7, 78
EXEC = 203

# A kernel without CONFIG_USER_NS answers EINVAL to unshare(CLONE_NEWUSER).
EINVAL, CLONE_NEWUSER = 22, 0x1000_0000
WITHOUT_USER_NAMESPACES = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [
        {
            "names": ["unshare", "clone"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": EINVAL,
            "args": [
                {
                    "index": 0,
                    "value": CLONE_NEWUSER,
                    "valueTwo": CLONE_NEWUSER,
                    "op": "SCMP_CMP_MASKED_EQ",
                }
            ],
        }
    ],
}


@pytest.fixture(scope="module")
def ash(device: Callable[..., Device]) -> Device:
    """Give a device on which Covey is installed, and no service."""
    return device("ash")


def install(device: Device, *options: str) -> dict[str, str]:
    """Install the service with sudo; return what was done with each file."""
    words = " ".join(("sudo", PROGRAM, "service", "install", *options))
    rows = [line.split("\t") for line in device.run(words, "ada").splitlines()]
    return {place: done for done, place in rows}


def test_before(ash: Device) -> None:
    done = ash.attempt(f"{PROGRAM} service status -o json", "bob")
    assert done.returncode == NOT_FOUND, done
    assert json.loads(done.stdout)["installed"] is False


def test_who_is_not_root_changes_nothing(ash: Device) -> None:
    for verb in ("install", "uninstall"):
        done = ash.attempt(f"{PROGRAM} service {verb}", "bob")
        assert done.returncode == NOT_PERMITTED, done
        assert done.stderr.startswith("error: only root can")
        assert "Traceback" not in done.stderr
    assert ash.attempt(f"test -e {UNIT}").returncode


def test_a_program_in_a_home_directory_is_refused(ash: Device) -> None:
    """The unit hides home directories, so it would end with 203 for ever."""
    ash.run(
        "cp -a /opt/covey ~/covey && sed -i 1s,/opt/covey,/home/ada/covey, ~/covey/bin/covey", "ada"
    )
    done = ash.attempt("sudo ~/covey/bin/covey service install --now", "ada")
    assert done.returncode == NOT_PERMITTED, done
    assert "/home/ada/covey/bin/covey" in done.stderr
    assert "python3 -m venv /opt/covey" in done.stderr
    assert ash.attempt(f"test -e {UNIT}").returncode


def test_install(ash: Device) -> None:
    done = install(ash)
    assert done[UNIT] == "written"
    assert NO_USER_NAMESPACES not in done
    assert f"ExecStart={PROGRAM} run" in ash.run(f"cat {UNIT}")
    assert ash.run("id -gn covey").strip() == "covey"
    assert "nologin" in ash.run("getent passwd covey")
    assert done["/etc/covey"] == "made"
    ash.run("systemd-analyze verify --man=no covey.service")


def test_install_again_changes_nothing(ash: Device) -> None:
    assert set(install(ash).values()) == {"unchanged"}


def test_the_configuration_is_root_s_also_once_systemd_has_started_the_service(ash: Device) -> None:
    """Else the agent could replace what names the commands that it runs."""
    owner = "stat -c '%U %G %a' /etc/covey"
    install(ash, "--now")
    ash.await_unit("ActiveState", "active")
    assert ash.run(owner).split() == ["root", "root", "755"]
    ash.run("chown covey:covey /etc/covey")  # as systemd makes one that is missing
    assert install(ash)["/etc/covey"].startswith("taken back")
    ash.run("systemctl restart covey")
    ash.await_unit("ActiveState", "active")
    assert ash.run(owner).split() == ["root", "root", "755"]
    ash.run("systemctl disable --now covey")


def test_everybody_finds_the_program_and_its_completion(ash: Device) -> None:
    assert "covey" in ash.run("covey --version", "bob")
    assert "covey" in ash.run("sudo covey --version", "ada")
    script = "/usr/local/share/bash-completion/completions/covey"
    said = ash.run(f"bash -c 'source {script}; complete -p covey'", "bob")
    assert "_covey_completion" in said


def test_it_runs_under_all_its_restrictions(ash: Device) -> None:
    """Also those that this machine could have refused: nothing of the unit was taken out."""
    ash.run("sudo covey init greenhouse", "ada")
    install(ash, "--now")
    ash.await_unit("ActiveState", "active")
    assert ash.unit("PrivateUsers") == "yes"
    assert ash.unit("NRestarts") == "0"
    owners = ash.run("stat -c '%U %G %a' /var/lib/covey /run/covey /run/covey/covey.sock")
    assert owners.splitlines() == ["covey covey 700", "covey covey 750", "covey covey 660"]
    assert not ash.run("find /var/lib/covey ! -user covey -o ! -group covey")
    process = ash.unit("MainPID")
    status = dict(
        line.split(":", 1) for line in ash.run(f"cat /proc/{process}/status").splitlines()
    )
    assert status["NoNewPrivs"].strip() == "1"
    assert int(status["CapEff"], 16) == 0
    state = json.loads(ash.run("covey service status -o json", "bob"))
    assert {state["installed"], state["current"], state["enabled"]} == {True}
    assert state["active"] == "active"


SPY = """
import os
from edge_apps import App, Context
from edge_apps.client import ApiError, Client, ClientError

app = App("spy")

def tried(what):
    try:
        return what()
    except (OSError, ClientError) as error:
        return type(error).__name__

@app.every("1s")
def look(context: Context) -> None:
    agent = open("/srv/agent").read().strip()
    door = Client(os.environ["COVEY_SOCKET"])
    print("spied",
        tried(lambda: open("/var/lib/covey/identity/authority.key").read()),
        tried(lambda: open(f"/proc/{agent}/mem", "rb").read(1)),
        tried(lambda: Client("/run/covey/covey.sock").get("/api/v1/members")),
        tried(lambda: door.post("/api/v1/tokens", {})),
        len(door.get("/api/v1/members")["members"]),
        os.getuid(), os.getcwd(), "SECRET" in os.environ, flush=True)
    context.publish("spied", 1)
"""


def test_apps_are_users_of_their_own(ash: Device) -> None:
    """The agent's keys, its memory and its own socket are out of their reach."""
    ash.attempt(f"sudo {PROGRAM} init greenhouse", "ada")
    install(ash, "--now")
    ash.run("cat > /srv/spy.py", text=SPY)
    config = '[apps.spy]\npath = "/srv/spy.py"\n[queries.handlers]\nwho = ["/usr/bin/id", "-u"]\n'
    ash.run("cat > /etc/covey/covey.toml", text=config)
    drop_in = "/etc/systemd/system/covey.service.d/secret.conf"
    secret = "[Service]\nEnvironment=SECRET=x\n"
    ash.run(f"mkdir -p {Path(drop_in).parent}; cat > {drop_in}", text=secret)
    ash.run("systemctl daemon-reload; systemctl restart covey")
    ash.await_unit("ActiveState", "active")
    ash.run("systemctl show --property=MainPID --value covey > /srv/agent")
    log = ash.await_output("covey app log spy", "spied", within_s=60)
    seen = log.split("spied ")[1].split()[:8]
    denied, memory, socket, tokens, members, user, directory, leaked = seen
    assert denied == "PermissionError"
    assert memory in ("PermissionError", "FileNotFoundError")
    assert socket == "AgentForbidden"
    assert tokens == "ApiError"
    assert (members, directory, leaked) == ("1", "/tmp", "False")
    assert int(user) in USERS
    asked = ash.run("covey query who -o json").splitlines()[0]
    assert any(f'"{user}' in asked for user in USERS), asked
    found = json.loads(ash.attempt("covey doctor -o json").stdout)["checks"]
    assert [each["status"] for each in found if each["id"] == "program-users"] == ["ok"]
    [app] = [
        each["pid"]
        for each in json.loads(ash.run("covey app list -o json"))["apps"]
        if each["name"] == "spy"
    ]
    ash.run("kill -9 $(systemctl show --property=MainPID --value covey)")
    ends = f"the process {app} ends with its agent"
    eventually(lambda: ash.attempt(f"kill -0 {app}").returncode, bool, 60.0, ends)
    ash.run(f"rm {drop_in} /etc/covey/covey.toml; systemctl daemon-reload")
    ash.run("systemctl restart covey")


@pytest.fixture
def broken(ash: Device) -> Iterator[Device]:
    """Give the device for something to be broken on; it is whole again afterwards."""
    ash.run("systemctl stop covey")
    yield ash
    ash.run("systemctl stop covey; rm -f /etc/covey/covey.toml; systemctl start covey")
    ash.await_unit("ActiveState", "active")


def ends_for_good(device: Device, status: int) -> None:
    """Start the service, and see it end with a status, once."""
    assert device.attempt("systemctl start covey").returncode
    device.await_unit("ActiveState", "failed")
    assert device.unit("ExecMainStatus") == str(status)
    assert device.unit("NRestarts") == "0", "no restart is waiting: the unit has failed for good"


def test_a_wrong_configuration_is_not_tried_again(broken: Device) -> None:
    broken.copy_in("[network]\nprot = 7\n", "/etc/covey/covey.toml")
    ends_for_good(broken, BAD_CONFIG)
    assert 'unknown key "prot"' in broken.journal()


@pytest.mark.parametrize("kind", ["SOCK_DGRAM", "SOCK_STREAM"])
def test_a_port_that_is_taken_is_not_tried_again(broken: Device, kind: str) -> None:
    taken = (
        "import socket, time; s = socket.socket(socket.AF_INET, socket." + kind + "); "
        "s.bind(('', 7747)); s.type == socket.SOCK_STREAM and s.listen(); time.sleep(600)"
    )
    broken.run(f'systemd-run --unit=thief python3 -c "{taken}"')
    broken.await_output("ss -lnut", ":7747")
    try:
        ends_for_good(broken, BAD_CONFIG)
    finally:
        broken.run("systemctl stop thief")


def test_the_port_of_the_api_that_is_taken_is_not_tried_again(broken: Device) -> None:
    broken.copy_in('[api]\nlisten = "127.0.0.1:7748"\n', "/etc/covey/covey.toml")
    taken = "import socket, time; s = socket.create_server(('127.0.0.1', 7748)); time.sleep(600)"
    broken.run(f'systemd-run --unit=thief python3 -c "{taken}"')
    broken.await_output("ss -lnt", ":7748")
    try:
        ends_for_good(broken, BAD_CONFIG)
    finally:
        broken.run("systemctl stop thief")


def test_a_program_that_is_gone_is_not_tried_again(broken: Device) -> None:
    broken.run(f"mv {PROGRAM} {PROGRAM}.gone")
    try:
        ends_for_good(broken, EXEC)
    finally:
        broken.run(f"mv {PROGRAM}.gone {PROGRAM}")


def test_a_crash_is_tried_again(ash: Device) -> None:
    before = ash.unit("MainPID")
    ash.run("systemctl kill --signal=KILL covey")
    ash.await_unit("NRestarts", "1")
    ash.await_unit("ActiveState", "active")
    assert ash.unit("MainPID") != before


def test_uninstall_keeps_the_data(ash: Device) -> None:
    before = set(
        ash.run("find /etc /usr/local /run/covey -path '*covey*' ! -path '*/venv/*'").split()
    )
    assert before
    ash.run("sudo covey service uninstall", "ada")
    after = ash.run("find /etc /usr/local -path '*covey*' ! -type d").split()
    assert after == ["/etc/credstore.encrypted/covey.seal"], (
        "without it, the data are worth nothing"
    )
    assert "identity" in ash.run("ls /var/lib/covey")
    assert ash.run("systemctl show --property=LoadState --value covey").strip() == "not-found"
    done = ash.attempt(f"{PROGRAM} service status -o json", "bob")
    assert done.returncode == NOT_FOUND


def test_install_after_uninstall_goes_on_with_the_same_node(ash: Device) -> None:
    install(ash, "--now")
    ash.await_unit("ActiveState", "active")
    assert (
        json.loads(ash.run("sudo covey status -o json", "ada"))["cluster"]["name"] == "greenhouse"
    )


def test_a_kernel_without_user_namespaces(device: Callable[..., Device], tmp_path: Path) -> None:
    """The unit alone would end with 217/USER; the installation finds that out, and says so."""
    profile = tmp_path / "seccomp.json"
    profile.write_text(json.dumps(WITHOUT_USER_NAMESPACES))
    birch = device("birch", "--security-opt", f"seccomp={profile}")
    assert birch.attempt("unshare --user true").returncode
    birch.run(f"{PROGRAM} init greenhouse")
    assert install(birch, "--now")[NO_USER_NAMESPACES] == "written"
    birch.await_unit("ActiveState", "active")
    assert birch.unit("PrivateUsers") == "no"
    birch.run(f"rm {NO_USER_NAMESPACES}; systemctl daemon-reload; systemctl stop covey")
    ends_for_good(birch, 217)
