"""The driver's promises, on a node that only records what is done to it."""

import asyncio
import socket
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from agent.exits import AgentError
from agent.identity.identity import Identity, found
from agent.loop.bounded_queue import BoundedQueue
from agent.net.authorization import ShownCertificate
from agent.net.sockets import Sockets, open_sockets
from agent.net.streams import Streams
from agent.net.udp import UdpEndpoint
from agent.runtime.driver import Driver
from agent.runtime.save_queue import BUSY_CHANGES
from agent.store.errors import StorageError
from gossip.core.errors import InvalidRequest
from gossip.core.machine import (
    Address,
    Durability,
    Effect,
    Emit,
    FrameHandler,
    Persist,
    SendDatagram,
    SendFrame,
    SyncDisk,
)
from gossip.kv.requests import Completed, Get, GetResult, Put, PutResult, Watch, WatchEvent
from gossip.membership.detection.observers import SubjectsChanged
from gossip.node import Node
from tests.support.patience import GIVE_UP_S

OK = PutResult("ok", 1, 1, b"")
FLUSH, FSYNC = Durability.FLUSH, Durability.FSYNC


class RecordingNode:
    """Implements what the driver calls; tests queue effects and look at the calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.queue: deque[Effect] = deque()
        self.routes: dict[int, FrameHandler] = {}
        self.due: float | None = None
        self.numbers = iter(range(1, 1000))
        self.held: set[Durability] = set()
        self.on_wake: Callable[[], None] = lambda: None

    def receive(self, data: bytes, source: Address, now: float) -> None:
        self.calls.append(("receive", data))
        if data == b"bug":
            raise AssertionError("a rule of the protocol was broken")

    def route_frames(self, tags: Iterable[int], handler: FrameHandler) -> None:
        self.routes.update(dict.fromkeys(tags, handler))

    def receive_frame(self, data: bytes, peer: int, now: float) -> None:
        self.calls.append(("frame", data, peer))
        if handler := self.routes.get(data[1]):
            handler(data, peer, now)

    def overhear(self, data: bytes, peer: int, now: float) -> None:
        self.calls.append(("overhear", data, peer))

    def peer_unreachable(self, peer: int, now: float) -> None:
        self.calls.append(("unreachable", peer))

    def stream_closed(self, peer: int, now: float) -> None:
        self.calls.append(("closed", peer))

    def port_unreachable(self, address: Address, now: float) -> None:
        self.calls.append(("refused", address))

    def persisted(self, token: int, now: float) -> None:
        self.calls.append(("persisted", token))

    def synced(self, token: int, now: float) -> None:
        self.calls.append(("synced", token))

    def hold_back(self, durability: Durability, now: float, *, held: bool) -> None:
        (self.held.add if held else self.held.discard)(durability)

    def submit(self, request: object, now: float) -> int:
        if isinstance(request, Get) and request.r == 9:
            raise InvalidRequest("r=9")
        number = next(self.numbers)
        self.calls.append(("submit", number))
        if isinstance(request, Put):
            self.queue.append(Emit(Completed(number, OK)))
        return number

    def cancel(self, request: int, now: float) -> None:
        self.calls.append(("cancel", request))

    def belong(self, *_nodes: int) -> bool:
        return True

    def addresses_of(self, node: int) -> list[Address]:
        return []

    def wake(self, now: float) -> None:
        self.calls.append(("wake",))
        self.due = None
        self.on_wake()

    def deadline(self) -> float | None:
        return self.due

    def effects(self) -> Iterator[Effect]:
        while self.queue:
            yield self.queue.popleft()


class Disk:
    """Commits when it is told to."""

    def __init__(self) -> None:
        self.commits: list[list[object]] = []
        self.may_commit = asyncio.Event()
        self.may_commit.set()
        self.error: Exception | None = None
        self.may_sync = asyncio.Event()
        self.may_sync.set()
        self.syncs = 0
        self.sync_errors: list[Exception] = []

    async def save(self, changes: Sequence[object]) -> None:
        await self.may_commit.wait()
        if self.error is not None:
            raise self.error
        self.commits.append(list(changes))

    async def sync(self) -> None:
        await self.may_sync.wait()
        if self.sync_errors:
            raise self.sync_errors.pop()
        self.syncs += 1


class Rig:
    """A driver on loopback with a recording node."""

    def __init__(self, who: Identity) -> None:
        self.node, self.disk, self.log = RecordingNode(), Disk(), Disk()
        self.counts: Counter[str] = Counter()
        self.sockets: Sockets = open_sockets(["127.0.0.1"], 0)
        udp = UdpEndpoint(self.sockets.datagram, self.counts)
        streams = Streams(who, self.sockets, self.counts)
        stores = {FLUSH: self.disk, FSYNC: self.log}
        self.driver = Driver(cast("Node", self.node), udp, streams, stores, self.counts, self.disk)
        self.routed: list[tuple[bytes, int]] = []

    async def start(self) -> None:
        async def no_guests(*_: object) -> None:
            return

        await self.driver.start(no_guests, [(range(80, 112), self._route)])
        self.node.calls.clear()

    def _route(self, data: bytes, peer: int) -> None:
        self.routed.append((data, peer))
        self.driver.call(lambda now: self.node.wake(now))

    def effect(self, *effects: Effect) -> None:
        self.driver.call(lambda _: self.node.queue.extend(effects))

    def send(self, *datagrams: bytes) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for each in datagrams:
                sender.sendto(each, ("127.0.0.1", self.sockets.port))

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(GIVE_UP_S):
            while not condition():  # noqa: ASYNC110 - any condition, not one that tells
                await asyncio.sleep(0.005)


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Callable[[Rig], Coroutine[Any, Any, None]]], None]:
    def start(scenario: Callable[[Rig], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            rig = Rig(found(tmp_path / "identity", "barn", "pi1"))
            await rig.start()
            try:
                await scenario(rig)
            finally:
                await rig.driver.stop()
                await rig.driver.stop()
                rig.sockets.close()

        asyncio.run(main())

    return start


Run = Callable[[Callable[[Rig], Coroutine[Any, Any, None]]], None]


def test_what_has_arrived_is_read_before_a_timer_acts(run: Run) -> None:
    """A stall: forty datagrams and a due timer wait for the loop at the same moment."""

    async def scenario(rig: Rig) -> None:
        rig.node.due = rig.driver.now() - 5
        rig.effect()
        rig.send(*[bytes([number]) for number in range(40)])
        await rig.until(lambda: ("wake",) in rig.node.calls)
        assert rig.node.calls[:40] == [("receive", bytes([number])) for number in range(40)]
        assert rig.node.calls[40] == ("wake",)

    run(scenario)


def test_the_timer_follows_the_deadline(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        woken: list[float] = []
        rig.node.on_wake = lambda: woken.append(rig.driver.now())
        rig.node.due = rig.driver.now() + 3600
        rig.effect()
        sooner = rig.driver.now() + 0.05
        rig.node.due = sooner
        rig.effect()
        await rig.until(lambda: woken)
        assert woken[0] >= sooner - 0.001
        assert rig.node.calls.count(("wake",)) == 1
        assert rig.driver._timer is None, "nothing is due"

    run(scenario)


def test_while_many_write_a_commit_waits_for_more_and_no_vote_does(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.runtime.driver.GATHERING_S", 0.3)

    async def scenario(rig: Rig) -> None:
        rig.effect(Persist(1, ("a",), FLUSH))
        await rig.until(lambda: rig.disk.commits == [["a"]])
        rig.effect(Persist(2, tuple("b" * BUSY_CHANGES), FLUSH))
        await rig.until(lambda: len(rig.disk.commits) == 2)
        rig.effect(Persist(3, ("c",), FLUSH), Persist(4, tuple("v" * BUSY_CHANGES), FSYNC))
        await rig.until(lambda: len(rig.log.commits) == 1)
        rig.effect(Persist(5, ("d",), FLUSH), Persist(6, ("w",), FSYNC))
        await rig.until(lambda: len(rig.log.commits) == 2)
        await rig.until(lambda: ("persisted", 5) in rig.node.calls)
        assert rig.disk.commits[2:] == [["c", "d"]], "what came meanwhile shares the commit"
        rig.effect(Persist(7, ("e",), FLUSH))
        await rig.until(lambda: rig.disk.commits[-1] == ["e"])

    run(scenario)


def test_a_sync_waits_for_its_batch_and_serves_all_that_was_written_before_it(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        rig.disk.may_commit.clear()
        rig.disk.may_sync.clear()
        rig.effect(Persist(1, ("a",), FLUSH), SyncDisk(1))
        await asyncio.sleep(0.02)
        rig.disk.may_commit.set()
        await rig.until(lambda: ("persisted", 1) in rig.node.calls)
        rig.effect(Persist(2, ("b",), FLUSH), SyncDisk(2), Persist(3, ("c",), FLUSH), SyncDisk(3))
        await rig.until(lambda: ("persisted", 3) in rig.node.calls)
        assert not any(call[0] == "synced" for call in rig.node.calls)
        rig.disk.may_sync.set()
        await rig.until(lambda: ("synced", 3) in rig.node.calls)
        assert [call for call in rig.node.calls if call[0] == "synced"] == [
            ("synced", 1), ("synced", 3),
        ], "the first began before the others were written"  # fmt: skip
        assert rig.disk.syncs == 2
        rig.effect(Persist(4, ("d",), FLUSH))
        await rig.until(lambda: ("persisted", 4) in rig.node.calls)
        await asyncio.sleep(0.02)
        assert rig.disk.syncs == 2, "nobody has asked for it"
        rig.effect(SyncDisk(0))
        await rig.until(lambda: ("synced", 4) in rig.node.calls)

    run(scenario)


def test_a_sync_that_finds_no_room_is_tried_again_and_nobody_is_told_before(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.runtime.sync_queue.RETRY_S", 0.01)

    async def scenario(rig: Rig) -> None:
        full = StorageError("data.db: the disk is full.", "Free some space.")
        full.may_pass = True
        rig.disk.sync_errors += 3 * [full]
        rig.effect(Persist(1, ("a",), FLUSH), SyncDisk(1))
        await rig.until(lambda: ("synced", 1) in rig.node.calls)
        assert rig.disk.syncs == 1
        assert not rig.disk.sync_errors

    run(scenario)


def test_effects_are_performed_in_order_and_disk_is_confirmed(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        rig.disk.may_commit.clear()
        rig.effect(Persist(1, ("a",), FLUSH))
        await asyncio.sleep(0.02)
        rig.effect(Persist(2, ("b",), FLUSH), Persist(3, ("c", "d"), FLUSH))
        await asyncio.sleep(0.02)
        assert rig.node.calls == [], "nothing is confirmed before it is on the disk"
        rig.disk.may_commit.set()
        await rig.until(lambda: ("persisted", 3) in rig.node.calls)
        assert rig.node.calls == [("persisted", 1), ("persisted", 2), ("persisted", 3)]
        assert rig.disk.commits == [["a"], ["b", "c", "d"]], "what waited is one group"

    run(scenario)


def test_a_failed_commit_ends_the_driver_and_confirms_nothing(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        rig.disk.error = AgentError("control.db: the disk is full.", "Free some space.")
        waiting = asyncio.create_task(rig.driver.request(Get("k")))
        await asyncio.sleep(0)
        rig.effect(Persist(1, ("a",), FLUSH))
        with pytest.raises(AgentError, match="disk is full"):
            await asyncio.wait_for(rig.driver.wait(), GIVE_UP_S)
        with pytest.raises(AgentError, match=r"^indeterminate: control.db: the disk is full$"):
            await waiting  # others may have it by now
        assert ("persisted", 1) not in rig.node.calls
        rig.send(b"anybody?")
        await asyncio.sleep(0.05)
        assert ("receive", b"anybody?") not in rig.node.calls, "it is silent from now on"
        with pytest.raises(AgentError, match="stopping"):
            rig.driver.call(lambda _: None)

    run(scenario)


def test_a_full_disk_makes_batches_wait_and_ends_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.runtime.save_queue.SAVE_RETRY_S", 0.01)

    async def scenario(rig: Rig) -> None:
        full = StorageError("data.db: the disk is full.", "Free some space.")
        full.may_pass = True
        rig.disk.error = full
        rig.effect(Persist(1, ("a",), FLUSH))
        await rig.until(lambda: rig.driver.counts["persists/refused"] > 2)
        rig.effect(Persist(2, ("b",), FLUSH))
        rig.send(b"anybody?")
        await rig.until(lambda: ("receive", b"anybody?") in rig.node.calls)
        assert ("persisted", 1) not in rig.node.calls, "nothing is confirmed that is not on disk"
        assert rig.node.held == {FLUSH}, "nothing of that kind is begun meanwhile"
        rig.disk.error = None
        await rig.until(lambda: ("persisted", 2) in rig.node.calls)
        assert rig.disk.commits == [["a"], ["b"]]
        assert not rig.node.held

    run(scenario)


def test_what_waits_for_a_full_disk_is_bounded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.runtime.save_queue.SAVE_RETRY_S", 0.01)
    monkeypatch.setattr("agent.runtime.save_queue.UNSAVED_CHANGES_MAX", 2)

    async def scenario(rig: Rig) -> None:
        rig.disk.error = StorageError("data.db: the disk is full.", "Free some space.")
        rig.disk.error.may_pass = True
        rig.effect(Persist(1, ("a",), FLUSH))
        await rig.until(lambda: rig.driver.counts["persists/refused"] > 0)
        rig.effect(Persist(2, ("b", "c", "d"), FLUSH))
        with pytest.raises(AgentError, match="disk is full"):
            await asyncio.wait_for(rig.driver.wait(), GIVE_UP_S)

    run(scenario)


def test_what_is_synced_waits_for_nothing_that_is_flushed(run: Run) -> None:
    """A log that is folded into its file, or a burst of records, holds up no vote."""

    async def scenario(rig: Rig) -> None:
        rig.disk.may_commit.clear()
        rig.effect(Persist(1, ("a",), FLUSH), Persist(2, ("vote",), FSYNC))
        rig.effect(Persist(3, ("b",), FLUSH), Persist(4, ("entry",), FSYNC))
        await rig.until(lambda: ("persisted", 4) in rig.node.calls)
        assert rig.node.calls == [("persisted", 2), ("persisted", 4)], "each kind in its order"
        rig.disk.may_commit.set()
        await rig.until(lambda: ("persisted", 3) in rig.node.calls)
        assert rig.node.calls[2:] == [("persisted", 1), ("persisted", 3)]
        assert [*rig.log.commits, *rig.disk.commits] == [["vote", "entry"], ["a", "b"]]

    run(scenario)


def test_a_log_that_cannot_be_synced_ends_the_driver(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        rig.log.error = StorageError("consensus.db: the disk reports an error.", "Replace it.")
        rig.effect(Persist(1, ("vote",), FSYNC))
        with pytest.raises(AgentError, match="reports an error"):
            await asyncio.wait_for(rig.driver.wait(), GIVE_UP_S)
        assert rig.node.held == {FSYNC}
        assert ("persisted", 1) not in rig.node.calls

    run(scenario)


def test_a_bug_in_the_node_ends_the_driver(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(rig: Rig) -> None:
        rig.send(b"bug")
        with pytest.raises(AgentError, match="a rule of the protocol was broken") as caught:
            await asyncio.wait_for(rig.driver.wait(), GIVE_UP_S)
        assert caught.value.hint

    run(scenario)
    assert "because of a bug" in caplog.text


def test_requests_complete_even_at_once(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        assert await rig.driver.request(Put("k", b"v")) == OK
        assert rig.driver._requests == {}

    run(scenario)


def test_requests_are_answered_to_whom_they_belong(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        one = asyncio.create_task(rig.driver.request(Get("one")))
        two = asyncio.create_task(rig.driver.request(Get("two")))
        await rig.until(lambda: len(rig.node.calls) == 2)
        results = [GetResult((), b"", number, 1, "ok") for number in (1, 2)]
        rig.effect(Emit(Completed(2, results[1])), Emit(Completed(1, results[0])))
        rig.effect(Emit(Completed(99, OK)))
        assert await one == results[0]
        assert await two == results[1]

    run(scenario)


def test_a_cancelled_request_is_cancelled_in_the_node(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(rig.driver.request(Get("k")), 0.01)
        assert rig.node.calls == [("submit", 1), ("cancel", 1)]

    run(scenario)


def test_a_request_that_cannot_be_is_the_callers_fault(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        with pytest.raises(InvalidRequest):
            await rig.driver.request(Get("k", r=9))
        assert await rig.driver.request(Put("k", b"v")) == OK, "and harms nobody"

    run(scenario)


def event(number: int, key: str) -> Emit:
    return Emit(WatchEvent(number, key, "put", ()))


def test_a_watch_yields_until_closed(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        watch = rig.driver.watch(Watch(prefix=""))
        rig.effect(event(1, "a"), event(1, "b"), event(2, "not mine"))
        assert (await anext(watch)).key == "a"
        watch.close()
        watch.close()
        await rig.until(lambda: ("cancel", 1) in rig.node.calls)
        rig.effect(event(1, "c"))
        assert [each.key async for each in watch] == ["b"]

    run(scenario)


def test_a_watcher_that_falls_behind_is_told(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        watch = rig.driver.watch(Watch(prefix=""))
        rig.effect(*(event(1, str(number)) for number in range(1100)))
        got = [(await anext(watch)).key for _ in range(1024)]
        with pytest.raises(AgentError, match="events waited to be read"):
            await anext(watch)
        assert got == [str(number) for number in range(1024)]
        assert rig.counts["events_dropped/watch_overrun"] == 1
        await rig.until(lambda: ("cancel", 1) in rig.node.calls)

    run(scenario)


def test_other_events_go_to_listeners_and_subscribers(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        heard: list[object] = []
        rig.driver.listen(heard.append)
        one, two = rig.driver.subscribe(), rig.driver.subscribe()
        rig.effect(Emit("joined"))
        two.close()
        rig.effect(Emit("left"))
        assert heard == ["joined", "left"]
        assert [await anext(one), await anext(one)] == ["joined", "left"]
        assert [each async for each in two] == ["joined"]
        await rig.driver.stop()
        with pytest.raises(AgentError, match="stopping"):
            await anext(one)

    run(scenario)


def test_frames_go_to_the_node_and_from_there_to_their_route(run: Run) -> None:
    """Who takes one in may make an input call: the node's turn is over by then."""

    async def scenario(rig: Rig) -> None:
        rig.driver._receive_frame(b"\x91\x20", 7)
        rig.driver._receive_frame(b"\x91\x58", 7)
        frames = [("frame", b"\x91\x20", 7), ("frame", b"\x91\x58", 7)]
        assert rig.node.calls == [*frames, ("wake",)]
        assert rig.routed == [(b"\x91\x58", 7)]

    run(scenario)


