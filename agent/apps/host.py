"""All apps of this agent, behind the verbs of the API: list, start, stop, log.

An app is known when the configuration names it, when it comes with Covey or with an installed
package, or when somebody started it. Its process is ``python -m edge_apps NAME`` with the same
interpreter as the agent, and is told through its environment what its table of the configuration
says; how it is started, and where it finds the agent, is the matter of ``agent/programs``.
"""

import asyncio
import json
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from agent._version import __version__
from agent.apps.desired import DesiredApps
from agent.apps.log import AppLog
from agent.apps.states import AppState
from agent.config.settings import AppSettings
from agent.exits import BAD_CONFIG, NOT_FOUND, AgentError
from agent.files.directories import make_directory
from agent.loop.late import load
from agent.programs.child import Launch, Starter
from agent.programs.environment import passed_on
from agent.text.suggestions import did_you_mean
from edge_apps import builtin
from gossip.core.names import NAME_RULE, is_name

if TYPE_CHECKING:
    from agent.apps.supervisor import RestartTuning, Supervisor

log = logging.getLogger(__name__)

# One that crashed runs again soon, unless it does so all the time.
LOGS_MODE = 0o750
SUPERVISOR = "agent.apps.supervisor"
"""Loaded for who runs apps."""
RUNNING = frozenset({AppState.RUNNING, AppState.WAITING})


class AppStatus(msgspec.Struct, frozen=True):
    """One line of ``covey app list``.

    ``state`` is a word of ``AppState``, ``desired`` is ``started`` or ``stopped``; ``changed_at``
    is the Unix time at which the state began; ``last_end`` says how the process ended last.
    """

    name: str
    state: str
    desired: str
    pid: int | None
    restarts: int
    changed_at: float
    last_end: str


