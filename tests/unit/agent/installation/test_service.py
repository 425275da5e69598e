"""The agent as a service: what is written where, what is left alone, what is refused.

systemd is played by a table of answers; a real one says the same in ``tests/devices``.
"""

import os
import pwd
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli import service as command
from agent.config.paths import Paths
from agent.exits import NO, NOT_FOUND, NOT_PERMITTED, AgentError
from agent.identity.seal import KEY_BYTES, Seal
from agent.installation import system as machine
from agent.installation.files import (
    APP_SOCKET_FILE,
    APP_UNIT_FILE,
    COMPLETION_FILES,
    CONFIG_DIRECTORY,
    IDENTITY,
    LAUNCHER_FILE,
    LOAD_SEAL,
    MARK,
    NO_USER_NAMESPACES_FILE,
    SEAL_FILE,
    SEALED_FILE,
    UNIT_FILE,
    USERS_FILE,
    quoted,
    shipped,
    unit,
)
from agent.installation.service import SystemService
from agent.installation.system import System
from agent.installation.trial import NO_USER, NOT_EXECUTED, PRIVATE_USERS, restrictions_of

PROGRAM = Path("/opt/covey/bin/covey")
SCRIPTS = {"bash": "complete covey\n", "zsh": "#compdef covey\n", "fish": "complete -c covey\n"}


class PlayedSystem(System):
    """A systemd that says whether a trial succeeds, and notes what is asked of it."""

    def __init__(self, *statuses: int, can_seal: bool = True, refused: int = 0) -> None:
        """``refused``: how many trials of the seal fail."""
        self.asked: list[str] = []
        self.tried: list[Sequence[str]] = []
        self._statuses = list(statuses)
        self._can_seal, self._refused = can_seal, refused
        self.sealed: list[Sequence[str]] = []
        self.loaded: list[str] = []
        self.is_cut_off = False

    def systemctl(self, *words: str) -> None:
        self.asked.append(" ".join(words))

    def make_users(self, file: Path) -> None:
        assert "u     covey" in file.read_text()
        self.asked.append("users")

    def status_under(self, restrictions: Sequence[str], *command: str) -> int:
        if command == ("systemd-creds", "cat", "covey.seal"):
            assert {"User=covey", "StandardOutput=null"} < set(restrictions)
            [credential] = [each for each in restrictions if each.startswith(LOAD_SEAL)]
            self.loaded.append(credential)
            if self.is_cut_off:
                raise KeyboardInterrupt
            self._refused -= 1
            return 0 if self._refused < 0 else 1
        assert command == (str(PROGRAM), "--version")
        self.tried.append(list(restrictions))
        return self._statuses.pop(0) if self._statuses else 0

    def output_of(self, *words: str, stdin: bytes) -> bytes | None:
        assert words[:2] == ("systemd-creds", "encrypt")
        assert len(stdin) == KEY_BYTES
        self.sealed.append(words[3:])
        return b"sealed" if self._can_seal else None


def install(root: Path, system: System, program: Path = PROGRAM) -> dict[str, str]:
    """Install, and return what was done with each file."""
    changes = SystemService(program, system, root).install(SCRIPTS)
    return {str(change.place.relative_to(root)): change.done for change in changes}


def sealed_identity(root: Path) -> None:
    """Put data there whose key another machine has."""
    (root / IDENTITY).mkdir(parents=True)
    sealed = Seal(bytes(KEY_BYTES), bytes(8)).close("node.key", b"secret")
    (root / IDENTITY / "node.key").write_bytes(sealed)


def files_below(root: Path) -> set[Path]:
    return {path.relative_to(root) for path in root.rglob("*") if path.is_file()}


# --- what is put in place -----------------------------------------------------------------------


