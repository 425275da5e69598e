"""Files while their owners and writers are killed, disks change bytes, and devices are full.

Every file that was said to be stored reads back with its digest, and of no other is anything seen.
"""

import random
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent import exits
from edge_apps.files import FileDigest, Files
from tests.live.harness.agents import AgentProcess, Outcome
from tests.live.harness.fleet import LOCAL_TOML, Fleet
from tests.live.harness.small_disk import fill, small_disk
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live]

NAMES = ("ash", "birch", "cedar")
SETTLED_WITHIN_S = 30.0
WITHIN_S = 30.0
MIB = 1024 * 1024


class Stored:
    """What was said to be stored, by name, with the digest that it had."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.digests: dict[str, str] = {}

    def make(self, name: str, size_bytes: int) -> Path:
        data = random.Random(name).randbytes(size_bytes)
        path = self.folder / name
        path.write_bytes(data)
        return path

    def note(self, path: Path, name: str) -> None:
        digest = FileDigest()
        digest.add(path.read_bytes())
        self.digests[name] = digest.hex()

    def check(self, agent: AgentProcess) -> None:
        files = Files(agent.api)
        for name, digest in self.digests.items():
            read = FileDigest()
            for part in files.read(name):
                read.add(part)
            assert read.hex() == digest, name
        assert {each["name"] for each in files.list()} == set(self.digests)


@pytest.fixture(scope="module")
def three(networks: None) -> Iterator[Fleet]:
    """Give three agents, each of which owns every block."""
    with Fleet() as fleet:
        fleet.form_admitted(*NAMES, toml=LOCAL_TOML)
        fleet.wait_settled(SETTLED_WITHIN_S, "three own every block")
        yield fleet


@pytest.fixture(scope="module")
def stored(three: Fleet) -> Stored:
    return Stored(three.folder)


def _bodies(agent: AgentProcess) -> list[Path]:
    folder = agent.directory / "data" / "blocks"
    return [path for path in sorted(folder.glob("*-*")) if not path.suffix]


def _putting(pool: ThreadPoolExecutor, agent: AgentProcess, path: Path) -> "Future[Outcome]":
    return pool.submit(agent.covey, "file", "put", str(path))


def _until_half(agent: AgentProcess, before: int) -> None:
    eventually(lambda: len(_bodies(agent)), lambda n: n >= before + 3, WITHIN_S, "it is under way")


def _whole(three: Fleet, name: str) -> None:
    files = Files(three.agents["ash"].api)
    eventually(lambda: files.stat(name)["short"], lambda n: n == 0, WITHIN_S, "all owners have it")


def test_an_owner_that_is_killed_in_the_midst_of_a_write_gets_the_rest_later(
    three: Fleet, stored: Stored
) -> None:
    ash, birch, cedar = (three.agents[name] for name in NAMES)
    path = stored.make("one", 24 * MIB + 5)
    with ThreadPoolExecutor() as pool:
        putting = _putting(pool, ash, path)
        _until_half(birch, 0)
        birch.kill()
        assert putting.result().status == exits.YES, "two of three are most of them"
    stored.note(path, "one")
    stored.check(cedar)
    birch.start()
    three.wait_formed(WITHIN_S)
    _whole(three, "one")
    assert len(_bodies(birch)) == 25


def test_a_writer_that_is_killed_leaves_nothing_to_be_seen_and_goes_on(
    three: Fleet, stored: Stored
) -> None:
    ash, birch, cedar = (three.agents[name] for name in NAMES)
    path = stored.make("two", 24 * MIB)
    before = len(_bodies(birch))
    with ThreadPoolExecutor() as pool:
        putting = _putting(pool, ash, path)
        _until_half(birch, before)
        ash.kill()
        assert putting.result().status != exits.YES
    stored.check(cedar)
    ash.start()
    three.wait_formed(WITHIN_S)
    sent = ash.counters().get("covey_blocks_total/pushed", 0)
    ash.must("file", "put", str(path))
    stored.note(path, "two")
    stored.check(birch)
    assert ash.counters().get("covey_blocks_total/pushed", 0) - sent < 24, "it went on"
    _whole(three, "two")


def test_a_flipped_byte_is_noticed_and_mended(three: Fleet, stored: Stored) -> None:
    birch = three.agents["birch"]
    body = next(path for path in _bodies(birch) if path.stat().st_size > MIB)
    data = bytearray(body.read_bytes())
    data[MIB // 2] ^= 1
    body.write_bytes(data)
    stored.check(birch)
    aside = body.with_name(f"{body.name}.damaged")
    eventually(aside.exists, bool, WITHIN_S, "it was set aside")
    eventually(body.exists, bool, WITHIN_S, "it was fetched anew")
    assert birch.api.get("/api/v1/files")["files"]
    stored.check(birch)


def test_ranges_moves_and_removals(three: Fleet, stored: Stored, tmp_path: Path) -> None:
    ash, birch, cedar = (three.agents[name] for name in NAMES)
    whole = (stored.folder / "one").read_bytes()
    copy = tmp_path / "part"
    birch.must("file", "get", "one", str(copy), "--start", str(MIB - 7), "--bytes", "100")
    assert copy.read_bytes() == whole[MIB - 7 : MIB + 93]
    cedar.must("file", "mv", "one", "dir/uno")
    stored.digests["dir/uno"] = stored.digests.pop("one")
    ash.must("file", "rm", "two")
    del stored.digests["two"]
    stored.check(birch)
    assert ash.covey("file", "get", "two", str(tmp_path / "no")).status == exits.NOT_FOUND
    assert ash.covey("kv", "get", "\x01").status == exits.NOT_FOUND
    assert not ash.api.get("/api/v1/kv", prefix="")["entries"], "records of files are no keys"


def test_a_full_device_refuses_and_so_does_the_write_when_two_are(
    three: Fleet, stored: Stored
) -> None:
    ash, birch, cedar = (three.agents[name] for name in NAMES)
    path = stored.make("three", 3 * MIB)
    with ExitStack() as disks:
        for agent in (birch, cedar):
            agent.stop()
            folder = agent.directory / "data" / "blocks"
            folder.rename(folder.with_name("kept"))
            disks.enter_context(small_disk(folder, 64))
            fill(folder)
            agent.start()
            three.wait_formed(WITHIN_S)
            put = ash.covey("file", "put", str(path))
            if agent is birch:
                assert put.status == exits.YES, "two others have room"
                stored.note(path, "three")
            else:
                assert put.status == exits.UNHEALTHY
                assert "has no room" in put.stderr
        stored.check(ash)
        for agent in (birch, cedar):
            agent.stop()
    for agent in (birch, cedar):
        folder = agent.directory / "data" / "blocks"
        folder.rmdir()
        folder.with_name("kept").rename(folder)
        agent.start()
    three.wait_formed(WITHIN_S)
    stored.check(birch)
    for name in stored.digests:
        _whole(three, name)
