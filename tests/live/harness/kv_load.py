"""Clients that write, delete and read shared keys, and a journal of their own to judge by.

The journal knows of each write which values it was to replace, since each value is written once:
a client names what it replaces by the context of a read, and the read showed it. So it can tell
whether a value that is gone was replaced, and whether one that is there should not be. What a
client was told decides what is asked for: "ok" is a promise, "nothing was written" is one too, and
after anything else both is possible.
"""

import itertools
import random
import secrets
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Self

from edge_apps.client import AgentUnreachable, ApiError, Client
from tests.live.harness.agents import AgentProcess
from tests.live.harness.waiting import eventually, insist

SHARED_KEYS = 6
RECENT_KEYS = 30
ASK_S = 4.0
"""How long an agent is to try: owners are away all the time."""
CLIENT_PATIENCE_S = 60.0
PAUSE_S = 0.02
PAGE = 500
PASSING_STATUSES = (503, 504)
UNWRITTEN = "nothing was written"
NO_SUCH_KEY, MISMATCH = 404, 409
PROGRESS_WITHIN_S = 30.0

Told = str
OK, REFUSED, UNKNOWN = "ok", "refused", "unknown"


class Write(NamedTuple):
    """A put, or a delete if ``value`` is None, with what it was to replace and what came of it."""

    key: str
    value: str | None
    covers: frozenset[str]
    told: Told
    asked_at: float
    told_at: float


class Read(NamedTuple):
    """What a quorum read showed."""

    key: str
    values: frozenset[str]
    asked_at: float
    told_at: float


class Change(NamedTuple):
    """A change of a typed value: what it does, to which part of it, and what came of it."""

    kind: str
    part: str
    number: int
    told: Told