def test_everything_is_put_in_place(tmp_path: Path) -> None:
    system = PlayedSystem()
    done = install(tmp_path, system)
    units = {UNIT_FILE, APP_UNIT_FILE, APP_SOCKET_FILE}
    sealing = {SEAL_FILE, SEALED_FILE}
    places = {USERS_FILE, *units, *sealing, LAUNCHER_FILE, *COMPLETION_FILES.values()}
    assert done.pop(str(CONFIG_DIRECTORY)) == "made"
    assert {Path(place) for place in done} == files_below(tmp_path) == places
    assert set(done.values()) == {"written"}
    assert system.asked == ["users", "daemon-reload"]
    assert f"ExecStart={PROGRAM} run\n" in (tmp_path / UNIT_FILE).read_text()
    started = f"ExecStart={quoted(sys.executable)} -P -m agent.programs.launched\n"
    assert started in (tmp_path / APP_UNIT_FILE).read_text()
    assert (tmp_path / COMPLETION_FILES["zsh"]).read_text().startswith("#compdef covey\n")


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_others_can_read_it_whatever_the_mask_is(tmp_path: Path, mask: int) -> None:
    """Root's mask may be strict; the service's user and every shell have to read the files."""
    before = os.umask(mask)
    try:
        install(tmp_path, PlayedSystem())
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes.pop(tmp_path / SEAL_FILE) == 0o600
    assert modes.pop((tmp_path / SEAL_FILE).parent) == 0o700
    for path, mode in modes.items():
        expected = 0o644 if path.is_file() and path != tmp_path / LAUNCHER_FILE else 0o755
        assert mode == expected, path


def test_again_changes_nothing(tmp_path: Path) -> None:
    install(tmp_path, PlayedSystem())
    assert set(install(tmp_path, PlayedSystem()).values()) == {"unchanged"}


def test_an_older_unit_of_ours_is_replaced(tmp_path: Path) -> None:
    install(tmp_path, PlayedSystem())
    (tmp_path / UNIT_FILE).write_text(f"[Service]\nExecStart=/old/covey run\n{MARK}\n")
    done = install(tmp_path, PlayedSystem())
    assert done[str(UNIT_FILE)] == "replaced"
    assert SystemService(PROGRAM, PlayedSystem(), tmp_path).is_current()
    assert not SystemService(Path("/elsewhere/covey"), PlayedSystem(), tmp_path).is_current()


def test_what_somebody_else_wrote_is_kept_aside(tmp_path: Path) -> None:
    mine = tmp_path / UNIT_FILE
    mine.parent.mkdir(parents=True)
    mine.write_text("[Service]\nExecStart=/home/ada/covey run\n")
    done = install(tmp_path, PlayedSystem())
    assert "covey.service.before-covey" in done[str(UNIT_FILE)]
    kept = mine.with_name("covey.service.before-covey")
    assert "/home/ada/covey" in kept.read_text()


def test_root_follows_no_link_that_others_have_laid(tmp_path: Path) -> None:
    """The group staff may write below /usr/local on many a Debian."""
    victim, passwords = tmp_path / "shadow", "root:*:1:0:99999:7:::\n"
    victim.write_text(passwords)
    for place in (LAUNCHER_FILE, *COMPLETION_FILES.values()):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).with_name(f".{place.name}.new").symlink_to(victim)
        (tmp_path / place).symlink_to(victim)
    install(tmp_path, PlayedSystem())
    assert victim.read_text() == passwords
    assert not (tmp_path / LAUNCHER_FILE).is_symlink()


def test_a_program_that_shells_find_is_left_alone(tmp_path: Path) -> None:
    """Where pipx has put its link already."""
    theirs = tmp_path / LAUNCHER_FILE
    theirs.parent.mkdir(parents=True)
    theirs.write_text("#!/bin/sh\n")
    theirs.chmod(0o755)
    assert str(LAUNCHER_FILE) not in install(tmp_path, PlayedSystem())
    assert theirs.read_text() == "#!/bin/sh\n"


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("/opt/covey/bin/covey", "/opt/covey/bin/covey"),
        ("/opt/my covey/bin/covey", '"/opt/my covey/bin/covey"'),
        ('/opt/50%/$x/"y\\', '"/opt/50%%/$$x/\\"y\\\\"'),
    ],
)
def test_a_path_is_one_word_of_the_unit(word: str, written: str) -> None:
    assert quoted(word) == written
    assert f"\nExecStart={written} run\n" in unit(Path(word))


