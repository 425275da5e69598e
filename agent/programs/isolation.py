"""Whether programs get users of their own here, and by whom.

A program with the agent's user can read the agent's keys, the authority's among them, and open its
memory. Where systemd or root can help, it gets a user of its own; elsewhere ``covey doctor`` says
that it has none, and why.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from agent.config.paths import Paths
from agent.programs import root_user
from agent.programs.app_keys import AppKeys
from agent.programs.child import AsThisUser, Ends, Launch, Process, Starter
from agent.programs.systemd_user import ByService

SERVICE_SOCKET = Path("/run/covey-app.sock")
"""``covey-app.socket``."""
SEEN_BY_SERVICES = Path("/run/covey-app")
"""Where a program in a service of its own finds the directory of the apps' socket."""
DOOR = "apps.sock"


class Apartness(NamedTuple):
    """How programs are started here."""

    starter: Starter
    door: Path
    """The directory of the apps' socket, as the programs see it."""
    lacking: str
    """Why they have the agent's own user; empty if they do not."""

    @property
    def is_apart(self) -> bool:
        """Whether programs have users of their own."""
        return not self.lacking


class Programs:
    """Starts programs in the way that was found to be the best here, when the first one is started.

    Each is told where the apps' socket is, and gets a key for it.
    """

    def __init__(self, look: Callable[[], Apartness]) -> None:
        self.keys = AppKeys()
        self._look = look
        self._looking = asyncio.Lock()
        self._found: Apartness | None = None

    async def apartness(self) -> Apartness:
        """Return how programs are started here."""
        async with self._looking:
            if self._found is None:
                self._found = await asyncio.to_thread(self._look)
        return self._found

    async def start(self, launch: Launch, ends: Ends) -> Process:
        """Start a program with these files. Raises OSError."""
        apart = await self.apartness()
        told = {
            "COVEY_SOCKET": str(apart.door / DOOR),
            "COVEY_API_TOKEN": self.keys.key_of(launch.name),
        }
        environment = {**launch.environment, **told}
        return await apart.starter.start(launch._replace(environment=environment), ends)


def apartness_here(paths: Paths) -> Apartness:
    """Find the best way to start programs. May try one: not for the loop's thread."""
    if is_service() and os.access(SERVICE_SOCKET, os.W_OK):
        return Apartness(ByService(SERVICE_SOCKET), SEEN_BY_SERVICES, "")
    lacking = root_user.why_not(paths.app_door.parent)
    if not lacking:
        return Apartness(root_user.AsOwnUsers(paths.app_homes), paths.app_door.parent, "")
    if is_service():
        lacking = f"{SERVICE_SOCKET} is not there: `covey service install` puts it in place"
    return Apartness(AsThisUser(), paths.app_door.parent, lacking)


def may_be_apart() -> bool:
    """Say whether programs may become users of their own here, who have to reach our socket."""
    return os.geteuid() == 0 or is_service()


def is_service() -> bool:
    """Say whether this is the agent of ``covey.service``, whose socket systemd shows to programs.

    systemd hands it its directories (systemd.exec(5), "RuntimeDirectory=").
    """
    return os.environ.get("RUNTIME_DIRECTORY") == "/run/covey"
