"""Why a key reads as it does: what each of its owners has of it, asked of all of them.

A read asks as many owners as it needs, and mends those that are behind before it answers; so it
never shows who was. This asks everybody who holds a copy or is to have one, and changes nothing.
First what each has; where that differs, which of all these versions each has seen: then it can be
told who lacks a version, and who still has one that was replaced or deleted, by the same rule as
in a read (``gossip/kv/records.py``).

Who does not answer within two seconds is away, cut off, or runs a version that does not know the
question. What it has is not known then, and nothing is claimed about it.
"""

import asyncio
import itertools
import secrets
from collections.abc import Collection, Iterable, Mapping
from hashlib import blake2b

import msgspec

from agent.cluster.kv_messages import (
    DOTS_MAX,
    VIEW_CODEC,
    KeyView,
    KeyViewMessage,
    KeyViewRequest,
    VersionView,
)
from agent.exits import AgentError
from agent.loop.rpc import PendingReplies
from agent.runtime.driver import Driver
from gossip.core.errors import Malformed
from gossip.core.ids import NodeId
from gossip.kv.dots import MARK_BYTES, Dot
from gossip.kv.joint_quorum import JointQuorum
from gossip.kv.records import KeyState, Version, combine
from gossip.kv.requests import check_key
from gossip.kv.typed_values import PlainValue, expires_ms_of, typed_of
from gossip.registry.ownership import Ownership

ANSWERS_S, AGAIN_S = 2.0, 0.5
"""How long it is waited for answers, and how often who has not given one is asked: a frame may be
lost with its stream."""
LOOKS_MAX = 4
"""So often all are asked what they have seen, while writes go on under the looks."""


class KeyReport(msgspec.Struct, frozen=True):
    """What the owners of one key have told of it."""

    key: str
    partition: int
    epoch: int
    ownership: Ownership
    askable: frozenset[NodeId]
    """The holders that belong; who was removed is not asked."""
    views: Mapping[NodeId, KeyView]

    @property
    def live(self) -> tuple[VersionView, ...]:
        """The versions that a read of all who answered would show, newest first."""
        versions = {v.dot: v for view in self.views.values() for v in view.versions}
        kept = combine(map(_state, self.views.values())).dots() if self.views else frozenset()
        shown = (version for dot, version in versions.items() if dot in kept)
        return tuple(sorted(shown, key=lambda v: (v.stamp, v.dot), reverse=True))

    @property
    def is_quorum(self) -> bool:
        """Whether as many have answered as a read by majority needs."""
        complete = [node for node, view in self.views.items() if view.may_answer]
        return JointQuorum.of_read(self.ownership, None).is_met(complete)

    @property
    def copies(self) -> int:
        """On how many owners all that a read would show is known to be."""
        owners = [node for node in self.ownership.owners if node in self.views]
        return sum(not self.lacks(node) for node in owners)

    def lacks(self, node: NodeId) -> frozenset[Dot]:
        """Return the versions that a node that answered has not got yet."""
        return frozenset(v.dot for v in self.live) - _dots(self.views[node])

    def outdated(self, node: NodeId) -> frozenset[Dot]:
        """Return the versions that it still has, and that were replaced or deleted elsewhere."""
        return _dots(self.views[node]) - frozenset(v.dot for v in self.live)


class KeyViews:
    """Asks the owners of a key what they have of it, and answers when others ask."""

    def __init__(self, driver: Driver) -> None:
        self._driver, self._state = driver, driver.node.state
        self._me = driver.node.settings.me
        self._numbers = itertools.count(secrets.randbits(32))
        self._replies: PendingReplies[KeyView] = PendingReplies()

    async def report(self, key: str) -> KeyReport:
        """Ask all that hold a key or are to hold it. Raises InvalidRequest, and AgentError."""
        check_key(key)
        registry = self._state.registry
        ownership = registry.ownership_of(key)
        holders = frozenset(ownership.holders).intersection(registry.ids())
        views = await self._views_of(holders, key, frozenset())
        weighed: frozenset[Dot] = frozenset()
        for _ in range(LOOKS_MAX):
            shown = frozenset[Dot]().union(*map(_dots, views.values()))
            if shown <= weighed or len({_dots(view) for view in views.values()}) <= 1:
                break
            weighed |= shown
            views = await self._views_of(views, key, weighed)
        partition = registry.partition_of(key)
        return KeyReport(key, partition, registry.epoch, ownership, holders, views)

    async def _views_of(
        self, nodes: Collection[NodeId], key: str, asked: frozenset[Dot]
    ) -> dict[NodeId, KeyView]:
        question = KeyViewRequest(next(self._numbers), key, tuple(sorted(asked)[:DOTS_MAX]))
        told = await asyncio.gather(*(self._view_of(node, question) for node in nodes))
        return {node: view for node, view in zip(nodes, told, strict=True) if view is not None}

    async def _view_of(self, node: NodeId, question: KeyViewRequest) -> KeyView | None:
        """Return what a node has; None when it does not say so in time."""
        if node == self._me:
            return self.view(question)
        try:
            return await self._replies.request(
                node, question.number, lambda: self._send(question, node), ANSWERS_S, AGAIN_S
            )
        except TimeoutError:
            return None

    def view(self, question: KeyViewRequest) -> KeyView:
        """Return what this node has of a key, also what is not on its disk yet."""
        replica, registry = self._state.replica, self._state.registry
        partition = registry.partition_of(question.key)
        state = replica.answer(partition, question.key, question.asked)
        is_cut = any(len(each) > DOTS_MAX for each in (state.live, state.context, state.covered))
        return KeyView(
            question.number,
            registry.epoch,
            replica.copy(partition),
            replica.may_answer(partition, registry),
            replica.is_held_back,
            tuple(map(_version, state.live[:DOTS_MAX])),
            state.context[:DOTS_MAX],
            state.covered[:DOTS_MAX],
            is_cut,
        )

    def receive_frame(self, data: bytes, peer: NodeId) -> None:
        """Take in a member's frame."""
        try:
            message = VIEW_CODEC.decode_known(data)
        except Malformed:
            self._driver.counts["frames_dropped/malformed"] += 1
            return
        match message:
            case KeyViewRequest():
                self._answer(message, peer)
            case KeyView(number):
                self._replies.receive(peer, number, message)

    def _answer(self, question: KeyViewRequest, peer: NodeId) -> None:
        try:
            self._send(self.view(question), peer)
        except (
            AgentError
        ):  # the disk cannot be read: the agent tells so itself, and the asker waits
            self._driver.counts["frames_dropped/unanswerable"] += 1

    def _send(self, message: KeyViewMessage, to: NodeId) -> None:
        self._driver.send_frame(VIEW_CODEC.encode(message), to)


def _version(version: Version) -> VersionView:
    typed = typed_of(version.value)
    # Of a register, what the application wrote: when it expires lies around that.
    value = typed.data if isinstance(typed, PlainValue) else version.value
    digest = blake2b(value, digest_size=MARK_BYTES).digest()
    expires_ms = expires_ms_of(version.value)
    return VersionView(*version.dot, version.stamp, len(value), digest, expires_ms)


def _state(view: KeyView) -> KeyState:
    """Return a view as what is weighed in a read; values do not matter for that."""
    live: Iterable[Version] = (Version(v.actor, v.n, v.stamp, b"") for v in view.versions)
    return KeyState(tuple(live), view.context, view.covered)


def _dots(view: KeyView) -> frozenset[Dot]:
    return frozenset(version.dot for version in view.versions)