class KvLoad:
    """Clients at work, some at each agent; use it as a context manager, then ``check``."""

    def __init__(
        self, agents: Iterable[AgentProcess], *, deletes: bool = True, clients_each: int = 2
    ) -> None:
        """``deletes``: whether clients delete, too."""
        self.writes: list[Write] = []
        self.reads: list[Read] = []
        self.changes: list[Change] = []
        self._recent: deque[str] = deque(maxlen=RECENT_KEYS)
        self._deletes = deletes
        self.prefix = f"fire/{secrets.token_hex(4)}/"  # nobody wrote there yet
        self._numbers = itertools.count(1)
        self._is_over = threading.Event()
        seats = [(agent, number) for agent in agents for number in range(clients_each)]
        self._pool = ThreadPoolExecutor(len(seats))
        self._work = [self._pool.submit(self._go_on, *seat) for seat in seats]

    def acknowledged(self) -> int:
        """Return how many writes and changes were acknowledged so far."""
        done: list[Write | Change] = [*self.writes, *self.changes]
        return sum(each.told == OK for each in done)

    def wait_progress(self, count: int, what: str) -> None:
        """Wait until so many more were acknowledged than by now."""
        begun = self.acknowledged()
        eventually(
            self.acknowledged, lambda now: now >= begun + count, PROGRESS_WITHIN_S,
            f"{count} more writes, {what}",
        )  # fmt: skip

    def __enter__(self) -> Self:
        """Return the load itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop asking; raise what a client did not expect."""
        self._is_over.set()
        self._pool.shutdown()
        for each in self._work:
            each.result()

    # --- a client ---------------------------------------------------------------------------------

    def _go_on(self, agent: AgentProcess, number: int) -> None:
        name = f"{agent.name}-{number}"
        rng = random.Random(name)
        client = Client(agent.directory / "covey.sock", timeout_s=CLIENT_PATIENCE_S)
        mine: list[Write] = []
        turns: list[Callable[[], None]] = [
            lambda: self._put_new(client, name, mine),
            lambda: self._put_new(client, name, mine),
            lambda: self._read_back(client, rng),
            lambda: self._read_back(client, rng),
            lambda: self._replace(client, rng),
            lambda: self._replace(client, rng),
            lambda: self._change(client, name, rng),
            lambda: self._change(client, name, rng),
        ]
        if self._deletes:
            turns += [lambda: self._delete(client, mine), lambda: self._delete_shared(client, rng)]
        while not self._is_over.is_set():
            rng.choice(turns)()
            time.sleep(PAUSE_S)

    def _put_new(self, client: Client, name: str, mine: list[Write]) -> None:
        """Write a key that nobody else ever writes."""
        number = next(self._numbers)
        write = self._ask_put(client, f"{self.prefix}{name}/{number}", frozenset(), None)
        if write.told == OK:
            mine.append(write)
            self._recent.append(write.key)

    def _read_back(self, client: Client, rng: random.Random) -> None:
        """Read what somebody wrote a moment ago, or deleted meanwhile."""
        recent = list(self._recent)
        if recent:
            self._look(client, rng.choice(recent))

    def _delete(self, client: Client, mine: list[Write]) -> None:
        if not mine:
            return
        put = mine.pop(0)
        assert put.value is not None
        self._ask_delete(client, put.key, frozenset((put.value,)), None)

    def _replace(self, client: Client, rng: random.Random) -> None:
        """Read a key of all, and replace what is seen."""
        key = f"{self.prefix}shared/{rng.randrange(SHARED_KEYS)}"
        seen = self._look(client, key)
        if seen is not None:
            self._ask_put(client, key, *seen)

    def _delete_shared(self, client: Client, rng: random.Random) -> None:
        key = f"{self.prefix}shared/{rng.randrange(SHARED_KEYS)}"
        seen = self._look(client, key)
        if seen is not None and seen[0]:
            self._ask_delete(client, key, *seen)

    def _look(self, client: Client, key: str) -> tuple[frozenset[str], str | None] | None:
        """Return the values of a key, and the context that stands for them; None if unknown."""
        asked_at = time.monotonic()
        try:
            answer = client.request(
                "GET", f"/api/v1/kv/{key}", query={"timeout": ASK_S},
                headers={"Accept": "application/json"},
            )  # fmt: skip
        except ApiError as error:
            if error.status == NO_SUCH_KEY:
                self.reads.append(Read(key, frozenset(), asked_at, time.monotonic()))
                return frozenset(), None
            _expect_passing(error)
            return None
        except AgentUnreachable:
            return None
        body = answer.json()
        values = frozenset(value["value"] for value in body["values"])
        self.reads.append(Read(key, values, asked_at, time.monotonic()))
        return values, body["context"]

    def _ask_put(
        self, client: Client, key: str, covers: frozenset[str], context: str | None
    ) -> Write:
        value = f"v{next(self._numbers)}"
        headers = {} if context is None else {"Covey-Context": context}
        # Without a context a put replaces whatever its coordinator has, which nobody has seen.
        query = {"timeout": ASK_S, "if_absent": context is None}

        def ask() -> Any:
            return client.request(
                "PUT", f"/api/v1/kv/{key}", query=query, body=value.encode(), headers=headers
            ).json()

        return self._note(key, value, covers, ask)

    def _ask_delete(
        self, client: Client, key: str, covers: frozenset[str], context: str | None
    ) -> None:
        headers = {} if context is None else {"Covey-Context": context}

        def ask() -> Any:
            return client.request(
                "DELETE", f"/api/v1/kv/{key}", query={"timeout": ASK_S}, headers=headers
            ).json()

        self._note(key, None, covers, ask)

    def _note(
        self, key: str, value: str | None, covers: frozenset[str], ask: Callable[[], Any]
    ) -> Write:
        asked_at = time.monotonic()
        write = Write(key, value, covers, _told(ask), asked_at, time.monotonic())
        self.writes.append(write)
        return write

    def _change(self, client: Client, name: str, rng: random.Random) -> None:
        """Change a counter, a set, a map or a max."""
        number = next(self._numbers)
        kind, body = rng.choice([
            ("counter", {"type": "counter", "by": 1}),
            ("set", {"type": "set", "add": f"{name}/{number}"}),
            ("map", {"type": "map", "field": name, "value": str(number)}),
            ("max", {"type": "max", "number": number}),
        ])  # fmt: skip

        def ask() -> Any:
            query = {"timeout": ASK_S}
            path = f"/api/v1/kv/{self.prefix}typed/{kind}"
            return client.request("POST", path, query=query, json=body).json()

        part = f"{name}/{number}" if kind == "set" else name
        self.changes.append(Change(kind, part, number, _told(ask)))

    # --- judging ----------------------------------------------------------------------------------

    def check(self, *agents: AgentProcess, reads: bool = True) -> None:
        """Fail unless all that was promised is so, as each of these agents lists and reads it.

        ``reads``: and as each read showed it that a client made meanwhile.
        """
        told = Counter(each.told for each in self.writes)
        print(f"{dict(told)} writes, {len(self.reads)} reads, {len(self.changes)} changes")
        assert told[OK], "vacuous: nothing was acknowledged"
        by_key = defaultdict(list)
        for write in self.writes:
            by_key[write.key].append(write)
        wrong = [] if not reads else list(self._wrong_reads(by_key))
        for agent in agents:
            listed = list_all(agent, self.prefix)
            values = {
                key: frozenset(each["value"] for each in found)
                for key, found in listed.items()
                if "/typed/" not in key
            }
            unknown = values.keys() - by_key.keys()
            wrong += [f"{agent.name}: {key} was never written" for key in unknown]
            for key, writes in by_key.items():
                seen = values.get(key, frozenset())
                wrong += [f"{agent.name}: {text}" for text in _broken(writes, writes, writes, seen)]
            wrong += [f"{agent.name}: {text}" for text in self._wrong_types(listed)]
        assert not wrong, "\n".join(wrong)

    def _wrong_reads(self, by_key: dict[str, list[Write]]) -> Iterator[str]:
        for read in self.reads:
            writes = by_key.get(read.key, [])
            before = [write for write in writes if write.told_at < read.asked_at]
            begun = [write for write in writes if write.asked_at < read.told_at]
            for text in _broken(before, begun, before, read.values):
                yield f"a read under way: {text}"

    def _wrong_types(self, listed: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
        """Compare what typed values are with what was done to them."""
        told = {kind: [change for change in self.changes if change.kind == kind] for kind in JUDGES}
        for kind, changes in told.items():
            found = listed.get(f"{self.prefix}typed/{kind}", [])
            if len(found) > 1:
                yield f"a {kind} has {len(found)} values"
            is_promised = any(change.told == OK for change in changes)
            if is_promised and not found:
                yield f"the {kind} is gone"
            elif found and (text := JUDGES[kind](changes, found[0]["value"])):
                yield f"the {kind} is {found[0]['value']}: {text}"


def list_all(agent: AgentProcess, prefix: str) -> dict[str, list[dict[str, Any]]]:
    """Return the values of all keys with a prefix, by key, as a quorum of each has them."""

    def page(after: str) -> dict[str, Any]:
        query: dict[str, str | float] = {"prefix": prefix, "after": after, "limit": PAGE}
        answer: dict[str, Any] = agent.api.request("GET", "/api/v1/kv", query=query).json()
        assert answer["outcome"] == "ok", answer["outcome"]
        return answer

    listed: dict[str, list[dict[str, Any]]] = {}
    after = ""
    while True:
        answer = insist(lambda: page(after), f"a whole page after {after!r}")  # noqa: B023
        keys = [entry["key"] for entry in answer["entries"]]
        assert keys == sorted(set(keys)), "in order, and each once"
        assert not listed.keys() & set(keys), "no page repeats another"
        listed |= {entry["key"]: entry["values"] for entry in answer["entries"]}
        after = answer["next"]
        if not after:
            return listed


def _told(ask: Callable[[], Any]) -> Told:
    """Ask for a write; return what it is known to have done."""
    try:
        return OK if ask()["outcome"] == "ok" else UNKNOWN
    except ApiError as error:
        if error.status == MISMATCH:
            return REFUSED
        _expect_passing(error)
        return REFUSED if UNWRITTEN in f"{error.message} {error.hint}" else UNKNOWN
    except AgentUnreachable as error:
        return UNKNOWN if error.was_asked else REFUSED


def _expect_passing(error: ApiError) -> None:
    if error.status not in PASSING_STATUSES:
        raise error


def _broken(
    promised: list[Write], sent: list[Write], ended: list[Write], seen: frozenset[str]
) -> Iterator[str]:
    """Say what is wrong with the values of one key.

    ``promised`` were told of before anybody looked, ``sent`` may have been carried out by then, and
    what ``ended`` ones replaced must not be there any more.
    """
    done = [write for write in sent if write.told != REFUSED]

    def lives(value: str) -> bool:
        """Whether a value is there, or one that replaced it, or a delete took it."""
        return value in seen or any(
            write.value is None or lives(write.value) for write in done if value in write.covers
        )

    for value in seen - {write.value for write in done}:
        yield f"{value} was refused, or never written"
    for write in promised:
        if write.told == OK and write.value is not None and not lives(write.value):
            yield f"{write.key}: {write.value} was acknowledged and is lost; there is {set(seen)}"
    for write in ended:
        if write.told == OK and (back := write.covers & seen):
            yield f"{write.key}: {back} came back behind {write.value or 'a delete'}"


# --- typed values ---------------------------------------------------------------------------------


def _counter_is_wrong(changes: list[Change], value: Any) -> str:
    promised = sum(change.told == OK for change in changes)
    possible = sum(change.told != REFUSED for change in changes)
    return "" if promised <= value <= possible else f"{promised} to {possible} were counted"


def _set_is_wrong(changes: list[Change], value: Any) -> str:
    promised = {change.part for change in changes if change.told == OK}
    possible = {change.part for change in changes if change.told != REFUSED}
    found = set(value)
    if lost := promised - found:
        return f"without {lost}"
    return f"with {more}" if (more := found - possible) else ""


def _map_is_wrong(changes: list[Change], value: Any) -> str:
    """Each client has a field of its own: what it wrote before its last acknowledged is over."""
    for field in {change.part for change in changes}:
        own = [change for change in changes if change.part == field and change.told != REFUSED]
        promised = [change.number for change in own if change.told == OK]
        over = set(promised[:-1])
        found = value.get(field)
        possible = {str(change.number) for change in own if change.number not in over}
        if found not in possible and (promised or found is not None):
            return f"{field} is {found}, not one of {possible}"
    return ""


def _max_is_wrong(changes: list[Change], value: Any) -> str:
    promised = max((change.number for change in changes if change.told == OK), default=0)
    possible = {change.number for change in changes if change.told != REFUSED}
    return "" if value >= promised and value in possible else f"{promised} was acknowledged"


JUDGES: dict[str, Callable[[list[Change], Any], str]] = {
    "counter": _counter_is_wrong,
    "set": _set_is_wrong,
    "map": _map_is_wrong,
    "max": _max_is_wrong,
}
