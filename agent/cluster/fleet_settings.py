"""Settings for the fleet: sets them for all, and follows those that are for this device.

They are keys of the control plane (``gossip/control/fleet_settings.py``). What holds here is kept
in ``fleet.json`` for the next start; the few that can be applied to a running agent are, and all
others show up as changed since the start, in ``covey config show`` and ``covey status``.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import aclosing
from pathlib import Path

from agent.cluster.agreement import Agreement
from agent.config.fleet_layer import (
    KeptSettings,
    SetForFleet,
    check_name,
    read_layer,
    write_layer,
)
from agent.config.loader import typed_setting
from agent.exits import AgentError
from agent.loop.periodic import until_next
from gossip.control.fleet_settings import (
    SETTINGS_PREFIX,
    FleetSetting,
    delete_setting,
    effective_settings,
    listed_settings,
    put_setting,
)
from gossip.control.keys import KeyEntry
from gossip.control.transactions import DeletedResult
from gossip.core.errors import InvalidRequest

AGAIN_S = 5.0

log = logging.getLogger(__name__)


class FleetSettings:
    """The settings of the fleet, at one node with this name and these tags.

    ``applied`` is called after what holds here has changed, and is on the disk.
    """

    def __init__(
        self,
        control: Agreement,
        path: Path,
        node_name: str,
        tags: Mapping[str, str],
        applied: Callable[[], None],
    ) -> None:
        self._control, self._path = control, path
        self._name, self._tags, self._applied = node_name, tags, applied

    async def all(self, *, stale: bool = False) -> tuple[int, list[FleetSetting]]:
        """Return all that is set, for whomever, and as of which revision. Raises AgentError."""
        revision, entries = await self._control.all_under(SETTINGS_PREFIX, stale=stale)
        return revision, listed_settings(entries)

    async def set(self, scope: str, name: str, text: str) -> int:
        """Set a setting; return the revision. Raises InvalidRequest or AgentError."""
        operation = put_setting(scope, name, text, check_setting)
        return (await self._control.transact((), (operation,)))[0]

    async def unset(self, scope: str, name: str) -> bool:
        """Take a setting back; False if it was not set. Raises InvalidRequest or AgentError."""
        _, done = await self._control.transact((), (delete_setting(scope, name),))
        (deleted,) = done.results
        assert isinstance(deleted, DeletedResult), "a delete was asked for"
        return deleted.count > 0

    async def follow(self) -> None:
        """Keep what holds here up to date. Runs until cancelled."""
        while True:
            try:
                async with aclosing(self._control.follow(SETTINGS_PREFIX)) as states:
                    async for revision, entries in states:
                        await self._take_over(revision, entries)
            except AgentError as error:
                log.info("settings of the fleet: %s", error.message)
                await until_next(AGAIN_S)

    async def _take_over(self, revision: int, entries: list[KeyEntry]) -> None:
        """Keep what our copy of the control plane says, unless it is older than what is kept."""
        kept = await asyncio.to_thread(read_layer, self._path)
        if revision <= kept.revision:
            return  # a copy that has just begun knows nothing yet
        found = effective_settings(entries, self._name, self._tags)
        settings = {name: SetForFleet(each.text, each.scope) for name, each in found.items()}
        if settings == kept.settings:
            return
        try:
            await asyncio.to_thread(write_layer, self._path, KeptSettings(revision, settings))
        except OSError as error:
            raise AgentError(f"what the covey has set is not kept: {error}") from None
        log.info("the covey has set for this device: %s", ", ".join(settings) or "nothing")
        self._applied()


def check_setting(name: str, text: str) -> None:
    """Raise InvalidRequest for what no agent of this version would take over."""
    check_name(name)
    try:
        typed_setting(name, text)
    except AgentError as error:
        told = error.message.removeprefix("fleet: ")
        raise InvalidRequest(f"{told}; nothing was set, {error.hint}") from None
