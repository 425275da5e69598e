"""The driver: one asyncio loop that runs one pure node on real sockets, disks and clocks.

All that happens to a node is an input call (``gossip/core/machine.py``), and every one of them runs
through ``_turn``: call, perform the effects in order, re-arm the one timer. Nothing here decides
anything about the protocols.

* **Frames, commitments and what is asked of the control plane are gathered**: the effects of all
  that comes in one turn of the loop are performed at its end, together. So commands of many clients
  share one batch, one sync and one frame to each voter.

* **Time** is CLOCK_BOOTTIME, which goes on while the device sleeps.
* **Sockets before timers.** When the timer fires, what the kernel has already received is read
  first (``agent/net/udp.py`` says why).
* **Disk.** Batches to persist go to the queue of their durability (``save_queue.py``). While a disk
  is full or takes nothing, they wait, and so does all that would reveal them; probes go on being
  answered, and the node begins nothing that has to be saved so. If a commit fails for good, the
  driver stops: nobody knows what a disk holds after a failed sync, so going on would be lying to
  the others.
  What is to survive a power cut is synced for all who wait for that together (``sync_queue.py``).
* **A bug stops it too.** An exception out of the node means that its state is no longer what its
  authors thought. The process ends, says so, and is started again from what is on disk.
"""

import asyncio
import contextlib
import functools
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from agent import exits
from agent.exits import AgentError
from agent.loop.bounded_queue import BoundedQueue
from agent.net.authorization import ShownCertificate, StreamRefused
from agent.net.dial_test import DialTest
from agent.net.known_hosts import KnownHosts
from agent.net.listener import OnFrame, OnGuest
from agent.net.streams import Streams
from agent.net.udp import DRAIN_MAX, UdpEndpoint
from agent.runtime.control_requests import ControlRequests
from agent.runtime.save_queue import ChangeStore, SaveQueue
from agent.runtime.sync_queue import SyncableStore, SyncQueue
from gossip.control.plane import ControlPlane
from gossip.control.requests import (
    ControlCompleted,
    CopyHalted,
    SessionConfirmed,
    SessionLost,
)
from gossip.control.watchers import ControlEvent, WatchEnded
from gossip.core.errors import LocalError
from gossip.core.ids import NodeId
from gossip.core.machine import (
    Address,
    Durability,
    Emit,
    Instant,
    Persist,
    SendDatagram,
    SendFrame,
    SyncDisk,
)
from gossip.events import events, queries
from gossip.events.events import EventDelivered
from gossip.events.queries import QueryReceived
from gossip.kv.messages import CODEC, RegistryOffer
from gossip.kv.requests import Completed, RegistryAdopted, Request, Result, Watch, WatchEvent
from gossip.membership.anti_entropy import merge
from gossip.membership.detection.observers import SubjectsChanged
from gossip.membership.model.members import MemberChanged
from gossip.node import Node
from gossip.registry.strangers import DatagramRefused

DRAINS_BEFORE_WAKE_MAX = 4
KNOWN_BEFORE_CANDIDATES = 2
GATHERING_S = 0.004
"""For so long a commit of records waits for more, while many write."""

T = TypeVar("T")
Settle = Callable[[Result | AgentError], None]
"""Takes in the result of a request, or why there will be none."""

log = logging.getLogger(__name__)


