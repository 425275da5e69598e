"""Double barriers: so many sessions begin together, and end together (ZooKeeper's recipe).

A barrier opens when as many have entered as were agreed on; until then, who dies is not counted
any more. Once it is open nobody else gets in. It is over when the last has left or died, and may be
used again. Whoever waits for either watches the barrier.
"""

from collections.abc import Callable, Iterator

import msgspec

from gossip.control.bounds import ENTRY_BYTES, Space
from gossip.control.outcomes import (
    FULL,
    NOT_HELD,
    OTHER_COUNT,
    UNDER_WAY,
    BarrierResult,
    Declined,
)


class Barrier(msgspec.Struct, frozen=True, array_like=True):
    """A barrier that somebody has entered. ``count``: how many have to."""

    name: str
    count: int
    inside: tuple[int, ...]
    is_open: bool

    @property
    def size_bytes(self) -> int:
        """What it takes of the space."""
        return ENTRY_BYTES * (1 + len(self.inside)) + len(self.name.encode())

    def result(self) -> BarrierResult:
        """Say how it stands."""
        return BarrierResult(len(self.inside), self.is_open)


class BarrierChange(msgspec.Struct, frozen=True):
    """Somebody entered or left; None: nobody is inside any more."""

    name: str
    barrier: Barrier | None


class BarrierTable:
    """Manages the barriers. Sessions are the caller's to check."""

    def __init__(self, space: Space, changed: Callable[[BarrierChange], None]) -> None:
        self._space = space
        self._changed = changed
        self._barriers: dict[str, Barrier] = {}
        self._of_session: dict[int, set[str]] = {}

    def __len__(self) -> int:
        return len(self._barriers)

    def __iter__(self) -> Iterator[Barrier]:
        return (self._barriers[name] for name in sorted(self._barriers))

    def get(self, name: str) -> Barrier | None:
        """Return a barrier; None while nobody is inside."""
        return self._barriers.get(name)

    def enter(self, name: str, session: int, count: int) -> BarrierResult | Declined:
        """Let a session in; it opens with the last that was missing. Twice does no harm."""
        barrier = self._barriers.get(name) or Barrier(name, count, (), is_open=False)
        if session in barrier.inside:
            return barrier.result()
        if barrier.count != count:
            return Declined(OTHER_COUNT, f"barrier {name!r} waits for {barrier.count}, not {count}")
        if barrier.is_open:
            return Declined(
                UNDER_WAY, f"barrier {name!r} is open; enter when all inside have left it"
            )
        inside = (*barrier.inside, session)
        entered = Barrier(name, count, inside, is_open=len(inside) == count)
        before = self._barriers.get(name)
        if not self._space.fits(entered.size_bytes - (before.size_bytes if before else 0)):
            return Declined(FULL, "the control plane is full; delete something first")
        self._of_session.setdefault(session, set()).add(name)
        self._set(entered)
        return entered.result()

    def leave(self, name: str, session: int) -> BarrierResult | Declined:
        """Let a session out."""
        barrier = self._barriers.get(name)
        if barrier is None or session not in barrier.inside:
            return Declined(NOT_HELD, f"the session is not inside barrier {name!r}")
        return self._part(barrier, session)

    def end_session(self, session: int) -> None:
        """Take a session out of all barriers."""
        for name in sorted(self._of_session.get(session, ())):
            self._part(self._barriers[name], session)

    def restore(self, barrier: Barrier) -> None:
        """Take a barrier in as it is."""
        for session in barrier.inside:
            self._of_session.setdefault(session, set()).add(barrier.name)
        self._set(barrier)

    def _part(self, barrier: Barrier, session: int) -> BarrierResult:
        inside = tuple(each for each in barrier.inside if each != session)
        names = self._of_session[session]
        names.discard(barrier.name)
        if not names:
            del self._of_session[session]
        left = Barrier(barrier.name, barrier.count, inside, barrier.is_open)
        self._set(left)
        return left.result()

    def _set(self, barrier: Barrier) -> None:
        assert len(set(barrier.inside)) == len(barrier.inside), "nobody is inside twice"
        assert len(barrier.inside) <= barrier.count, "a barrier that is open lets nobody in"
        before = self._barriers.pop(barrier.name, None)
        if before is not None:
            self._space.add(-before.size_bytes)
        if barrier.inside:
            self._barriers[barrier.name] = barrier
            self._space.add(barrier.size_bytes)
        self._changed(BarrierChange(barrier.name, barrier if barrier.inside else None))
