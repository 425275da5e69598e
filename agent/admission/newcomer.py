"""A node that takes no part in a covey, until it founds one, joins one, or comes back to its own.

The same steps are taken by the agent that waits, for a command that asks it over its socket, and
by the command itself where no agent runs. Either way the files are written by the owner of the
data directory, and there is one at a time who writes.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from agent import exits
from agent.admission.former_membership import (
    FormerMembership,
    discard_removed,
    recorded_parting,
    set_aside,
    wipe,
    withdraw_parting,
)
from agent.config.loader import Config
from agent.config.paths import Paths
from agent.exits import AgentError
from agent.identity import identity
from agent.identity.identity import Identity
from agent.identity.repair import load_mended
from agent.readiness import Lack
from gossip.core.errors import RemoteError
from gossip.registry.registry import open_registry

LATE_CODE = (
    "agent.admission.joining",
    "agent.identity.certificates",
    "agent.admission.prepare_databases",
    "concurrent.futures.thread",
    "encodings.idna",
    "sqlite_utils.db",
    "sqlite_utils.migrations",
)

Say = Callable[[str], None]

log = logging.getLogger(__name__)


class Newcomer:
    """Makes the node of these directories part of a covey."""

    def __init__(self, config: Config, paths: Paths) -> None:
        self.arrived = asyncio.Event()
        """Set when the node has become part of a covey."""
        self._config, self._paths = config, paths
        self._writing = asyncio.Lock()

    def forget(self) -> None:
        """Set aside, or delete, what this node was to forget, if it was. Raises AgentError.

        For the start of an agent, and for who does its work while none runs: an agent that is
        still saying goodbye has these files open, and would go on writing beside the next ones.
        """
        if recorded_parting(self._paths) is FormerMembership.FORGETS:
            set_aside(self._paths)
        if wipe(self._paths):
            log.info(
                "what this node held for the covey that removed it is deleted; its copies of shared"
                " keys are in %s for a day: `covey salvage` writes them out",
                self._paths.removed,
            )
        if discard_removed(self._paths, time.time()):
            log.info("the copies of shared keys of the covey that removed this node are deleted")

    def lack(self) -> Lack | None:
        """Return why this node takes no part, with what to do; None when it does.

        Raises AgentError for an identity that is there and cannot be read.
        """
        parting = recorded_parting(self._paths)
        if not self._paths.identity.is_dir():
            return Lack(
                "this node belongs to no covey yet",
                "found a covey with `covey init`, or join one with `covey join TOKEN`",
            )
        left = load_mended(self._paths.identity)
        if parting is FormerMembership.STAYS_AWAY:
            return Lack(
                f"this node has left the covey {left.cluster_name}",
                "`covey join` without a token brings it back as it was; `covey leave --forget` "
                "frees it for another covey",
            )
        if parting is FormerMembership.REMOVED:
            return Lack(
                f"this node was removed from the covey {left.cluster_name}",
                "`covey join TOKEN` makes it a member again, as a new node; what it has now is "
                f"kept until then, and set aside in former/{self._salvageable()}",
            )
        if parting is FormerMembership.FORGETS:
            return Lack(
                f"this node is about to forget the covey {left.cluster_name}",
                "its agent still says goodbye: try again in a few seconds",
            )
        return None

    def _salvageable(self) -> str:
        if not self._paths.removed.is_dir():
            return ""
        return (
            ". `covey salvage` writes out the shared keys that it held, until the first start after"
            " a day deletes them"
        )

    def check_may_part(self, parting: FormerMembership) -> None:
        """Raise AgentError when this node cannot leave a covey so: who has left can only forget."""
        lack = self.lack()
        if lack is None:
            return
        stays_away = recorded_parting(self._paths) is FormerMembership.STAYS_AWAY
        if not (stays_away and self._paths.identity.is_dir()):
            raise lack.error()
        if parting is FormerMembership.STAYS_AWAY:
            raise AgentError(f"{lack.message} already; nothing was done", lack.hint)

    async def found(self, name: str, node_name: str) -> Identity:
        """Found a covey with this node as its first. Raises AgentError; then nothing was done."""
        async with self._writing:
            self._check_free()
            node = self._config.node
            founded = await asyncio.to_thread(
                identity.found,
                self._paths.identity,
                name,
                node_name,
                weight=node.weight,
                zone=node.zone,
            )
            return await self._arrive(founded)

    async def join(
        self,
        token: str,
        node_name: str,
        seeds: Sequence[str],
        say: Say,
        *,
        replaces: bool = False,
    ) -> Identity:
        """Join the token's covey, or ``replaces`` the node of this name that is gone.

        ``say`` is told what is being done.

        Raises AgentError, whose status tells the reasons apart; then nothing was done.
        """
        from agent.admission.joining import join  # certificates and mDNS, needed once in a life

        async with self._writing:
            if aside := self._check_free():
                say(f"what it had in the covey that removed it, unsent readings too: {aside}")
            network, node = self._config.network, self._config.node
            joined = await join(
                token,
                self._paths.identity,
                node_name,
                seeds=[*seeds, *network.seeds],
                interfaces=network.interfaces,
                mdns=network.mdns,
                weight=node.weight,
                zone=node.zone,
                replaces=replaces,
                say=say,
            )
            return await self._arrive(joined)

    async def come_back(self) -> Identity:
        """Go back to the covey that this node has left. Raises AgentError when there is none."""
        async with self._writing:
            if self._paths.identity.is_dir() and recorded_parting(self._paths) is None:
                who = identity.load(self._paths.identity)
                raise AgentError(
                    f"this node, {who.node_name}, is part of the covey {who.cluster_name} already",
                    f"it {identity.TAKES_PART}",
                )
            if recorded_parting(self._paths) is FormerMembership.REMOVED:
                raise AgentError(
                    "this node was removed from its covey and cannot come back as it was; nothing "
                    "was changed",
                    "give the token that `covey token create` prints on a member",
                    exits.NOT_PERMITTED,
                )
            if not self._paths.identity.is_dir():
                raise AgentError(
                    "this node has left no covey to which it could come back; nothing was changed",
                    "give the token that `covey token create` prints on a member",
                    exits.USAGE,
                )
            withdraw_parting(self._paths)
            return await self._arrive(identity.load(self._paths.identity))

    def former_place(self) -> tuple[str, list[str]]:
        """Return the name of this node and those of who lets others in; empty if not known."""
        try:
            who = identity.load(self._paths.identity)
            registry = open_registry(who.first_registry(), who.verify)
        except (AgentError, RemoteError, OSError):  # nothing of it keeps a node from leaving
            return "", []
        return who.node_name, [entry.name for entry in registry.nodes if entry.is_issuer]

    def _check_free(self) -> Path | None:
        """Raise AgentError when this node has an identity, whether it takes part or not.

        One with which it was removed is good for nothing any more, and is set aside: where it is
        now is returned, and stands in the log.
        """
        aside = None
        if recorded_parting(self._paths) is FormerMembership.REMOVED:
            aside = set_aside(self._paths)
            log.info("the identity and the databases of the former covey are now in %s", aside)
        lack = self.lack()
        if self._paths.identity.is_dir():
            if lack is not None:
                raise AgentError(f"{lack.message}; nothing was changed", lack.hint)
            identity.check_absent(self._paths.identity)
        return aside

    async def _arrive(self, who: Identity) -> Identity:
        """Make the databases, and say that this node belongs: also if whoever asked hangs up."""
        from agent.admission.prepare_databases import prepare

        preparing = asyncio.create_task(prepare(self._paths), name="newcomer: databases")
        preparing.add_done_callback(lambda _: self.arrived.set())
        await asyncio.shield(preparing)
        return who


def load_late_code() -> None:
    """Load all that is loaded late here; for who cannot later (``agent/files/ownership.py``)."""
    for name in LATE_CODE:
        import_module(name)
