"""``covey salvage``: lines that an import takes, out of files alone."""

import asyncio
import json
from pathlib import Path

import pytest

from agent import exits
from agent.cluster.kv_lines import read_line
from agent.config.paths import Paths
from agent.store.kv_store import RecordStore
from agent.store.lock import locked
from gossip.kv.records import Record, Version
from gossip.kv.storage import RecordChange
from gossip.kv.typed_values import SetMember, pack
from tests.support.command_line import Covey, commands_in

LIVE = {
    "a/text": [b"on"],
    "a/bytes": [b"\xff\x00"],
    "b/two": [b"older", b"newer"],
    "b/set": [pack(SetMember("x")), pack(SetMember("y"))],
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    found = tmp_path / "node"
    (found / "data").mkdir(parents=True)

    async def scenario() -> None:
        records = await RecordStore.open(found / "data" / "data.db")
        for key, values in LIVE.items():
            live = tuple(Version(1, n, n << 16, v) for n, v in enumerate(values, start=1))
            await records.save([RecordChange(1, key, Record(live, ((1, 9),)))])
        own = Record((Version(1, 1, 1 << 16, b"a file"),), ((1, 9),))
        await records.save([RecordChange(1, "\0f/a/image", own)])
        await records.save([RecordChange(1, "deleted", Record((), ((1, 9),)))])
        await records.close()

    asyncio.run(scenario())
    return found


@pytest.fixture
def covey(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Covey:
    return commands_in(tmp_path / "elsewhere", capfdbinary)


def test_lines_come_out_that_an_import_takes(covey: Covey, directory: Path) -> None:
    done = covey("salvage", str(directory))
    assert done.status == exits.YES, done.stderr
    assert "4 keys out of" in done.stderr
    lines = {line.key: line for line in map(read_line, done.stdout.encode().splitlines())}
    assert lines["a/text"].values == (b"on",)
    assert lines["a/bytes"].values == (b"\xff\x00",)
    assert lines["b/two"].values == (b"newer", b"older")
    assert (lines["b/set"].type, json.loads(lines["b/set"].values[0])) == ("set", ["x", "y"])
    assert lines.keys() == LIVE.keys()
    some = covey("salvage", str(directory / "data" / "data.db"), "--prefix", "a/")
    assert len(some.stdout.splitlines()) == 2


def test_what_an_agent_has_open_is_not_read(covey: Covey, directory: Path) -> None:
    with locked(Paths(directory, directory / "data", directory)):
        refused = covey("salvage", str(directory))
    assert refused.status == exits.NO
    assert "nothing was read" in refused.stderr
    assert refused.stdout == ""


def test_damage_is_told_with_what_is_sound(covey: Covey, directory: Path) -> None:
    database = directory / "data" / "data.db"

    async def scenario() -> None:
        records = await RecordStore.open(database)
        change = "UPDATE records SET record = x'9090' WHERE key = 'a/text'"
        await records.database.write(lambda c: c.execute(change))
        await records.close()

    asyncio.run(scenario())
    done = covey("salvage", str(directory))
    assert done.status == exits.UNHEALTHY
    assert "1 row left out" in done.stderr
    assert len(done.stdout.splitlines()) == 3


def test_where_nothing_is_it_says_so(covey: Covey, tmp_path: Path) -> None:
    assert covey("salvage", str(tmp_path)).status == exits.NOT_FOUND
