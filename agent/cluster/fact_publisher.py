"""What this node tells about itself, put together and published whenever it changes.

Facts come from four places: the agent itself, the configuration, ``covey facts set``, and the apps
that run. Each name has one giver: what the agent or the configuration gives, nobody can set beside
it, and who tries is told. Facts that were set are on disk before anybody hears of them, so that a
fact which others saw is there after a restart as well.

Publishing costs an exchange with everybody, so an app that comes and goes is told of only when it
has been so for a few seconds, and nothing is published that is as it was.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from agent.config.fact_rules import app_facts, check_fact, is_agents_own, service_facts
from agent.config.settings import NodeSettings
from agent.exits import NOT_FOUND, NOT_PERMITTED, USAGE, AgentError
from agent.text.suggestions import did_you_mean
from gossip.core.errors import LimitExceeded
from gossip.membership.model.facts import flaw

SETTLED_S = 5.0
SHOWN_MAX = 10

log = logging.getLogger(__name__)


class FactStore(Protocol):
    """Keeps what was set: ``agent/store/control.py``."""

    def facts(self) -> dict[str, str]:
        """Return what was kept last."""

    async def save_facts(self, facts: Mapping[str, str]) -> None:
        """Keep these in place of the others; they are on disk when this returns."""


class RunningApps(Protocol):
    """Who runs here: ``agent/apps/host.py``."""

    changed: asyncio.Event

    def running(self) -> dict[str, str]:
        """Return the apps that run, with their versions."""


class FactPublisher:
    """The facts of this node. ``publish`` hands all of them to the gossip."""

    def __init__(
        self,
        own: Mapping[str, str],
        settings: NodeSettings,
        store: FactStore,
        publish: Callable[[dict[str, str]], None],
    ) -> None:
        self._own = dict(own)
        self._configured = {**settings.facts, **service_facts(settings.services)}
        self._store = store
        self._publish = publish
        self._given = store.facts()
        self._apps: dict[str, str] = {}
        self._published: dict[str, str] = {}
        self._problems: list[str] = []
        self._changing = asyncio.Lock()  # two changes at once must not undo each other
        for name in sorted(self._given):
            if self._is_taken(name):
                log.warning("the fact %s, which was set here, is told otherwise now", name)

    def given(self) -> dict[str, str]:
        """Return the facts that were set while an agent ran here."""
        return dict(sorted(self._given.items()))

    def publish(self) -> None:
        """Publish all facts, if they differ from those that were published last."""
        facts: dict[str, str] = {}
        problems: list[str] = []
        for source, some in (
            ("the agent", self._own),
            ("[node] in covey.toml", self._configured),
            ("`covey facts set`", self._given),
            ("the apps that run", self._apps),
        ):
            more = {**some, **facts}
            if problem := flaw(more):
                # A node without some facts is better than one that does not start.
                problems.append(f"the facts of {source} do not fit and are not told: {problem}")
            else:
                facts = more
        for problem in problems:
            if problem not in self._problems:
                log.error("%s", problem)
        self._problems = problems
        if facts != self._published:
            self._publish(facts)
            self._published = facts

    async def change(self, give: Mapping[str, str], drop: Collection[str]) -> None:
        """Set some facts and drop others, all or none; return when it is on disk and told.

        Raises AgentError for names that are not to be had or not set, and LimitExceeded.
        """
        async with self._changing:
            for name, value in give.items():
                _check(name, value)
                self._check_free(name)
            for name in drop:
                self._check_given(name)
            kept = {name: value for name, value in self._given.items() if name not in drop}
            given = {**kept, **give}
            if problem := flaw({**self._own, **self._configured, **given}):
                raise LimitExceeded(f"{problem}; nothing was changed: set fewer or shorter facts")
            if given != self._given:
                await self._store.save_facts(given)
                self._given = given
                self.publish()

    async def follow(self, apps: RunningApps) -> None:
        """Tell which apps run, until cancelled."""
        while True:
            apps.changed.clear()
            self._apps = app_facts(apps.running())
            self.publish()
            await apps.changed.wait()
            await asyncio.sleep(SETTLED_S)

    def _is_taken(self, name: str) -> bool:
        return is_agents_own(name) or name in self._configured

    def _check_free(self, name: str) -> None:
        if is_agents_own(name):
            raise AgentError(
                f"{name[:80]!r} is told by the agent itself; nothing was changed",
                "choose another name",
                NOT_PERMITTED,
            )
        if name in self._configured:
            raise AgentError(
                f"{name!r} is given by [node] in covey.toml; nothing was changed",
                "change it there and start the agent again, or choose another name",
                NOT_PERMITTED,
            )

    def _check_given(self, name: str) -> None:
        if name in self._given:
            return
        self._check_free(name)
        names = [*self.given()]
        shown = ", ".join(names[:SHOWN_MAX]) + (", and others" if len(names) > SHOWN_MAX else "")
        raise AgentError(
            f"no fact called {name[:80]!r} was set here; nothing was changed",
            did_you_mean(name, names, f"set are {shown}" if names else "no fact is set here now"),
            NOT_FOUND,
        )


def _check(name: str, value: str) -> None:
    try:
        check_fact(name, value)
    except ValueError as error:
        raise AgentError(f"{error}; nothing was changed", "", USAGE) from None