def test_the_configuration_s_directory_is_root_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd makes one that is missing the agent's, who could then replace what it is told."""
    taken: list[tuple[Path, int, int]] = []
    monkeypatch.setattr(os, "chown", lambda path, user, group: taken.append((path, user, group)))
    place = tmp_path / CONFIG_DIRECTORY
    install(tmp_path, PlayedSystem())
    assert (taken, stat.S_IMODE(place.stat().st_mode)) == ([], 0o755)
    place.chmod(0o770)
    install(tmp_path, PlayedSystem())
    assert (taken, stat.S_IMODE(place.stat().st_mode)) == ([], 0o770), "what root chose stays"
    another = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: another)
    assert install(tmp_path, PlayedSystem())[str(CONFIG_DIRECTORY)].startswith("taken back")
    assert taken == [(place, another, os.getegid())]
    assert stat.S_IMODE(place.stat().st_mode) == 0o755


# --- what is tried first ------------------------------------------------------------------------


def test_the_trial_has_all_restrictions_of_the_unit() -> None:
    lines = set(restrictions_of(shipped("covey.service")))
    assert {
        PRIVATE_USERS,
        "User=covey",
        "ProtectHome=yes",
        "SystemCallFilter=@system-service",
    } < lines
    assert not [line for line in lines if line.startswith(("ExecStart", "Restart", "State", "["))]


def test_without_user_namespaces_there_is_a_drop_in(tmp_path: Path) -> None:
    system = PlayedSystem(NO_USER)
    assert install(tmp_path, system)[str(NO_USER_NAMESPACES_FILE)] == "written"
    first, second = system.tried
    assert set(first) - set(second) == {PRIVATE_USERS}
    assert "\nPrivateUsers=no\n" in (tmp_path / NO_USER_NAMESPACES_FILE).read_text()


def test_the_drop_in_goes_when_the_kernel_can(tmp_path: Path) -> None:
    install(tmp_path, PlayedSystem(NO_USER))
    assert install(tmp_path, PlayedSystem())[str(NO_USER_NAMESPACES_FILE)] == "removed"
    assert not (tmp_path / NO_USER_NAMESPACES_FILE).exists()
    list(SystemService(PROGRAM, PlayedSystem(), tmp_path).uninstall())
    assert not (tmp_path / NO_USER_NAMESPACES_FILE).parent.exists()


@pytest.mark.parametrize(
    ("statuses", "said", "status"),
    [
        ((NOT_EXECUTED,), "home directories are hidden", NOT_PERMITTED),
        ((1,), "home directories are hidden", NOT_PERMITTED),
        ((226,), "it says 226", NO),
        ((NO_USER, NO_USER), "it says 217", NO),
    ],
)
def test_what_could_not_start_is_not_installed(
    tmp_path: Path, statuses: tuple[int, ...], said: str, status: int
) -> None:
    with pytest.raises(AgentError, match=said) as caught:
        install(tmp_path, PlayedSystem(*statuses))
    assert caught.value.status == status
    assert not (tmp_path / UNIT_FILE).exists()
    assert not (tmp_path / CONFIG_DIRECTORY).exists()


# --- the key that seals the agent's own ---------------------------------------------------------


