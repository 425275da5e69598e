"""A stream on trial: each way in which it can fail has its own word."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from agent.net import dial_test
from agent.net.dial_test import DialOutcome, try_stream
from agent.net.tls import guest_context
from gossip.core.machine import Address
from gossip.core.tuning import PATH_BYTES

SHORT_S = 0.2


@contextlib.contextmanager
def listening(backlog: int = 5) -> Iterator[Address]:
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as server:
        yield Address("127.0.0.1", server.getsockname()[1])


def tried(address: Address) -> DialOutcome:
    return asyncio.run(try_stream(address, guest_context(), PATH_BYTES)).outcome


def test_nobody_at_the_port() -> None:
    with listening() as address:
        pass
    assert tried(address) is DialOutcome.REFUSED


def test_a_handshake_that_does_not_get_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial_test, "STEP_S", SHORT_S)
    with listening() as address:
        assert tried(address) is DialOutcome.STALLED


def test_nothing_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(*_: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(dial_test, "STEP_S", SHORT_S)
    monkeypatch.setattr(dial_test, "connected_to", silent)
    assert tried(Address("192.0.2.1", 7747)) is DialOutcome.NO_ANSWER


@pytest.mark.parametrize("address", [Address("a name", 7747), Address("fe80::1%none", 7747)])
def test_no_way_there(address: Address) -> None:
    assert tried(address) is DialOutcome.NO_ROUTE


def test_the_other_side_hangs_up() -> None:
    async def scenario() -> DialOutcome:
        def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            address = Address("127.0.0.1", port)
            return (await try_stream(address, guest_context(), PATH_BYTES)).outcome

    assert asyncio.run(scenario()) is DialOutcome.FAILED
