"""Programs that the agent starts: what they are told, how they end, and as whom they run."""

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from agent.config.paths import Paths
from agent.programs import isolation, root_user
from agent.programs.app_keys import AppKeys
from agent.programs.child import AsThisUser, ChildProcess, Launch, Starter, start
from agent.programs.environment import passed_on
from agent.programs.isolation import Apartness, Programs
from agent.programs.root_user import USERS, AsOwnUsers, as_user
from agent.programs.systemd_user import ByService
from tests.support.patience import GIVE_UP_S

LAUNCHED = [sys.executable, "-P", "-m", "agent.programs.launched"]
SAY = "import os, sys; print(os.getuid(), os.getcwd(), sys.stdin.read()); sys.exit(3)"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change users")


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def play(scenario: Callable[[], Awaitable[None]], loop: str = "asyncio") -> None:
    async def limited() -> None:
        async with asyncio.timeout(GIVE_UP_S):
            await scenario()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(limited())


def python(script: str, directory: Path | None = None, **environment: str) -> Launch:
    command = (sys.executable, "-S", "-c", script)
    return Launch("probe", command, {"PATH": os.environ["PATH"], **environment}, directory)


async def output(child: ChildProcess) -> str:
    return (await child.stdout.read()).decode()


@contextmanager
def played_systemd(path: Path) -> Iterator[None]:
    """Start, for each connection, what ``covey-app@.service`` starts, with it as stdin."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    started: list[subprocess.Popen[bytes]] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                started.append(subprocess.Popen(LAUNCHED, stdin=connection.fileno()))

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield
        for process in started:
            process.wait(GIVE_UP_S)
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


@pytest.fixture(params=["this user", "a service"])
def starter(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Starter]:
    if request.param == "this user":
        yield AsThisUser()
        return
    with played_systemd(tmp_path / "launch.sock"):
        yield ByService(tmp_path / "launch.sock")


@pytest.mark.parametrize("loop", LOOPS)
def test_what_it_is_told_and_how_it_ends(starter: Starter, loop: str) -> None:
    async def scenario() -> None:
        child = await start(starter, python(SAY), b"told", merged=False)
        assert child.pid > 0
        assert (await output(child)).split()[::2] == [str(os.getuid()), "told"]
        assert await child.wait() == 3
        child.close()

    play(scenario, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_who_does_not_read_loses_no_answer(starter: Starter, loop: str) -> None:
    """It is gone before anybody could have written to it, or waited for it to read."""

    async def scenario() -> None:
        for _ in range(8):
            launch = Launch("probe", ("/bin/echo", "yes"), {})
            child = await start(starter, launch, b"x" * 512, merged=False)
            assert await output(child) == "yes\n"
            assert await child.wait() == 0
            child.close()

    play(scenario, loop)


def test_a_signal_reaches_all_that_it_started(starter: Starter) -> None:
    script = "import subprocess; subprocess.Popen(['sleep', '600']); print('up', flush=True);"
    script += "import time; time.sleep(600)"

    async def scenario() -> None:
        child = await start(starter, python(script), merged=True)
        assert await child.stdout.readline() == b"up\n"
        child.signal_group(signal.SIGTERM)
        assert await child.wait() == -signal.SIGTERM
        assert await output(child) == "", "the pipe ends: nobody holds it any more"
        child.close()

    play(scenario)


def test_what_cannot_be_started_is_said(starter: Starter) -> None:
    async def scenario() -> None:
        for command in (("/no/such/program",), ("/bin/echo", "a\0b")):
            with pytest.raises(OSError, match=r"No such file|null byte"):
                await start(starter, Launch("probe", command, {}), merged=True)
        with pytest.raises(OSError, match="null byte"):
            await start(starter, Launch("probe", ("/bin/echo",), {"A": "b\0c"}), merged=True)

    play(scenario)


@pytest.mark.parametrize("loop", LOOPS)
def test_no_file_of_ours_is_open_in_it(starter: Starter, loop: str) -> None:
    async def scenario() -> None:
        secret = os.open("/etc/hostname", os.O_RDONLY)
        os.set_inheritable(secret, True)
        script = "import os; print(len(os.listdir('/proc/self/fd')))"
        child = await start(starter, python(script), merged=True)
        assert (await output(child)).strip() == "4", "its three, and the one that lists them"
        await child.wait()
        child.close()
        os.close(secret)

    play(scenario, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_what_it_leaves_behind_with_files_of_its_own_keeps_nobody_waiting(
    starter: Starter, loop: str
) -> None:
    """Such as a service that a handler starts in the background, with its output elsewhere."""
    command = ("sh", "-c", "sleep 600 < /dev/null > /dev/null 2>&1 & echo done")
    launch = Launch("probe", command, {"PATH": os.environ["PATH"]})

    async def scenario() -> None:
        child = await start(starter, launch, merged=False)
        assert await output(child) == "done\n"
        assert await child.wait() == 0
        child.signal_group(signal.SIGKILL)
        child.close()

    play(scenario, loop)


def test_its_end_is_told_to_all_who_wait_also_when_one_gives_up() -> None:
    async def scenario() -> None:
        child = await start(AsThisUser(), python("import sys; sys.stdin.read()"), merged=True)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(child.wait(), 0.01)
        child.signal_group(signal.SIGTERM)
        assert await asyncio.gather(child.wait(), child.wait()) == [-signal.SIGTERM] * 2
        child.close()

    play(scenario)


def test_the_end_of_the_agent_is_the_end_of_its_services(tmp_path: Path) -> None:
    async def scenario() -> None:
        child = await start(
            ByService(tmp_path / "launch.sock"), python("import time; time.sleep(600)"), merged=True
        )
        child._process.release()  # what the system does with our end of the connection
        assert await output(child) == ""
        child.close()

    with played_systemd(tmp_path / "launch.sock"):
        play(scenario)


def test_a_service_that_is_lost_was_killed(tmp_path: Path) -> None:
    """systemd ends all of it when it takes too much memory: then nobody says how it ended."""

    async def scenario() -> None:
        async def forget(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b'{"pid": 7}\n')
            writer.close()

        server = await asyncio.start_unix_server(forget, tmp_path / "launch.sock")
        child = await start(ByService(tmp_path / "launch.sock"), python("1"), merged=True)
        assert (child.pid, await child.wait()) == (7, -signal.SIGKILL)
        child.signal_group(signal.SIGTERM)
        child.close()
        server.close()

    play(scenario)


@pytest.mark.parametrize("said", [b"", b"\n", b"[]\n", b'{"error": "no"}\n', b"nonsense\n"])
def test_a_service_that_starts_nothing_is_an_error(tmp_path: Path, said: bytes) -> None:
    async def scenario() -> None:
        async def refuse(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(said)
            writer.close()

        server = await asyncio.start_unix_server(refuse, tmp_path / "launch.sock")
        with pytest.raises(OSError, match=r"no|ended before"):
            await start(ByService(tmp_path / "launch.sock"), python("1"), merged=True)
        server.close()

    play(scenario)


def test_programs_are_told_the_door_and_their_own_key(tmp_path: Path) -> None:
    seen: list[Launch] = []

    class Noting(AsThisUser):
        async def start(self, launch: Launch, ends: Any) -> Any:
            seen.append(launch)
            return await super().start(launch, ends)

    async def scenario() -> None:
        programs = Programs(lambda: Apartness(Noting(), tmp_path, ""))
        for name in ("one", "two", "one"):
            child = await start(programs, Launch(name, ("/bin/true",), {}), merged=True)
            await child.wait()
            child.close()
        keys = [launch.environment["COVEY_API_TOKEN"] for launch in seen]
        assert keys[0] == keys[2] != keys[1]
        assert programs.keys.who_has(keys[1]) == "two"
        assert {launch.environment["COVEY_SOCKET"] for launch in seen} == {f"{tmp_path}/apps.sock"}

    play(scenario)


def test_a_key_is_nobody_elses() -> None:
    keys = AppKeys()
    first = keys.key_of("scale")
    assert keys.who_has(first) == "scale"
    assert [keys.who_has(each) for each in ("", "x", first[:-1], first + "x", "é")] == [""] * 5


def test_the_environment_is_a_list_of_what_is_passed_on() -> None:
    secrets = {"AWS_SECRET_ACCESS_KEY": "x", "COVEY_UPLINK__HOST": "x", "NOTIFY_SOCKET": "x"}
    ours = {"PATH": "/bin", "LANG": "C", "LC_ALL": "C", "TZ": "UTC"}
    assert passed_on({**secrets, **ours, "PORT": "1"}, ["PORT", "absent"]) == {**ours, "PORT": "1"}


# --- users of their own --------------------------------------------------------------------------


@needs_root
def test_root_starts_each_as_a_user_of_its_own() -> None:
    """Below /run, which others may enter, as they may not pytest's own directories."""
    homes = Path(f"/run/covey-test-{os.getpid()}-apps")

    async def said_by(name: str) -> list[str]:
        launch = python(SAY)._replace(name=name)
        child = await start(AsOwnUsers(homes), launch, b"told", merged=False)
        words = (await output(child)).split()
        assert await child.wait() == 3, await child.stderr.read()
        child.close()
        return words

    async def scenario() -> None:
        one, two, again = await said_by("one"), await said_by("two"), await said_by("one")
        assert one == again
        assert int(one[0]) in USERS
        assert int(two[0]) in USERS
        assert one[0] != two[0]
        assert one[1:] == [str(homes / "one"), "told"]
        assert stat.S_IMODE((homes / "one").stat().st_mode) == 0o700

    try:
        play(scenario)
    finally:
        subprocess.run(["rm", "-rf", str(homes)], check=True)