def test_the_seal_is_made_once_and_never_again(tmp_path: Path) -> None:
    """What is sealed with it is worth nothing without."""
    install(tmp_path, PlayedSystem())
    assert (tmp_path / SEAL_FILE).read_bytes() == b"sealed"
    (tmp_path / SEAL_FILE).write_bytes(b"mine")
    assert install(tmp_path, PlayedSystem())[str(SEAL_FILE)] == "unchanged"
    list(SystemService(PROGRAM, PlayedSystem(), tmp_path).uninstall())
    assert install(tmp_path, PlayedSystem())[str(SEALED_FILE)] == "written"
    assert (tmp_path / SEAL_FILE).read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("system", "said"),
    [
        (PlayedSystem(can_seal=False), "systemd 250"),
        (PlayedSystem(refused=9), "systemd cannot hand credentials"),
    ],
)
def test_where_systemd_cannot_there_is_no_seal(
    tmp_path: Path, system: PlayedSystem, said: str
) -> None:
    done = install(tmp_path, system)
    assert done[str(SEAL_FILE)].startswith("not made: ")
    assert said in done[str(SEAL_FILE)]
    assert (tmp_path / UNIT_FILE).exists()
    assert not (tmp_path / SEAL_FILE).exists()
    assert not (tmp_path / SEALED_FILE).exists()


def test_where_the_tpm_does_not_work_the_machine_s_key_does(tmp_path: Path) -> None:
    """systemd 252 seals with one that it then cannot open."""
    whole, half = PlayedSystem(), PlayedSystem(refused=1)
    assert install(tmp_path / "whole", whole)[str(SEAL_FILE)] == "written"
    assert whole.sealed == [("--with-key=auto", "--tpm2-pcrs=23", "-", "-")]
    assert install(tmp_path / "half", half)[str(SEAL_FILE)] == "written"
    assert half.sealed == [*whole.sealed, ("--with-key=host", "-", "-")]


def test_a_seal_that_does_not_open_here_is_kept_and_told(tmp_path: Path) -> None:
    install(tmp_path, PlayedSystem())
    with pytest.raises(AgentError, match="systemd cannot open") as caught:
        install(tmp_path, PlayedSystem(refused=9))
    assert f"rm {tmp_path / SEAL_FILE}" in caught.value.hint, "nothing is sealed with it"
    sealed_identity(tmp_path)
    with pytest.raises(AgentError, match="sealed on another one") as caught:
        install(tmp_path, PlayedSystem(refused=9))
    assert "--replace" in caught.value.hint
    assert (tmp_path / SEAL_FILE).exists()


def test_where_keys_are_sealed_already_no_other_seal_is_made(tmp_path: Path) -> None:
    """Data of another machine, or a seal that was moved away."""
    sealed_identity(tmp_path)
    with pytest.raises(AgentError, match=r"node\.key is sealed, and .* is not on this") as caught:
        install(tmp_path, PlayedSystem())
    assert not {SEAL_FILE, UNIT_FILE} & files_below(tmp_path)
    for what_to_do in ("mkdir -p -m 700", "systemd-creds encrypt", "--replace NAME TOKEN"):
        assert what_to_do in caught.value.hint
    (tmp_path / SEAL_FILE).parent.mkdir(mode=0o700)
    (tmp_path / SEAL_FILE).write_bytes(b"mine")
    assert install(tmp_path, PlayedSystem())[str(SEAL_FILE)] == "unchanged"


def test_a_seal_that_was_never_tried_is_none(tmp_path: Path) -> None:
    """Cut off in the trial: it may not open, and nothing is sealed with it."""
    system = PlayedSystem()
    system.is_cut_off = True
    with pytest.raises(KeyboardInterrupt):
        install(tmp_path, system)
    assert SEAL_FILE not in files_below(tmp_path)
    [tried] = system.loaded
    assert tried.startswith(f"{LOAD_SEAL}:"), "the one that was not yet in place"
    done = install(tmp_path, PlayedSystem(refused=1))
    assert done[str(SEAL_FILE)] == "written"
    assert {path.name for path in (tmp_path / SEAL_FILE).parent.iterdir()} == {SEAL_FILE.name}


# --- taking away --------------------------------------------------------------------------------


