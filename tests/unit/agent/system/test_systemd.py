"""What systemd is told, over real datagram sockets."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.system import systemd
from agent.system.systemd import Notifier, ask_for_time, keep_alive
from tests.support.patience import GIVE_UP_S

EXTENSION = b"EXTEND_TIMEOUT_USEC=40000000\nSTATUS=starting: it opens its stores"


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(GIVE_UP_S)
        yield listener


def notifier(manager: socket.socket, **environ: str) -> Notifier:
    return Notifier({"NOTIFY_SOCKET": manager.getsockname(), **environ})


def test_life_in_messages(manager: socket.socket) -> None:
    told = notifier(manager)
    told.ready("three members\nalive")
    told.status("four members")
    told.alive()
    told.stopping()
    messages = [manager.recv(1000).decode() for _ in range(4)]
    assert messages == [
        "READY=1\nSTATUS=three members\\nalive",
        "STATUS=four members",
        "WATCHDOG=1",
        "STOPPING=1\nSTATUS=leaving the covey",
    ]


def test_abstract_sockets() -> None:
    name = f"covey-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name)
        listener.settimeout(GIVE_UP_S)
        Notifier({"NOTIFY_SOCKET": "@" + name}).alive()
        assert listener.recv(100) == b"WATCHDOG=1"


def test_without_a_manager_nothing_happens(tmp_path: Path) -> None:
    Notifier({}).ready("fine")
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).ready("fine")


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_watchdog_interval(environ: dict[str, str], interval_s: float | None) -> None:
    assert Notifier(environ).watchdog_s == interval_s


def test_watchdog_is_fed_while_all_is_well(manager: socket.socket) -> None:
    wellness = iter([True, False, True])
    asked = []

    def is_well() -> bool:
        asked.append(next(wellness, None))
        if asked[-1] is None:
            raise asyncio.CancelledError
        return asked[-1]

    told = notifier(manager, WATCHDOG_USEC="1000")
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(keep_alive(told, is_well))
    manager.setblocking(False)
    messages = []
    with contextlib.suppress(BlockingIOError):
        while True:
            messages.append(manager.recv(100))
    assert messages == [b"WATCHDOG=1"] * 2


def test_no_watchdog_no_task(manager: socket.socket) -> None:
    asyncio.run(asyncio.wait_for(keep_alive(notifier(manager)), GIVE_UP_S))


def test_a_long_start_asks_for_time_until_it_is_ready(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "START_PAUSE_S", 0.001)
    told = notifier(manager)

    async def start() -> None:
        asking = asyncio.create_task(ask_for_time(told))
        loop = asyncio.get_running_loop()
        for _ in range(3):  # a database that is carried over in a thread, say
            assert await loop.run_in_executor(None, manager.recv, 100) == EXTENSION
        told.ready("fine")
        await asyncio.wait_for(asking, GIVE_UP_S)

    asyncio.run(start())
    while (message := manager.recv(100)) == EXTENSION:
        pass
    assert message.startswith(b"READY=1")


@pytest.mark.parametrize("awaited", [True, False])
def test_nobody_is_asked_for_time_for_ever(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch, awaited: bool
) -> None:
    monkeypatch.setattr(systemd, "START_PAUSE_S", 0.001)
    monkeypatch.setattr(systemd, "START_S_MAX", 0.005)
    told = notifier(manager) if awaited else Notifier({})
    asyncio.run(asyncio.wait_for(ask_for_time(told), GIVE_UP_S))
    manager.setblocking(False)
    heard = 0
    with contextlib.suppress(BlockingIOError):
        while manager.recv(100) == EXTENSION:
            heard += 1
    assert heard == (5 if awaited else 0)


def test_a_manager_that_does_not_read_stops_nothing(manager: socket.socket) -> None:
    told = notifier(manager)
    for _ in range(1000):
        told.alive()
        told.starting()
    assert manager.recv(100) == b"WATCHDOG=1"