@needs_root
def test_a_program_of_its_own_user_cannot_read_our_keys(tmp_path: Path) -> None:
    key = tmp_path / "authority.key"
    key.write_text("secret")
    key.chmod(0o600)
    homes = Path(f"/run/covey-test-{os.getpid()}-apps")
    me = os.getpid()
    script = (
        "import os\n"
        f"for path in ({str(key)!r}, '/proc/{me}/mem', '/proc/{me}/environ', '/etc/shadow'):\n"
        "    try: open(path, 'rb').read(1); print('READ', path)\n"
        "    except OSError as error: print(type(error).__name__)\n"
        "status = dict(x.split(':', 1) for x in open('/proc/self/status').read().splitlines())\n"
        "print(status['CapEff'].strip(), status['CapBnd'].strip(), status['NoNewPrivs'].strip(),"
        " os.getgroups())\n"
    )

    async def scenario() -> None:
        child = await start(AsOwnUsers(homes), python(script), merged=True)
        *tried, rights = (await output(child)).splitlines()
        assert tried == ["PermissionError"] * 4
        assert rights == f"{0:016x} {0:016x} 1 []"
        await child.wait()
        child.close()

    try:
        play(scenario)
    finally:
        subprocess.run(["rm", "-rf", str(homes)], check=True)