def test_uninstall_removes_what_install_put_there(tmp_path: Path) -> None:
    install(tmp_path, PlayedSystem(NO_USER))
    mine = tmp_path / "etc/systemd/system/covey.service.d/mine.conf"
    mine.write_text("[Service]\n")
    system = PlayedSystem()
    removed = {change.place for change in SystemService(PROGRAM, system, tmp_path).uninstall()}
    assert files_below(tmp_path) == {mine.relative_to(tmp_path), SEAL_FILE}
    assert tmp_path / LAUNCHER_FILE in removed
    both = ("covey.service", "covey-app.socket")
    assert system.asked == [*(f"disable --quiet --now {each}" for each in both), "daemon-reload"]


def test_uninstall_leaves_what_others_put_there(tmp_path: Path) -> None:
    install(tmp_path, PlayedSystem())
    (tmp_path / UNIT_FILE).write_text("[Service]\nExecStart=/home/ada/covey run\n")
    system = PlayedSystem()
    assert list(SystemService(PROGRAM, system, tmp_path).uninstall())
    assert files_below(tmp_path) == {UNIT_FILE, SEAL_FILE}
    assert system.asked == ["disable --quiet --now covey-app.socket", "daemon-reload"]
    assert not list(SystemService(PROGRAM, system, tmp_path).uninstall())


# --- who may, and where -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("active", "enabled", "advice"),
    [
        ("active", True, ""),
        ("failed", True, "why it failed; mend that, then `systemctl start covey`"),
        ("failed", False, "why it failed; mend that, then `systemctl enable --now covey`"),
        ("inactive", True, "`systemctl start covey`; `journalctl -u covey` says why it ended"),
        ("activating", True, "`journalctl -u covey` says what it waits for"),
    ],
)
def test_the_status_says_what_to_do_in_each_state(
    active: str, advice: str, *, enabled: bool
) -> None:
    answer = {"installed": True, "current": True, "active": active, "enabled": enabled}
    told = command._advice(answer)
    assert advice in told
    assert bool(told) is bool(advice)


@pytest.mark.parametrize(
    ("caller", "named"), [("ann", ["ann"]), ("bo", []), ("", ["ann"]), ("root", [])]
)
def test_people_with_agents_of_their_own_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caller: str, named: list[str]
) -> None:
    """Of whoever typed sudo; else of all whose agents could be meant. A service is nobody's."""
    people = {
        name: pwd.struct_passwd((name, "x", uid, uid, "", str(tmp_path / home), "/bin/sh"))
        for name, uid, home in (
            ("root", 0, "ann"), ("daemon", 33, "ann"), ("ann", 1000, "ann"), ("bo", 1001, "bo"),
        )
    }  # fmt: skip
    monkeypatch.setattr(pwd, "getpwnam", people.__getitem__)
    monkeypatch.setattr(pwd, "getpwall", lambda: list(people.values()))
    monkeypatch.setenv("SUDO_USER", caller)
    where = Paths.find(None, {"HOME": str(tmp_path / "ann")}, 1000)
    where.identity.mkdir(parents=True)
    (where.identity / "identity.json").touch()
    assert list(command._people_with_agents()) == [(name, where.data) for name in named]


@pytest.mark.parametrize("verb", ["install", "uninstall"])
def test_only_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verb: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(machine, "BOOTED_WITH_SYSTEMD", tmp_path)
    result = CliRunner().invoke(command.service, [verb])
    assert isinstance(result.exception, AgentError)
    assert result.exception.status == NOT_PERMITTED
    assert "sudo" in result.exception.hint


def test_what_root_is_to_type_is_what_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr("sys.argv", ["/opt/my covey/bin/covey", "service", "install", "--now"])
    with pytest.raises(AgentError) as caught:
        System().require_root()
    assert "`sudo '/opt/my covey/bin/covey' service install --now`" in caught.value.hint


@pytest.mark.parametrize("verb", ["install", "uninstall", "status"])
def test_only_where_systemd_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verb: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(machine, "BOOTED_WITH_SYSTEMD", tmp_path / "absent")
    result = CliRunner().invoke(command.service, [verb])
    assert isinstance(result.exception, AgentError)
    assert result.exception.status == NOT_FOUND
    assert "there is no service" in result.exception.message
    assert "covey run" in result.exception.hint
