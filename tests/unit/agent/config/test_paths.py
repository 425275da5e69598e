"""Where an agent keeps its files, for each kind of caller."""

import os
import stat
from pathlib import Path

import pytest

from agent.config.paths import Paths
from agent.exits import NOT_PERMITTED, AgentError

SYSTEMD = {
    "STATE_DIRECTORY": "/var/lib/private/covey:/var/lib/other",
    "RUNTIME_DIRECTORY": "/run/covey-1",
    "CONFIGURATION_DIRECTORY": "/etc/covey-1",
}


def test_one_folder_holds_all(tmp_path: Path) -> None:
    paths = Paths.find(tmp_path, SYSTEMD, user_id=0)
    assert paths == Paths(tmp_path / "covey.toml", tmp_path / "data", tmp_path)
    assert paths.socket == tmp_path / "covey.sock"


def test_option_beats_variable(tmp_path: Path) -> None:
    environ = {"COVEY_DIR": "/elsewhere"}
    assert Paths.find(tmp_path, environ).runtime == tmp_path
    assert Paths.find(None, environ).runtime == Path("/elsewhere")


def test_relative_folder_becomes_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert Paths.find(Path("a"), {}).data == tmp_path / "a" / "data"


def test_systemd_variables_come_before_the_user(tmp_path: Path) -> None:
    expected = Paths(
        Path("/etc/covey-1/covey.toml"), Path("/var/lib/private/covey"), Path("/run/covey-1")
    )
    assert Paths.find(None, SYSTEMD, user_id=0) == expected
    assert Paths.find(None, {**SYSTEMD, "HOME": str(tmp_path)}, user_id=1000) == expected


def test_root() -> None:
    expected = Paths(Path("/etc/covey/covey.toml"), Path("/var/lib/covey"), Path("/run/covey"))
    assert Paths.find(None, {"HOME": "/root"}, user_id=0) == expected


def test_user() -> None:
    paths = Paths.find(None, {"HOME": "/home/ada", "XDG_RUNTIME_DIR": "/run/user/7"}, user_id=7)
    assert paths == Paths(
        Path("/home/ada/.config/covey/covey.toml"),
        Path("/home/ada/.local/share/covey"),
        Path("/run/user/7/covey"),
    )


def test_user_without_runtime_directory() -> None:
    environ = {"XDG_DATA_HOME": "/data", "XDG_CONFIG_HOME": "/config"}
    paths = Paths.find(None, {"HOME": "/h", **environ}, user_id=7)
    assert paths == Paths(
        Path("/config/covey/covey.toml"), Path("/data/covey"), Path("/data/covey")
    )


def test_the_runtime_directory_of_somebody_else_is_not_ours(tmp_path: Path) -> None:
    """`su` keeps the variable: the socket would be where this user may not look."""
    environ = {"HOME": "/home/ada", "XDG_RUNTIME_DIR": str(tmp_path)}
    owner = tmp_path.stat().st_uid or 0
    data = Path("/home/ada/.local/share/covey")
    assert Paths.find(None, environ, user_id=owner + 7).runtime == data
    (tmp_path / "file").touch()
    below = {**environ, "XDG_RUNTIME_DIR": str(tmp_path / "file" / "run")}
    assert Paths.find(None, below, user_id=owner + 7).runtime == data


def test_made_directories_are_private(tmp_path: Path) -> None:
    paths = Paths.find(tmp_path / "new", {})
    paths.create()
    assert paths.data.stat().st_mode & 0o777 == 0o700
    paths.create()  # twice does no harm


@pytest.mark.parametrize("mask", [0o000, 0o077, 0o777])
def test_directories_have_their_mode_whatever_the_mask_is(tmp_path: Path, mask: int) -> None:
    paths = Paths.find(tmp_path / "new" / "far" / "down", {})
    before = os.umask(mask)
    try:
        paths.create()
    finally:
        os.umask(before)
    for place, mode in (
        (paths.data, 0o700),
        (paths.runtime, 0o755),
        (paths.runtime.parent, 0o755),
        (tmp_path / "new", 0o755),
    ):
        assert stat.S_IMODE(place.stat().st_mode) == mode, place


def test_nobody_makes_directories_past_the_mask() -> None:
    """``mkdir`` with a mode alone gives another one under another mask."""
    allowed = {"directories.py", "private_files.py", "service.py", "fleet.py", "setup.py"}
    agent = Path(__file__).parents[4] / "agent"
    found = {file.name for file in agent.rglob("*.py") if ".mkdir(" in file.read_text()}
    assert found <= allowed


def test_where_nothing_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AgentError) as caught:
        Paths.find(tmp_path / "file" / "below", {}).create()
    assert caught.value.status == NOT_PERMITTED
    assert "--dir" in caught.value.hint
