"""What the system refuses is an error with a sentence and a status, never a stack trace."""

import grp
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent import exits
from agent.cli import errors
from agent.cli.errors import run_to_status
from agent.cli.root import root
from agent.cli.session import Session
from agent.config.paths import Paths, may_be_there
from edge_apps.client import AgentForbidden
from tests.support.patience import GIVE_UP_S

Refuse = Callable[[type[OSError]], None]

COMMANDS = (
    ["init"], ["join", "covey1-x"], ["join"], ["leave"], ["token", "create"], ["run"], ["status"],
    ["members"], ["kv", "get", "k"], ["doctor"], ["config", "show"], ["config", "check"],
    ["publish", "t", "1"], ["readings"], ["outbox"], ["app", "list"], ["events"], ["facts", "list"],
)  # fmt: skip


def covey(*arguments: str) -> int:
    return run_to_status(root, list(arguments))


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    for name in ("COVEY_DIR", "RUNTIME_DIRECTORY", "STATE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_standard_files_that_are_closed_lead_nowhere(tmp_path: Path, closed: str) -> None:
    """As careless scripts leave them; a database must not get their numbers."""
    program = (
        "import os, sys; from agent.cli import _open_standard_files as begin; begin();"
        "import sqlite3; store = sqlite3.connect(sys.argv[1]); store.execute('create table t (a)');"
        "print('to a person', file=sys.stderr); print('result'); sys.stdout.flush();"
        "files = {os.readlink(f'/proc/self/fd/{number}') for number in range(3)};"
        "sys.exit(3 if sys.argv[1] in files else 0)"
    )
    store = tmp_path / "t.db"
    shell = f'exec "$0" -c "$1" "$2" {closed}'
    words = ["sh", "-c", shell, sys.executable, program, str(store)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.replace("to a person\n", "")) == (0, "")
    assert b"to a person" not in store.read_bytes()
    command = [sys.executable, "-m", "agent", "--version"]
    status = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *command], capture_output=True, check=False
    )
    assert (status.returncode, status.stderr) == (0, b"")


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Refuse:
    """Have every look at a file below the directory fail, as another user's directory does."""

    def begin(kind: type[OSError]) -> None:
        number = {PermissionError: 13, NotADirectoryError: 20, OSError: 5}[kind]

        def refused(path: object, *_: object, **__: object) -> object:
            raise kind(number, os.strerror(number), str(path))

        def guard(function: Callable[..., object]) -> Callable[..., object]:
            def guarded(path: object, *rest: object, **named: object) -> object:
                below = isinstance(path, str | Path) and str(path).startswith(str(tmp_path))
                return (refused if below else function)(path, *rest, **named)

            return guarded

        for name in ("stat", "lstat", "open", "mkdir", "listdir", "scandir", "access"):
            monkeypatch.setattr(os, name, guard(getattr(os, name)))
        monkeypatch.setattr("io.open", guard(open))
        monkeypatch.setattr("builtins.open", guard(open))

        def connect(_self: object, address: object) -> None:
            refused(address)

        monkeypatch.setattr("socket.socket.connect", connect, raising=False)

    return begin


@pytest.mark.parametrize("kind", [PermissionError, NotADirectoryError, OSError])
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_no_command_ends_in_a_stack_trace(
    arguments: list[str], kind: type[OSError], tmp_path: Path, refuse: Refuse
) -> None:
    """An exception that gets out of ``run_to_status`` is a stack trace on the terminal."""
    refuse(kind)
    status = covey("--dir", str(tmp_path / "a"), *arguments)
    expected = {exits.NO, exits.UNREACHABLE, exits.UNHEALTHY, exits.NOT_PERMITTED}
    assert status in expected | {exits.BAD_CONFIG, exits.USAGE, exits.TOKEN_UNKNOWN}


def test_what_the_system_said_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    import click

    @click.command()
    def stumble() -> None:
        raise PermissionError(13, "Permission denied", "/a\x1b[1m")

    assert run_to_status(stumble, []) == exits.NOT_PERMITTED
    told = capsys.readouterr().err
    assert told.startswith("error: /a\\x1b[1m: Permission denied\nhint: ")


# ---- an ordinary user beside the service --------------------------------------------------------


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stand in for /run/covey, with a socket on which somebody listens."""
    directory = tmp_path / "run"
    directory.mkdir(mode=0o750)
    monkeypatch.setattr("agent.config.paths.SYSTEM_SOCKET", directory / "covey.sock")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "user"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "covey.sock"))
        yield directory


def test_who_has_no_agent_means_the_service(service: Path) -> None:
    assert Session().client().socket_path == service / "covey.sock"
    own = Paths.find().socket
    own.parent.mkdir(parents=True)
    if os.getuid() == 0:
        os.chown(own.parents[1], os.geteuid(), -1)  # else it is another user's
    own.touch()
    assert Session().client().socket_path == own
    own.unlink()
    (service / "covey.sock").unlink()
    assert Session().client().socket_path == own


def test_a_service_that_does_not_run_is_to_be_started(
    service: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Whoever is told to start an agent would start one of their own beside it."""
    (service / "covey.sock").unlink()
    unit = tmp_path / "covey.service"
    unit.touch()
    monkeypatch.setattr("agent.config.paths.SYSTEM_UNITS", (unit,))
    assert covey("members") == exits.UNREACHABLE
    told = capsys.readouterr().err
    assert f"no agent listens on {service}/covey.sock" in told
    assert "`sudo systemctl start covey`" in told
    Paths.find().identity.mkdir(parents=True)
    assert Session().client().socket_path == Paths.find().socket, "this user has an agent"


