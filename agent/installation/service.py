"""The agent as a service of this machine: put in place, looked at, taken away.

Everything can be done again at any time, also after an interruption: what is as it should be is
left alone. Each step says what it did.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from agent.exits import NOT_PERMITTED, AgentError
from agent.files.directories import make_directory
from agent.installation.files import (
    APP_SOCKET,
    APP_SOCKET_FILE,
    CONFIG_DIRECTORY,
    DROP_INS,
    EVERY_FILE,
    LAUNCHER_FILE,
    NO_USER_NAMESPACES,
    NO_USER_NAMESPACES_FILE,
    PROGRAM_MODE,
    SEAL_FILE,
    SEALED,
    SEALED_FILE,
    UNIT,
    UNIT_FILE,
    USERS_FILE,
    Content,
    contents,
    is_ours,
    launcher,
    marked,
    unit,
)
from agent.installation.sealing import provide
from agent.installation.system import System
from agent.installation.trial import needs_no_user_namespaces, restrictions_of

SHELLS_LOOK_IN = ("usr/local/bin", "usr/bin", "bin")
ASIDE = ".before-covey"
# Whatever root's own mask is: the service's user and every shell have to read these files.
OPEN_TO_READERS = 0o022
STATE = ("LoadState", "UnitFileState", "ActiveState", "StatusText", "NRestarts", "ExecMainStatus")


class Change(NamedTuple):
    """What was done with one file."""

    done: str
    place: Path


class SystemService:
    """The service of one machine. ``root`` is where the file system of that machine begins."""

    def __init__(self, program: Path, system: System, root: Path = Path("/")) -> None:
        self.program = program
        self._system, self._root = system, root

    def install(self, completions: Mapping[str, str]) -> Iterator[Change]:
        """Put everything in place, and say of each file what was done. Raises AgentError.

        ``completions`` has the script of each shell.
        """
        wanted = contents(self.program, completions)
        yield self._write(USERS_FILE, wanted.pop(USERS_FILE))
        self._system.make_users(self._root / USERS_FILE)
        restrictions = restrictions_of(wanted[UNIT_FILE].text)
        if needs_no_user_namespaces(restrictions, self.program, self._system):
            wanted[NO_USER_NAMESPACES_FILE] = marked(NO_USER_NAMESPACES)
        elif is_ours(self._root / NO_USER_NAMESPACES_FILE):
            yield self._remove(NO_USER_NAMESPACES_FILE)
        sealing = provide(self._system, self._root, restrictions)
        yield Change(sealing.done, self.seal)
        if sealing.is_on:
            wanted[SEALED_FILE] = marked(SEALED)
        if self._lacks_launcher():
            wanted[LAUNCHER_FILE] = launcher(self.program)
        yield self._own_configuration()
        for place, content in wanted.items():
            yield self._write(place, content)
        self._system.systemctl("daemon-reload")

    def start(self) -> None:
        """Start the service now and at each boot; one that runs is started anew."""
        self._system.systemctl("enable", "--quiet", APP_SOCKET, UNIT)
        self._system.systemctl("restart", APP_SOCKET, UNIT)

    def uninstall(self) -> Iterator[Change]:
        """Stop the service, and remove what ``install`` put in place, but neither data nor user."""
        if is_ours(self._root / UNIT_FILE):
            self._system.systemctl("disable", "--quiet", "--now", UNIT)
        if is_ours(self._root / APP_SOCKET_FILE):
            self._system.systemctl("disable", "--quiet", "--now", APP_SOCKET)
        for place in EVERY_FILE:
            if is_ours(self._root / place):
                yield self._remove(place)
        self._system.systemctl("daemon-reload")

    @property
    def seal(self) -> Path:
        """Where the key is with which the agent's own are sealed; it stays with the data."""
        return self._root / SEAL_FILE

    def installed(self) -> list[Path]:
        """Return the files of the service that are there, as people name them."""
        return [self._root / place for place in EVERY_FILE if is_ours(self._root / place)]

    def is_current(self) -> bool:
        """Say whether the unit is what this version of Covey would install."""
        try:
            return (self._root / UNIT_FILE).read_text() == marked(unit(self.program)).text
        except OSError:
            return False

    def unit_state(self) -> dict[str, str]:
        """Return what systemd says of the unit, under systemd's names. Raises AgentError."""
        return self._system.show(UNIT, *STATE)

    def _own_configuration(self) -> Change:
        """See to it that root has the directory of the configuration, which names what is run.

        Else systemd makes it for the unit's user, who is the agent (``ConfigurationDirectory=``).
        """
        path = self._root / CONFIG_DIRECTORY
        try:
            if not path.exists():
                make_directory(path, PROGRAM_MODE)
                return Change("made", path)
            if path.stat().st_uid == os.geteuid():
                return Change("unchanged", path)
            os.chown(path, os.geteuid(), os.getegid())
            path.chmod(PROGRAM_MODE)
        except OSError as error:
            raise _cannot_write(path, error) from None
        return Change("taken back: it was not root's", path)

    def _lacks_launcher(self) -> bool:
        """Say whether no shell would find a ``covey``, or only the one that we put there."""
        found = shutil.which("covey", path=":".join(str(self._root / p) for p in SHELLS_LOOK_IN))
        return found is None or is_ours(Path(found))

    def _write(self, place: Path, content: Content) -> Change:
        """Make a file say this. What is there and not ours is kept under another name."""
        path = self._root / place
        mask = os.umask(OPEN_TO_READERS)
        try:
            if is_ours(path) and path.read_text() == content.text:
                return Change("unchanged", path)
            done = "replaced" if is_ours(path) else "written"
            path.parent.mkdir(parents=True, exist_ok=True)
            if done == "written" and os.path.lexists(path):
                path.rename(path.with_name(path.name + ASIDE))
                done = f"written; what was there is now {path.name}{ASIDE}"
            fresh = path.with_name(f".{path.name}.new")
            fresh.unlink(missing_ok=True)
            with fresh.open("x") as file:  # follows no link: others may write in /usr/local, too
                file.write(content.text)
            fresh.chmod(content.mode)
            fresh.replace(path)
        except OSError as error:
            raise _cannot_write(path, error) from None
        finally:
            os.umask(mask)
        return Change(done, path)

    def _remove(self, place: Path) -> Change:
        """Remove a file of ours, and a directory of drop-ins that is empty then."""
        path = self._root / place
        path.unlink(missing_ok=True)
        if place.parent == DROP_INS:
            with suppress(OSError):
                path.parent.rmdir()
        return Change("removed", path)


def _cannot_write(path: Path, error: OSError) -> AgentError:
    return AgentError(
        f"cannot write {path}: {error.strerror}",
        "what was put in place until then stays; mend this, and run the same command again",
        NOT_PERMITTED,
    )
