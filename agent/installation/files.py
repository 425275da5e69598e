"""The files of a service: what they say on this machine, and where they belong.

All of them go where administrators put theirs (/etc and /usr/local), so that they never meet those
of a package. Each ends with a line by which we know our own again; what lacks it is somebody
else's.
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from agent.config.credentials import SEAL, SYSTEM_SEAL
from agent.config.paths import SYSTEM_CONFIG, Paths
from agent.exits import NO, AgentError
from agent.programs import launched

PACKAGED = Path(__file__).with_name("files")
IN_REPOSITORY = Path(__file__).resolve().parents[2] / "packaging" / "systemd"

MARK = "# Written by `covey service install`, and removed by `covey service uninstall`."
USER = "covey"
UNIT = "covey.service"
APP_UNIT = "covey-app@.service"
APP_SOCKET = "covey-app.socket"

# Relative to the root of the file system: a test has a root of its own.
UNIT_FILE = Path("etc/systemd/system") / UNIT
APP_UNIT_FILE = UNIT_FILE.with_name(APP_UNIT)
APP_SOCKET_FILE = UNIT_FILE.with_name(APP_SOCKET)
DROP_INS = Path("etc/systemd/system/covey.service.d")
NO_USER_NAMESPACES_FILE = DROP_INS / "10-no-user-namespaces.conf"
SEALED_FILE = DROP_INS / "20-sealed.conf"
USERS_FILE = Path("etc/sysusers.d/covey.conf")
LAUNCHER_FILE = Path("usr/local/bin/covey")
COMPLETION_FILES = {
    "bash": Path("usr/local/share/bash-completion/completions/covey"),
    "zsh": Path("usr/local/share/zsh/site-functions/_covey"),
    "fish": Path("usr/local/share/fish/vendor_completions.d/covey.fish"),
}
EVERY_FILE = (
    *(USERS_FILE, UNIT_FILE, APP_UNIT_FILE, APP_SOCKET_FILE),
    *(NO_USER_NAMESPACES_FILE, SEALED_FILE, LAUNCHER_FILE),
    *COMPLETION_FILES.values(),
)
# In none of our files: data that was sealed with it is worth nothing without.
SEAL_FILE = SYSTEM_SEAL.relative_to("/")
LOAD_SEAL = f"LoadCredentialEncrypted={SEAL}"
CONFIG_DIRECTORY = SYSTEM_CONFIG.relative_to("/")
IDENTITY = Paths.of_service().identity.relative_to("/")
FILE_MODE, PROGRAM_MODE = 0o644, 0o755

NO_USER_NAMESPACES = """\
# This kernel has no user namespaces: with PrivateUsers=yes the service would end with 217/USER.
[Service]
PrivateUsers=no
"""
SEALED = f"""\
# The agent seals its keys with this credential, which systemd unseals for it. Named without a path,
# so that an agent whose credential is gone starts, and says what to do.
[Service]
{LOAD_SEAL}
"""
# For people: the program is in an environment of its own, where no shell looks for it.
LAUNCHER = """\
#!/bin/sh
exec {program} "$@"
"""


class Content(NamedTuple):
    """What is to stand in a file."""

    text: str
    mode: int = FILE_MODE


def shipped(name: str) -> str:
    """Return the text of a file of ``packaging/systemd``, from the wheel or the repository.

    Raises AgentError when neither has it.
    """
    for directory in (PACKAGED, IN_REPOSITORY):
        if (directory / name).is_file():
            return (directory / name).read_text()
    raise AgentError(
        f"this installation of Covey has no {name}: it is not whole; nothing was changed",
        "install Covey again, from a wheel that was built from its repository",
        NO,
    )


def contents(program: Path, completions: Mapping[str, str]) -> dict[Path, Content]:
    """Return what every service needs, by its place: a service that starts ``program``.

    ``completions`` has the script of each shell. Raises AgentError.
    """
    scripts = {COMPLETION_FILES[shell]: script for shell, script in completions.items()}
    return {
        USERS_FILE: marked(shipped("covey.sysusers")),
        UNIT_FILE: marked(unit(program)),
        APP_UNIT_FILE: marked(app_unit()),
        APP_SOCKET_FILE: marked(shipped(APP_SOCKET)),
        **{place: marked(script) for place, script in scripts.items()},
    }


def launcher(program: Path) -> Content:
    """Return a program that starts ``program``, for a directory where shells look."""
    from shlex import quote

    return marked(LAUNCHER.format(program=quote(str(program))), PROGRAM_MODE)


def marked(text: str, mode: int = FILE_MODE) -> Content:
    """Return a text as one of ours; the mark is a comment for everybody who reads such files."""
    return Content(f"{text.rstrip()}\n\n{MARK}\n", mode)


def unit(program: Path) -> str:
    """Return the unit, with the program's path on this machine. Raises AgentError."""
    return _starting(shipped(UNIT), f"{quoted(str(program))} run")


def app_unit() -> str:
    """Return the unit of the agent's programs, with the path of our interpreter.

    Raises AgentError.
    """
    return _starting(shipped(APP_UNIT), f"{quoted(sys.executable)} -P -m {launched.__name__}")


def _starting(text: str, command: str) -> str:
    line = f"ExecStart={command}"
    text, count = re.subn(r"^ExecStart=.*$", lambda _: line, text, flags=re.MULTILINE)
    assert count == 1, "a unit starts one program"
    return text


def quoted(word: str) -> str:
    """Write a word for a command line of systemd (systemd.service(5), "Command lines")."""
    if re.fullmatch(r"[\w/.,:@+-]+", word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def is_ours(path: Path) -> bool:
    """Say whether a file was written by ``covey service install``."""
    try:
        return MARK in path.read_text(errors="replace")
    except OSError:
        return False
