"""Bodies on the disk: whole or not there, never more than there is room for, never damaged ones."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from agent.blocks import block_store
from agent.blocks.block_refused import DAMAGED, DISK, FULL, MISSING, BlockRefused
from agent.blocks.block_store import DAMAGED_KEPT, HEADER_BYTES, BlockStore
from agent.blocks.file_stat import has
from gossip.bodies.file_records import BlockName, digest_of

FILE = bytes(range(16))
BODY = b"body of a block" * 100


def run(
    folder: Path, work: Callable[[BlockStore], Coroutine[Any, Any, None]], most: int = 10**6
) -> Counter[str]:
    counts: Counter[str] = Counter()

    async def scenario() -> None:
        store = BlockStore(folder / "blocks", most, counts)
        await store.open()
        try:
            await work(store)
        finally:
            store.close()

    asyncio.run(scenario())
    return counts


async def _put(store: BlockStore, number: int, body: bytes = BODY) -> BlockName:
    name = BlockName(FILE, number)
    await store.put(name, body, digest_of(body))
    return name


def test_a_body_is_there_also_for_the_next_life(tmp_path: Path) -> None:
    async def first(store: BlockStore) -> None:
        for number in (0, 9):
            await _put(store, number)
        (tmp_path / "blocks" / "half.new").write_bytes(b"cut off")
        (tmp_path / "blocks" / "notes.txt").write_text("somebody's")

    async def second(store: BlockStore) -> None:
        assert sorted(store) == [BlockName(FILE, 0), BlockName(FILE, 9)]
        assert (len(store), store.used_bytes) == (2, 2 * len(BODY))
        assert await store.read(BlockName(FILE, 9)) == BODY
        assert [n for n in range(16) if has(store.held(FILE), n)] == [0, 9]
        assert store.held(bytes(16)) == b""
        assert not (tmp_path / "blocks" / "half.new").exists()
        assert (tmp_path / "blocks" / "notes.txt").exists()

    run(tmp_path, first)
    run(tmp_path, second)


@pytest.mark.parametrize("at", [0, 8, 24, 28, 40, HEADER_BYTES, HEADER_BYTES + 700, -1])
def test_a_flipped_bit_is_seen_wherever_it_is(tmp_path: Path, at: int) -> None:
    damaged: list[BlockName] = []

    async def work(store: BlockStore) -> None:
        store.on_damaged = damaged.append
        name = await _put(store, 3)
        [path] = (tmp_path / "blocks").iterdir()
        data = bytearray(path.read_bytes())
        data[at] ^= 0x10
        path.write_bytes(data)
        with pytest.raises(BlockRefused) as refused:
            await store.read(name)
        assert refused.value.reason == DAMAGED
        assert damaged == [name]
        assert (name in store, store.used_bytes) == (False, 0)
        [aside] = (tmp_path / "blocks").iterdir()
        assert aside.read_bytes() == data, "it is kept to look at"
        with pytest.raises(BlockRefused) as again:
            await store.read(name)
        assert again.value.reason == MISSING
        await _put(store, 3)
        assert await store.read(name) == BODY, "and can be stored anew"

    assert run(tmp_path, work)["blocks/damaged"] == 1


def test_few_damaged_bodies_are_kept(tmp_path: Path) -> None:
    async def work(store: BlockStore) -> None:
        for number in range(DAMAGED_KEPT + 3):
            name = await _put(store, number)
            for path in (tmp_path / "blocks").glob(f"*{number:06x}"):
                path.write_bytes(b"")
            with pytest.raises(BlockRefused):
                await store.read(name)
        assert len(list((tmp_path / "blocks").iterdir())) == DAMAGED_KEPT

    run(tmp_path, work)


def test_a_body_that_does_not_fit_its_checksum_is_not_stored(tmp_path: Path) -> None:
    async def work(store: BlockStore) -> None:
        with pytest.raises(BlockRefused) as refused:
            await store.put(BlockName(FILE, 0), BODY, digest_of(BODY + b"x"))
        assert refused.value.reason == DAMAGED
        assert not list((tmp_path / "blocks").iterdir())

    run(tmp_path, work)


def test_there_is_no_room_beyond_what_is_allowed(tmp_path: Path) -> None:
    async def work(store: BlockStore) -> None:
        name = await _put(store, 0)
        with pytest.raises(BlockRefused) as refused:
            await _put(store, 1)
        assert refused.value.reason == FULL
        await store.remove(name)
        await store.remove(name)
        await _put(store, 1)

    run(tmp_path, work, most=len(BODY) + 1)


def test_bodies_that_come_together_are_no_more_than_is_allowed(tmp_path: Path) -> None:
    async def work(store: BlockStore) -> None:
        came = await asyncio.gather(*(_put(store, n) for n in range(9)), return_exceptions=True)
        assert sum(isinstance(each, BlockRefused) for each in came) == 6
        assert store.used_bytes == 3 * len(BODY)

    run(tmp_path, work, most=3 * len(BODY) + 1)


def test_a_body_that_comes_again_takes_no_more_room(tmp_path: Path) -> None:
    async def work(store: BlockStore) -> None:
        await _put(store, 0)
        await _put(store, 0)
        assert store.used_bytes == len(BODY)

    run(tmp_path, work, most=len(BODY))


def test_some_of_the_file_system_is_left_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_store, "FREE_SHARE_MIN", 1.0)

    async def work(store: BlockStore) -> None:
        with pytest.raises(BlockRefused) as refused:
            await _put(store, 0)
        assert refused.value.reason == FULL

    run(tmp_path, work)


def test_a_disk_that_fails_is_told_of_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_path: Path) -> None:
        raise OSError(5, "no such luck")

    async def work(store: BlockStore) -> None:
        monkeypatch.setattr(block_store, "_write_all", lambda _handle, _data: fail(tmp_path))
        with pytest.raises(BlockRefused) as refused:
            await _put(store, 0)
        assert refused.value.reason == DISK
        assert not list((tmp_path / "blocks").iterdir())
        assert store.used_bytes == 0

    run(tmp_path, work)


def test_a_part_by_another_name_is_no_body(tmp_path: Path) -> None:
    """A file that was renamed, or copied, is not the block that its name says."""

    async def work(store: BlockStore) -> None:
        await _put(store, 0)
        [path] = (tmp_path / "blocks").iterdir()
        path.rename(path.with_name(path.name[:-1] + "1"))

    async def look(store: BlockStore) -> None:
        with pytest.raises(BlockRefused) as refused:
            await store.read(BlockName(FILE, 1))
        assert refused.value.reason == DAMAGED

    run(tmp_path, work)
    run(tmp_path, look)
