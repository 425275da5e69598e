"""Where one agent keeps its files: its configuration, its data and its socket.

Three kinds of places, because they live differently long: the configuration is written by
people, the data must survive everything, and the runtime directory vanishes at reboot. They
are found in this order, the first that applies:

1. ``--dir PATH`` or ``COVEY_DIR``: all under one folder, so that many agents share a machine;
2. what systemd hands its services (``STATE_DIRECTORY`` and its siblings, systemd.exec(5));
3. for root: ``/etc/covey``, ``/var/lib/covey``, ``/run/covey``, the same that the unit uses;
4. for everybody else: the XDG base directories.

Nothing is asked for that is not needed: a service's user may have no home and no entry in the
list of users, and a person may stand in a directory that is gone.

The standard library is enough for this, and it is imported by every command: keep it light.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from agent.exits import NOT_PERMITTED, USAGE, AgentError

CONFIG_NAME = "covey.toml"
PRIVATE_DIRECTORY_MODE = 0o700
# sockaddr_un.sun_path has 108 bytes on Linux, with the closing zero (unix(7)).
SOCKET_PATH_BYTES_MAX = 107
SYSTEM_CONFIG = Path("/etc/covey")
SYSTEM_DATA = Path("/var/lib/covey")
SYSTEM_SOCKET = Path("/run/covey/covey.sock")
SYSTEM_UNITS = (
    Path("/etc/systemd/system/covey.service"),
    Path("/usr/lib/systemd/system/covey.service"),
)


class Paths(NamedTuple):
    """The three places of one agent, and the files in them."""

    config_file: Path
    data: Path
    runtime: Path

    @staticmethod
    def find(
        directory: Path | None = None,
        environ: Mapping[str, str] | None = None,
        user_id: int | None = None,
    ) -> "Paths":
        """Return the places; nothing is created. ``directory`` is what ``--dir`` said.

        ``environ`` and ``user_id`` are those of the process unless given. Raises AgentError when
        nothing says where, and for a directory that has no name.
        """
        environ = os.environ if environ is None else environ
        user_id = os.geteuid() if user_id is None else user_id
        chosen = directory or _path(environ.get("COVEY_DIR"))
        if chosen is not None:
            chosen = _whole(chosen)
            return Paths(chosen / CONFIG_NAME, chosen / "data", chosen)
        usual = _for_root() if user_id == 0 else _for_user(environ, _home(environ), user_id)
        config = _path(environ.get("CONFIGURATION_DIRECTORY")) or usual.config
        data = _path(environ.get("STATE_DIRECTORY")) or usual.data
        if data is None:
            raise AgentError(
                f"this user ({user_id}) has no home directory to keep an agent's files in",
                "name a place with --dir PATH or COVEY_DIR",
                USAGE,
            )
        return Paths(
            config_file=config / CONFIG_NAME,
            data=data,
            runtime=_path(environ.get("RUNTIME_DIRECTORY")) or usual.runtime or data,
        )

    @staticmethod
    def of_service() -> "Paths":
        """Return the places of the agent that is a service of this machine, and of root's."""
        return Paths(SYSTEM_CONFIG / CONFIG_NAME, SYSTEM_DATA, SYSTEM_SOCKET.parent)

    @staticmethod
    def is_chosen(environ: Mapping[str, str] | None = None) -> bool:
        """Say whether a variable of the environment says where an agent is."""
        environ = os.environ if environ is None else environ
        return bool(environ.get("COVEY_DIR") or environ.get("RUNTIME_DIRECTORY"))

    @property
    def socket(self) -> Path:
        """The Unix socket of the HTTP API."""
        return self.runtime / "covey.sock"

    @property
    def app_wishes(self) -> Path:
        """What was asked of apps: which are to run."""
        return self.data / "apps.json"

    @property
    def app_door(self) -> Path:
        """The Unix socket of the HTTP API for apps, in a directory of its own."""
        return self.runtime / "apps" / "apps.sock"

    @property
    def app_homes(self) -> Path:
        """The directories of apps that are users of their own; beside ours, which is closed."""
        return self.data.with_name(f"{self.data.name}-apps")

    @property
    def lock(self) -> Path:
        """The file that a running agent holds locked, so that there is only one."""
        return self.data / "lock"

    @property
    def identity(self) -> Path:
        """The directory of the node's key, certificate and cluster credentials."""
        return self.data / "identity"

    @property
    def parting(self) -> Path:
        """The note that this node has left its covey; missing while it belongs."""
        return self.data / "parting"

    @property
    def removed(self) -> Path:
        """Where a node that was removed keeps what it held for others, for a day."""
        return self.data / "removed"

    @property
    def wipe_mark(self) -> Path:
        """The note that what lies here for the covey is to be deleted at the next start."""
        return self.data / "wipe"

    @property
    def control_db(self) -> Path:
        """What must never be lost: registry, tokens, starts, known peers."""
        return self.data / "control.db"

    @property
    def consensus_db(self) -> Path:
        """What the voters agree on, and what this node has promised them."""
        return self.data / "consensus.db"

    @property
    def data_db(self) -> Path:
        """The records of the partitions that this node owns."""
        return self.data / "data.db"

    @property
    def telemetry_db(self) -> Path:
        """The outbox of readings."""
        return self.data / "telemetry.db"

    @property
    def blocks(self) -> Path:
        """The bodies of the blocks of files that lie on this device."""
        return self.data / "blocks"

    @property
    def audit_db(self) -> Path:
        """What was changed by way of this agent's API, and who did it."""
        return self.data / "audit.db"

    @property
    def fleet_settings(self) -> Path:
        """What the covey has set for this device."""
        return self.data / "fleet.json"

    @property
    def ballast(self) -> Path:
        """Room that is kept for a start on a full disk."""
        return self.data / "ballast"

    @property
    def run_mark(self) -> Path:
        """The mark of an agent that runs."""
        return self.data / "running"

    @property
    def app_logs(self) -> Path:
        """The directory of what apps print."""
        return self.data / "app-logs"

    @property
    def api_token(self) -> Path:
        """The bearer token of the TCP API, unless the configuration names another file."""
        return self.data / "api-token"

    @property
    def metrics_token(self) -> Path:
        """The token that opens the metrics alone, unless the configuration names another file."""
        return self.data / "metrics-token"

    @property
    def on_trial(self) -> Path:
        """The note of what is being taken in; it outlives the process, and no reboot."""
        return self.runtime / "on-trial"

    @property
    def set_aside(self) -> Path:
        """What ended this agent, and how often."""
        return self.data / "set-aside.json"

    def create(self) -> None:
        """Make the data and runtime directories, for this user only where they are new.

        Raises AgentError when the file system refuses.
        """
        self.create_data()
        self.create_runtime()

    def create_data(self) -> None:
        """Make the data directory alone: all that is needed to write an identity."""
        _create(self.data)

    def create_runtime(self) -> None:
        """Make the directory of the socket alone, which may vanish while an agent runs."""
        _create(self.runtime)


