"""Whatever may be long gives the loop its turns: nothing here is worked off in one go.

A slice is made so short that each item is one of its own. The turns of the loop are counted
meanwhile; work that does not pass through slices has a single one, however fast the machine.
"""

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.api.large_bodies import PLACES, LargeBodies
from agent.api.long_lists import listing
from agent.api.request_bodies import GZIP_CHUNK_BYTES, readings_of
from agent.doctor import reachability
from agent.doctor.messages import NodeView, PeerView
from agent.http.request import Request
from agent.loop import slices
from agent.store.database import Database
from agent.telemetry import outbox as outboxes
from agent.telemetry.intake import read_listed, take_lines
from agent.telemetry.outbox import Outbox, Receipt
from agent.telemetry.outbox_schema import OUTBOX_MIGRATIONS
from tests.support.readings import checked

ITEMS = 300

Work = Callable[[], Awaitable[Any]]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "SLICE_S", 1e-9)


async def turns_during(work: Work) -> int:
    """Return how many turns of the loop passed."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    await work()
    counting.cancel()
    return turns


async def accept(readings: Any) -> Receipt:
    return Receipt(len(readings), "a", "b")


def packed() -> Request:
    body = gzip.compress(bytes(50 * GZIP_CHUNK_BYTES))

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-encoding", b"gzip")]
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


async def unpack() -> None:
    async with readings_of(packed(), LargeBodies(PLACES)) as body:
        assert len(body) == 50 * GZIP_CHUNK_BYTES


NODES = range(ITEMS)
VIEWS = {
    a: NodeView(1, 0, tuple(PeerView(b, "alive", None, None, 1.0) for b in (1, 2))) for a in NODES
}


async def doctor() -> None:
    built = await reachability.build(NODES, VIEWS, 10.0)
    await reachability.examine(
        built, {node: str(node) for node in NODES}, dict.fromkeys(NODES, 7747)
    )


WORKS: dict[str, tuple[Work, int]] = {
    "lines": (lambda: take_lines(accept, b"m v=1\n" * ITEMS, 1), ITEMS),
    "bad lines": (lambda: take_lines(accept, b"m\n" * ITEMS, 1), ITEMS),
    "blank lines": (lambda: take_lines(accept, b"\n" * ITEMS, 1), ITEMS),
    "open texts": (lambda: take_lines(accept, b'm t="\n' * ITEMS, 1), ITEMS // 2),
    "a list": (lambda: read_listed(b"[" + b'{"sensor":"t","value":1},' * ITEMS + b"{}]"), ITEMS),
    "objects": (lambda: read_listed(b'{"sensor":"t","value":1}\n' * ITEMS), ITEMS),
    "a gzip": (unpack, 50),
    "a listing": (lambda: listing("items", ({"n": n} for n in range(ITEMS))), ITEMS),
    "the doctor's matrix": (doctor, 3 * ITEMS),
}


@pytest.mark.parametrize("name", WORKS)
def test_long_work_gives_the_loop_its_turns(name: str) -> None:
    work, turns = WORKS[name]
    assert asyncio.run(turns_during(work)) >= turns


def test_so_does_looking_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outboxes, "RECENT_STRETCH", 10)

    async def main() -> None:
        database = await Database.open(tmp_path / "t.db", OUTBOX_MIGRATIONS)
        outbox = await Outbox.open(database, 1, 1 << 32)
        await outbox.accept([checked("t", number) for number in range(ITEMS)])
        assert await turns_during(lambda: outbox.recent("t", ITEMS)) >= ITEMS
        await outbox.close()
        await database.close()

    asyncio.run(main())


def test_so_does_accepting_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_once(_: object) -> int:
        return 1

    async def main() -> None:
        database = await Database.open(tmp_path / "t.db", OUTBOX_MIGRATIONS)
        outbox = await Outbox.open(database, 1, 1 << 32)
        readings = [checked("t", number) for number in range(ITEMS * outboxes.PREPARED_AT_ONCE)]
        with monkeypatch.context() as patched:
            patched.setattr(database, "write", at_once)
            assert await turns_during(lambda: outbox.accept(readings)) >= ITEMS
        await database.close()

    asyncio.run(main())
