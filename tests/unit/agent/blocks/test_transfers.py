"""Blocks on their way: along their owners, past those that fail, and back."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.blocks import block_server, transfers
from agent.exits import UNHEALTHY, AgentError
from gossip.bodies.block_limits import BLOCK_BYTES, SLICE_BYTES
from gossip.bodies.file_records import BlockName, BlockRecord, digest_of
from gossip.bodies.messages import CODEC, BlockPush, BlockSlice
from tests.support.block_net import BlockNet
from tests.support.patience import GIVE_UP_S

BODY = bytes(range(256)) * 4096
NAME = BlockName(bytes(range(16)), 0)
RECORD = BlockRecord(len(BODY), digest_of(BODY))


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Have nobody wait long for who does not answer; how often it is tried stays as it is."""
    for name in ("CHAIN_S", "ALONE_S", "LAG_S", "AGAIN_S", "FETCH_IDLE_S", "FETCH_S"):
        monkeypatch.setattr(transfers, name, 0.2)
    return monkeypatch


def run(
    folder: Path, work: Callable[[BlockNet], Coroutine[Any, Any, None]], **settings: Any
) -> BlockNet:
    async def scenario() -> BlockNet:
        async with BlockNet(folder, **settings) as net:
            await work(net)
        return net

    return asyncio.run(scenario())


def _store(net: BlockNet, node: int = 1) -> Coroutine[Any, Any, None]:
    return net.services[node].transfers.store(NAME, BODY, RECORD.digest)


def _holders(net: BlockNet) -> list[int]:
    return [node for node, service in net.services.items() if NAME in service.store]


def test_a_block_leaves_its_writer_once_and_reaches_all_owners(tmp_path: Path) -> None:
    async def work(net: BlockNet) -> None:
        [writer] = set(net.ids) - set(net.owners(NAME.key))
        await _store(net, writer)
        assert _holders(net) == sorted(net.owners(NAME.key))
        slices = len(BODY) // SLICE_BYTES
        assert net.frames == 3 * slices + 3, "three hops, and three words that it is stored"

    run(tmp_path, work, names=(1, 2, 3, 4))


def test_who_has_ended_in_the_chain_ends_nothing(tmp_path: Path, hasty: pytest.MonkeyPatch) -> None:
    """The chain breaks at the first owner; the last gets it from the writer."""

    async def work(net: BlockNet) -> None:
        net.cut.add(2)
        await _store(net)
        assert _holders(net) == [1, 3]

    run(tmp_path, work)


def test_one_owner_of_three_is_too_few_and_it_is_said_why(
    tmp_path: Path, hasty: pytest.MonkeyPatch
) -> None:
    hasty.setattr(transfers, "STORE_S", 1.0)

    async def work(net: BlockNet) -> None:
        net.cut.update((2, 3))
        with pytest.raises(AgentError) as failed:
            await _store(net)
        assert failed.value.status == UNHEALTHY
        assert "1 of 2 owners needed" in failed.value.message
        assert "did not answer" in failed.value.message

    run(tmp_path, work)


def test_a_full_owner_refuses_and_hands_on_all_the_same(
    tmp_path: Path, hasty: pytest.MonkeyPatch
) -> None:
    hasty.setattr(transfers, "STORE_S", 1.0)

    async def work(net: BlockNet) -> None:
        net.services[2].store.bytes_max = 10
        await _store(net)
        assert _holders(net) == [1, 3]
        assert net.services[2].counts["blocks_refused/full"] >= 1
        net.services[3].store.bytes_max = 10
        other = BlockName(NAME.file, 1)
        with pytest.raises(AgentError, match="has no room"):
            await net.services[1].transfers.store(other, BODY, RECORD.digest)

    run(tmp_path, work)


def test_a_body_that_was_changed_on_its_way_is_refused(tmp_path: Path) -> None:
    async def work(net: BlockNet) -> None:
        push = BlockPush(7, 1, NAME, len(BODY), digest_of(b"other"), 0, BODY[:SLICE_BYTES])
        for at in range(0, len(BODY), SLICE_BYTES):
            part = BlockPush(7, 1, NAME, len(BODY), push.digest, at, BODY[at : at + SLICE_BYTES])
            net.services[2].receive_frame(CODEC.encode(part), 1)
        await asyncio.sleep(0.05)
        assert NAME not in net.services[2].store
        assert net.services[2].counts["blocks_refused/damaged"] == 1

    run(tmp_path, work)


