"""Going on with one copy of the agreement when the others are lost, or with a saved one.

Only a person knows that a device is gone for good. So this shows which copies are where and how new
each is, does nothing while a majority of the voters lives, and goes on from the newest copy alone.
It cannot see what is on the disk of a device that does not answer: what only such devices have is
lost, and if two operators recover at two places that do not reach each other, both succeed. That is
noticed when they meet (``gossip/control/standings.py``), and one of them recovers once more.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from agent.cluster.agreement import Agreement
from agent.cluster.snapshot_file import SnapshotFile, read_snapshot, write_snapshot
from agent.exits import NO, NOT_FOUND, TIMED_OUT, UNHEALTHY, AgentError
from agent.runtime.driver import Driver
from agent.store.set_aside import SetAsideLog, read_set_aside, set_aside_logs
from gossip.consensus.configuration import Configuration, Voter
from gossip.consensus.storage import StoredState
from gossip.control.log_mirror import LogMirror
from gossip.control.messages import CopyStanding
from gossip.control.plane import ControlPlane
from gossip.control.recovery import SavedState, recover, recover_set_aside, restore
from gossip.control.requests import ControlSurvey, SurveyResult
from gossip.control.standings import GENERATION_LEAP_MAX
from gossip.core.ids import NodeId, format_node_id
from gossip.registry.registry import Registry

MakeLog = Callable[[StoredState, Voter], StoredState]
"""Makes the log to go on with out of the present one. Raises InvalidRequest."""
GoOn = Callable[[MakeLog], Awaitable[None]]
"""Stops this life of the node, and begins another one with the log that is made."""

NOTHING_TO_DO = (
    "a majority of the voters is there, so there is nothing to recover; nothing was changed"
)
WHO_ANSWERS = "`covey recover` shows who answers, and which generation each follows"
LEAVE_IT = (
    "`covey voters` shows them; a voter that is gone for good is replaced with `covey voters "
    "replace`, which a majority has to agree on. Nothing forces a recovery past a majority"
)


class CopyReport(NamedTuple):
    """Which copies there are, and whether this node may go on with its own."""

    me: NodeId
    own: CopyStanding
    others: dict[NodeId, CopyStanding]
    configuration: Configuration
    """Who votes, by what this node has of the log."""
    newest: frozenset[NodeId]
    """Who has most; several, if they have the same."""
    is_alive: bool
    """Whether a majority of the voters is there."""
    has_forked: bool
    """Whether there is another recovery of this generation."""
    believed: frozenset[NodeId]
    """Who votes by this copy, or is an issuer: nobody else is believed that a majority is there."""

    def lost_voters(self) -> list[NodeId]:
        """Return the voters that did not answer, or do not take part any more."""
        everyone = {self.me: self.own, **self.others}
        there = {node for node, each in everyone.items() if each.takes_part}
        return sorted({each.node for each in self.configuration.voters} - there)


def assess(
    me: NodeId,
    result: SurveyResult,
    configuration: Configuration,
    believed: frozenset[NodeId],
    forks: Iterable[NodeId] = (),
    without: frozenset[NodeId] = frozenset(),
) -> CopyReport:
    """Draw the conclusion from what the others told of their copies.

    That a majority is there, or another recovery of this generation (``forks`` follow it), counts
    from those who are ``believed``. That a copy is newer counts from anybody but
    those ``without`` whom the operator wants to decide: what is on it would be lost.
    """
    own, others = result.own, dict(result.others)
    everyone = {me: own, **others}
    heard = {n: each for n, each in everyone.items() if n not in without}
    ours = {n: each for n, each in heard.items() if not _is_rival(each, own)}
    most = max(each.newness for each in ours.values())
    newest = frozenset(n for n, each in ours.items() if each.newness == most)
    taken = {n: each for n, each in heard.items() if n in believed}
    latest = max(each.generation for each in taken.values())
    present = {n: e for n, e in taken.items() if e.takes_part and e.generation == latest}
    there = (e.store for n, e in present.items() if Voter(e.store, n) in configuration.voters)
    is_alive = any(e.has_majority for e in present.values()) or configuration.is_quorum(there)
    has_forked = any(node in believed for node in forks)
    return CopyReport(me, own, others, configuration, newest, is_alive, has_forked, believed)


def _believed(me: NodeId, configuration: Configuration, registry: Registry) -> frozenset[NodeId]:
    """Return who votes by a copy, and who holds the authority's key."""
    issuers = {each.id for each in registry.nodes if each.is_issuer}
    return frozenset({me, *issuers, *(each.node for each in configuration.voters)})