def may_be_there(path: Path) -> bool:
    """Say whether there is something at a path; True also where this user may not look."""
    try:
        path.lstat()
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def service_is_installed() -> bool:
    """Say whether an agent is a service of this machine, whether it runs or not."""
    return any(map(may_be_there, SYSTEM_UNITS))


class _Usual(NamedTuple):
    """The directories of some kind of user; None where such a user has none."""

    config: Path
    data: Path | None
    runtime: Path | None


def _create(directory: Path) -> None:
    from agent.files.directories import make_directory  # which hardly any command needs

    try:
        make_directory(directory, PRIVATE_DIRECTORY_MODE)
    except OSError as error:
        raise AgentError(
            f"cannot make the directory {directory}: {error.strerror}; nothing was changed",
            "choose another place with --dir PATH or COVEY_DIR, or run as a user who may write "
            "there",
            NOT_PERMITTED,
        ) from None


def _path(text: str | None) -> Path | None:
    """Read a directory variable. systemd joins several with colons; the first is ours."""
    first = (text or "").split(":", 1)[0]
    return Path(first) if first else None


def _whole(chosen: Path) -> Path:
    """Return a directory with its whole name. Raises AgentError when there is none."""
    try:
        return chosen.expanduser().absolute()
    except (RuntimeError, OSError):  # "~nobody", or the working directory is gone
        raise AgentError(
            f"nobody knows where {chosen} is: this user has no home, or its directory is gone",
            "give --dir or COVEY_DIR a name that begins with /",
            USAGE,
        ) from None


def _home(environ: Mapping[str, str]) -> Path | None:
    try:
        return _path(environ.get("HOME")) or Path.home()
    except RuntimeError:  # no such variable, and no entry in the list of users
        return None


def _for_root() -> _Usual:
    return _Usual(SYSTEM_CONFIG, SYSTEM_DATA, SYSTEM_SOCKET.parent)


def _for_user(environ: Mapping[str, str], home: Path | None, user_id: int) -> _Usual:
    """Return the XDG places; without a runtime directory of their own, the data directory serves.

    Who has no home is a service, and reads the system's configuration.
    """
    config = _path(environ.get("XDG_CONFIG_HOME")) or (home and home / ".config")
    data = _path(environ.get("XDG_DATA_HOME")) or (home and home / ".local" / "share")
    runtime = _path(environ.get("XDG_RUNTIME_DIR"))
    if runtime is not None and _is_of_another(runtime, user_id):
        runtime = None
    return _Usual(
        config / "covey" if config else SYSTEM_CONFIG,
        data / "covey" if data else None,
        runtime / "covey" if runtime else None,
    )


def _is_of_another(directory: Path, user_id: int) -> bool:
    """Say whether a directory is another user's: `su` and `sudo -E` keep the former's variable.

    A runtime directory has to be owned by its user (XDG Base Directory Specification).
    """
    try:
        return directory.stat().st_uid != user_id
    except FileNotFoundError:
        return False
    except OSError:
        return True