def test_slices_that_do_not_follow_each_other_are_counted_and_hold_nothing(tmp_path: Path) -> None:
    async def work(net: BlockNet) -> None:
        service = net.services[2]

        def push(number: int, offset: int, size_bytes: int, *, of: int = BLOCK_BYTES) -> None:
            part = BlockPush(number, 1, NAME, of, RECORD.digest, offset, bytes(size_bytes))
            service.receive_frame(CODEC.encode(part), 1)

        push(1, SLICE_BYTES, 10)  # without a beginning
        push(2, 0, 10)
        push(2, 99, 10)  # with a gap
        push(3, 0, 10, of=5)  # more than it was to be
        service.receive_frame(b"\x92\x16\x01", 1)
        assert service.counts["blocks_dropped/late"] == 1
        assert service.counts["blocks_dropped/torn"] == 2
        assert service.counts["blocks_dropped/malformed"] == 1
        assert not service.server._arriving
        for number in range(20, 20 + 2 * block_server.ARRIVING_MAX):
            push(number, 0, 10)
        assert len(service.server._arriving) == block_server.ARRIVING_MAX
        assert service.counts["blocks_refused/busy"] == block_server.ARRIVING_MAX + 2

    run(tmp_path, work)


def test_a_part_is_fetched_from_who_has_it_sound(tmp_path: Path, hasty: pytest.MonkeyPatch) -> None:
    async def work(net: BlockNet) -> None:
        await _store(net, 1)
        [path] = (tmp_path / "1").iterdir()
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        await net.services[2].store.remove(NAME)
        got = await net.services[1].transfers.body(NAME, RECORD)
        assert got == BODY, "its own is damaged, 2 has none, 3 has it"
        assert net.services[1].counts["blocks/damaged"] == 1
        part = await net.services[2].transfers.body(NAME, RECORD, 70_000, 200_001)
        assert part == BODY[70_000:200_001]
        net.cut.add(3)
        with pytest.raises(AgentError, match="nowhere to be had"):
            await net.services[1].transfers.body(NAME, RECORD)

    run(tmp_path, work)


def test_a_part_of_what_a_member_has_put_in_place_of_a_body_is_not_served(tmp_path: Path) -> None:
    """Neither of our own copy, which is set aside, nor of another's."""

    async def work(net: BlockNet) -> None:
        forged = BODY[1:] + b"x"
        for node, body in ((1, forged), (2, forged), (3, BODY)):
            await net.services[node].store.put(NAME, body, digest_of(body))
        part = await net.services[1].transfers.body(NAME, RECORD, 70_000, 200_001)
        assert part == BODY[70_000:200_001]
        assert NAME not in net.services[1].store
        assert net.services[1].counts["blocks/damaged"] == 1
        assert net.services[1].counts["blocks_dropped/forged"] == 1

    run(tmp_path, work)


def test_who_gives_out_nothing_for_ever_keeps_no_reader(
    tmp_path: Path, hasty: pytest.MonkeyPatch
) -> None:
    async def work(net: BlockNet) -> None:
        await net.services[3].store.put(NAME, BODY, RECORD.digest)

        async def drip() -> None:
            reader = net.services[1].transfers
            while True:
                await asyncio.sleep(0.02)
                for node, number in tuple(reader._fetches):
                    if node == 2:
                        reader.arrived(BlockSlice(number, 0, b""), 2)

        net.cut.add(2)
        dripping = asyncio.create_task(drip())
        async with asyncio.timeout(GIVE_UP_S):
            assert await net.services[1].transfers.body(NAME, RECORD) == BODY
        dripping.cancel()

    run(tmp_path, work)


def test_a_block_that_comes_a_byte_now_and_then_is_given_up(tmp_path: Path) -> None:
    async def work(net: BlockNet) -> None:
        loop = asyncio.get_running_loop()
        arriving = block_server.ArrivingBlock(
            BlockPush(1, 1, NAME, len(BODY), RECORD.digest, 0, b""), loop.time()
        )
        now = arriving.begun_at
        while now < arriving.begun_at + block_server.ARRIVAL_S:
            assert not arriving.is_over(now)
            at = len(arriving.body)
            assert arriving.add(BlockPush(1, 1, NAME, len(BODY), RECORD.digest, at, b"x"), now)
            now += block_server.ARRIVAL_IDLE_S
        assert arriving.is_over(now + 1)

    run(tmp_path, work)


def test_nothing_goes_to_who_is_no_member_whatever_a_push_says(tmp_path: Path) -> None:
    async def work(net: BlockNet) -> None:
        service = net.services[2]
        push = BlockPush(1, 77, NAME, len(BODY), RECORD.digest, 0, BODY[:10], (78, 2))
        for number in range(20):
            each = msgspec.structs.replace(push, number=number)
            service.receive_frame(CODEC.encode(each), 1)
        await asyncio.sleep(0.05)
        assert net.frames == 0
        assert service.counts["blocks_dropped/stranger"] >= 20

    run(tmp_path, work)


def test_a_member_that_gives_out_something_else_is_not_believed(tmp_path: Path) -> None:
    async def work(net: BlockNet) -> None:
        other = BODY[1:] + b"x"
        for node in (1, 2, 3):
            wrong = node == 1
            body = other if wrong else BODY
            await net.services[node].store.put(NAME, body, digest_of(body))
        got = await net.services[4].transfers.body(NAME, RECORD)
        assert got == BODY
        assert net.services[4].counts["blocks_dropped/forged"] == 1

    run(tmp_path, work, names=(1, 2, 3, 4))
