"""Bodies that are missing come back, and those that nobody needs go."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from agent.blocks.named_files import Files, NamedFile
from gossip.bodies.block_limits import BLOCK_BYTES, CONFIRM_AGAIN_S, ORPHAN_S, PULL_AFTER_S
from gossip.bodies.file_records import BLOCK_PREFIX, BlockName, FileRecord, file_key
from tests.support.block_net import BlockNet, all_of, parts_of

DATA = bytes(range(251)) * (2 * BLOCK_BYTES // 251)


def run(folder: Path, work: Callable[[BlockNet, Files], Awaitable[None]]) -> BlockNet:
    async def scenario() -> BlockNet:
        async with BlockNet(folder, (1, 2, 3, 4)) as net:
            for service in net.services.values():
                service.upkeep.begin()
            await work(net, net.services[1].files)
        return net

    return asyncio.run(scenario())


async def _look(net: BlockNet, after_s: float = 0.0, times: int = 1) -> None:
    for _ in range(times):
        net.now += after_s
        for service in net.services.values():
            await service.upkeep.look()
            await service.upkeep._tasks.finish()


async def _short(net: BlockNet, record: FileRecord) -> int:
    [stat] = await net.services[1].stats.of([NamedFile("a", record)])
    return stat.short


def _path(folder: Path, net: BlockNet, name: BlockName) -> tuple[int, Path]:
    node = net.owners(name.key)[0]
    return node, next((folder / str(node)).glob(f"{name.file.hex()}-{name.number:06x}"))


def test_a_body_that_is_missing_or_damaged_is_fetched_from_another_owner(tmp_path: Path) -> None:
    async def work(net: BlockNet, files: Files) -> None:
        record = await files.put("a", parts_of(DATA))
        first, second = BlockName(record.file, 0), BlockName(record.file, 1)
        await _look(net)
        node, path = _path(tmp_path, net, first)
        data = bytearray(path.read_bytes())
        data[500] ^= 4
        path.write_bytes(data)
        assert await all_of(net.services[node].files.read(record, 0, len(DATA))) == DATA
        assert await _short(net, record) == 1
        other = net.owners(second.key)[1]
        await net.services[other].store.remove(second)
        net.services[other].upkeep.keeper.damaged(second, net.now)
        assert await _short(net, record) == 2
        await _look(net, PULL_AFTER_S)
        assert await _short(net, record) == 0
        assert net.services[node].counts["blocks/damaged"] == 1
        assert net.services[node].counts["blocks/pulled"] >= 1

    run(tmp_path, work)


def test_what_nobody_gives_is_tried_again(tmp_path: Path) -> None:
    async def work(net: BlockNet, files: Files) -> None:
        record = await files.put("a", parts_of(DATA[:100]))
        name = BlockName(record.file, 0)
        await _look(net)
        held = {node: await net.services[node].store.read(name) for node in net.owners(name.key)}
        for node in held:
            await net.services[node].store.remove(name)
            net.services[node].upkeep.keeper.damaged(name, net.now)
        await _look(net, PULL_AFTER_S)
        assert sum(service.counts["blocks/not_pulled"] for service in net.services.values()) == 3
        [node, body] = next(iter(held.items()))
        block = await files.reader.record(name)
        assert block is not None
        await net.services[node].store.put(name, body, block.digest)
        await _look(net, 60.0, times=2)
        assert await _short(net, record) == 0

    run(tmp_path, work)


def test_what_there_is_no_room_for_is_not_fetched_again_and_again(tmp_path: Path) -> None:
    async def work(net: BlockNet, files: Files) -> None:
        record = await files.put("a", parts_of(DATA[:BLOCK_BYTES]))
        name = BlockName(record.file, 0)
        await _look(net)
        service = net.services[net.owners(name.key)[0]]
        await service.store.remove(name)
        service.upkeep.keeper.damaged(name, net.now)
        service.store.bytes_max = 10
        before = net.frames
        await _look(net, 400.0, times=5)
        assert service.counts["blocks/not_pulled"] == 5
        assert net.frames == before
        service.store.bytes_max = BLOCK_BYTES
        await _look(net, 400.0)
        assert name in service.store

    run(tmp_path, work)


def test_bodies_go_with_their_records_once_most_owners_say_so(tmp_path: Path) -> None:
    async def work(net: BlockNet, files: Files) -> None:
        record = await files.put("a", parts_of(DATA))
        await _look(net)
        names = [BlockName(record.file, number) for number in range(record.blocks)]
        net.incomplete.add(1)
        await files.delete_blocks(names)
        await _look(net, times=2)
        left = {node for node, service in net.services.items() if len(service.store)}
        assert left <= {1}, "a copy that may lack records is no reason"
        net.incomplete.clear()
        await _look(net, times=2)
        assert not any(len(service.store) for service in net.services.values())
        assert not any(service.store.used_bytes for service in net.services.values())

    run(tmp_path, work)


def test_a_body_on_a_node_that_does_not_own_it_goes_when_all_owners_have_it(tmp_path: Path) -> None:
    async def work(net: BlockNet, files: Files) -> None:
        record = await files.put("a", parts_of(DATA[:100]))
        name = BlockName(record.file, 0)
        block = await files.reader.record(name)
        assert block is not None
        owners = net.owners(name.key)
        [other] = set(net.ids) - set(owners)
        body = await net.services[owners[0]].store.read(name)
        await net.services[other].store.put(name, body, block.digest)
        await net.services[owners[2]].store.remove(name)
        net.services[owners[2]].upkeep.keeper.damaged(name, net.now)
        net.cut.add(owners[2])
        await _look(net)
        assert name in net.services[other].store, "an owner does not say that it has it"
        net.cut.clear()
        await _look(net, CONFIRM_AGAIN_S, times=3)
        assert name not in net.services[other].store
        assert await _short(net, record) == 0

    run(tmp_path, work)


def test_the_next_life_knows_what_it_has(tmp_path: Path) -> None:
    async def first(net: BlockNet, files: Files) -> None:
        record = await files.put("a", parts_of(DATA[:100]))
        net.keys.values.clear()
        assert record.blocks == 1

    async def second(net: BlockNet, _files: Files) -> None:
        held = sum(len(service.store) for service in net.services.values())
        assert held == 3
        await _look(net)
        assert sum(len(service.store) for service in net.services.values()) == 3, "it is young"
        await _look(net, ORPHAN_S + 60.0, times=2)
        assert not any(len(service.store) for service in net.services.values())

    run(tmp_path, first)
    run(tmp_path, second)


def test_blocks_without_a_name_are_swept_and_no_others(tmp_path: Path) -> None:
    async def work(net: BlockNet, files: Files) -> None:
        kept = await files.put("kept", parts_of(DATA[:100]))
        lost = await files.put("lost", parts_of(DATA[:100]))
        await _look(net)
        del net.keys.values[file_key("lost")]
        net.keys.values["\0u/zz"] = b"no upload, by somebody who has no use for sweeping"

        async def sweep() -> None:
            for service in net.services.values():
                await service.upkeep.sweep()

        await sweep()
        net.now += ORPHAN_S - 1
        await sweep()
        assert BlockName(lost.file, 0).key in net.keys.values
        net.now += 1
        await sweep()
        blocks = [key for key in net.keys.values if key.startswith(BLOCK_PREFIX)]
        assert blocks == [BlockName(kept.file, 0).key]

    run(tmp_path, work)
