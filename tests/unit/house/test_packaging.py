"""The ways onto a device, checked as far as that goes without systemd running or a container host.

The unit is rated by systemd itself. The container and compose files are read and compared with
what is in the repository, because a name that is gone is what breaks them in practice. In
``tests/devices`` the unit runs and the image is built.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from agent import exits
from agent.config.settings import SECTIONS, AppSettings
from agent.installation.files import NO_USER_NAMESPACES, PACKAGED, shipped
from agent.installation.trial import NO_USER, NOT_EXECUTED
from agent.programs.isolation import SEEN_BY_SERVICES, SERVICE_SOCKET
from tests.support.patience import GIVE_UP_S

ROOT = Path(__file__).resolve().parents[3]
UNIT = ROOT / "packaging" / "systemd" / "covey.service"
APP_UNIT = UNIT.with_name("covey-app@.service")
APP_SOCKET = UNIT.with_name("covey-app.socket")
USERS = UNIT.with_name("covey.sysusers")
CONTAINERFILE = ROOT / "packaging" / "container" / "Containerfile"
COMPOSE = ROOT / "deploy" / "compose" / "compose.yaml"
EXPOSURE_MAX, APP_EXPOSURE_MAX = 2.0, 2.0

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs Debian's systemd for systemd-analyze"
)


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=GIVE_UP_S)


# --- the systemd unit ---------------------------------------------------------------------------


def _unit() -> dict[str, list[str]]:
    return _directives(UNIT)


def _directives(file: Path) -> dict[str, list[str]]:
    """Return a unit's directives; one that stands twice has two values."""
    directives: dict[str, list[str]] = {}
    for line in file.read_text().splitlines():
        if "=" in line and not line.startswith(("#", ";")):
            name, value = line.split("=", 1)
            directives.setdefault(name, []).append(value)
    return directives


@needs_systemd
def test_unit_is_hardened() -> None:
    result = _run("systemd-analyze", "security", "--offline=true", "--no-pager", UNIT)
    exposure = re.search(r"exposure level for covey\.service: ([\d.]+)", result.stdout)
    assert exposure, result.stdout + result.stderr
    assert float(exposure.group(1)) <= EXPOSURE_MAX


@needs_systemd
def test_unit_of_programs_is_hardened() -> None:
    result = _run("systemd-analyze", "security", "--offline=true", "--no-pager", APP_UNIT)
    exposure = re.search(r"exposure level for covey-app@\S*: ([\d.]+)", result.stdout)
    assert exposure, result.stdout + result.stderr
    assert float(exposure.group(1)) <= APP_EXPOSURE_MAX


@needs_systemd
@pytest.mark.parametrize("drop_in", ["", NO_USER_NAMESPACES], ids=["whole", "no user namespaces"])
def test_unit_is_understood(drop_in: str, tmp_path: Path) -> None:
    """systemd warns about a directive that it does not know, and goes on without it."""
    unit = UNIT.read_text().replace("/usr/local/bin/covey", "/bin/true")
    (tmp_path / UNIT.name).write_text(unit + drop_in)
    result = _run("systemd-analyze", "verify", "--man=no", tmp_path / UNIT.name)
    complaints = [line for line in result.stderr.splitlines() if UNIT.name in line]
    assert not complaints, "\n".join(complaints)


@needs_systemd
@pytest.mark.parametrize("drop_in", ["", "hardware.conf"])
def test_units_of_programs_are_understood(drop_in: str, tmp_path: Path) -> None:
    unit = APP_UNIT.read_text() + ((UNIT.parent / drop_in).read_text() if drop_in else "")
    (tmp_path / APP_UNIT.name).write_text(unit)
    (tmp_path / APP_SOCKET.name).write_text(APP_SOCKET.read_text())
    result = _run("systemd-analyze", "verify", "--man=no", tmp_path / APP_SOCKET.name)
    complaints = [line for line in result.stderr.splitlines() if "covey-app" in line]
    assert not complaints, "\n".join(complaints)


def test_programs_are_users_of_their_own() -> None:
    """The agent may order; it gains nothing by it, and the programs get nothing of its own."""
    unit, door = _directives(APP_UNIT), _directives(APP_SOCKET)
    assert unit["DynamicUser"] == ["yes"]
    assert unit["StandardInput"] == ["socket"]
    assert unit["CapabilityBoundingSet"] == unit["AmbientCapabilities"] == [""]
    assert unit["BindPaths"] == [f"/run/covey/apps:{SEEN_BY_SERVICES}"]
    assert door["ListenStream"] == [str(SERVICE_SOCKET)]
    assert (door["SocketUser"], door["SocketMode"]) == (["covey"], ["0600"])
    assert _unit()["CapabilityBoundingSet"] == [""], "the agent itself may become nobody"