def test_who_means_the_service_is_shown_the_services_files(
    service: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """And founds no covey of their own beside it when nobody listens there."""
    monkeypatch.setattr("agent.config.paths.SYSTEM_CONFIG", tmp_path)
    monkeypatch.setattr("agent.config.paths.SYSTEM_DATA", tmp_path / "data")
    (tmp_path / "covey.toml").write_text("[network]\nport = 7000\n")
    assert covey("config", "show", "-o", "json") == exits.YES
    told = json.loads(capsys.readouterr().out)["settings"]
    assert {each["setting"]: each["value"] for each in told}["network.port"] == 7000
    assert covey("init") == exits.UNREACHABLE
    assert not Paths.find().data.exists()
    assert covey("doctor") == exits.UNHEALTHY
    assert f"{tmp_path}/covey.toml" in capsys.readouterr().out


def test_an_app_for_the_service_goes_where_the_service_sees_it(
    service: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("agent.config.paths.SYSTEM_UNITS", (service,))
    monkeypatch.setattr("agent.doctor.config_checks.HIDDEN", (tmp_path,))
    monkeypatch.chdir(tmp_path)
    assert covey("app", "new", "attic") == exits.YES
    told = capsys.readouterr().err
    assert "`sudo cp attic.py /etc/covey/attic.py`" in told
    assert 'path = "/etc/covey/attic.py"' in told
    own = tmp_path / "own"
    assert covey("--dir", str(own), "app", "new", "shed") == exits.YES
    assert f'path = "{tmp_path}/shed.py"' in capsys.readouterr().err


def test_the_doctor_does_not_judge_what_it_may_not_see(
    service: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("agent.config.paths.SYSTEM_DATA", tmp_path)
    monkeypatch.setattr(os, "access", lambda path, _mode: path != tmp_path)
    covey("doctor")
    told = capsys.readouterr().out
    assert f"{tmp_path} is for its owner alone" in told
    assert "certificate" not in told


def test_who_names_an_agent_means_that_one(service: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Session(Path("/other")).client().socket_path == Path("/other/covey.sock")
    monkeypatch.setenv("COVEY_DIR", "/third")
    assert Session().client().socket_path == Path("/third/covey.sock")


def test_a_stranger_is_told_which_group_to_join(
    service: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(_self: object, _timeout_s: object) -> None:
        raise AgentForbidden(service / "covey.sock")

    monkeypatch.setattr("edge_apps.client.Client._connect", refused)
    monkeypatch.setattr(errors, "_group_of", lambda directory: directory.name)
    for arguments in (["members"], ["init"], ["join", "covey1-x"], ["leave"], ["kv", "get", "k"]):
        assert covey(*arguments) == exits.NOT_PERMITTED
        told = capsys.readouterr().err
        assert f"may not speak to the agent at {service}/covey.sock" in told
        assert "sudo usermod -aG run " in told


def test_only_a_group_that_may_enter_is_advised(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert errors._group_of(tmp_path) == ""
    tmp_path.chmod(0o750)
    number = tmp_path.stat().st_gid
    assert errors._group_of(tmp_path) == (grp.getgrgid(number).gr_name if number else "")
    assert errors._group_of(tmp_path / "missing") == ""


def test_what_may_not_be_looked_at_may_be_there(refuse: Refuse, tmp_path: Path) -> None:
    assert not may_be_there(tmp_path / "a")
    refuse(PermissionError)
    assert may_be_there(tmp_path / "a")


# ---- nobody, nowhere ----------------------------------------------------------------------------

NOBODY = """
import os, sys, pwd
def unknown(*_): raise KeyError
pwd.getpwuid = unknown
os.geteuid = lambda: 61184
from agent.cli import main
sys.argv = ["covey", *sys.argv[1:]]
main()
"""


def as_nobody(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user whom no list of users has, with these variables alone."""
    return subprocess.run(
        [sys.executable, "-c", NOBODY, *arguments],
        capture_output=True, text=True, check=False, env=environ, cwd="/", timeout=GIVE_UP_S,
    )  # fmt: skip


def test_a_service_without_home_needs_none(tmp_path: Path) -> None:
    done = as_nobody("config", "show", STATE_DIRECTORY=str(tmp_path), RUNTIME_DIRECTORY="/run/x")
    assert done.returncode == exits.YES, done.stderr
    assert as_nobody("simulate", "--nodes", "2", "--seconds", "10").returncode == exits.YES


@pytest.mark.parametrize(
    "arguments",
    [["config", "show"], ["config", "check"], ["app", "list"], ["status"], ["doctor"]],
    ids=" ".join,
)
def test_a_home_in_the_configuration_of_who_has_none(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "covey.toml").write_text('[apps.door]\npath = "~/door.py"\n')
    done = as_nobody("--dir", str(tmp_path), *arguments)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["status"], ["--dir", "~/a", "status"]], ids=str)
def test_nobody_is_told_to_name_a_place(arguments: list[str]) -> None:
    done = as_nobody(*arguments)
    assert done.returncode == exits.USAGE
    assert done.stderr.startswith("error: ")
    assert "COVEY_DIR" in done.stderr


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    program = (
        "import os, sys\nos.rmdir(os.getcwd())\nsys.argv = ['covey', '--dir', 'a', 'status']\n"
        "from agent.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=False, cwd=tmp_path, timeout=GIVE_UP_S,
    )  # fmt: skip
    assert done.returncode == exits.USAGE
    assert done.stderr.startswith("error: nobody knows where a is")
