"""Who sends a large body slowly keeps nobody else from sending one."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from agent.api import large_bodies, request_bodies
from agent.api.errors import BadRequest, TooLarge
from agent.api.large_bodies import PLACES, VALUE_PLACES, LargeBodies, Place
from agent.api.pace import Pace
from agent.api.request_bodies import SMALL_BYTES_MAX, VALUE_BYTES_MAX, read_body, read_object
from agent.http.asgi import Message
from agent.http.request import WHOLE_BODY, Request
from tests.support.fake_agent import Served, serving
from tests.support.patience import GIVE_UP_S

LARGE = (b"#" + b"-" * 1000 + b"\n") * 100 + b"m v=1\n"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as running:
        yield running


def counted(served: Served, why: str) -> int:
    return served.agent.metrics.counts()[f"api_bodies/{why}"]


class Upload:
    """A large body on a connection of its own, sent piece by piece."""

    async def begin(self, path: Path, size_bytes: int, what: str = "POST /write") -> "Upload":
        self.reader, self.writer = await asyncio.open_unix_connection(str(path))
        head = f"{what} HTTP/1.1\r\nHost: x\r\nContent-Length: {size_bytes}\r\n\r\n"
        self.writer.write(head.encode())
        return self

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def trickle(self) -> None:
        """Go on for ever, a byte at a time."""
        with suppress(OSError):
            while True:
                await self.send(b"-")
                await asyncio.sleep(0.005)

    async def status(self) -> int:
        async with asyncio.timeout(GIVE_UP_S):
            line = await self.reader.readuntil(b"\r\n")
        self.writer.close()
        return int(line.split()[1])


@pytest.mark.parametrize(
    ("what", "places", "good"),
    [("POST /write", PLACES, 204), ("PUT /api/v1/kv/k", VALUE_PLACES, 200)],
    ids=["readings", "values"],
)
def test_slow_senders_keep_nobody_out(
    served: Served, monkeypatch: pytest.MonkeyPatch, what: str, places: int, good: int
) -> None:
    """Four senders of a byte now and then held all the places for as long as they liked."""
    monkeypatch.setattr(large_bodies, "PATIENCE_S", 0.2)
    monkeypatch.setattr(large_bodies, "LOOK_S", 0.02)

    async def story() -> None:
        size_bytes = VALUE_BYTES_MAX
        slow = [await Upload().begin(served.paths.socket, size_bytes, what) for _ in range(places)]
        for each in slow:
            await each.send(b"#" + b"-" * (SMALL_BYTES_MAX + 1))
        trickles = [asyncio.create_task(each.trickle()) for each in slow]
        await asyncio.sleep(0.3)
        honest = await Upload().begin(served.paths.socket, len(LARGE), what)
        await honest.send(LARGE)
        assert await honest.status() == good
        gone = [asyncio.create_task(each.status()) for each in slow]
        done, waiting = await asyncio.wait(gone, return_when=asyncio.FIRST_COMPLETED)
        assert {task.result() for task in done} == {504}, "what a collector sends again"
        assert waiting, "not all for the sake of one"
        assert 1 <= counted(served, "gave_way") < places
        for task in (*trickles, *waiting):
            task.cancel()
        await asyncio.gather(*trickles, *waiting, return_exceptions=True)

    asyncio.run(story())


@pytest.mark.parametrize("size_bytes", [20_000, 10**6], ids=["small", "large"])
def test_a_body_that_trickles_is_given_up(
    served: Served, monkeypatch: pytest.MonkeyPatch, size_bytes: int
) -> None:
    """It never stands still: a body of 64 KiB took three weeks, if its sender liked."""
    monkeypatch.setattr(request_bodies, "PAUSE_S", 0.3)

    async def story() -> None:
        upload = await Upload().begin(served.paths.socket, size_bytes)
        await upload.send(b"#" * min(size_bytes // 2, SMALL_BYTES_MAX + 1))
        trickle = asyncio.create_task(upload.trickle())
        assert await upload.status() == 504
        assert counted(served, "too_slow") == 1
        trickle.cancel()
        await asyncio.gather(trickle, return_exceptions=True)

    asyncio.run(story())


def test_what_is_announced_large_is_not_read_before_it_has_a_place() -> None:
    """250 that wait took 390 KiB each: what came at first, and what was read on top of it."""

    async def receive() -> Message:
        raise AssertionError("it was read")

    async def story() -> None:
        announced = (b"content-length", str(SMALL_BYTES_MAX + 1).encode())
        request = Request({"type": "http", "headers": [announced]}, receive)
        reading = asyncio.create_task(
            read_body(request, VALUE_BYTES_MAX, Place(LargeBodies(places=0), ""))
        )
        done, _ = await asyncio.wait([reading], timeout=0.05)
        assert not done
        reading.cancel()

    asyncio.run(story())


def test_who_has_many_waits_for_itself() -> None:
    async def story() -> None:
        all_of_them = LargeBodies(PLACES)
        held = [Place(all_of_them, "many") for _ in range(PLACES)]
        for place in held:
            assert await place.take()
            assert not await place.take(), "it has one"
        waiting = [Place(all_of_them, "many") for _ in range(20)]
        one = Place(all_of_them, "one")
        tasks = [asyncio.create_task(each.take()) for each in (*waiting, one)]
        await asyncio.sleep(0)
        held[0].give_back()
        assert all_of_them.taken == {*held[1:], one}, "though it came last"
        held[1].give_back()
        assert all_of_them.taken == {*held[2:], one, waiting[0]}, "who waits longest"
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        held[2].give_back()
        assert len(all_of_them.taken) == PLACES - 1, "nobody waits any more"

    asyncio.run(story())


def test_who_is_fast_enough_never_gives_way() -> None:
    pace = Pace(100.0, 5.0, 0.0)
    assert pace.slow_at == 5.0
    for second in range(1, 50):
        pace.record(100, second)
        assert pace.slow_at == second + 5.0, "it earned what it took"
    pace.record(10**9, 50.0)
    assert pace.slow_at == 55.0, "and nothing for later"
    for second in range(50, 58):
        pace.record(1, second)
    assert 55.0 < pace.slow_at < 58.0
    pace.restart(60.0)
    assert pace.slow_at == 65.0


def body_that_came_whole(body: bytes) -> Request:
    async def receive() -> Message:
        raise AssertionError("it is there already")

    headers = [(b"content-length", b"%d" % len(body))]
    return Request({"headers": headers, "extensions": {WHOLE_BODY: body}}, receive)


def test_a_body_that_came_whole_is_not_waited_for() -> None:
    assert asyncio.run(read_body(body_that_came_whole(b"abc"), 3)) == b"abc"
    with pytest.raises(TooLarge):
        asyncio.run(read_body(body_that_came_whole(b"abc"), 2))


@pytest.mark.parametrize("body", [b'{"a":"\\ud800"}', b'{"\\uDFFF":1}', b'{"a":["\\ud800x"]}'])
def test_half_a_character_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest, match="not JSON"):
        asyncio.run(read_object(body_that_came_whole(body), frozenset({"a"})))


def test_a_character_that_is_written_in_two_halves_is_one() -> None:
    request = body_that_came_whole(b'{"a":"\\ud83d\\ude00"}')
    assert asyncio.run(read_object(request, frozenset({"a"}))) == {"a": "\U0001f600"}