class AppHost:
    """Runs the apps. ``open`` starts those that are to run, ``close`` ends them all.

    ``starter`` starts their processes; ``logs`` is the directory of what they print, ``wishes`` the
    file of what the owner wants.
    Raises AgentError for an app in the configuration whose name cannot be one.
    """

    def __init__(
        self,
        settings: Mapping[str, AppSettings],
        starter: Starter,
        logs: Path,
        wishes: Path,
        tuning: "RestartTuning | None" = None,
    ) -> None:
        for name in settings:
            _check_name(name)
        self.counts: Counter[str] = Counter()
        self.changed = asyncio.Event()
        """Set when the state of an app changes; whoever waits for it clears it."""
        self._settings = settings
        self._starter = starter
        self._logs = logs
        self._desired = DesiredApps(wishes)
        self._tuning = tuning
        self._known: set[str] = {*settings, *self._desired.names()}
        self._versions = dict.fromkeys(builtin.NAMES, __version__)
        self._has_loaded = False
        self._is_open = False
        self._supervisors: dict[str, Supervisor] = {}
        self._app_logs: dict[str, AppLog] = {}

    async def open(self) -> None:
        """Start the apps that are to run. One that fails to start does not keep the others.

        Does nothing the second time.
        """
        if self._is_open:
            return
        self._is_open = True
        make_directory(self._logs, LOGS_MODE)
        due = [name for name in sorted(self._known) if self._is_wanted(name)]
        if any(name not in self._versions and not self._is_own_file(name) for name in due):
            await self._load_installed()
        for name in [name for name in due if not self._is_there(name)]:
            due.remove(name)
            self._forget(name)
        if due:
            await load(SUPERVISOR)
        await asyncio.gather(*(self._supervisor(name).start() for name in due))

    async def close(self) -> None:
        """End all processes; what the owner wants stays as it is."""
        await asyncio.gather(*(app.stop() for app in self._supervisors.values()))

    async def list(self) -> list[AppStatus]:
        """Return all known apps, by name."""
        await self._load_installed()
        return [self._status(name) for name in sorted(self._known)]

    def running(self) -> dict[str, str]:
        """Return the apps that run, with their versions; empty where nobody knows it."""
        return {
            name: self._version(name)
            for name, app in sorted(self._supervisors.items())
            if app.state in RUNNING
        }

    async def start(self, name: str) -> AppStatus:
        """Run the app, now and after each start of the agent. Raises AgentError."""
        await self._load_installed()
        self._check_known(name)
        await load(SUPERVISOR)
        self._desired.wish(name, runs=True)
        await self._supervisor(name).start()
        return self._status(name)

    async def stop(self, name: str) -> AppStatus:
        """End the app, and do not start it again with the agent. Raises AgentError."""
        await self._load_installed()
        self._check_known(name)
        self._desired.wish(name, runs=False)
        if name in self._supervisors:
            await self._supervisors[name].stop()
        return self._status(name)

    def log(self, name: str, lines: int = 100, *, follow: bool = False) -> AsyncIterator[str]:
        """Return the app's last lines, and with ``follow`` each new one as it comes.

        Raises AgentError, at once and not with the first line.
        """
        if name not in self._known:
            self._record_installed(_installed())
        self._check_known(name)
        app_log = self._app_log(name)
        return app_log.follow(lines) if follow else _each(app_log.tail(lines))

    async def _load_installed(self) -> None:
        """Learn, once, which apps are installed: nobody needs to know until somebody asks."""
        if not self._has_loaded:
            # Looks at every installed package: too slow for the loop's thread on a small device.
            self._record_installed(await asyncio.to_thread(_installed))
            self._has_loaded = True

    def _record_installed(self, versions: Mapping[str, str]) -> None:
        self._versions = {**versions, **self._versions}
        self._known |= self._versions.keys()

    def _check_known(self, name: str) -> None:
        if name not in self._known:
            raise AgentError(
                f"no app is called {name[:80]!r}; nothing was changed",
                did_you_mean(
                    name,
                    sorted(self._known),
                    "`covey app list` has all; a program of yours needs a table [apps.NAME] in "
                    "covey.toml, and a restart of the agent",
                ),
                NOT_FOUND,
            )

    def _is_there(self, name: str) -> bool:
        """Say whether the configuration or an installed package has the app."""
        return name in self._settings or name in self._versions

    def _forget(self, name: str) -> None:
        """Drop an app that is gone: its table was deleted, or its package removed."""
        log.warning(
            "app %s is neither in the configuration nor installed any more: it is not started", name
        )
        self._known.discard(name)
        self._desired.forget(name)

    def _is_wanted(self, name: str) -> bool:
        settings = self._settings.get(name)
        return self._desired.runs(name, enabled=settings is not None and settings.enabled)

    def _status(self, name: str) -> AppStatus:
        desired = "started" if self._is_wanted(name) else "stopped"
        app = self._supervisors.get(name)
        if app is None:
            return AppStatus(name, AppState.STOPPED.value, desired, None, 0, 0.0, "")
        return AppStatus(
            name, app.state.value, desired, app.pid, app.restarts, app.changed_at, app.last_end
        )

    def _version(self, name: str) -> str:
        """Return the version of the package that brings the app; a file of the owner has none."""
        return "" if self._is_own_file(name) else self._versions.get(name, "")

    def _is_own_file(self, name: str) -> bool:
        return name in self._settings and self._settings[name].is_own

    def _supervisor(self, name: str) -> "Supervisor":
        from agent.apps.supervisor import Supervisor

        if name not in self._supervisors:
            self._supervisors[name] = Supervisor(
                self._launch(name),
                self._app_log(name),
                self.counts,
                self._tuning,
                on_move=self.changed.set,
                starter=self._starter,
            )
        return self._supervisors[name]

    def _app_log(self, name: str) -> AppLog:
        if name not in self._app_logs:
            self._app_logs[name] = AppLog(self._logs / f"{name}.log", self.counts, time.time)
        return self._app_logs[name]

    def _launch(self, name: str) -> Launch:
        # -P: the working directory is no place to import from.
        command = (sys.executable, "-P", "-m", "edge_apps", name)
        return Launch(name, command, self._environment(name), self._logs)

    def _environment(self, name: str) -> dict[str, str]:
        """Return what an app finds in its environment: little of ours, and what it is told."""
        settings = self._settings.get(name, AppSettings())
        return passed_on(os.environ, settings.environment) | {
            # TOML has dates and JSON has not: they become text.
            "COVEY_APP_OPTIONS": json.dumps(settings.told(), default=str),
            "COVEY_APP_GUARD": "1",
            "PYTHONUNBUFFERED": "1",  # what an app prints is in the log when it prints it
        }


def _check_name(name: str) -> None:
    if not is_name(name):  # it is an argument, a part of a path in the API, and of a file
        raise AgentError(
            f"[apps.{name}]: this cannot be an app's name",
            f"use {NAME_RULE}",
            BAD_CONFIG,
        )


def _installed() -> dict[str, str]:
    from edge_apps.loader import installed  # the SDK and importlib.metadata: only when asked

    return installed()


async def _each(lines: list[str]) -> AsyncIterator[str]:
    for line in lines:
        yield line
