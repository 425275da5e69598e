"""This node's copy of its partitions: unsaved changes laid over what is stored.

Records stay on disk. In memory are the changes of batches that are not yet saved, some records
that were used lately (``hot_records.py``), and for each partition that was touched its clock and
its digest, which are loaded at first touch, when
nothing of that partition can be unsaved, and kept up to date from then on.

Every change gets the token of the batch it will be saved with; whoever reveals a partition's
state sends its frame after ``token(partition)``. A crash between the two loses only what
nobody has heard of.

A copy that is no longer wanted is *forgotten*: its records and its clock together. A clock
without its records would say "seen, and gone" of values that live elsewhere, and delete them
if this node became an owner again. For the same reason the next copy of that partition writes
under a new actor: the old one vouched for records that are not here any more. And so does a copy
of which somebody tells writes that it has yet to make.
"""

import random
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain
from zlib import crc32

from gossip.core.errors import SetAside
from gossip.core.hlc import HybridClock
from gossip.core.ids import UINT64_MAX, Boot, NodeId
from gossip.core.machine import Durability, Instant, Persist
from gossip.core.trials import OnTrial, trusted
from gossip.kv.counting import increased
from gossip.kv.deletions import DELETING, DeletionMemory, putting
from gossip.kv.dots import Actor, Coverage, Dot, PartitionClock
from gossip.kv.hot_records import HotRecords
from gossip.kv.leaves import Leaf, leaf_of, leaves_of
from gossip.kv.records import (
    NOTHING,
    KeyState,
    Record,
    Version,
    answer,
    coverage,
    delete,
    merge,
    put,
    record_mark,
    settle,
)
from gossip.kv.restored_key import put_back
from gossip.kv.storage import (
    DAMAGED,
    FIRST_EXPIRY,
    PLACES,
    Change,
    ClockChange,
    DropPartition,
    Expiry,
    HoldingChange,
    RecordChange,
    Storage,
)
from gossip.kv.takeover import NO_EPOCH, Copy
from gossip.kv.typed_values import Life, earliest_expiry_ms, pack
from gossip.registry.registry import Registry

ACTOR_BITS = 64
UNSAVED_FOR_EVER = UINT64_MAX
EXPIRY_MS_MAX = 2**63 - 1
TITLE_KEY_CHARACTERS = 100

Listener = Callable[[int, str, Record, Record, frozenset[Dot], int], None]
"""(partition, key, record before, record after, the dots that did it, token): live versions have
changed."""


def title_of(key: str, state: KeyState) -> str:
    """Return what a state of a key is called while it is on trial; another write has another."""
    # Of numbers alone, so that it is the same in every process; a text's hash is not.
    mark = hash((crc32(key.encode()), state.dots(), state.context)) & UINT64_MAX
    return f"record {mark:016x} of {key[:TITLE_KEY_CHARACTERS]}"


class Partition:
    """What is kept in memory of one partition."""

    def __init__(self, actor: Actor, life: Life, coverage: Coverage = (), digest: int = 0) -> None:
        self.actor = putting(actor)
        self.life = life
        self.issued = 0
        self.deleted = 0
        self.clock = PartitionClock(coverage)
        self.digest = digest
        self.token = 0
        self.forgotten = 0
        self.bare = False

    @classmethod
    def load(cls, storage: Storage, number: int, actor: Actor, life: Life) -> "Partition":
        """Return a partition as it is stored."""
        held = cls(actor, life, storage.clock(number), storage.digest(number))
        held.bare = bool(storage.orphan_context(number))
        return held