def _is_rival(other: CopyStanding, own: CopyStanding) -> bool:
    """Tell whether a copy is of another recovery of our generation: which is newer, nobody says."""
    is_same = other.generation == own.generation
    return is_same and bool(other.origin and own.origin) and other.origin != own.origin


def _as_copy(own: CopyStanding, aside: StoredState) -> CopyStanding:
    """Return how this node would stand with a log that was set aside: nobody counts on that."""
    generation, term, last = aside.newness
    return msgspec.structs.replace(
        own, generation=generation, origin=0, term=term, last_index=last, applied=last,
        takes_part=False, has_majority=False,
    )  # fmt: skip


class Recovery:
    """Recovers the agreement at this node, and saves and restores its state."""

    def __init__(
        self,
        driver: Driver,
        agreement: Agreement,
        registry: Callable[[], Registry],
        go_on: GoOn,
        covey: tuple[str, str],
        log_path: Path,
    ) -> None:
        """``covey`` is its id and name; ``log_path``: where the log is, and what was set aside."""
        self._driver, self._agreement, self._go_on = driver, agreement, go_on
        self._registry, self._covey, self._log_path = registry, covey, log_path

    def _look(self) -> ControlPlane:
        node = self._driver.node
        return node.with_control(lambda plane: plane, self._driver.now())

    async def survey(
        self, without: frozenset[NodeId] = frozenset(), aside: StoredState | None = None
    ) -> CopyReport:
        """Ask all who belong how their copies stand. Takes some seconds if some do not answer.

        ``aside`` is a log that was set aside, to be looked at in place of this node's copy. Raises
        AgentError for one ``without`` whom nothing is decided.
        """
        registry, plane = self._registry(), self._look()
        done = await self._driver.control.request(ControlSurvey(tuple(registry.ids())))
        assert isinstance(done.result, SurveyResult), "each request has its own kind of result"
        result, configuration = done.result, plane.part.own_configuration()
        if aside is not None:
            configuration = LogMirror(aside).configuration
            result = msgspec.structs.replace(result, own=_as_copy(result.own, aside))
        believed = _believed(plane.me.node, configuration, registry)
        self._check_without(without & believed)
        forks = plane.standings.forks.values()
        return assess(plane.me.node, result, configuration, believed, forks, without)

    def _check_without(self, believed: frozenset[NodeId]) -> None:
        for node in believed:
            entry = self._registry().node(node)
            raise AgentError(
                f"{entry.name if entry else format_node_id(node)} votes by this copy, or holds the"
                " authority's key, so nothing is decided without it; nothing was changed",
                "if it lies, cut it off (power, network) until this is done: who does not answer is"
                " not asked. Then remove it: `covey members remove`",
                NO,
            )

    async def recover(
        self, generation: int, last_index: int, without: frozenset[NodeId] = frozenset()
    ) -> int:
        """Go on alone from this node's copy; return the generation that begins.

        The two numbers say which copy the operator has looked at; what the nodes ``without`` say of
        theirs does not count. Raises AgentError, with what to do, and InvalidRequest; then nothing
        was changed.
        """
        found = await self.survey(without)
        self._check_may(found, generation, last_index)
        at_s = time.time()
        await self._go_on(lambda stored, me: recover(stored, me, at_s))
        return generation + 1

    async def recover_set_aside(
        self, file: str, last_index: int, without: frozenset[NodeId] = frozenset()
    ) -> int:
        """Go on alone from a log that was set aside; return the generation that begins.

        Raises AgentError, with what to do, InvalidRequest and StorageError; then nothing was
        changed.
        """
        known = {each.file: each for each in await self.set_aside()}
        if file not in known:
            raise AgentError(
                "there is no such log that was set aside here; nothing was changed",
                "`covey recover` shows which there are",
                NOT_FOUND,
            )
        own = self._look().standing()
        if own.takes_part and own.has_majority:
            raise AgentError(NOTHING_TO_DO, LEAVE_IT, NO)
        aside = await asyncio.to_thread(read_set_aside, self._log_path.with_name(file))
        found = await self.survey(without, aside)
        self._check_may(found, known[file].generation, last_index)
        before = max(found.own.generation, own.generation)
        at_s = time.time()
        await self._go_on(lambda stored, me: recover_set_aside(stored, aside, me, at_s))
        return before + 1

    async def set_aside(self) -> list[SetAsideLog]:
        """Return what the logs have that this node set aside, the newest first."""
        return await asyncio.to_thread(set_aside_logs, self._log_path)

    def _check_may(self, found: CopyReport, generation: int, last_index: int) -> None:
        """Raise AgentError where nobody goes on from this node."""
        if found.is_alive and not found.has_forked:
            raise AgentError(NOTHING_TO_DO, LEAVE_IT, NO)
        if found.me not in found.newest:
            raise AgentError(
                "another copy is newer than this one, so nothing was changed",
                "`covey recover` shows where it is; recover there",
                NO,
            )
        if (found.own.generation, found.own.last_index) != (generation, last_index):
            raise AgentError(
                "this node's copy has changed since it was shown; nothing was changed",
                "look again: `covey recover`",
                NO,
            )

    async def follow(self, node: NodeId) -> int:
        """Follow the later generation that a node follows, though nobody else vouches for it.

        What this node has is set aside, if it votes. Return that generation. Raises AgentError;
        then nothing was changed.
        """
        found = await self.survey()
        own, other = found.own, found.others.get(node)
        if other is None:
            raise AgentError(
                "that node does not answer; nothing was changed", WHO_ANSWERS, TIMED_OUT
            )
        ahead = other.generation - own.generation
        is_there = 0 < ahead <= GENERATION_LEAP_MAX or _is_rival(other, own)
        if not (is_there and other.has_majority):
            raise AgentError(
                "no majority follows a leader in a later generation there; nothing was changed",
                WHO_ANSWERS,
                NO,
            )
        self._driver.call(lambda now: self._look().trust(node, now))
        return other.generation

    async def save(self) -> bytes:
        """Return the state as a file, not older than when this was called. Raises AgentError."""
        revision = (await self._agreement.locks(limit=1))[0]
        plane = self._look()
        if not await self._agreement.until_applied(revision):
            raise AgentError(
                "this node's copy is far behind, so nothing was saved",
                "try again in a while, or at a node that votes: `covey voters`",
                TIMED_OUT,
            )
        saved = SavedState(plane.state.snapshot(), plane.part.generation, plane.state.index)
        return write_snapshot(saved, *self._covey, _now())

    async def restore(self, data: bytes, of: str) -> tuple[SnapshotFile, int]:
        """Go on from a saved state; return it, and the generation that begins.

        ``of`` names the covey that it is of, if that is another one than this. Raises AgentError,
        with what to do, and InvalidRequest; then nothing was changed.
        """
        file = read_snapshot(data)
        covey, name = file.header.covey, file.header.name
        if covey != (of or self._covey[0]):
            raise AgentError(
                f"this snapshot is of another covey: {name!r:.60} ({covey[:40]}); nothing was"
                " changed",
                f"if that state is wanted here, say so: --of {covey[:40]}",
                NO,
            )
        status = self._agreement.status()
        me = self._driver.node.settings.me
        if status.role != "leader" or status.voters != (me,):
            raise AgentError(
                "a state is restored where one node votes alone: in a new covey, at its founder,"
                " or after `covey recover`; nothing was changed",
                "`covey voters` shows who votes here",
                UNHEALTHY,
            )
        generation = max(status.generation, file.saved.generation) + 1
        at_s = time.time()
        await self._go_on(lambda stored, me: restore(stored, file.saved, me, at_s))
        return file, generation


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
