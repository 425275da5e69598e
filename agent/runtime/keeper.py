"""Keeps on disk what a node hears of while it runs, and must know after a restart.

A registry that shows a fork, that the others know a later life of this node, or a later generation
of what is agreed on than its log's. None is worth ending the agent for a full disk: what was not
saved is learned again. (A newer registry is on the disk before it is followed:
``gossip/kv/registry_sync.py``.) What need not be known later, and people have to see, is logged.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from agent.loop.watched import TaskSet
from agent.store.clean_shutdown import CleanShutdownMark
from agent.store.control import ControlStore
from gossip.control.requests import (
    GenerationDoubted,
    GenerationForked,
    GenerationSuperseded,
    VoterOrdered,
)
from gossip.core.errors import RemoteError
from gossip.core.ids import BOOT_RANDOM_BITS, format_node_id
from gossip.core.machine import Instant
from gossip.kv.requests import FORK_REASON, RegistryAdopted, RegistryForked
from gossip.membership.detection.updates import BootSuperseded
from gossip.node import Node

log = logging.getLogger(__name__)


class Keeper:
    """Writes what the driver publishes to ``control.db``."""

    def __init__(
        self,
        control: ControlStore,
        mark: CleanShutdownMark,
        begin_anew: Callable[[], bool],
        begin_another_log: Callable[[], None],
    ) -> None:
        """``begin_anew`` is called when the next start is sure to be later than all others.

        It tells whether the agent starts again by itself. ``begin_another_log`` is called when the
        next start is sure to set the present log aside.
        """
        self._control, self._mark, self._begin_anew = control, mark, begin_anew
        self._begin_another_log = begin_another_log
        self._saves = TaskSet()

    def record(self, event: object) -> None:
        """Take in what the driver publishes; what need not be kept is ignored."""
        match event:
            case RegistryAdopted(registry=registry):
                log.info("registry epoch %d, nodes: %d", registry.epoch, len(registry.nodes))
            case RegistryForked(rival=rival):
                log.error("%s (another registry, of epoch %d, is signed)", FORK_REASON, rival.epoch)
                self._save(partial(self._control.save_rival, event.signed))
            case BootSuperseded(boot=boot):
                self._save(partial(self._outlive, boot))
            case GenerationSuperseded():
                self._save(partial(self._give_up_log, event))
            case VoterOrdered():
                log.warning(
                    "%s orders that %s votes in the place of %s%s",
                    *map(format_node_id, (event.by, event.new, event.old)),
                    f"; refused: {event.refusal}" if event.refusal else "",
                )
            case GenerationDoubted(later=later, by=by):
                log.warning(
                    "%s says that what is agreed on goes on in generation %d, and neither votes "
                    "here nor holds the authority's key: it is not believed; `covey doctor` says "
                    "what to do",
                    format_node_id(by),
                    later,
                )
            case GenerationForked(generation=generation, by=by):
                log.error(
                    "there are two recoveries of generation %d of what is agreed on: %s follows "
                    "the other one. `covey recover` on the node where it shall go on ends that.",
                    generation,
                    format_node_id(by),
                )

    def remind(self, node: Node, now: Instant) -> None:
        """Show a node what it saw of a fork before it started anew; what has ended since is none.

        It would answer, else, what no other answers, until somebody of the other half is heard.
        """
        if (rival := self._control.rival()) is not None:
            with suppress(RemoteError):  # signed by an authority that was given up since
                node.adopt_registry(rival, now)

    async def finish(self) -> None:
        """Return when all is on disk."""
        await self._saves.finish()

    async def _outlive(self, boot: int) -> None:
        """Others know a later life of this node: the next one is to be later still, and now.

        Nobody listens to this life any more. That is so at each second boot of a device whose data
        is set back at each boot (an overlay root, a snapshot).
        """
        log.error(
            "the others know a later start of this node than this one: its identity was "
            "copied to another device, or its data was set back to a backup or a snapshot."
        )
        await self._control.raise_starts(boot >> BOOT_RANDOM_BITS)
        # What the others know of a later life was on this disk once, or is on a copy of it.
        await asyncio.to_thread(partial(self._mark.doubt, is_void=True))
        if self._begin_anew():
            log.warning("starting anew, as a later life of this node")
        else:
            log.error(
                "it has happened before, so two devices have this identity. Until this agent is "
                "started again nobody listens to it; move the data of one of them away, and join "
                "it anew."
            )

    async def _give_up_log(self, event: GenerationSuperseded) -> None:
        """An operator has let another node go on without us: begin as another store, and now."""
        log.warning(
            "what is agreed on goes on without this node, in generation %d, says %s; the log of "
            "generation %d is set aside",
            event.later,
            format_node_id(event.by),
            event.generation,
        )
        await self._control.give_up_log()
        self._begin_another_log()

    def _save(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        self._saves.start("control-save", work)
