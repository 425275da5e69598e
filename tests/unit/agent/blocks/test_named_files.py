"""Files by their names: seen as a whole or not at all, and gone on with where they broke off."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from agent.blocks import named_files
from agent.blocks.named_files import Files, NamedFile
from agent.exits import NOT_FOUND, UNHEALTHY, USAGE, AgentError
from edge_apps.files import FileDigest
from gossip.bodies.block_limits import BLOCK_BYTES
from gossip.bodies.file_records import (
    BLOCK_PREFIX,
    UPLOAD_PREFIX,
    UploadRecord,
    encode,
    file_key,
    upload_key,
)
from gossip.core.errors import InvalidRequest
from tests.support.block_net import BlockNet, all_of, parts_of

DATA = bytes(range(251)) * (2 * BLOCK_BYTES // 251 + 999)


def run(
    folder: Path, work: Callable[[BlockNet, Files], Coroutine[Any, Any, None]], **settings: Any
) -> BlockNet:
    async def scenario() -> BlockNet:
        async with BlockNet(folder, **settings) as net:
            await work(net, net.services[1].files)
        return net

    return asyncio.run(scenario())


async def _breaking(data: bytes) -> AsyncIterator[bytes]:
    async for part in parts_of(data):
        yield part
    raise AgentError("hung up")


def all_names(_name: str) -> bool:
    return True


def _blocks(net: BlockNet) -> int:
    return sum(key.startswith(BLOCK_PREFIX) for key in net.keys.values)


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, len(DATA)])
def test_what_is_put_is_read_back_at_any_node(tmp_path: Path, size: int) -> None:
    async def work(net: BlockNet, files: Files) -> None:
        record = await files.put("a/b", parts_of(DATA[:size]))
        assert record.size_bytes == size
        digest = FileDigest()
        digest.add(DATA[:size])
        assert digest.hex() == record.digest.hex(), "the SDK knows the same digest"
        there = net.services[3].files
        assert await there.find("a/b") == record
        assert await all_of(there.read(record, 0, size)) == DATA[:size]
        assert upload_key(record.file) not in net.keys.values
        [stat] = await net.services[2].stats.of([NamedFile("a/b", record)])
        assert (len(stat.blocks), stat.short, stat.missing) == (record.blocks, 0, 0)

    run(tmp_path, work)


def test_a_range_may_begin_and_end_anywhere(tmp_path: Path) -> None:
    async def work(net: BlockNet, files: Files) -> None:
        record = await files.put("a", parts_of(DATA))
        edges = (0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, 2 * BLOCK_BYTES + 5, len(DATA))
        for start in edges:
            for end in (each for each in edges if each > start):
                assert await all_of(files.read(record, start, end)) == DATA[start:end]

    run(tmp_path, work)


def test_nothing_is_seen_of_what_broke_off_and_it_can_be_gone_on_with(tmp_path: Path) -> None:
    async def work(net: BlockNet, files: Files) -> None:
        with pytest.raises(AgentError, match="hung up"):
            await files.put("a", _breaking(DATA[: 2 * BLOCK_BYTES + 10]), mark="m")
        with pytest.raises(AgentError) as missing:
            await files.find("a")
        assert missing.value.status == NOT_FOUND
        assert not (await files.page()).files
        assert await files.uploads("other", all_names) == []
        [upload] = await net.services[2].files.uploads("m", all_names)
        assert upload.record.name == "a"
        assert await files.uploads("m", lambda name: name != "a") == [], "nobody asks for it"
        assert len(upload.digests) == 2
        before = net.services[1].counts["blocks/stored"]
        rest = parts_of(DATA[2 * BLOCK_BYTES :])
        record = await net.services[2].files.put("a", rest, upload=upload)
        assert net.services[1].counts["blocks/stored"] == before + 1, "the last block alone"
        assert await all_of(files.read(record, 0, len(DATA))) == DATA
        assert await files.uploads("m", all_names) == []

    run(tmp_path, work)


def test_a_name_that_is_not_safe_is_not_told_as_stored(tmp_path: Path) -> None:
    async def work(net: BlockNet, files: Files) -> None:
        net.keys.refused.add("\0f/")
        with pytest.raises(AgentError, match="indeterminate") as failed:
            await files.put("a", parts_of(DATA))
        assert failed.value.status == UNHEALTHY
        net.keys.refused = {"\0b/"}
        with pytest.raises(AgentError, match="record of a block"):
            await files.put("a", parts_of(DATA))
        assert not (await files.page()).files

    run(tmp_path, work)


def test_a_file_may_be_so_large(tmp_path: Path) -> None:
    async def work(net: BlockNet, files: Files) -> None:
        await files.put("a", parts_of(DATA[:1000]))
        with pytest.raises(AgentError) as failed:
            await files.put("a", parts_of(DATA[:1001]))
        assert failed.value.status == USAGE
        assert (await files.find("a")).size_bytes == 1000, "the one of before is there"

    run(tmp_path, work, file_bytes_max=1000)


def test_so_many_are_written_at_a_time(tmp_path: Path) -> None:
    async def work(net: BlockNet, files: Files) -> None:
        ends = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b"x"
            await ends.wait()

        names = [str(n) for n in range(named_files.UPLOADS_MAX)]
        writing = [asyncio.create_task(files.put(name, slow())) for name in names]
        await asyncio.sleep(0)
        with pytest.raises(AgentError, match="are being written"):
            await files.put("more", parts_of(b"x"))
        ends.set()
        await asyncio.gather(*writing)
        assert [each.name for each in (await files.page()).files] == names

    run(tmp_path, work)


def test_pages_of_names(tmp_path: Path) -> None:
    async def work(net: BlockNet, files: Files) -> None:
        for name in ("a/1", "a/2", "a/3", "b"):
            await files.put(name, parts_of(b"x"))
        first = await files.page("a/", limit=2)
        assert [each.name for each in first.files] == ["a/1", "a/2"]
        rest = await files.page("a/", after=first.next)
        assert [each.name for each in rest.files] == ["a/3"]
        assert rest.next == ""

    run(tmp_path, work)


def test_blocks_go_with_the_last_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named_files, "COLLECT_AFTER_S", 0.01)
    monkeypatch.setattr(named_files, "MOVE_MARK_S", 0.01)

    async def work(net: BlockNet, files: Files) -> None:
        old = await files.put("a", parts_of(DATA))
        reading = files.read(old, 0, len(DATA))
        await anext(reading)
        await files.put("a", parts_of(b"new"))
        await files._tasks.finish()
        assert _blocks(net) == 1
        with pytest.raises(AgentError, match="replaced or removed while it was read"):
            await all_of(reading)
        moved = await files.move("a", "b")
        await files.remove("b")
        await files._tasks.finish()
        assert _blocks(net) == 1, "they may be another name's: they are left to who knows all names"
        assert moved.is_shared
        for name in ("a", "b"):
            with pytest.raises(AgentError, match="there is no file"):
                await files.remove(name)
        assert not [key for key in net.keys.values if key.startswith(UPLOAD_PREFIX)]

    run(tmp_path, work)


def test_a_move_takes_the_place_of_what_is_there(tmp_path: Path) -> None:
    async def work(net: BlockNet, files: Files) -> None:
        one = await files.put("a", parts_of(b"one"))
        await files.put("b", parts_of(b"two"))
        await files.move("a", "b")
        [left] = (await files.page()).files
        assert (left.name, left.record.file) == ("b", one.file)
        assert await all_of(files.read(left.record, 0, 3)) == b"one"
        for old, new in (("b", "b"), ("none", "c")):
            with pytest.raises(AgentError):
                await files.move(old, new)
        with pytest.raises(InvalidRequest):
            await files.move("b", "../c")
        assert [each.name for each in (await files.page()).files] == ["b"]

    run(tmp_path, work)


def _before_put(files: Files, key: str, first: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Have something happen between what these files have looked at and what they write then."""
    kv: Any = files._kv
    put = kv.put

    async def later(written: str, *args: Any, **words: Any) -> Any:
        if written == key:
            kv.put = put
            await first()
        return await put(written, *args, **words)

    kv.put = later


