"""What a listener does with the open stream of a member: frames in, and patience with silence."""

import asyncio
import ssl
from collections import Counter
from typing import Any, cast

import pytest

from agent.net import listener
from agent.net.listener import Listener
from tests.support.patience import GIVE_UP_S

PEER = 7


class Arriving:
    """Frames that come so many times, then silence, or the end."""

    def __init__(self, reads: int, *, ends: bool) -> None:
        self._reads, self._ends = reads, ends

    async def read(self) -> list[bytes]:
        self._reads -= 1
        if self._reads >= 0:
            return [b"one", b"two"]
        if self._ends:
            raise EOFError
        await asyncio.Event().wait()
        raise AssertionError("nothing ends the silence")


async def handed_on(arriving: Arriving, how_it_ends: type[Exception]) -> list[bytes]:
    taken: list[bytes] = []
    serving = Listener((), cast("ssl.SSLContext", None), bytes(16), 1, Counter())
    serving._on_frame = lambda frame, _peer: taken.append(frame)
    async with asyncio.timeout(GIVE_UP_S):
        with pytest.raises(how_it_ends):
            await serving._hand_on(cast("Any", arriving), PEER)
    assert serving.counts["frames/received"] == len(taken)
    return taken


def test_a_member_that_falls_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "MEMBER_SILENCE_S", 0.01)
    assert asyncio.run(handed_on(Arriving(1, ends=False), TimeoutError)) == [b"one", b"two"]


@pytest.mark.parametrize(("every_s", "set_anew"), [(-1.0, 3), (GIVE_UP_S, 0)])
def test_patience_begins_anew_with_what_comes_but_not_each_time(
    monkeypatch: pytest.MonkeyPatch, every_s: float, set_anew: int
) -> None:
    ends: list[float | None] = []
    monkeypatch.setattr(listener, "PATIENCE_SET_EVERY_S", every_s)
    monkeypatch.setattr(asyncio.Timeout, "reschedule", lambda _timeout, when: ends.append(when))
    assert len(asyncio.run(handed_on(Arriving(3, ends=True), EOFError))) == 6
    # asyncio sets each timeout once when it is entered: ours, and the test's own.
    assert len(ends) - 2 == set_anew
