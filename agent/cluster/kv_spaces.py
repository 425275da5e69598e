"""What is asked for the spaces of the shared keys: set for all, and followed by every node.

A space's setting is a key of the control plane with JSON (``gossip/kv/spaces.py``), so one order is
agreed on, and each node has a copy. To change one takes a majority of the voters; to go by it takes
nothing: without a majority, and after a restart, the copy on the disk holds.
"""

import logging
from contextlib import aclosing
from typing import Any
from urllib.parse import quote, unquote

from agent.cluster.agreement import Agreement
from agent.exits import NOT_FOUND, UNHEALTHY, USAGE, AgentError
from agent.loop.periodic import until_next
from gossip.control.fleet_settings import RESERVED_PREFIX
from gossip.control.keys import KeyEntry
from gossip.control.transactions import (
    Compare,
    CompareField,
    CompareRelation,
    DeleteKey,
    PutKey,
)
from gossip.kv.limits import QUOTAS_MAX, SPACES_MAX
from gossip.kv.quotas import Quotas, Use
from gossip.kv.spaces import SpaceSetting, changed_space, check_space_name, read_space

SPACES_PREFIX = f"{RESERVED_PREFIX}spaces/"
AGAIN_S = 5.0
TRIES = 5
"""So often a change is made anew, when somebody else was faster."""

log = logging.getLogger(__name__)


def space_key(name: str) -> str:
    """Return the key of the control plane under which a space's setting is kept."""
    check_space_name(name)
    return f"{SPACES_PREFIX}{quote(name, safe='')}"


def spaces_in(entries: list[KeyEntry]) -> dict[str, SpaceSetting]:
    """Return the settings among these keys, by the names of their spaces."""
    return {unquote(e.key.removeprefix(SPACES_PREFIX)): read_space(e.value) for e in entries}


def _check_quotas(name: str, entries: list[KeyEntry], data: bytes) -> None:
    """Raise AgentError if a space gets a quota, and as many others have one as may."""
    others = [one for of, one in spaces_in(entries).items() if one.has_quota and of != name]
    if read_space(data).has_quota and len(others) >= QUOTAS_MAX:
        raise AgentError(
            f"{QUOTAS_MAX} spaces have a quota already; nothing was set",
            "take one back with `covey kv space set NAME --quota-keys none --quota-bytes none`",
            USAGE,
        )


class KvSpaces:
    """The settings of all spaces. All raise InvalidRequest or AgentError."""

    def __init__(self, control: Agreement, quotas: Quotas) -> None:
        """``quotas`` with their spaces are what the node goes by."""
        self._control, self._spaces, self._quotas = control, quotas.spaces, quotas

    def use(self, name: str) -> Use | None:
        """Return what a space with a quota holds, as owners have told; None: not known."""
        return self._quotas.use(name)

    async def all(self, *, stale: bool = False) -> tuple[int, dict[str, SpaceSetting]]:
        """Return what is asked for which space, and as of which revision."""
        revision, entries = await self._control.all_under(SPACES_PREFIX, stale=stale)
        return revision, spaces_in(entries)

    async def change(self, name: str, changes: dict[str, Any]) -> tuple[int, SpaceSetting]:
        """Change what is asked for a space; return the revision, and what is asked now."""
        key = space_key(name)
        for _ in range(TRIES):
            _, entries = await self._control.all_under(SPACES_PREFIX)
            entry = next((each for each in entries if each.key == key), None)
            data = changed_space(entry.value if entry else b"", changes)
            if entry is None and len(entries) >= SPACES_MAX:
                raise AgentError(
                    f"{SPACES_MAX} spaces are set already; nothing was set",
                    "take one back with `covey kv space unset NAME`",
                    USAGE,
                )
            _check_quotas(name, entries, data)
            modified = entry.modified if entry else 0
            unchanged = Compare(key, CompareField.MODIFIED, CompareRelation.EQUAL, modified)
            operation = PutKey(key, data) if data else DeleteKey(key)
            revision, done = await self._control.transact((unchanged,), (operation,))
            if done.succeeded:
                return revision, read_space(data)
        raise AgentError(
            f"others change {name!r:.80} all the time; nothing was set", "try again", UNHEALTHY
        )

    async def unset(self, name: str) -> int:
        """Ask nothing for a space any more; return the revision."""
        key = space_key(name)
        exists = Compare(key, CompareField.VERSION, CompareRelation.GREATER, 0)
        revision, done = await self._control.transact((exists,), (DeleteKey(key),))
        if not done.succeeded:
            raise AgentError(
                f"nothing is set for {name!r:.80}", "see `covey kv space list`", NOT_FOUND
            )
        return revision

    async def follow(self) -> None:
        """Have the node go by what our copy of the control plane says. Runs until cancelled."""
        latest = -1
        while True:
            try:
                async with aclosing(self._control.follow(SPACES_PREFIX)) as states:
                    async for revision, entries in states:
                        if revision >= latest:  # a copy that began anew is behind for a moment
                            latest = revision
                            self._spaces.replace(spaces_in(entries))
            except AgentError as error:
                log.info("spaces of the shared keys: %s", error.message)
                await until_next(AGAIN_S)