def test_unit_keeps_its_promises() -> None:
    unit = _unit()
    assert unit["Type"] == ["notify"]
    assert unit["ExecStart"] == ["/usr/local/bin/covey run"]
    assert float(unit["WatchdogSec"][0]) >= 10
    assert "DynamicUser" not in unit, "a person can only be put into a group that stays"
    assert unit["User"] == unit["Group"] == ["covey"]
    assert unit["RuntimeDirectoryMode"] == ["0750"], "then the socket is for the group"
    for kind in ("State", "Runtime", "Configuration"):
        assert unit[f"{kind}Directory"] == ["covey"], (
            "agent/config/paths.py reads systemd's variables"
        )
    waits_for_nothing = {"network.target"}
    assert set(unit["After"][0].split()) == waits_for_nothing, "a device may be off line for ever"
    assert "Wants" not in unit


def test_unit_does_not_repeat_what_starting_again_cannot_mend() -> None:
    """Nor does it give up on anything else: a full disk is emptied, an address comes."""
    statuses = set(map(int, _unit()["RestartPreventExitStatus"][0].split()))
    hopeless = {exits.USAGE, exits.NOT_FOUND, exits.NOT_PERMITTED, exits.BAD_CONFIG}
    assert statuses == hopeless | {NOT_EXECUTED, NO_USER}
    assert _unit()["Restart"] == ["always"]
    assert _unit()["StartLimitIntervalSec"] == ["0"]


def test_user_is_the_one_of_the_unit() -> None:
    lines = [line.split() for line in USERS.read_text().splitlines() if line[0] != "#"]
    assert [line[:2] for line in lines] == [["u", *_unit()["User"]]]


def test_wheel_carries_what_the_service_needs() -> None:
    """``covey service install`` looks for its files beside itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    carried = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    for path in (UNIT, APP_UNIT, APP_SOCKET, USERS):
        inside = PACKAGED.relative_to(ROOT) / path.name
        assert carried[str(path.relative_to(ROOT))] == str(inside)
        assert shipped(path.name) == path.read_text()


def test_unit_leaves_the_sockets_that_an_agent_needs() -> None:
    """Netlink lists the interfaces; without AF_UNIX there is neither an API nor sd_notify."""
    families = _unit()["RestrictAddressFamilies"][0].split()
    assert set(families) == {"AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"}


# --- the container file -------------------------------------------------------------------------


def _instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", CONTAINERFILE.read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [
        (word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines) if word
    ]


def _values(word: str) -> list[str]:
    return [rest for name, rest in _instructions() if name == word]


def test_containerfile_copies_what_is_there() -> None:
    sources = [
        source
        for rest in _values("COPY")
        if not rest.startswith("--from=")
        for source in rest.split()[:-1]
    ]
    assert {"gossip", "edge_apps", "agent", "pyproject.toml"} <= set(sources)
    missing = [source for source in sources if not (ROOT / source).exists()]
    assert not missing
    kept = CONTAINERFILE.with_name("Containerfile.containerignore").read_text().splitlines()
    assert {f"!{source}" for source in sources} <= set(kept), "ignored files cannot be copied"


def test_containerfile_copies_what_the_build_needs() -> None:
    """The wheel is built from these alone: what pyproject.toml names has to be among them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    copied = " ".join(_values("COPY"))
    needed = [
        project["project"]["readme"],
        *project["project"]["license-files"],
        *project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"],
        *project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"],
    ]
    assert not [name for name in needed if name not in copied]


def test_container_runs_without_root() -> None:
    words = [word for word, _ in _instructions()]
    assert words[-1] == "CMD"
    user = _values("USER")[-1]
    assert user.isdigit(), "Kubernetes' runAsNonRoot can only judge a number"
    assert int(user) > 0
    assert words.index("USER") < words.index("ENTRYPOINT")


def test_container_starts_the_command_itself() -> None:
    """The exec form: with a shell in between, SIGTERM would never reach the agent."""
    assert json.loads(_values("ENTRYPOINT")[-1]) == ["covey"]
    assert json.loads(_values("CMD")[-1]) == ["run"]
    health = _values("HEALTHCHECK")[-1]
    assert json.loads(health[health.index("[") :])[0] == "covey"


