"""Watches in the schedules of ``owners.py``: what they told, held against what there is in peace.

Everything goes wrong as it does there: owners change, crash, lose power and are cut off, frames are
lost and come again. Meanwhile two clients watch, one all keys and one a single key, at nodes that
end under them. A client keeps what it was told and the token, as a client that stores both
together would: when its node ends, or it does not read on, it goes on elsewhere from its last
token, and from what it knew when it got that token. In peace, what a client knows of each key must
be what there is: each acknowledged change was told, or what took its place. Only after a gap that
was said, a client knows nothing of the keys that it watches until they are told again.
"""

from collections.abc import Callable
from typing import Any

from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.kv.dots import Dot, PartitionClock
from gossip.kv.requests import Watch, WatchEvent
from tests.sim.owners import KEYS, LOOK_S, Trouble, Violation

MUST_HAPPEN = (
    "watches/put", "watches/delete", "watches/mark", "watches/gap", "schedule/watches resumed",
    "handoffs/taken", "handoffs/let_go", "schedule/batches lost", "schedule/frames again",
)  # fmt: skip
STARTED_S = 1.0
TOLD_WITHIN_S = 400.0
"""In peace: who is behind is compared, and what nobody can tell is said to be a gap."""

View = dict[str, frozenset[Dot]]


class WatchingClient:
    """Somebody who watches, and keeps what it was told with the token."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.ticket: tuple[NodeId, int] | None = None
        self.token: bytes | None = None
        self.known: View = {}
        self.unknown: set[str] = set()
        self._kept: tuple[View, set[str]] = ({}, set())
        self.told = 0

    def watched(self) -> list[str]:
        """Return what is watched."""
        return KEYS if self.watch.key is None else [self.watch.key]

    def again(self) -> Watch:
        """Return the watch that goes on from the last token, with what was known by then."""
        self.known, self.unknown = dict(self._kept[0]), set(self._kept[1])
        return Watch(self.watch.prefix, self.watch.key, self.token)

    def hear(self, event: WatchEvent) -> None:
        """Take in what is told."""
        match event.kind:
            case "mark":
                self.token = event.token
                self._kept = dict(self.known), set(self.unknown)
            case "gap":
                self.unknown |= set(self.watched())
            case _:
                self.told += 1
                assert (event.kind == "put") == bool(event.values), "a put has values"
                self.unknown.discard(event.key)
                self.known[event.key] = frozenset(value.dot for value in event.values)


class WatchedTrouble(Trouble):
    """A schedule with clients that watch."""

    def __init__(self, seed: int) -> None:
        self.clients = [WatchingClient(Watch(prefix="")), WatchingClient(Watch(key=KEYS[0]))]
        super().__init__(seed)
        for client in self.clients:
            self.open_watch(client, client.watch)
        self.run(STARTED_S)
        if any(client.token is None for client in self.clients):
            raise Violation("all are there, and a watch does not begin")

    def open_watch(self, client: WatchingClient, watch: Watch) -> None:
        who = self.anybody()
        if who is not None:
            request = self.planes[who].submit(watch, self.now)
            client.ticket = who, request
            self.settle(who)

    def completed(self, number: NodeId, event: object) -> None:
        if not isinstance(event, WatchEvent):
            super().completed(number, event)
            return
        for client in self.clients:
            if client.ticket == (number, event.request):
                self.counts[f"watches/{event.kind}"] += 1
                client.hear(event)

    def crash(self, number: NodeId) -> None:
        super().crash(number)
        for client in self.clients:
            if client.ticket is not None and client.ticket[0] == number:
                client.ticket = None

    def actions(self) -> list[Callable[[], object]]:
        return [*super().actions(), *[self.delete] * 2, *[self.go_on] * 4, self.turn_away]

    def go_on(self) -> None:
        """Clients whose node has ended watch at another one."""
        for client in self.clients:
            if client.ticket is None:
                self.counts["schedule/watches resumed"] += 1
                self.open_watch(client, client.again())

    def turn_away(self) -> None:
        """A client does not read on."""
        client = self.trouble_rng.choice(self.clients)
        if client.ticket is not None:
            number, request = client.ticket
            self.planes[number].cancel(request, self.now)
            client.ticket = None
            self.settle(number)

    def under_way(self, plane: Any) -> int:
        return super().under_way(plane) - len(plane.watchers)  # those do not end by themselves

    def judge_peace(self) -> None:
        super().judge_peace()
        self.go_on()
        until: Instant = self.now + TOLD_WITHIN_S
        while self.now < until and self.missed():
            self.run(LOOK_S)
        if missed := self.missed():
            raise Violation(f"a watch ends with {missed}")
        for client in self.clients:
            assert client.ticket is not None, "it was opened"
            number, request = client.ticket
            self.planes[number].cancel(request, self.now)
            self.counts["schedule/watches with gaps"] += bool(client.unknown)
            self.counts["schedule/watches judged"] += 1

    def missed(self) -> list[Any]:
        """Return where a client knows something else than what there is."""
        found: list[Any] = []
        for at, client in enumerate(self.clients):
            for key in client.watched():
                there = next(iter(self.held_by_owners(key).values()))
                known = client.known.get(key, frozenset())
                if key not in client.unknown and known != there and not self.is_lost(key, known):
                    found.append((at, client.ticket, key, sorted(known), sorted(there)))
        return found

    def is_lost(self, key: str, known: frozenset[Dot]) -> bool:
        """Whether a version that was told went with the disk of the only one that had it.

        No such write was acknowledged, and nothing can tell that it is gone.
        """
        partition = self.registry.partition_of(key)
        clocks = [
            PartitionClock(self.planes[owner].replica.coverage(partition))
            for owner in self.registry.owners[partition]
            if owner in self.planes
        ]
        return any(
            (key, dot) not in self.acked and not any(dot in clock for clock in clocks)
            for dot in known
        )


def run(seed: int) -> WatchedTrouble:
    """Run one schedule. Raises Violation, with the seed."""
    trouble: WatchedTrouble | None = None
    try:
        trouble = WatchedTrouble(seed)
        trouble.trouble()
        trouble.peace()
    except AssertionError as error:
        raise Violation(f"SEED {seed}: {type(error).__name__}: {error}") from error
    return trouble
