"""Parts of an agent after failures that nobody foresaw: each goes on, and nothing is lost."""

import asyncio
import importlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import pytest

from agent.api import listeners
from agent.apps.log import AppLog
from agent.apps.states import AppState
from agent.apps.supervisor import Supervisor
from agent.identity.identity import Peer
from agent.loop import late, watched
from agent.net.outgoing import LinkState, OutgoingStream
from agent.programs.child import ChildProcess, Launch
from agent.store.control import ControlStore
from agent.store.errors import StorageError
from agent.store.known_peers import KnownPeers
from agent.system.systemd import Notifier
from edge_apps.client import Client
from gossip.core.machine import Address
from gossip.membership.model.members import Member, MemberChanged, MemberState
from tests.support.fake_agent import serving
from tests.support.patience import GIVE_UP_S

OUT_OF_FILES = OSError(24, "Too many open files")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.loop.watched.AGAIN_FIRST_S", 0.01)


@pytest.fixture
def watch() -> watched.Watch:
    return watched.Watch()


def play(watch: watched.Watch, story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def limited() -> None:
        watched.use(watch)
        async with asyncio.timeout(GIVE_UP_S):
            await story()

    asyncio.run(limited())


async def until(come_true: Callable[[], bool]) -> None:
    while not come_true():  # noqa: ASYNC110 - these parts have no event for it
        await asyncio.sleep(0.005)


def test_the_api_that_could_not_be_loaded_is_loaded_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading code takes file descriptors, of which there may be none just then."""
    load, refusals = importlib.import_module, [OUT_OF_FILES, OUT_OF_FILES]

    def scarce(name: str) -> object:
        if refusals:
            raise refusals.pop()
        return load(name)

    monkeypatch.setattr(late, "import_module", scarce)
    monkeypatch.setattr(late, "_loaded", set())
    with serving(tmp_path) as served:
        assert Client(served.paths.socket, timeout_s=GIVE_UP_S).get("/healthz")["ready"]
    assert not refusals


def test_an_api_that_cannot_be_loaded_does_not_keep_the_agent_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(_name: str) -> object:
        raise OUT_OF_FILES

    monkeypatch.setattr(late, "import_module", never)
    monkeypatch.setattr(late, "_loaded", set())
    monkeypatch.setattr(listeners, "START_S", 0.05)
    with serving(tmp_path) as served, pytest.raises(Exception, match="did not answer"):
        Client(served.paths.socket, timeout_s=0.1).get("/healthz")
    assert not served.paths.socket.exists()


def test_an_app_that_was_lost_is_started_again(
    tmp_path: Path, watch: watched.Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        counts: Counter[str] = Counter()
        log = AppLog(tmp_path / "x.log", counts, lambda: 0.0)
        launch = Launch("app", (sys.executable, "-S", "-c", "input()"), dict(os.environ), tmp_path)
        app = Supervisor(launch, log, counts)
        spawn, surprises = app._spawn, [RuntimeError("can't start new thread")]

        async def surprising() -> ChildProcess:
            if surprises:
                raise surprises.pop()
            return await spawn()

        monkeypatch.setattr(app, "_spawn", surprising)
        await app.start()
        assert app.last_end == "was lost: can't start new thread"
        await until(lambda: app.state is AppState.RUNNING and app.pid is not None)
        assert watch.counts["tasks_failed/app-supervisor"] == 1
        await app.stop()

    play(watch, story)


def _no_frame(_data: bytes, _peer: int) -> None:
    raise AssertionError("nobody answers here")


def test_a_member_is_dialled_again_after_a_surprise(watch: watched.Watch) -> None:
    async def story() -> None:
        broken: list[int] = []
        dialled: list[int] = []

        async def dial(to: int) -> Any:
            dialled.append(to)
            raise RuntimeError("a library's surprise")

        link = OutgoingStream(7, dial, broken.append, broken.append, _no_frame, Counter())
        for times in (1, 2):
            link.send(b"\x01")
            await until(lambda: link.state is LinkState.IDLE and len(dialled) >= times)  # noqa: B023
        assert broken == [7, 7], "who waits for the frame is told each time"
        assert watch.counts["tasks_failed/link"] == 2
        await link.stop()

    play(watch, story)


def changed(node: int, host: str) -> MemberChanged:
    member = Member(node, f"pi{node}", (Address(host, 1),), {}, MemberState.ALIVE, 1, 0, 0.0)
    return MemberChanged(member, None, "joined")


@pytest.mark.parametrize("surprise", [StorageError("the disk is full"), RuntimeError("surprise")])
def test_the_peer_book_forgets_nobody_whom_it_could_not_write(
    tmp_path: Path, watch: watched.Watch, monkeypatch: pytest.MonkeyPatch, surprise: Exception
) -> None:
    monkeypatch.setattr("agent.store.known_peers.WRITE_DELAY_S", 0.01)

    async def story() -> None:
        store = await ControlStore.open(tmp_path / "control.db", bytes(16), 1)
        save, surprises = store.save_peers, [surprise]

        async def scarce(peers: Iterable[Peer]) -> None:
            if surprises:
                raise surprises.pop()
            await save(peers)

        monkeypatch.setattr(store, "save_peers", scarce)
        book = KnownPeers(store, 1, lambda node: [Address(f"10.0.0.{node}", 1)])
        await book.start([])
        book.record(changed(2, "10.0.0.2"))
        await until(lambda: not surprises)
        book.record(changed(3, "10.0.0.3"))
        await until(lambda: {peer.id for peer in store.peers()} == {2, 3})
        await book.stop()
        await store.close()

    play(watch, story)


def test_no_descriptor_for_the_service_manager_is_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object) -> object:
        raise OUT_OF_FILES

    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    monkeypatch.setattr("agent.system.systemd.socket.socket", none_left)
    notifier.alive()