def _base() -> str:
    """Return the image that all stages begin with."""
    assert {stage.split()[0] for stage in _values("FROM")} == {"${BASE}"}
    [base] = [rest.removeprefix("BASE=") for rest in _values("ARG") if rest.startswith("BASE=")]
    return base


def test_container_names_its_base() -> None:
    """Host and tag always, and the digest from the first `make base` on."""
    named = r"[\w.]+(/[\w.-]+)+:\d[\w.-]*(@sha256:[0-9a-f]{64})?"
    assert re.fullmatch(named, _base()), f"name host and tag: {_base()}"


def test_base_is_pinned_by_what_the_registry_answers(tmp_path: Path) -> None:
    """The digest is computed from the answer, and a second one replaces the first."""
    answer = tmp_path / "answer"
    (tmp_path / "skopeo").write_text(f'#!/bin/sh\necho "$@" >&2\nexec cat {answer}\n')
    (tmp_path / "skopeo").chmod(0o755)
    file = tmp_path / "Containerfile"
    file.write_text(CONTAINERFILE.read_text())
    tag = _base().partition("@")[0]
    for text in (b'{"manifests": []}', b'{"manifests": [1]}'):
        answer.write_bytes(text)
        done = _pin(file, tmp_path)
        assert done.returncode == 0, done.stderr
        assert f"inspect --raw docker://{tag}" in done.stderr
        digest = hashlib.sha256(text).hexdigest()
        assert f"\nARG BASE={tag}@sha256:{digest}\n" in file.read_text()
    answer.unlink()
    before = file.read_text()
    assert _pin(file, tmp_path).returncode == 1, "no registry"
    assert file.read_text() == before


def _pin(file: Path, programs: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{programs}:{os.environ['PATH']}"}
    return subprocess.run(
        [CONTAINERFILE.with_name("pin.sh"), file],
        env=environment, capture_output=True, text=True, check=False, timeout=GIVE_UP_S,
    )  # fmt: skip


# --- compose ------------------------------------------------------------------------------------


def _compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return loaded


def test_compose_names_files_that_exist() -> None:
    compose = _compose()
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (COMPOSE.parent / source).is_file(), f"{name} mounts {source}"
            else:
                assert source in compose["volumes"], f"{name} mounts an undeclared volume {source}"
        if "build" in service:
            context = (COMPOSE.parent / service["build"]["context"]).resolve()
            assert context == ROOT
            assert (context / service["build"]["dockerfile"]).is_file()


def test_compose_waits_for_services_that_exist() -> None:
    services = _compose()["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", [])) <= set(services), name


def test_compose_agents_have_no_privileges() -> None:
    agents = [s for s in _compose()["services"].values() if s["image"] == "covey"]
    assert len(agents) == 4, "three agents and the one that sets up"
    for agent in agents:
        assert agent["cap_drop"] == ["ALL"]
        assert agent["read_only"] is True


def test_compose_configuration_is_valid() -> None:
    """An agent refuses unknown keys, so the example must keep up with the settings."""
    tables = tomllib.loads((COMPOSE.parent / "covey.toml").read_text())
    for name in tables.pop("apps", {}).values():
        msgspec.convert(name, AppSettings)
    for name, table in tables.items():
        msgspec.convert(table, SECTIONS[name])
    services = set(_compose()["services"])
    assert set(tables["network"]["seeds"]) <= services
    assert tables["uplink"]["host"] in services


def test_broker_keeps_what_it_acknowledges() -> None:
    lines = (COMPOSE.parent / "mosquitto" / "mosquitto.conf").read_text().splitlines()
    settings = dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))
    assert settings["persistence"] == "true"
    assert settings["autosave_interval"] == "1"
    assert settings["max_queued_messages"] == "0"


def test_what_the_readme_copies_can_be_checked(tmp_path: Path) -> None:
    """The sums are of all files of a release, and the page copies one of them."""
    [(wheel, check)] = re.findall(
        r"`dist/(covey-\S+\.whl)`.*?`(sha256sum --check [^`]*)`", (ROOT / "README.md").read_text(),
        re.DOTALL,
    )  # fmt: skip
    names = (wheel, "covey-0.1.0.cdx.json", "covey-0.1.0.requirements.txt")
    for name in names:
        (tmp_path / name).write_text(name)
    sums = subprocess.run(
        ["sha256sum", *names], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    (tmp_path / "SHA256SUMS").write_text(sums.stdout)
    for name in names[1:]:
        (tmp_path / name).unlink()
    checked = subprocess.run(check.split(), cwd=tmp_path, check=False, capture_output=True)
    assert checked.returncode == 0, checked.stderr
