"""Asks every member what it sees, and answers when others ask.

One question to each member that is alive, over its stream, and two seconds for all answers. Who
does not answer is a row of question marks, unless a stream to it opens on trial: then it is asked
once more, for a frame may be lost, and a machine that is busy be late.
"""

import asyncio
import itertools
import secrets
import time
from collections.abc import Collection, Mapping

import msgspec

from agent.doctor.messages import CODEC, SEEN_MAX, DoctorMessage, NodeView, PeerView, ViewRequest
from agent.loop.rpc import PendingReplies
from agent.runtime.driver import Driver
from gossip.core.errors import Malformed
from gossip.core.ids import NodeId

ANSWERS_S = 2.0
SECOND_ANSWERS_S, AGAIN_S = 5.0, 1.0
"""How long it is waited for those who are asked once more, and how often each of them is."""
MS_PER_S = 1000.0
FRESH_S_MIN = 10.0
FRESH_ROUNDS = 5
"""Each member is probed once a round by each other: so many lost in a row are no accident."""


class SurveyResult(msgspec.Struct, frozen=True):
    """What everybody told: their views, ours among them, and their clocks minus ours."""

    views: dict[NodeId, NodeView]
    clocks_s: dict[NodeId, float]
    asked: tuple[NodeId, ...]
    fresh_s: float


class Survey:
    """Asks all members what they see, and answers those who ask (frames 96 to 99)."""

    def __init__(self, driver: Driver) -> None:
        self._driver, self._node = driver, driver.node
        self._me = driver.node.settings.me
        self._numbers = itertools.count(secrets.randbits(32))
        self._replies: PendingReplies[tuple[NodeView, float]] = PendingReplies()

    async def run(self) -> SurveyResult:
        """Ask everybody who is there; wait for two seconds at most."""
        others = [each.id for each in self._node.swim.members.live if each.id != self._me]
        views, clocks_s = await self._views_of(others[:SEEN_MAX], ANSWERS_S)
        views[self._me], clocks_s[self._me] = self.view(next(self._numbers)), 0.0
        return SurveyResult(views, clocks_s, (self._me, *others), self._fresh_s(len(others)))

    async def ask_again(self, told: SurveyResult, silent: Collection[NodeId]) -> SurveyResult:
        """Return what was told, with the answers of those who were silent before."""
        if not silent:
            return told
        views, clocks_s = await self._views_of(silent, SECOND_ANSWERS_S)
        return msgspec.structs.replace(
            told, views=told.views | views, clocks_s=told.clocks_s | clocks_s
        )

    async def _views_of(
        self, asked: Collection[NodeId], within_s: float
    ) -> tuple[dict[NodeId, NodeView], dict[NodeId, float]]:
        """Return the views of those who answer, and their clocks minus ours."""
        number, began_s = next(self._numbers), time.time()
        replies = await asyncio.gather(*(self._ask(node, number, within_s) for node in asked))
        views, clocks_s = {}, {}
        for node, reply in zip(asked, replies, strict=True):
            if reply is not None:
                view, ended_s = reply
                views[node] = view
                clocks_s[node] = _off_for_sure(view.clock_ms / MS_PER_S, began_s, ended_s)
        return views, clocks_s

    def view(self, number: int) -> NodeView:
        """Return what this node sees."""
        now = self._driver.now()
        members = [each for each in self._node.swim.members if each.id != self._me]
        seen = []
        for member in members[:SEEN_MAX]:
            paths = self._node.swim.paths_of(member.id, now)
            seen.append(
                PeerView(
                    member.id,
                    member.state.value,
                    _age(paths.udp_in_s),
                    _age(paths.udp_out_s),
                    _age(paths.stream_s),
                    paths.streams_blocked,
                    paths.narrow,
                )
            )
        return NodeView(number, int(time.time() * MS_PER_S), tuple(seen))

    def receive_frame(self, data: bytes, peer: NodeId) -> None:
        """Take in a member's frame."""
        try:
            message = CODEC.decode_known(data)
        except Malformed:
            self._driver.counts["frames_dropped/malformed"] += 1
            return
        match message:
            case ViewRequest(number):
                self._send(self.view(number), peer)
            case NodeView(number):
                self._replies.receive(peer, number, (message, time.time()))

    async def _ask(
        self, node: NodeId, number: int, within_s: float
    ) -> tuple[NodeView, float] | None:
        """Return what a member sees, and when it told; None when it does not answer in time."""
        try:
            return await self._replies.request(
                node, number, lambda: self._send(ViewRequest(number), node), within_s, AGAIN_S
            )
        except TimeoutError:
            return None

    def _send(self, message: DoctorMessage, to: NodeId) -> None:
        self._driver.send_frame(CODEC.encode(message), to)

    def _fresh_s(self, others: int) -> float:
        """Return how old a sign of a working way may be; grows with the members to be probed."""
        round_s = self._node.settings.tuning.probe_interval_s * max(1, others)
        return max(FRESH_S_MIN, FRESH_ROUNDS * round_s)


def _off_for_sure(clock_s: float, began_s: float, ended_s: float) -> float:
    """Return by how much a clock is off at least: it was read between question and answer."""
    return min(max(0.0, clock_s - ended_s), clock_s - began_s)


def _age(seconds: float | None) -> float | None:
    return None if seconds is None else max(0.0, round(seconds, 3))


def names_of(driver: Driver) -> Mapping[NodeId, str]:
    """Return the names of all members."""
    return {each.id: each.name for each in driver.node.swim.members}
