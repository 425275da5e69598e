"""Streams between hosts: ordered, silent about loss, and breakable.

A stream carries frames from the process that dialled to the process that answered, in order. A
cut link stalls it, as TCP would: the frames wait, and go on if the link comes back in time. When
that takes too long, or the other process has ended, the stream breaks: what had not arrived is
lost, and the sender alone is told. A process that dies takes its own unsent frames with it, and
nobody hears of those.
"""

import random
from collections import Counter, deque
from collections.abc import Callable
from typing import Generic, Protocol

from gossip.core.machine import Instant
from gossip.sim.kernel import D, D_contra
from gossip.sim.network import Network
from gossip.sim.schedule import Schedule

# How often a stalled stream tries again, and how long a sender waits before it gives up.
RETRY_S = 0.25
GIVE_UP_MIN_S, GIVE_UP_MAX_S = 4.0, 12.0


class StreamEnds(Protocol[D_contra]):
    """What the streams tell the world."""

    def frame_arrived(self, receiver: D_contra, data: bytes, sender: D_contra) -> None:
        """Hand a frame to the process on receiver."""

    def stream_broke(self, sender: D_contra, receiver: D_contra) -> None:
        """Tell the process on sender that frames to receiver were lost."""


class Stream(Generic[D]):
    """Frames under way between two lives of two hosts."""

    def __init__(self, sender: D, receiver: D, ready_at: Instant) -> None:
        self.sender, self.receiver = sender, receiver
        self.lives = sender.life, receiver.life
        self.waiting: deque[tuple[Instant, bytes]] = deque()
        self.ready_at = ready_at
        self.gives_up_at: Instant | None = None
        self.broken = False

    @property
    def sender_lives(self) -> bool:
        """Whether the process that dialled is still there to send."""
        return self.lives[0] == self.sender.life and not self.sender.is_down

    @property
    def receiver_lives(self) -> bool:
        """Whether the process that answered is still there to receive."""
        return self.lives[1] == self.receiver.life and not self.receiver.is_down


class Streams(Generic[D]):
    """All streams of a world, at most one for each direction between two hosts."""

    def __init__(
        self,
        schedule: Schedule,
        network: Network,
        rng: random.Random,
        ends: StreamEnds[D],
        *,
        are_open: bool = False,
    ) -> None:
        """``are_open``: nobody has to dial, somebody else has had frames to send before."""
        self.counts: Counter[str] = Counter()
        self._are_open = are_open
        self._schedule, self._network, self._rng, self._ends = schedule, network, rng, ends
        self._open: dict[tuple[str, str], Stream[D]] = {}

    def send(self, sender: D, receiver: D, data: bytes) -> None:
        """Put a frame on the stream between two hosts, dialling if there is none."""
        self.counts["frames/sent"] += 1
        now, link = self._schedule.now, (sender.name, receiver.name)
        stream = self._open.get(link)
        if stream is None or stream.broken or not stream.sender_lives:
            round_trip_s = 0.0 if self._are_open else 2 * self._network.frame_delay(*link)
            stream = Stream(sender, receiver, now + round_trip_s)
            self._open[link] = stream
        stream.ready_at = max(stream.ready_at, now + self._network.frame_delay(*link))
        stream.waiting.append((stream.ready_at, data))
        if len(stream.waiting) == 1:
            self._schedule.at(stream.ready_at, self._move, stream)

    def _move(self, stream: Stream[D]) -> None:
        """Deliver the frame at the head, or find out why that cannot be done."""
        if not stream.sender_lives:
            self._drop(stream)
        elif not stream.receiver_lives:
            self._break(stream)
        elif self._is_stalled(stream):
            self._stall(stream)
        else:
            stream.gives_up_at = None
            _, data = stream.waiting.popleft()
            self._after_one(stream, self._ends.frame_arrived, stream.receiver, data, stream.sender)

    def _after_one(
        self, stream: Stream[D], action: Callable[..., None], *arguments: object
    ) -> None:
        # The next frame is scheduled first: the action may send on this very stream.
        if stream.waiting:
            self._schedule.at(stream.waiting[0][0], self._move, stream)
        action(*arguments)

    def _is_stalled(self, stream: Stream[D]) -> bool:
        ends = stream.sender.name, stream.receiver.name
        return stream.receiver.is_full or not self._network.connected(*ends)

    def _stall(self, stream: Stream[D]) -> None:
        now = self._schedule.now
        patience_s = self._rng.uniform(GIVE_UP_MIN_S, GIVE_UP_MAX_S)
        if stream.gives_up_at is None:
            self.counts["streams/stalled"] += 1
            stream.gives_up_at = now + patience_s
        if now >= stream.gives_up_at:
            self._break(stream)
        else:
            self._schedule.after(RETRY_S, self._move, stream)

    def _break(self, stream: Stream[D]) -> None:
        self.counts["streams/broken"] += 1
        self._drop(stream)
        self._ends.stream_broke(stream.sender, stream.receiver)

    def _drop(self, stream: Stream[D]) -> None:
        self.counts["frames/lost"] += len(stream.waiting)
        stream.waiting.clear()
        stream.broken = True
        if self._open.get((stream.sender.name, stream.receiver.name)) is stream:
            del self._open[stream.sender.name, stream.receiver.name]
