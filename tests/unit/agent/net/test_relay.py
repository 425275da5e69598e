"""Streams through a third member: end to end, bounded, and no way into anybody's network."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.identity.identity import found
from agent.net import relay
from agent.net import streams as stream
from agent.net.framing import framed
from agent.net.relay_client import NotPutThrough, through
from agent.net.relay_messages import CODEC, RelayAnswer, RelayAsk
from agent.net.tls import dialling_context, relayed_context
from gossip.core.errors import Forged
from gossip.core.ids import NodeId
from gossip.core.machine import Address
from tests.unit.agent.net.test_streams import End, admitted, eventually

NO_WAY = Address("fe80::1%none", 1)


class Company:
    """Ada reaches cy, cy reaches bob, and ada and bob do not reach each other."""

    def __init__(self, folder: Path) -> None:
        first = found(folder / "a", "barn", "ada")
        self.ada = End(first)
        self.bob, self.cy = (End(admitted(first, folder / name, name)) for name in ("bob", "cy"))
        self.strangers: set[NodeId] = set()

    @property
    def ends(self) -> tuple[End, End, End]:
        return self.ada, self.bob, self.cy

    def start(self) -> None:
        for end in self.ends:
            for other in self.ends:
                apart = {end, other} == {self.ada, self.bob}
                end.where[other.who.node_id] = [NO_WAY] if apart else [other.address]
            end.start(relays_to=lambda _: [self.cy.who.node_id], may_join=self._may_join)

    def _may_join(self, one: NodeId, other: NodeId) -> bool:
        return not self.strangers & {one, other}


@asynccontextmanager
async def company(folder: Path) -> AsyncIterator[Company]:
    made = Company(folder)
    made.start()
    try:
        yield made
    finally:
        for end in made.ends:
            await end.streams.stop()
            end.sockets.close()


def test_frames_pass_both_ways_in_order_and_name_their_true_sender(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with company(tmp_path) as here:
            ada, bob = here.ada.who.node_id, here.bob.who.node_id
            sent = [bytes([0x90, number]) + bytes(40_000) for number in range(20)]
            for data in sent:
                here.ada.streams.send(data, bob)
                here.bob.streams.send(data, ada)
            await eventually(lambda: len(here.bob.frames) == len(here.ada.frames) == len(sent))
            assert here.bob.frames == [(ada, data) for data in sent]
            assert here.ada.frames == [(bob, data) for data in sent]
            assert not here.cy.frames, "what passes is sealed between the two"
            assert here.cy.counts["relayed_streams/joined"] == 2
            assert here.ada.counts["streams/dialled_through_others"] == 1

    asyncio.run(scenario())


def test_who_is_reached_by_way_of_others_alone_is_met(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with company(tmp_path) as here:
            bob = here.bob.who.node_id
            here.ada.streams.send(b"\x90", bob)
            await eventually(lambda: here.bob.frames)
            assert await here.ada.streams.meets(bob)
            assert not here.ada.closed, "the stream that is open is left alone"
            await here.bob.streams.stop()
            here.bob.sockets.close()
            assert not await here.ada.streams.meets(bob)

    asyncio.run(scenario())


def test_the_end_of_either_side_is_told_and_frees_the_place(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with company(tmp_path) as here:
            bob = here.bob.who.node_id
            here.ada.streams.send(b"\x90", bob)
            await eventually(lambda: here.bob.frames)
            await here.bob.streams.stop()
            await eventually(lambda: here.ada.closed == [bob])

    asyncio.run(scenario())


def test_whom_nobody_reaches_is_unreachable(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with company(tmp_path) as here:
            bob = here.bob.who.node_id
            here.cy.where[bob] = [NO_WAY]
            here.ada.streams.send(b"\x90", bob)
            await eventually(lambda: here.ada.unreachable)
            assert here.cy.counts["relayed_streams/not_reached"] == 1

    asyncio.run(scenario())


def test_a_refused_connection_is_no_reason_to_ask_others(tmp_path: Path) -> None:
    """The host of a process that died is reached; that it says so must be known at once."""

    async def scenario() -> None:
        async with company(tmp_path) as here:
            bob = here.bob.who.node_id
            here.ada.where[bob] = [Address("127.0.0.1", 9), NO_WAY]
            here.ada.streams.send(b"\x90", bob)
            await eventually(lambda: here.ada.unreachable)
            assert not here.cy.counts["streams/accepted"]
            assert not any(name.startswith("relayed_streams") for name in here.cy.counts)

    asyncio.run(scenario())


def test_who_is_not_in_the_registry_is_not_put_through(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with company(tmp_path) as here:
            here.strangers.add(here.ada.who.node_id)
            here.ada.streams.send(b"\x90", here.bob.who.node_id)
            await eventually(lambda: here.ada.unreachable)
            assert here.cy.counts["relayed_streams/refused"] == 1
            assert not here.bob.frames

    asyncio.run(scenario())


def test_a_member_cannot_lend_its_name_to_a_door_of_somebody_else(tmp_path: Path) -> None:
    """It tells an address at which something else listens: nothing is ever sent there."""

    async def scenario() -> None:
        async with company(tmp_path) as here:
            heard: list[bytes] = []

            async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                heard.append(await reader.read())
                writer.close()

            async with await asyncio.start_server(listen, "127.0.0.1", 0) as door:
                port = door.sockets[0].getsockname()[1]
                bob = here.bob.who.node_id
                here.cy.where[bob] = [Address("127.0.0.1", port)]
                outer = await here.ada.streams._dial_address(
                    here.cy.who.node_id, here.cy.address, relayed_context(here.ada.who)
                )
                with pytest.raises((NotPutThrough, TimeoutError)):
                    await through(outer, bob, dialling_context(here.ada.who))
                assert not here.cy.counts["relayed_streams/joined"]
                assert all(data[:1] == b"\x16" for data in heard), "at most our own handshake"

    monkey = pytest.MonkeyPatch()
    monkey.setattr(stream, "DIAL_S", 0.5)
    asyncio.run(scenario())
    monkey.undo()


def test_a_relay_that_puts_through_to_somebody_else_is_found_out(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with company(tmp_path) as here:
            ada, bob, cy = here.ends
            cy.streams._proved[bob.who.node_id] = cy.address, asyncio.get_running_loop().time()
            with pytest.raises(Forged):
                await ada.streams._dial_through(
                    bob.who.node_id, cy.who.node_id, cy.address, ada.streams._context
                )
            assert ada.counts["streams/wrong_node"] == 1

    asyncio.run(scenario())


def test_who_has_moved_since_it_was_met_is_looked_for_anew(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with company(tmp_path) as here:
            bob = here.bob.who.node_id
            formerly = Address("127.0.0.1", 9)
            here.cy.streams._proved[bob] = formerly, asyncio.get_running_loop().time()
            here.ada.streams.send(b"\x90", bob)
            await eventually(lambda: here.bob.frames)

    asyncio.run(scenario())


def test_places_are_bounded_and_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "JOINED_EACH_MAX", 1)

    async def scenario() -> None:
        async with company(tmp_path) as here:
            ada, bob, cy = here.ends
            there = bob.who.node_id, cy.who.node_id, cy.address, ada.streams._context
            _, first = await ada.streams._dial_through(*there)
            with pytest.raises(NotPutThrough):
                await ada.streams._dial_through(*there)
            assert cy.counts["relayed_streams/no_place"] == 1
            first.close()
            for _ in range(100):
                try:
                    _, again = await ada.streams._dial_through(*there)
                except NotPutThrough:
                    await asyncio.sleep(0.05)
                else:
                    again.close()
                    return
            raise AssertionError("the place of a stream that ended is never given back")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "said",
    [
        b"\xff" * 40,
        framed(b"\x90"),
        framed(CODEC.encode(RelayAnswer(is_through=True))),
        b"\0\1\0\0",
    ],
)
def test_nonsense_ends_the_stream_and_nothing_else(tmp_path: Path, said: bytes) -> None:
    async def scenario() -> None:
        async with company(tmp_path) as here:
            reader, writer = await here.ada.streams._dial_address(
                here.cy.who.node_id, here.cy.address, relayed_context(here.ada.who)
            )
            writer.write(said)
            await reader.read()
            await eventually(lambda: any(n.startswith("streams_refused") for n in here.cy.counts))
            here.ada.streams.send(b"\x90", here.bob.who.node_id)
            await eventually(lambda: here.bob.frames)

    asyncio.run(scenario())


def test_a_relay_stream_leaves_the_stream_of_frames_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with company(tmp_path) as here:
            here.ada.streams.send(b"\x90", here.cy.who.node_id)
            await eventually(lambda: here.cy.frames)
            here.ada.streams.send(b"\x91\x01", here.bob.who.node_id)
            await eventually(lambda: here.bob.frames)
            here.ada.streams.send(b"\x92", here.cy.who.node_id)
            await eventually(lambda: len(here.cy.frames) == 2)
            assert here.ada.counts["streams/dialled"] == 2
            assert not here.ada.closed

    asyncio.run(scenario())


def test_the_messages_fit_what_is_read() -> None:
    assert len(CODEC.encode(RelayAsk(2**64 - 1))) <= 64
