"""Asks every member what it sees, and answers when others ask.

One question to each member that is alive, over its stream, and two seconds for all answers. Who
does not answer is a row of question marks, never a reason to wait longer.
"""

import asyncio
import itertools
import secrets
import time
from collections.abc import Mapping

import msgspec

from agent.doctor.messages import CODEC, SEEN_MAX, DoctorMessage, NodeView, PeerView, ViewRequest
from agent.loop.rpc import PendingReplies
from agent.runtime.driver import Driver
from gossip.core.errors import Malformed
from gossip.core.ids import NodeId

ANSWERS_S = 2.0
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
        number = next(self._numbers)
        others = [each.id for each in self._node.swim.members.live if each.id != self._me]
        began_s = time.time()
        asked = others[:SEEN_MAX]
        replies = await asyncio.gather(*(self._ask(node, number) for node in asked))
        views, clocks_s = {self._me: self.view(number)}, {self._me: 0.0}
        for node, reply in zip(asked, replies, strict=True):
            if reply is not None:
                view, ended_s = reply
                views[node] = view
                clocks_s[node] = view.clock_ms / MS_PER_S - (began_s + ended_s) / 2
        return SurveyResult(views, clocks_s, (self._me, *others), self._fresh_s(len(others)))

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
            message = CODEC.decode(data)
        except Malformed:
            self._driver.counts["frames_dropped/malformed"] += 1
            return
        match message:
            case ViewRequest(number):
                self._send(self.view(number), peer)
            case NodeView(number):
                self._replies.receive(peer, number, (message, time.time()))
            case None:
                self._driver.counts["frames_skipped/unknown"] += 1

    async def _ask(self, node: NodeId, number: int) -> tuple[NodeView, float] | None:
        """Return what a member sees, and when it told; None when it does not answer in time."""
        try:
            return await self._replies.request(
                node, number, lambda: self._send(ViewRequest(number), node), ANSWERS_S
            )
        except TimeoutError:
            return None

    def _send(self, message: DoctorMessage, to: NodeId) -> None:
        self._driver.send_frame(CODEC.encode(message), to)

    def _fresh_s(self, others: int) -> float:
        """Return how old a sign of a working way may be; grows with the members to be probed."""
        round_s = self._node.settings.tuning.probe_interval_s * max(1, others)
        return max(FRESH_S_MIN, FRESH_ROUNDS * round_s)


def _age(seconds: float | None) -> float | None:
    return None if seconds is None else max(0.0, round(seconds, 3))


def names_of(driver: Driver) -> Mapping[NodeId, str]:
    """Return the names of all members."""
    return {each.id: each.name for each in driver.node.swim.members}