def test_who_replaces_what_is_moved_at_that_moment_takes_none_of_its_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(named_files, "COLLECT_AFTER_S", 0.01)

    async def work(net: BlockNet, files: Files) -> None:
        await files.put("a", parts_of(DATA))
        other = net.services[2].files
        _before_put(other, file_key("a"), lambda: files.move("a", "b"))
        await other.put("a", parts_of(b"new"))
        await other._tasks.finish()
        assert net.services[2].counts["blocks/not_collected"] == 1
        moved = await other.find("b")
        assert await all_of(other.read(moved, 0, len(DATA))) == DATA
        assert (await other.find("a")).size_bytes == 3

    run(tmp_path, work)


def test_what_is_put_again_keeps_its_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(net: BlockNet, files: Files) -> None:
        record = await files.put("a", parts_of(DATA), mark="m")
        left = encode(UploadRecord("a", "m"))
        net.keys.values[upload_key(record.file)] = left  # the word that it had ended was lost
        await files.put("a", parts_of(b"other"))
        [upload] = await files.uploads("m", all_names)
        again = await files.put("a", parts_of(DATA[2 * BLOCK_BYTES :]), upload=upload)
        assert again.file == record.file
        monkeypatch.setattr(named_files, "COLLECT_AFTER_S", 0)
        await files._collect("a", record)
        assert await all_of(files.read(again, 0, len(DATA))) == DATA
        await files.remove("a")
        await files._collect("a", record)
        assert _blocks(net) == 1, "once it has no name they go"

    run(tmp_path, work)