class Replica:
    """Manages this node's copy: unsaved changes laid over what is stored."""

    def __init__(
        self,
        me: NodeId,
        actor: Actor,
        storage: Storage,
        clock: HybridClock,
        rng: random.Random,
        tokens: Iterator[int],
        boot: Boot,
    ) -> None:
        """``tokens`` numbers the batches to be saved; ``boot`` grows with each start."""
        self.me = me
        self.is_held_back = False
        """Whether the disk takes nothing, so that no more is to be begun here."""
        self.takes_puts = True
        """Whether there is so much room that new values may come: deletes, and what a read mends,
        are taken in any case."""
        self.on_foretold: Callable[[], None] = lambda: None
        """Called when somebody told of writes that are yet to be made here."""
        self.listener: Listener = lambda _p, _key, _before, _after, _dots, _token: None
        self.deletions = DeletionMemory()
        self.has_expiries = bool(storage.expired(EXPIRY_MS_MAX, FIRST_EXPIRY, 1))
        """Whether there may be a record here that expires at some time."""
        held = storage.holdings()
        self.on_trial: OnTrial = trusted
        self.holdings = {p: since for p, since in held.items() if since != DAMAGED}
        self.damaged = {p for p, since in held.items() if since == DAMAGED} - {PLACES}
        self._doubts_places = PLACES in held
        self._actor = actor
        self._life: Life = boot, 0
        self._storage = storage
        self._clock = clock
        self._rng = rng
        self._partitions: dict[int, Partition] = {}
        self._overlay: dict[tuple[int, str], tuple[int, Record | None]] = {}
        self._unsaved: deque[tuple[int, tuple[int, str]]] = deque()
        """The names in the overlay with the tokens that they had, oldest first."""
        self._hot = HotRecords()
        self._batch: dict[object, Change] = {}
        self._tokens = tokens
        self._token = next(tokens)
        self._saved = 0

    # Reading

    def _partition(self, partition: int) -> Partition:
        found = self._partitions.get(partition)
        if found is None:
            found = self._partitions[partition] = Partition.load(
                self._storage, partition, self._actor, self._life
            )
        return found

    def record(self, partition: int, key: str) -> Record:
        """Return a key's record, with changes that are not saved yet."""
        name = partition, key
        unsaved = self._overlay.get(name)
        if unsaved:
            return unsaved[1] or NOTHING
        if self._is_forgotten(partition):
            return NOTHING
        if name in self._hot:
            return self._hot.use(name) or NOTHING
        stored = self._storage.load(partition, key)
        self._hot.keep(name, stored)
        return stored or NOTHING

    def _is_forgotten(self, partition: int) -> bool:
        """Tell whether what is stored of a partition is only waiting to be removed."""
        held = self._partitions.get(partition)
        return held is not None and held.forgotten > self._saved

    def token(self, partition: int) -> int:
        """Return the batch after which all that is here of a partition is on disk."""
        return self._partition(partition).token

    def answer(self, partition: int, key: str, asked: Collection[Dot]) -> KeyState:
        """Return the state of a key, vouching for those of the asked dots that were seen."""
        return answer(self.record(partition, key), self._partition(partition).clock, asked)

    def scan(self, partition: int, prefix: str, after: str, limit: int) -> list[tuple[str, Record]]:
        """Return live records with this prefix after this key, in order.

        Fewer than ``limit`` come only at the end.
        """
        unsaved = {
            key: record
            for (of, key), (_, record) in self._overlay.items()
            if of == partition and key > after and key.startswith(prefix)
        }
        found: dict[str, Record | None] = {}
        at = after
        while True:
            stored = not self._is_forgotten(partition)
            page = self._storage.scan(partition, prefix, at, limit) if stored else []
            found.update(page)
            ended = len(page) < limit
            at = page[-1][0] if page else at
            in_reach = {key: r for key, r in unsaved.items() if ended or key <= at}
            merged = sorted((found | in_reach).items())
            live = [(key, record) for key, record in merged if record and record.live]
            if ended or len(live) >= limit:
                return live[:limit]

    def marks(self, partition: int) -> dict[str, int]:
        """Return the mark of each key of a partition that has a live version, unsaved ones too."""
        marks = {} if self._is_forgotten(partition) else self._storage.marks(partition)
        for (of, key), (_, record) in self._overlay.items():
            if of == partition:
                marks[key] = record_mark(key, record.dots()) if record else 0
        return {key: mark for key, mark in marks.items() if mark}

    def leaves(self, partition: int) -> tuple[int, ...]:
        """Return the digest of each leaf of a partition."""
        return leaves_of(self.marks(partition))

    def scan_part(
        self, partition: int, leaves: Collection[Leaf], after: str, limit: int
    ) -> list[tuple[str, Record]]:
        """Do as ``scan`` does with the keys of these leaves; none stands for all."""
        if not leaves:
            return self.scan(partition, "", after, limit)
        keys = (key for key in self.marks(partition) if key > after and leaf_of(key) in leaves)
        return [(key, self.record(partition, key)) for key in sorted(keys)[:limit]]

    def digest(self, partition: int) -> int:
        """Return the digest of all live dots of a partition."""
        return self._partition(partition).digest

    def clock_mark(self, partition: int) -> int:
        """Return the hash of a partition's clock."""
        return self._partition(partition).clock.mark()

    def coverage(self, partition: int) -> Coverage:
        """Return a partition's clock."""
        return self._partition(partition).clock.coverage()

    def expired(self, until_ms: int, after: Expiry, limit: int) -> list[Expiry]:
        """Return stored records of which something has expired by then.

        What they are now may be newer, and what is not stored yet is not among them.
        """
        page = self._storage.expired(until_ms, after, limit)
        if not page and not self._unsaved and after == FIRST_EXPIRY:
            ever = self._storage.expired(EXPIRY_MS_MAX, FIRST_EXPIRY, 1)
            self.has_expiries = bool(ever)
        return page

    def occupied(self) -> set[int]:
        """Return the partitions of which there are records, saved or not."""
        stored = {p for p in self._storage.partitions() if not self._is_forgotten(p)}
        return stored | {partition for partition, _ in self._overlay}

    # Changing

    def write(
        self,
        partition: int,
        key: str,
        value: bytes | None,
        replaced: Iterable[Dot] | None,
        now: Instant,
    ) -> tuple[KeyState, Dot | None]:
        """Put a value, or delete if it is None; ``replaced`` None replaces all that is here.

        Returns what to tell the other owners, and the new dot.
        """
        before = self.record(partition, key)
        gone = before.dots() if replaced is None else replaced
        if value is None:
            after, state = delete(before, self._deletion(partition), gone)
            dot = None
        else:
            version = self._version(partition, value, now)
            after, state = put(before, version, gone)
            dot = version.dot
        self._commit(partition, key, before, after, coverage(state))
        return state, dot

    def _deletion(self, partition: int) -> Dot:
        """Return the dot of the next delete of this process in this partition."""
        held = self._partition(partition)
        held.deleted += 1
        assert not held.actor & DELETING, "puts and deletes have actors of their own"
        return (held.actor | DELETING, held.deleted)

    def increment(
        self, partition: int, key: str, by: int, now: Instant
    ) -> tuple[KeyState, Dot | None]:
        """Add to our share of a counter; needs a complete copy. Raises CountError.

        Returns what ``write`` returns.
        """
        live, held = self.record(partition, key).live, self._partition(partition)
        counter = increased(live, self.me, held.life, held.issued + 1, by)
        return self.write(partition, key, pack(counter), [v.dot for v in live], now)

    def restore(
        self, partition: int, key: str, versions: Iterable[Version], now: Instant
    ) -> tuple[KeyState, Dot | None]:
        """Put versions out of a backup beside what is here, as writes of this process.

        Returns what ``write`` returns.
        """
        before, held = self.record(partition, key), self._partition(partition)

        def next_dot() -> Dot:
            held.issued += 1
            return held.actor, held.issued

        versions = tuple(versions)
        for version in versions:
            self._clock.merge(version.stamp, now)
        after, state, dot = put_back(before, versions, next_dot)
        self._commit(partition, key, before, after, coverage(state))
        return state, dot

    def _version(self, partition: int, value: bytes, now: Instant) -> Version:
        """Make a version under the next dot of this process in this partition."""
        held = self._partition(partition)
        held.issued += 1
        return Version(held.actor, held.issued, self._clock.tick(now), value)

    def merge(self, partition: int, key: str, state: KeyState, now: Instant) -> None:
        """Merge what another node told of a key.

        Raises SetAside: then nothing may be said, or believed, that rests on having merged it.
        """
        what = title_of(key, state)
        if not self.on_trial(what, lambda: self._merge(partition, key, state, now)):
            raise SetAside(f"{what} ended this agent before")

    def has_room_for(self, partition: int, key: str, state: KeyState) -> bool:
        """Tell whether a comparison may bring this here: no new version on a disk nearly full."""
        if self.takes_puts:
            return True
        before = self.record(partition, key)
        return merge(before, self._partition(partition).clock, state).dots() <= before.dots()

    def _merge(self, partition: int, key: str, state: KeyState, now: Instant) -> None:
        for version in state.live:
            self._clock.merge(version.stamp, now)
        before = self.record(partition, key)
        held = self._partition(partition)
        after = merge(before, held.clock, state)
        self._commit(partition, key, before, after, coverage(state))
        self._outlive(held, chain(state.context, coverage(state)))

    def _outlive(self, held: Partition, told: Iterable[Dot]) -> None:
        """Write as another actor from now on, if somebody tells of writes that we have yet to make.

        Whoever believed it would take them for ones that were replaced long ago: acknowledge them,
        and drop them. No honest replica can tell such a thing.
        """
        issued = {held.actor: held.issued, held.actor | DELETING: held.deleted}
        if any(actor in issued and n > issued[actor] for actor, n in told):
            held.actor = putting(self._rng.getrandbits(ACTOR_BITS))
            held.issued, held.deleted = 0, 0
            held.life = self._next_life()
            self.on_foretold()

    def _next_life(self) -> Life:
        """Return a life for another actor of this process."""
        boot, turn = self._life
        self._life = boot, turn + 1
        return self._life

    def _commit(
        self, partition: int, key: str, before: Record, after: Record, dots: frozenset[Dot]
    ) -> None:
        held = self._partition(partition)
        self.deletions.record(partition, key, dots)
        self._cover(partition, held, held.clock.add(dots))
        kept = settle(after, held.clock)
        if (kept or NOTHING) == before:
            return
        held.bare = held.bare or (kept is not None and not kept.live)
        self.has_expiries = self.has_expiries or bool(earliest_expiry_ms(after.live))
        dots_before, dots_after = before.dots(), after.dots()
        held.digest ^= record_mark(key, dots_before) ^ record_mark(key, dots_after)
        self._overlay[partition, key] = (self._token, kept)
        self._unsaved.append((self._token, (partition, key)))
        self._change(held, ("record", partition, key), RecordChange(partition, key, kept))
        if dots_before != dots_after:
            self.listener(partition, key, before, after, dots, self._token)

    def _cover(self, partition: int, held: Partition, actors: Iterable[Actor]) -> None:
        for actor in actors:
            change = ClockChange(partition, actor, held.clock.intervals(actor))
            self._change(held, ("clock", partition, actor), change)

    def _change(self, held: Partition, name: object, change: Change) -> None:
        """Add to the batch under way. A later change of the same thing takes its place."""
        self._batch[name] = change
        held.token = self._token

    def absorb(self, partition: int, clock: Coverage) -> None:
        """Take in the clock of a replica whose every record has been merged here since."""
        held = self._partition(partition)
        self._cover(partition, held, held.clock.absorb(clock))
        lasts = ((actor, last) for actor, intervals in clock for _, last in intervals)
        self._outlive(held, lasts)
        if held.bare:
            self._sweep(partition, held)

    def _sweep(self, partition: int, held: Partition) -> None:
        """Let go of bare contexts whose gap has been filled."""
        bare = (
            {} if self._is_forgotten(partition) else dict(self._storage.orphan_context(partition))
        )
        bare |= {
            key: r or NOTHING for (of, key), (_, r) in self._overlay.items() if of == partition
        }
        left = False
        for key in bare:
            record = self.record(partition, key)
            if not record.live and record.context:
                self._commit(partition, key, record, record, frozenset())
                left = left or bool(self.record(partition, key).context)
        held.bare = left

    def hold(self, partition: int, since: int) -> None:
        """Note that a partition is complete here for those who own it since this epoch."""
        assert since > NO_EPOCH, "0 on the disk stands for a damaged copy"
        self.holdings[partition] = since
        self.damaged.discard(partition)
        change = HoldingChange(partition, since)
        self._change(self._partition(partition), ("holding", partition), change)

    def doubt_places(self, numbers: Collection[int]) -> None:
        """Doubt these, if the disk says that any partition beside the table may be damaged.

        It cannot say which there are.
        """
        if not self._doubts_places or not numbers:
            return
        self._doubts_places = False
        for number in numbers:
            self.holdings.pop(number, None)
            self.damaged.add(number)
            change = HoldingChange(number, DAMAGED)
            self._change(self._partition(number), ("holding", number), change)
        self._batch["holding", PLACES] = HoldingChange(PLACES, None)

    def write_off(self, partition: int) -> None:
        """Forget that a copy was damaged of which nothing is left, and that nobody wants."""
        self.damaged.discard(partition)
        change = HoldingChange(partition, None)
        self._change(self._partition(partition), ("holding", partition), change)

    def copy(self, partition: int) -> Copy:
        """Return what can be said of the copy of a partition."""
        return Copy(partition not in self.damaged, self.holdings.get(partition, NO_EPOCH))

    def is_complete(self, partition: int, registry: Registry) -> bool:
        """Tell whether we are one of the readers of a partition, and have what they must have."""
        ownership = registry.ownership(partition)
        copy = self.copy(partition)
        return self.me in ownership.readers and copy.has_all_before(ownership.readers_since)

    def may_answer(self, partition: int, registry: Registry) -> bool:
        """Tell whether a read of a partition may be answered with what is here.

        One of those pending need not be complete: it counts among them alone, and whatever it
        lacks, the owners have.
        """
        ownership = registry.ownership(partition)
        if self.me in ownership.readers:
            return self.is_complete(partition, registry)
        is_asked = any(self.me in nodes for nodes in ownership.read_sets)
        return is_asked and self.copy(partition).is_sound

    def forget(self, partition: int) -> None:
        """Let go of a whole copy; see the module's text."""
        self.holdings.pop(partition, None)
        self.damaged.discard(partition)
        self._overlay = {name: kept for name, kept in self._overlay.items() if name[0] != partition}
        self._hot.drop_partition(partition)
        self._batch = {name: c for name, c in self._batch.items() if c.partition != partition}
        held = Partition(self._rng.getrandbits(ACTOR_BITS), self._next_life())
        held.forgotten = self._token
        self._partitions[partition] = held
        self._change(held, ("forget", partition), DropPartition(partition))

    # Saving

    def flush(self) -> Persist | None:
        """Return the batch under way, if there is one, and begin the next."""
        if not self._batch:
            return None
        persist = Persist(self._token, tuple(self._batch.values()), Durability.FLUSH)
        self._batch = {}
        self._token = next(self._tokens)
        return persist

    def saved(self, token: int) -> None:
        """Forget unsaved changes up to this batch: they are in the storage now."""
        self._saved = max(self._saved, token)
        while self._unsaved and self._unsaved[0][0] <= self._saved:
            _, name = self._unsaved.popleft()
            token, record = self._overlay.get(name, (UNSAVED_FOR_EVER, None))
            if token <= self._saved:
                del self._overlay[name]
                self._hot.keep(name, record)
