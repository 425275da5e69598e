"""A device is lost and another one gets its keys: how long that takes, and who feels it.

Three agents own every key. One is killed, and a new one takes its place (``covey join
--replace``), so that it has to copy all of them. That is done at the pace of the default, and
then once more with the throttle lifted. Time counts from the start of the new agent until all
three say that nothing is on its way and every partition has three complete copies.

Who asks meanwhile does so at a steady pace, puts and gets in turns, of the two that are there all
the time. An answer's time counts from the moment at which its question was due, so that a node
that stands still is not asked less.

Alone: ``python -m bench.state_rebuild --keys 20000``.
"""

import argparse
import asyncio
import statistics
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple, Self

from bench.agreeing import eventually
from bench.covey_keys import CoveyKeys
from bench.http_load import ANSWER_S, Address, Connection, RefusedError, ask_each
from bench.report import finish, table
from gossip.kv.transfers import TRANSFER_BYTES_PER_S

QUESTIONS_PER_S, CLIENTS = 100, 20
BEFORE_S = 15.0
REBUILT_WITHIN_S = 1800.0
LIFTED_BYTES_PER_S = 1 << 30


class Felt(NamedTuple):
    """What those who asked felt."""

    p50_ms: float
    p99_ms: float
    answered: int
    failed: int


class Rebuild(NamedTuple):
    """One device lost and replaced."""

    throttle_bytes_per_s: int
    keys: int
    seconds: float
    copied_bytes: int
    before: Felt
    meanwhile: Felt

    @property
    def p99_ratio(self) -> float:
        """The p99 while it went on, over that before."""
        return self.meanwhile.p99_ms / self.before.p99_ms

    @property
    def throttled_s(self) -> float:
        """How long copying as much takes at the pace that is allowed."""
        return self.copied_bytes / self.throttle_bytes_per_s


def many_key(number: int) -> str:
    """Return the name of one of very many keys."""
    return f"many/{number:06}"


class Foreground:
    """Clients at a steady pace, in a thread of their own; a context manager."""

    def __init__(self, trio: CoveyKeys, addresses: Sequence[Address], keys: int) -> None:
        self._trio, self._addresses, self._keys = trio, addresses, keys
        self._is_over = threading.Event()
        self._took_s: list[float] = []
        self._failed = 0
        self._thread = threading.Thread(target=lambda: asyncio.run(self._ask()))

    def __enter__(self) -> Self:
        """Begin to ask."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ask no more."""
        self._is_over.set()
        self._thread.join()

    def felt(self) -> Felt:
        """Return what was felt."""
        if len(self._took_s) < 2:
            raise RuntimeError(f"{self._failed} questions were refused, hardly one answered")
        cuts = statistics.quantiles(self._took_s, n=100)
        return Felt(1000 * cuts[49], 1000 * cuts[98], len(self._took_s), self._failed)

    async def _ask(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self._client(number))

    async def _client(self, number: int) -> None:
        connection = Connection(self._addresses[number % len(self._addresses)])
        await connection.open()
        begun, asked = time.monotonic() + number / QUESTIONS_PER_S, 0
        while not self._is_over.is_set():
            due = begun + asked * CLIENTS / QUESTIONS_PER_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            name = many_key((number * 7919 + asked * 31) % self._keys)
            request = self._trio.put(name) if asked % 2 else self._trio.get(name)
            asked += 1
            try:
                async with asyncio.timeout(ANSWER_S):
                    await connection.ask(request)
            except RefusedError:
                self._failed += 1
                continue
            self._took_s.append(time.monotonic() - due)
        connection.close()


def rebuild_both(trio: CoveyKeys, keys: int) -> list[Rebuild]:
    """Replace a lost device at the default pace, and another one as fast as it goes."""
    return [rebuild(trio, keys, pace) for pace in (TRANSFER_BYTES_PER_S, LIFTED_BYTES_PER_S)]


def rebuild(trio: CoveyKeys, keys: int, bytes_per_s: int) -> Rebuild:
    """Kill one of the three, and have a new one take its place."""
    with Foreground(trio, [trio.addresses[seat] for seat in trio.seats], keys) as asking:
        time.sleep(BEFORE_S)
    before = asking.felt()
    lost = trio.lose_one()
    left = [seat for name, seat in enumerate(trio.seats) if name != lost]
    number = trio.replace(lost, f"[state]\ntransfer_bytes_per_s = {bytes_per_s}\n")
    begun = time.monotonic()
    with Foreground(trio, [trio.addresses[seat] for seat in left], keys) as asking:
        eventually(lambda: trio.is_whole(left[0]), "all is copied", REBUILT_WITHIN_S)
        seconds = time.monotonic() - begun
    return Rebuild(bytes_per_s, keys, seconds, trio.copied(number), before, asking.felt())


def show_rebuilds(found: Sequence[Rebuild]) -> None:
    """Print them."""
    rows: list[list[object]] = [
        ["seconds", *(each.seconds for each in found)],
        ["MiB copied", *(each.copied_bytes / 2**20 for each in found)],
        ["seconds that the throttle asks for", *(each.throttled_s for each in found)],
        ["p50 before, ms", *(each.before.p50_ms for each in found)],
        ["p99 before, ms", *(each.before.p99_ms for each in found)],
        ["p50 meanwhile, ms", *(each.meanwhile.p50_ms for each in found)],
        ["p99 meanwhile, ms", *(each.meanwhile.p99_ms for each in found)],
        ["answered meanwhile", *(each.meanwhile.answered for each in found)],
        ["failed meanwhile", *(each.meanwhile.failed for each in found)],
    ]
    title = f"A lost device's {found[0].keys:,} keys, {QUESTIONS_PER_S} requests a second beside it"
    table(title, ["", "256 KiB/s, the default", "throttle lifted"], rows)


def rebuild_figures(found: Sequence[Rebuild]) -> dict[str, object]:
    """Return them for programs."""
    usual, lifted = found
    return {
        "rebuild_keys": usual.keys,
        "rebuild_s": round(usual.seconds, 1),
        "rebuild_throttled_s": round(usual.throttled_s, 1),
        "rebuild_p99_ratio": round(usual.p99_ratio, 2),
        "rebuild_lifted_s": round(lifted.seconds, 1),
        "rebuild_lifted_p99_ratio": round(lifted.p99_ratio, 2),
        "rebuild": [each._asdict() | _felt(each) for each in found],
    }


def _felt(each: Rebuild) -> dict[str, object]:
    return {"before": each.before._asdict(), "meanwhile": each.meanwhile._asdict()}


def main() -> None:
    """Measure it alone, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=100_000)
    keys = parser.parse_args().keys
    with CoveyKeys() as trio:
        asyncio.run(ask_each(trio.addresses, lambda n: trio.put(many_key(n)), keys))
        found = rebuild_both(trio, keys)
    show_rebuilds(found)
    finish("state_rebuild", rebuild_figures(found))


if __name__ == "__main__":
    main()