@pytest.mark.parametrize(("every_s", "least"), [(0.0, 5), (3600.0, 1)])
def test_a_long_upload_says_that_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every_s: float, least: int
) -> None:
    monkeypatch.setattr(named_files, "SIGN_OF_LIFE_S", every_s)
    said: list[str] = []

    async def work(net: BlockNet, files: Files) -> None:
        kv: Any = files._kv
        put = kv.put

        async def counted(key: str, *args: Any, **words: Any) -> Any:
            said.extend([key] if key.startswith(UPLOAD_PREFIX) else [])
            return await put(key, *args, **words)

        kv.put = counted
        await files.put("a", parts_of(DATA))
        assert len(said) >= least
        assert least > 1 or len(said) == 1

    run(tmp_path, work)


@pytest.mark.parametrize("every_s", [0.0, 3600.0])
def test_an_upload_that_was_given_up_gets_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every_s: float
) -> None:
    """Its first blocks may be gone by then: a name would stand for a part."""
    monkeypatch.setattr(named_files, "SIGN_OF_LIFE_S", every_s)

    async def work(net: BlockNet, files: Files) -> None:
        async def slow() -> AsyncIterator[bytes]:
            async for part in parts_of(DATA):
                yield part
            for key in [key for key in net.keys.values if key.startswith(UPLOAD_PREFIX)]:
                del net.keys.values[key]
            yield b"late"

        with pytest.raises(AgentError, match="was ended meanwhile"):
            await files.put("a", slow())
        with pytest.raises(AgentError, match="there is no file"):
            await files.find("a")

    run(tmp_path, work)


def test_a_move_shows_no_upload(tmp_path: Path) -> None:
    async def work(net: BlockNet, files: Files) -> None:
        record = await files.put("a", parts_of(b"x"))
        await files.move("a", "b")
        assert upload_key(record.file) in net.keys.values
        assert await files.uploads("", all_names) == []

    run(tmp_path, work)


def test_an_upload_that_is_gone_on_with_other_bytes_is_given_up(tmp_path: Path) -> None:
    """Its blocks would be one content at some owners, and another at others."""

    async def work(net: BlockNet, files: Files) -> None:
        with pytest.raises(AgentError, match="hung up"):
            await files.put("a", _breaking(DATA[: 2 * BLOCK_BYTES + 10]), mark="m")
        [upload] = await files.uploads("m", all_names)
        records = {key: data for key, data in net.keys.values.items() if BLOCK_PREFIX in key}
        again = upload._replace(digests=upload.digests[:1])
        with pytest.raises(AgentError, match="has other bytes already"):
            await files.put("a", parts_of(DATA[: 2 * BLOCK_BYTES]), upload=again)
        assert records.items() <= net.keys.values.items(), "what was written stays what it was"
        assert await files.uploads("m", all_names) == []
        with pytest.raises(AgentError, match="there is no file"):
            await files.find("a")

    run(tmp_path, work)