class Driver:
    """Runs one node. Everything it does happens on the event loop that called ``start``."""

    def __init__(
        self,
        node: Node,
        udp: UdpEndpoint,
        streams: Streams,
        stores: Mapping[Durability, ChangeStore],
        counts: Counter[str],
        syncable: SyncableStore,
        clock: Callable[[], Instant] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self.node, self.counts, self.now = node, counts, clock
        self._udp, self._streams = udp, streams
        self._saves = {kind: self._queue(kind, store) for kind, store in stores.items()}
        self._syncs = SyncQueue(syncable, self._on_synced)
        self._routed: deque[Callable[[], None]] = deque()
        self._listeners: list[Callable[[object], None]] = []
        self._subscribers: set[BoundedQueue[object]] = set()
        self._requests: dict[int, Settle] = {}
        self._watches: dict[int, BoundedQueue[WatchEvent]] = {}
        self.control = ControlRequests(self._on_control, clock, counts)
        self._is_gathering = False
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for: Instant | None = None
        self._ended = asyncio.Event()
        self._failure: AgentError | None = None
        self._is_running = False

    # ---- life -----------------------------------------------------------------------------------

    async def start(
        self,
        on_guest: OnGuest,
        routes: Iterable[tuple[Iterable[int], OnFrame]] = (),
        greeting: Callable[[], bytes] | None = None,
        candidates_of: Callable[[NodeId], list[Address]] = lambda _node: [],
        on_strange_authority: Callable[[], None] = lambda: None,
    ) -> None:
        """Let the node run.

        ``on_guest`` serves streams without certificate. Frames of members whose tag is in one of
        the ``routes`` go to that handler instead of the node. ``greeting`` is said first on each
        stream; ``candidates_of`` tells where else a node may be than where the node itself thinks;
        ``on_strange_authority`` hears of somebody who trusts another authority than we do.
        """
        for tags, handler in routes:
            self.node.route_frames(tags, functools.partial(self._put_by, handler))
        self._is_running = True
        for kind, queue in self._saves.items():
            queue.start(kind.value)
        self._syncs.start()
        self._streams.start(
            on_frame=self._receive_frame,
            on_unreachable=lambda peer: self._input(
                lambda now: self.node.peer_unreachable(peer, now)
            ),
            on_closed=lambda peer: self._input(lambda now: self.node.stream_closed(peer, now)),
            addresses_of=lambda node: with_candidates(
                self.node.addresses_of(node), candidates_of(node)
            ),
            on_guest=on_guest,
            door=self,
            path_bytes=lambda node: self.node.path_bytes(node),
            relays_to=lambda node: self.node.swim.relays_to(node),
            may_join=lambda one, other: self.node.belong(one, other),
            is_known=KnownHosts(self.node, self.now).__contains__,
            greeting=greeting,
            on_strange_authority=on_strange_authority,
        )
        self._udp.start(lambda: self._input(self._deliver))
        self._input(self.node.wake)

    async def stop(self) -> None:
        """Stop the node and close its streams. Harmless when called twice."""
        self._halt(AgentError("the agent is stopping.", status=exits.UNREACHABLE))
        for queue in self._saves.values():
            await queue.stop()
        await self._syncs.stop()
        await self._streams.stop()
        self._ended.set()

    async def wait(self) -> None:
        """Return when the driver was stopped. Raises what stopped it, if something went wrong."""
        await self._ended.wait()
        if self._failure is not None:
            raise self._failure

    # ---- what the application does with it ------------------------------------------------------

    def call(self, action: Callable[[Instant], T]) -> T:
        """Make an input call on the node: ``driver.call(lambda now: node.leave(now))``.

        Raises what the action raises; anything but a LocalError also stops the driver.
        """
        self._check_running()
        return self._turn(action, self._perform)

    def _check_running(self) -> None:
        if not self._is_running:
            raise AgentError("the agent is stopping; nothing was done.", status=exits.UNREACHABLE)

    def _on_control(self, action: Callable[[ControlPlane, Instant], T]) -> T:
        self._check_running()
        return self._turn(
            lambda now: self.node.with_control(lambda plane: action(plane, now), now),
            self._perform_soon,
        )

    def send_frame(self, data: bytes, to: NodeId) -> None:
        """Send a frame of the agents' own (tags 80 to 111) to a member."""
        self._streams.send(data, to)

    def waiting_bytes(self, to: NodeId) -> int:
        """Return how much of what was sent to a member has not left yet."""
        return self._streams.waiting_bytes(to)

    async def try_stream(self, to: NodeId) -> DialTest | None:
        """Open a stream to a member on trial, and say how far it got; None without an address."""
        return await self._streams.try_out(to)

    async def meets(self, node: NodeId) -> bool:
        """Tell whether a node shows its certificate now, wherever it is; takes a few seconds."""
        return await self._streams.meets(node)

    async def request(self, request: Request) -> Result:
        """Submit a request and return its result. Cancelling the call cancels the request.

        Raises InvalidRequest or LimitExceeded when it can never succeed.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        number = self.begin(request, functools.partial(_settle, future))
        try:
            return await future
        finally:
            self.drop(number)

    def begin(self, request: Request, settle: Settle) -> int:
        """Submit a request and return its number; ``settle`` gets what comes of it, later and once.

        That is its result, or why the agent stops. It must be quick, must not raise, and may begin
        another one. Raises what ``request`` raises; then it is not called.
        """

        def submit(now: Instant) -> int:
            number = self.node.submit(request, now)
            self._requests[number] = settle
            return number

        self._check_running()
        return self._turn(submit, self._perform_soon)

    def drop(self, number: int) -> None:
        """Cancel a request for which nobody waits any more; harmless when it is over.

        A write that is under way is still carried out.
        """
        if self._requests.pop(number, None) is not None and self._is_running:
            self._input(lambda now: self.node.cancel(number, now))

    def watch(self, request: Watch) -> BoundedQueue[WatchEvent]:
        """Submit a watch and return its events; closing the subscription ends the watch."""

        def submit(now: Instant) -> BoundedQueue[WatchEvent]:
            number = self.node.submit(request, now)
            self._watches[number] = BoundedQueue(lambda: self._unwatch(number))
            return self._watches[number]

        return self.call(submit)

    def subscribe(self) -> BoundedQueue[object]:
        """Return the events that belong to no request: MemberChanged, RegistryAdopted and so on."""
        subscription: BoundedQueue[object] = BoundedQueue(
            lambda: self._subscribers.discard(subscription)
        )
        self._subscribers.add(subscription)
        return subscription

    def listen(self, callback: Callable[[object], None]) -> None:
        """Call back at once with each event that belongs to no request.

        It must be quick, must not raise, and must not make an input call itself.
        """
        self._listeners.append(callback)

    # ---- the door of the streams: ``agent/net/authorization.py``
    # -----------------------------------------

    def admits(self, shown: ShownCertificate) -> bool:
        """Tell whether the registry has this node, with this certificate."""
        entry = self.node.state.registry.node(shown.node)
        return entry is not None and entry.shows(shown.serial)

    def registry_frame(self) -> bytes:
        """Return the frame that shows our registry."""
        return CODEC.encode(RegistryOffer(self.node.state.signed))

    def overheard(self, frame: bytes, shown: ShownCertificate) -> None:
        """Take in of somebody who was not let in which registry it follows, and nothing else."""
        self._input(lambda now: self.node.overhear(frame, shown.node, now))

    def knocked(self, shown: ShownCertificate, host: str) -> None:
        """Take note of somebody who was not let in."""
        self._input(lambda now: self.node.knocked(shown.node, None, now))
        self._call_back(StreamRefused(shown, host))

    # ---- inputs ---------------------------------------------------------------------------------

    def _turn(self, action: Callable[[Instant], T], follow_up: Callable[[], None]) -> T:
        """Make one input call; then perform its effects and re-arm the timer, or see to that."""
        try:
            result = action(self.now())
            follow_up()
        except LocalError:
            follow_up()
            raise
        except Exception as error:
            self._fail(error)
            raise
        return result

    def _input(self, action: Callable[[Instant], None]) -> None:
        """Make an input call for which nobody waits. A failure has stopped the driver already."""
        if self._is_running:
            with contextlib.suppress(Exception):
                self._turn(action, self._perform)

    def _gather(self, action: Callable[[Instant], None]) -> None:
        """Make such an input call, and perform its effects with those of others."""
        if self._is_running:
            with contextlib.suppress(Exception):
                self._turn(action, self._perform_soon)

    def _deliver(self, now: Instant) -> None:
        for data, source in self._udp.drain():
            self.node.receive(data, source, now)
        self._report(now)

    def _report(self, now: Instant) -> None:
        """Tell which datagrams were refused; behind what arrived, which may prove the contrary."""
        for address in self._udp.refusals():
            self.node.port_unreachable(address, now)

    def _wake(self, now: Instant) -> None:
        """Read what has arrived, and only then let timers accuse anybody."""
        for _ in range(DRAINS_BEFORE_WAKE_MAX):
            waiting = self._udp.drain()
            for data, source in waiting:
                self.node.receive(data, source, now)
            if len(waiting) < DRAIN_MAX:
                break
        self._report(now)
        self.node.wake(now)

    def _receive_frame(self, data: bytes, peer: NodeId) -> None:
        if self._is_running:
            # As ``_gather``, without what each of thousands of frames a second would pay for it.
            try:
                self.node.receive_frame(data, peer, self.now())
            except LocalError:
                pass
            except Exception as error:  # noqa: BLE001 - a bug, which stops the driver
                self._fail(error)
            self._perform_soon()
        # After the turn: whoever takes them in may want to make an input call itself.
        while self._routed:
            self._routed.popleft()()

    def _put_by(self, handler: OnFrame, data: bytes, peer: NodeId, _now: Instant) -> None:
        self._routed.append(functools.partial(handler, data, peer))

    # ---- effects --------------------------------------------------------------------------------

    def _perform_soon(self) -> None:
        if not self._is_gathering:
            self._is_gathering = True
            asyncio.get_running_loop().call_soon(self._input, self._end_gathering)

    def _end_gathering(self, _now: Instant) -> None:
        self._is_gathering = False

    def _perform(self) -> None:
        for effect in self.node.effects():
            match effect:
                case SendDatagram(data, to):
                    self._udp.send(data, to)
                case SendFrame(data, node):
                    self._streams.send(data, node)
                case Persist():
                    self._saves[effect.durability].put(effect)
                case SyncDisk(token):
                    self._syncs.put(token)
                case Emit(event):
                    self._publish(event)
        self._rearm()

    def _rearm(self) -> None:
        deadline = self.node.deadline()
        if deadline == self._armed_for and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._armed_for = None, deadline
        if deadline is not None and self._is_running:
            delay_s = max(0.0, deadline - self.now())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._input(self._wake)

    def _publish(self, event: object) -> None:
        match event:
            case Completed(number, result):
                settle = self._requests.pop(number, None)
                if settle is not None:
                    settle(result)
            case WatchEvent():
                watch = self._watches.get(event.request)
                size_bytes = sum(len(each.data) for each in event.values) + len(event.token)
                if watch is not None and not watch.put(event, size_bytes):
                    self.counts["events_dropped/watch_overrun"] += 1
            case (
                ControlCompleted() | ControlEvent() | WatchEnded()
                | SessionLost() | SessionConfirmed() | CopyHalted()
            ):  # fmt: skip
                self.control.heard(event)
            case RegistryAdopted():
                self._streams.close_strangers()
                self._notify(event)
            case DatagramRefused():
                self._call_back(event)  # and no queue: anybody may send these without end
            case SubjectsChanged(watched):
                self._streams.pin(watched)
            case EventDelivered():
                self.node.on_trial(events.title_of(event.event), lambda: self._notify(event))
            case QueryReceived():
                self.node.on_trial(queries.title_of(event.key), lambda: self._notify(event))
            case MemberChanged(member):
                words = merge.title_of(member.id, member.boot, member.described)
                self.node.on_trial(words, lambda: self._notify(event))
            case _:
                self._notify(event)

    def _call_back(self, event: object) -> None:
        for callback in self._listeners:
            callback(event)

    def _notify(self, event: object) -> None:
        self._call_back(event)
        for subscriber in tuple(self._subscribers):
            if not subscriber.put(event):
                self.counts["events_dropped/subscriber_overrun"] += 1

    def _unwatch(self, number: int) -> None:
        self._watches.pop(number)
        # A watch may be cut off while its events are being performed: cancel it afterwards.
        asyncio.get_running_loop().call_soon(self._input, lambda now: self.node.cancel(number, now))

    def _queue(self, kind: Durability, store: ChangeStore) -> SaveQueue:
        return SaveQueue(
            store,
            self.counts,
            on_saved=lambda batches: self._gather(functools.partial(self._confirm, batches)),
            on_refused=lambda error: self._input(
                lambda now: self.node.hold_back(kind, now, held=error is not None)
            ),
            on_failed=self._fail,
            gathering_s=GATHERING_S if kind is Durability.FLUSH else 0.0,
        )

    def _confirm(self, batches: list[Persist], now: Instant) -> None:
        for each in batches:
            self.node.persisted(each.token, now)
        if batches[-1].durability is Durability.FLUSH:
            self._syncs.saved(batches[-1].token)

    def _on_synced(self, token: int) -> None:
        self._gather(lambda now: self.node.synced(token, now))

    # ---- the end --------------------------------------------------------------------------------

    def _fail(self, error: Exception) -> None:
        """Stop for good; ``wait`` raises the reason."""
        if not isinstance(error, AgentError):
            log.critical("the agent stops because of a bug or a broken disk", exc_info=error)
            error = AgentError(
                f"the agent stopped itself: {type(error).__name__}: {error}.",
                hint="What was acknowledged is on disk. Start it again; if it happens twice, "
                "report the log.",
                status=exits.UNHEALTHY,
            )
        self._failure = self._failure or error
        self._halt(error)
        self._ended.set()

    def _halt(self, reason: AgentError) -> None:
        """Take no more inputs; let everybody who waits know why."""
        self._is_running = False
        self._udp.stop()
        if self._timer is not None:
            self._timer.cancel()
        unsettled = _unsettled(reason)
        requests, self._requests = self._requests, {}
        for settle in requests.values():
            settle(unsettled)
        for watch in tuple(self._watches.values()):
            watch.fail(reason)
        self.control.fail(reason, unsettled)
        for subscriber in tuple(self._subscribers):
            subscriber.fail(reason)


def _unsettled(reason: AgentError) -> AgentError:
    """Return the reason for what was under way: others may have it, and nobody here hears of it."""
    return AgentError(
        f"indeterminate: {reason.message.rstrip('.')}",
        "what was asked for may have been done, or may yet be; look before you ask again",
        reason.status,
    )


def _settle(future: asyncio.Future[Result], outcome: Result | AgentError) -> None:
    if future.done():
        return
    if isinstance(outcome, AgentError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def with_candidates(known: list[Address], candidates: list[Address]) -> list[Address]:
    """Return where to dial: what is known best first, then candidates, then the rest."""
    return list(dict.fromkeys([*known[:KNOWN_BEFORE_CANDIDATES], *candidates, *known]))
