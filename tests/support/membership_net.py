"""Several Swim machines on a tiny network in virtual time, for the membership's unit tests.

No sealing, no streams that break by themselves: the simulator in ``gossip/sim`` has those. What is
here is what a test of the membership wants to control: loss, cuts, stopped and killed members.
"""

import heapq
import itertools
import random
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

from gossip.core.ids import NodeId, next_boot
from gossip.core.machine import Address, Emit, SendDatagram, SendFrame
from gossip.core.tuning import BODY_BYTES_MAX, LAN, Tuning
from gossip.core.wire import tag_of
from gossip.events.plane import EventPlane
from gossip.membership.model.members import MemberChanged, MemberState
from gossip.membership.swim import Swim

LATENCY_S = (0.0005, 0.003)


def address_of(index: int) -> Address:
    return Address(f"10.0.{index // 250}.{index % 250 + 1}", 7747)


class Packet(NamedTuple):
    body: bytes
    sender: NodeId
    boot: int
    incarnation: int
    source: Address


class Net:
    """Members by index 0..n-1; their node ids are drawn from the seed."""

    def __init__(self, count: int, seed: int = 1, tuning: Tuning = LAN, loss: float = 0.0) -> None:
        self.rng = random.Random(seed)
        self.tuning = tuning
        self.loss = loss
        self.now = 0.0
        self.swims: dict[int, Swim[EventPlane]] = {}
        self.ids = [self.rng.randrange(1, 2**64) for _ in range(count)]
        self.starts: dict[int, int] = defaultdict(int)
        self.addresses = [address_of(index) for index in range(count)]
        self.stopped: dict[int, list[Callable[[], None]]] = {}
        self.cut: set[tuple[int, int]] = set()
        self.streams = True
        self.events: list[tuple[float, int, object]] = []
        self.sent = 0
        self.largest_bytes = 0
        self.transcript: list[tuple[float, int, Address, bytes]] = []
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = itertools.count()
        self._due: dict[int, float] = {}
        for index in range(count):
            self.start(index)

    # Members.

    def start(self, index: int) -> Swim[EventPlane]:
        self.starts[index] += 1
        boot = next_boot(self.starts[index], self.rng)
        swim = Swim(
            self.ids[index],
            boot,
            f"node-{index}",
            (self.addresses[index],),
            {"index": str(index)},
            self.tuning,
            random.Random(self.rng.getrandbits(64)),
            self.now,
            EventPlane,
        )
        self.swims[index] = swim
        self.settle(index)
        return swim

    def kill(self, index: int) -> None:
        del self.swims[index]

    def stop(self, index: int) -> None:
        self.stopped[index] = []

    def cont(self, index: int) -> None:
        """Go on: all that arrived meanwhile is read before timers act."""
        for act in self.stopped.pop(index):
            act()
        self.wake(index)

    def wake(self, index: int) -> None:
        self.swims[index].wake(self.now)
        self.settle(index)

    def join(self, index: int, *others: int) -> None:
        self.swims[index].discovered([self.addresses[other] for other in others], self.now)
        self.settle(index)

    def join_all(self, within_s: float = 5.0) -> None:
        """Introduce everybody to member 0, and let all meet."""
        for index in list(self.swims):
            if index:
                self.join(index, 0)
        self.run(within_s)
        assert self.agree(), self.show()

    def split(self, *halves: list[int]) -> None:
        self.cut = {
            (one, other)
            for half in halves
            for rest in halves
            if rest is not half
            for one in half
            for other in rest
        }

    def heal(self) -> None:
        self.cut = set()

    # What they believe.

    def view(self, index: int) -> dict[int, MemberState]:
        by_id = {node: index for index, node in enumerate(self.ids)}
        return {by_id[m.id]: m.state for m in self.swims[index].members if m.id in by_id}

    def state(self, observer: int, subject: int) -> MemberState | None:
        return self.view(observer).get(subject)

    def agree(self) -> bool:
        """Whether all that run hold each other for alive."""
        alive = MemberState.ALIVE
        return all(self.state(one, other) is alive for one in self.swims for other in self.swims)

    def all_say(self, subject: int, *states: MemberState | None) -> bool:
        return all(self.state(i, subject) in states for i in self.swims if i != subject)

    def show(self) -> str:
        return "\n".join(
            f"{i}: " + " ".join(f"{s}={str(state)[0]}" for s, state in sorted(self.view(i).items()))
            for i in self.swims
        )

    def changes(self, subject: int, state: MemberState) -> list[float]:
        """When anybody noted that the subject is in this state."""
        return [
            at
            for at, observer, event in self.events
            if isinstance(event, MemberChanged)
            and event.member.id == self.ids[subject]
            and event.member.state is state
            and observer != subject
        ]

    def deaths(self) -> list[tuple[float, int, NodeId]]:
        return [
            (at, observer, event.member.id)
            for at, observer, event in self.events
            if isinstance(event, MemberChanged) and event.member.state is MemberState.DEAD
        ]

    # Time.

    def run(self, duration_s: float) -> None:
        end = self.now + duration_s
        while self._heap and self._heap[0][0] <= end:
            self.now, _, act = heapq.heappop(self._heap)
            act()
        self.now = end

    def run_until(self, condition: Callable[[], bool], within_s: float) -> float:
        """Run until the condition holds; return how long it took. Fails when it never does."""
        begun = self.now
        while not condition():
            assert self.now - begun < within_s, f"not within {within_s} s:\n{self.show()}"
            self.run(0.05)
        return self.now - begun

    def later(self, after_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now + after_s, next(self._serial), act))

    # The driver of each member.

    def settle(self, index: int) -> None:
        swim = self.swims[index]
        for effect in swim.effects():
            if isinstance(effect, SendDatagram):
                self._datagram(index, swim, effect)
            elif isinstance(effect, SendFrame):
                self._frame(index, effect)
            elif isinstance(effect, Emit):
                self.events.append((self.now, index, effect.event))
        due = swim.deadline()
        if due is not None and due != self._due.get(index):
            self._due[index] = due
            self.later(max(0.0, due - self.now), lambda: self._timer(index, swim, due))

    def _timer(self, index: int, swim: Swim[EventPlane], due: float) -> None:
        if self.swims.get(index) is swim and swim.deadline() == due and index not in self.stopped:
            self._due.pop(index, None)
            self.wake(index)

    def _datagram(self, index: int, swim: Swim[EventPlane], effect: SendDatagram) -> None:
        assert 0 < len(effect.data) <= BODY_BYTES_MAX
        self.sent += 1
        self.largest_bytes = max(self.largest_bytes, len(effect.data))
        self.transcript.append((self.now, index, effect.to, effect.data))
        lost = self.rng.random() < self.loss
        delay_s = self.rng.uniform(*LATENCY_S)
        if lost or effect.to not in self.addresses:
            return
        to = self.addresses.index(effect.to)
        if (index, to) in self.cut:
            return
        packet = Packet(
            effect.data, self.ids[index], swim.boot, swim.incarnation, self.addresses[index]
        )
        self.later(delay_s, lambda: self._arrive(to, packet))

    def _arrive(self, to: int, packet: Packet) -> None:
        def act() -> None:
            if to in self.swims:
                self.swims[to].receive(*packet, self.now)
                self.settle(to)

        self.stopped[to].append(act) if to in self.stopped else act()

    def _frame(self, index: int, effect: SendFrame) -> None:
        to = self.ids.index(effect.to)
        sender = self.ids[index]
        up = self.streams and to in self.swims and not {(index, to), (to, index)} & self.cut

        def act() -> None:
            if up and to in self.swims and to not in self.stopped:
                self.swims[to].frame_handlers[tag_of(effect.data)](effect.data, sender, self.now)
                self.settle(to)
            elif index in self.swims and index not in self.stopped:
                self.swims[index].peer_unreachable(effect.to, self.now)
                self.settle(index)

        self.later(0.005, act)
