"""One Swim machine with hands to feed it, for the membership's unit tests."""

import random
from functools import partial
from typing import Any

import msgspec

from gossip.core.machine import Address, Emit, SendDatagram, SendFrame
from gossip.core.tuning import LAN, Tuning
from gossip.core.wire import pack, tag_of, unpack
from gossip.events.messages import EVENT_FRAMES, EventFrame
from gossip.events.plane import EventPlane
from gossip.membership.detection.probe import Probe, ProbeState
from gossip.membership.model.members import MemberState
from gossip.membership.model.messages import (
    FRAMES,
    Alive,
    Frame,
    SyncDelta,
    SyncEntry,
    SyncSummary,
)
from gossip.membership.model.signatures import SigningKeys
from gossip.membership.swim import Swim
from gossip.sim.script.message_text import MESSAGES, Message

LAN_SMALL = msgspec.structs.replace(LAN, members_max=5, strangers_max=2, dead_keep_s=60.0)
ME, MY_BOOT = 1, 5 << 32
Sent = list[tuple[Address, Any]]
MINE = Address("192.0.2.1", 7747)
ALL_FRAMES = FRAMES | EVENT_FRAMES


def where(node: int) -> Address:
    return Address(f"192.0.2.{node}", 7747)


def alive(node: int, boot: int = 1, incarnation: int = 1, **more: Any) -> Alive:
    fields = {"name": f"n{node}", "addresses": (where(node),), "tags": {}} | more
    return Alive(node, boot, incarnation, **fields)


class Solo:
    """A machine, its clock, and hands to feed it."""

    def __init__(
        self,
        *others: int,
        tuning: Tuning = LAN,
        event_time: int = 0,
        signing: SigningKeys | None = None,
    ) -> None:
        self.now = 100.0
        self.tuning = tuning
        rng = random.Random(1)
        self.swim = Swim(
            ME, MY_BOOT, "me", (MINE,), {}, tuning, rng, self.now,
            partial(EventPlane, time=event_time), signing,
        )  # fmt: skip
        for node in others:
            self.hear(node, alive(node))
        self.drain()

    def hear(
        self,
        sender: int,
        *messages: Message,
        boot: int = 1,
        incarnation: int = 1,
        source: Address | None = None,
    ) -> None:
        body = pack(MESSAGES.encode(message) for message in messages)
        source = source or where(sender)
        self.swim.receive(body, sender, boot, incarnation, source, self.now)

    def drain(self) -> Sent:
        """Return [(to, message)], frames and events since the last call."""
        self.frames: list[tuple[int, Any]] = []
        self.events: list[Any] = []
        sent: Sent = []
        for effect in self.swim.effects():
            if isinstance(effect, SendDatagram):
                sent += [(effect.to, MESSAGES.decode(item)) for item in unpack(effect.data)]
            elif isinstance(effect, SendFrame):
                frame = ALL_FRAMES.decode(effect.data)
                self.frames.append((effect.to, frame))
            elif isinstance(effect, Emit):
                self.events.append(effect.event)
        return sent

    def run(self, duration_s: float) -> Sent:
        """Let time pass with nobody answering; return what was sent."""
        sent: Sent = []
        frames, events = [], []
        end = self.now + duration_s
        while (due := self.swim.deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            self.swim.wake(self.now)
            sent += self.drain()
            frames += self.frames
            events += self.events
        self.now = end
        self.frames, self.events = frames, events
        return sent

    def probe(self, state: ProbeState) -> Probe:
        """Let time pass until a probe is in this state, and return it."""
        for _ in range(100):
            probe = self.swim._failure_detector._probe
            if probe is not None and probe.state is state:
                return probe
            self.run(0.05)
        raise AssertionError(f"no probe came to be {state}")

    def state(self, node: int) -> MemberState | None:
        member = self.swim.members.get(node)
        return member.state if member else None


def said(sent: Sent, kind: type[Any], to: Address | None = None) -> list[Any]:
    return [m for at, m in sent if isinstance(m, kind) and (to is None or at == to)]


def entry(
    node: int,
    state: MemberState = MemberState.ALIVE,
    boot: int = 1,
    incarnation: int = 1,
    described: int | None = None,
    age_s: int = 0,
    **more: Any,
) -> SyncEntry:
    fields = {"name": f"n{node}", "addresses": (where(node),), "tags": {}} | more
    described = incarnation if described is None else described
    return SyncEntry(node, boot, incarnation, state, described, age_s, **fields)


def exchange(solo: Solo, *entries: SyncEntry) -> Sent:
    """Let member 2 tell us this in an exchange."""
    return frame(solo, SyncDelta(entries, (), is_partial=False))


def summary(table: bytes = bytes(16), epoch: int = 0) -> SyncSummary:
    return SyncSummary(table, epoch)


def frame(solo: Solo, message: Frame | EventFrame, peer: int = 2) -> Sent:
    feed(solo.swim, ALL_FRAMES.encode(message), peer, solo.now)
    return solo.drain()


def feed(swim: Swim[EventPlane], data: bytes, peer: int, now: float) -> None:
    """Hand a machine a frame, as a node does: to whom its tag belongs, if to anybody."""
    handler = swim.frame_handlers.get(tag_of(data))
    if handler is not None:
        handler(data, peer, now)