def test_what_follows_from_frames_that_come_together_is_performed_together(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        rig.node.route_frames(
            [7], lambda data, _peer, _now: rig.node.queue.append(Persist(data[0], (data,), FSYNC))
        )
        frames = [bytes([number, 7]) for number in (1, 2, 3)]
        for frame in frames:
            rig.driver._receive_frame(frame, 2)
        assert len(rig.node.queue) == 3, "more may come in this turn"
        await rig.until(lambda: ("persisted", 3) in rig.node.calls)
        assert rig.log.commits == [frames]
        assert not rig.node.queue

    run(scenario)


def test_who_is_not_let_in_is_only_overheard(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        rig.driver.overheard(b"\x91\x58", ShownCertificate(7, b"serial of yesterday"))
        assert rig.node.calls == [("overhear", b"\x91\x58", 7)]
        assert rig.routed == []

    run(scenario)


def test_unreachable_nodes_are_reported_to_the_node(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        rig.effect(SendFrame(b"x", 42), SendDatagram(b"y", Address("127.0.0.1", 9)))
        assert rig.node.calls == []
        await rig.until(lambda: ("unreachable", 42) in rig.node.calls)
        assert rig.counts["datagrams/sent"] == 1

    run(scenario)


def test_refused_datagrams_are_reported_behind_what_arrived(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
            gone.bind(("127.0.0.1", 0))
            nobody = Address("127.0.0.1", gone.getsockname()[1])
        rig.effect(SendDatagram(bytes(100), nobody))
        await rig.until(lambda: ("refused", nobody) in rig.node.calls)

    run(scenario)


def test_the_streams_that_a_node_watches_are_kept(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        rig.effect(Emit(SubjectsChanged((42,))))
        await rig.until(lambda: ("unreachable", 42) in rig.node.calls)

    run(scenario)


def test_stop_ends_wait_without_error(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        waiting = asyncio.create_task(rig.driver.wait())
        await rig.driver.stop()
        await asyncio.wait_for(waiting, GIVE_UP_S)

    run(scenario)


def test_a_subscription_closes_once() -> None:
    async def scenario() -> None:
        closed: list[int] = []
        subscription: BoundedQueue[int] = BoundedQueue(lambda: closed.append(1), waiting_max=2)
        assert [subscription.put(each) for each in (1, 2, 3, 4)] == [True, True, False, True]
        assert closed == [1]
        assert [await anext(subscription), await anext(subscription)] == [1, 2]
        for _ in range(2):
            with pytest.raises(AgentError, match="more than 2 events"):
                await anext(subscription)

    asyncio.run(scenario())
