"""Frames as they come: whole, in pieces, many at a time, and what is none."""

import asyncio
import random

import pytest

from agent.net.framing import ArrivingFrames, framed
from gossip.core.errors import Malformed
from gossip.core.tuning import FRAME_BYTES_MAX

NO_FRAME = (FRAME_BYTES_MAX + 1).to_bytes(4)


async def read_all(*pieces: bytes) -> tuple[list[list[bytes]], Exception]:
    """Feed a stream piece by piece; return what each read gave, and what ended it."""
    stream = asyncio.StreamReader()
    reader, found = ArrivingFrames(stream), []

    async def feed() -> None:
        for piece in pieces:
            stream.feed_data(piece)
            for _ in range(4):
                await asyncio.sleep(0)
        stream.feed_eof()

    feeding = asyncio.create_task(feed())
    try:
        while True:
            found.append(await reader.read())
    except (Malformed, EOFError) as error:
        return found, error
    finally:
        await feeding


def test_frames_that_are_there_come_together() -> None:
    found, error = asyncio.run(read_all(framed(b"a") + framed(b"bc") + framed(b"d")[:4], b"d"))
    assert found == [[b"a", b"bc"], [b"d"]]
    assert isinstance(error, EOFError)


def test_however_a_stream_is_cut_the_frames_are_the_same() -> None:
    rng = random.Random(7)
    frames = [rng.randbytes(rng.randrange(1, 300)) for _ in range(40)]
    data = b"".join(map(framed, frames))
    for _ in range(30):
        cuts = sorted(rng.sample(range(len(data)), 25))
        pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        found, _ = asyncio.run(read_all(*pieces))
        assert [frame for each in found for frame in each] == frames


@pytest.mark.parametrize("bad", [bytes(4), NO_FRAME])
def test_what_is_no_frame_ends_it_behind_those_before(bad: bytes) -> None:
    found, error = asyncio.run(read_all(framed(b"a") + bad + framed(b"b")))
    assert found == [[b"a"]]
    assert isinstance(error, Malformed)


def test_half_a_frame_is_none() -> None:
    found, error = asyncio.run(read_all(framed(b"abc")[:-1]))
    assert found == []
    assert isinstance(error, asyncio.IncompleteReadError)
