"""Clients: they read, write and delete a few keys through whichever node is up.

Few keys and many clients make conflicts common. Half the writes name what was read before, as a
careful client does; the others are blind. Every put writes a value of its own, so that a value
found later tells where it came from (see ``consistency.py``).
"""

import random

from gossip.kv.requests import Get
from gossip.sim.operations import Operation
from gossip.sim.world import World

KEYS = tuple(f"key/{number}" for number in range(6))
KINDS = ("get", "put", "replace", "delete", "forget")
# Blind puts and deletes, and those that name what was read.
WEIGHTS = (5, 3, 4, 1, 2)


class Workload:
    """Sends requests at random moments until told to stop."""

    def __init__(self, world: World, rng: random.Random, requests_per_s: float) -> None:
        self._world, self._rng = world, rng
        self._interval_s = 1 / requests_per_s
        self._reads: dict[str, Operation] = {}
        self._stopped = False
        self._ask_later()

    def stop(self) -> None:
        """Send nothing more."""
        self._stopped = True

    def _ask_later(self) -> None:
        delay_s = self._rng.expovariate(1 / self._interval_s)
        self._world.driver.schedule.after(delay_s, self._ask)

    def _ask(self) -> None:
        rng, up = self._rng, self._world.up()
        kind, key = rng.choices(KINDS, WEIGHTS)[0], rng.choice(KEYS)
        where = rng.random()
        if self._stopped:
            return
        if up:
            self._send(kind, up[int(where * len(up))], key)
        self._ask_later()

    def _send(self, kind: str, name: str, key: str) -> None:
        world, read = self._world, self._read_of(key)
        value = f"value {len(world.operations)}".encode()
        if kind == "put":
            world.put(name, key, value)
        elif kind == "delete":
            world.delete(name, key)
        elif kind == "get" or read is None:
            self._reads[key] = world.get(name, key)
        elif kind == "replace":
            world.put(name, key, value, after=read)
        else:
            world.delete(name, key, after=read)

    def _read_of(self, key: str) -> Operation | None:
        """Return the last read of a key if it was answered; a client forgets the others."""
        read = self._reads.get(key)
        if read is None or read.outcome != "ok":
            return None
        assert isinstance(read.request, Get), "only gets are remembered"
        return read