def test_why_there_are_no_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run_as(user: int) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: user)

    run_as(1000)
    assert "does not run as root" in root_user.why_not(tmp_path)
    run_as(0)
    monkeypatch.setattr("shutil.which", lambda _name: None)
    assert "setpriv" in root_user.why_not(tmp_path)


@needs_root
def test_a_directory_that_others_cannot_enter_is_found(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    assert "cannot enter" in root_user.why_not(closed)


@needs_root
def test_a_library_that_others_cannot_read_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter goes on with the library of another one then, of whatever version."""
    monkeypatch.setattr(sys, "base_prefix", "/elsewhere")
    assert "cannot run" in root_user.why_not(Path("/run"))
    monkeypatch.setattr(root_user, "TRIAL", "")
    assert root_user.why_not(Path("/run")) == ""


def test_the_service_goes_by_its_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    paths = Paths.find(tmp_path, {}, 1000)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(isolation, "SERVICE_SOCKET", tmp_path / "launch.sock")
    assert "as root" in isolation.apartness_here(paths).lacking
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/covey")
    assert "service install" in isolation.apartness_here(paths).lacking
    (tmp_path / "launch.sock").touch()
    found = isolation.apartness_here(paths)
    assert found.is_apart
    assert isinstance(found.starter, ByService)
    assert found.door == Path("/run/covey-app")


def test_a_command_as_somebody_else_keeps_nothing() -> None:
    words: Sequence[str] = as_user(61184, ("app", "--x"))
    assert words[0] == "setpriv"
    assert words[-3:] == ("--", "app", "--x")
    assert {"--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"} < {*words}
