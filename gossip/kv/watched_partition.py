"""What a watch knows of one partition: what was settled, what was told since, how far owners are.

A reader of the partition tells states of keys, as it has them, and no two readers have the same at
every moment. So that nothing is missed, and the last state told of a key is never an old one:

* **settled** are dots that most readers have in their clocks, each of whom has told all that it
  has. They are as safe as an acknowledged write, so that every reader has them sooner or later.
  They are the token.
* a reader is **level** if its clock covers all that is settled. Only who is level is believed:
  where it shows a key of which nothing is remembered here, its state is at least as new as what
  was told.
* what was told and is not settled is **remembered** by key, without its values, and what is told
  of that key meanwhile is merged into it, by the rule of replicas (``records.py``).

A put that is settled and was not told was replaced; what replaced it is told or yet to be. A delete
that is settled and was not told is a gap, unless somebody still knows of which key it was.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple

from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.kv import records
from gossip.kv.coverages import difference, in_at_least, size_of, union
from gossip.kv.deletions import deletions_of
from gossip.kv.dots import Coverage, Dot, PartitionClock
from gossip.kv.limits import WATCH_PATIENCE_S
from gossip.kv.records import NOTHING, KeyState, Record, Version, coverage
from gossip.registry.ownership import majority

LOST = "what was told before is on no owner any more"
PUT_OFF = "more has changed than a watch can remember, and some of it was not told"
UNTOLD = "{} deletes were missed, and nobody knows any more of which keys"


class ReaderView:
    """What a reader of a partition has said, in one life of it."""

    def __init__(self, node: NodeId, life: int) -> None:
        self.node = node
        self.life = life
        self.is_level = False
        self.is_behind = False
        """Whether it has said that it lacks something that is settled."""
        self.extras: Coverage | None = None
        """What its clock has beyond what is settled, once it has told all of that."""


class ToldKey:
    """What was told of a key, not all of which is settled; without values."""

    def __init__(self) -> None:
        self.record = NOTHING
        self.dots: dict[Dot, NodeId] = {}
        """What is not settled, each with who told it first: it takes of that one's room."""
        self.last: frozenset[Dot] | None = None
        """The versions that were told last; none of them is a delete."""


class ToldState(NamedTuple):
    """What is to be told of a key: its versions now, none for a delete."""

    live: tuple[Version, ...]


class Room:
    """How many dots a watch may remember, in all of its partitions, of each reader that told them.

    So a reader that tells of what nobody has takes no room but its own.
    """

    def __init__(self, share: int) -> None:
        self.share = share
        self._taken: Counter[NodeId] = Counter()

    def take(self, teller: NodeId, count: int) -> bool:
        """Take room for so many dots; False if there is not as much."""
        if self._taken[teller] + count > self.share:
            return False
        self._taken[teller] += count
        return True

    def give_back(self, tellers: Iterable[NodeId]) -> None:
        """Give up the room of some dots, by who told each of them."""
        self._taken.subtract(Counter(tellers))
        assert all(count >= 0 for count in self._taken.values()), "no more was taken"


class WatchedPartition:
    """One partition under a watch."""

    def __init__(self, room: Room, settled: Coverage | None) -> None:
        """``settled`` None: it begins with what there is when most readers have said it."""
        self.is_ready = settled is not None
        self.readers: dict[NodeId, ReaderView] = {}
        self._room = room
        self._told: dict[str, ToldKey] = {}
        self._since: dict[str, Instant] = {}
        """Since when something cannot be told."""
        self.put_off: set[NodeId] = set()
        """Readers some of whose changes were not told, for there was no room to remember them."""
        self.slow: set[NodeId] = set()
        """Readers that told for too long without an end: nobody waits for them any more."""
        self._is_wary = False
        """Whether it begins anew, after a beginning that most readers did not come up to."""
        self._settle_at(settled or ())

    def _settle_at(self, settled: Coverage) -> None:
        self._settled = PartitionClock(settled)
        self._seen = PartitionClock(settled)
        self.mark = self._settled.mark()

    @property
    def settled(self) -> Coverage:
        """What the token says of this partition."""
        return self._settled.coverage()

    def seen(self) -> Coverage:
        """Return what was told beyond that."""
        return difference(self._seen.coverage(), self._settled)

    def reader(self, node: NodeId, life: int) -> ReaderView:
        """Return what a reader has said in this life of it; nothing if it is another one."""
        view = self.readers.get(node)
        if view is None or view.life != life:
            view = self.readers[node] = ReaderView(node, life)
        return view

    def is_believed(self, node: NodeId, life: int) -> bool:
        """Tell whether what this reader shows is as new as all that is settled."""
        view = self.readers.get(node)
        return self.is_ready and view is not None and view.is_level and view.life == life

    def begin(self, readers: Collection[NodeId]) -> bool:
        """Begin with what most readers have now, none of which is told; False if too few spoke."""
        heard = [v.extras for n, v in self.readers.items() if n in readers and v.extras is not None]
        if len(heard) < majority(readers):
            return False
        assert not self._told, "nothing was told before the beginning"
        # What one of them alone has may be a lie. Taken as told it costs a wait; left out, it may
        # be told twice, and all that an owner missed while it was away with it.
        at_once = self._is_wary and len(heard) > 1
        self._settle_at(in_at_least(2, heard) if at_once else union(heard))
        self.is_ready = True
        self.readers.clear()
        return True

    # What is told

    def take(self, key: str, state: KeyState, teller: NodeId) -> ToldState | None:
        """Merge a state that a level reader tells; return what is to be told. Raises NoRoom."""
        dots = coverage(state)
        told = self._told.get(key)
        if told is None and state.live and all(dot in self._seen for dot in dots):
            return None  # a delete without a dot, of an earlier version's, is told even so
        fresh = [dot for dot in dots if dot not in self._settled]
        self._remember(key, fresh, teller)
        told = self._told.setdefault(key, ToldKey())
        if told.last is None:
            after = Record(state.live, records.join_contexts(state.context))
        else:
            after = records.merge(told.record, self._seen, state)
        self._seen.add(dots)
        news = self._news(told, after, state)
        bare = tuple(Version(v.actor, v.n, v.stamp, b"") for v in after.live)
        told.record = Record(bare, after.context)
        if news is not None:
            told.last = frozenset(version.dot for version in news.live)
        return news

    def _remember(self, key: str, fresh: Collection[Dot], teller: NodeId) -> None:
        known = self._told[key].dots if key in self._told else {}
        more = [dot for dot in fresh if dot not in known]
        if not self._room.take(teller, len(more)):
            raise NoRoom
        self._told.setdefault(key, ToldKey()).dots.update(dict.fromkeys(more, teller))

    @staticmethod
    def _news(told: ToldKey, after: Record, state: KeyState) -> ToldState | None:
        """Say what is new, of versions whose values are here."""
        here = {version.dot: version for version in state.live}
        live = tuple(here[version.dot] for version in after.live if version.dot in here)
        dots = frozenset(version.dot for version in live)
        if dots == after.dots():
            return ToldState(live) if told.last is None or told.last != dots else None
        # A sibling is elsewhere, and its teller will have this one: what is new does not wait.
        return ToldState(live) if dots - told.record.dots() else None

    def vouched(self, key: str, state: KeyState, extras: Coverage) -> KeyState:
        """Return a state that covers what is remembered of its key and is in its teller's clock.

        Of a key that is gone an owner keeps nothing, so it cannot name what went.
        """
        told = self._told.get(key)
        if told is None:
            return state
        clock = PartitionClock(extras)
        gone = {dot for dot in told.record.dots() if dot in self._settled or dot in clock}
        covered = tuple(sorted(gone.union(state.covered)))
        return KeyState(state.live, state.context, covered)

    def pass_over(self, dots: Collection[Dot]) -> None:
        """Take note of changes of keys that are not watched."""
        self._seen.add(dots)

    # What is settled

    def completed(self, view: ReaderView, extras: Coverage) -> None:
        """A level reader has told all that its clock had beyond what is settled."""
        assert self.is_ready, "nobody is level with what is not known yet"
        view.is_level, view.is_behind, view.extras = True, False, extras
        self.put_off.discard(view.node)
        self.slow.discard(view.node)

    def fell_behind(self, view: ReaderView) -> None:
        """A reader lacks something that is settled: it is not believed before it has it."""
        view.is_level, view.is_behind, view.extras = False, True, None

    def unreachable(self, node: NodeId) -> None:
        """A reader may have started anew: it is asked before it is believed again."""
        if node in self.readers:
            self.readers[node].is_level = self.readers[node].is_behind = False

    def settle(self, readers: Collection[NodeId]) -> Coverage | None:
        """Settle what most readers have; return the deletes in it that were not told.

        Those are not settled: somebody may still know of which keys they were. None if too few
        have told all that they have.
        """
        for gone in self.readers.keys() - set(readers):
            del self.readers[gone]
        heard = [view.extras for view in self.readers.values() if view.extras is not None]
        if len(heard) < majority(readers):
            return None
        common = difference(in_at_least(majority(readers), heard), self._settled)
        untold = difference(deletions_of(common), self._seen)
        self._absorb(difference(common, PartitionClock(untold)))
        return untold

    def _absorb(self, grown: Coverage) -> None:
        if not grown:
            return
        assert self.is_ready, "what comes before the beginning is not settled one by one"
        self._settled.absorb(grown)
        self._seen.absorb(grown)
        self.mark = self._settled.mark()
        for view in self.readers.values():
            if view.extras is None or difference(grown, PartitionClock(view.extras)):
                view.is_level, view.extras = False, None
            else:
                view.extras = difference(view.extras, self._settled)
        self._forget_settled()

    def _forget_settled(self) -> None:
        for key, told in list(self._told.items()):
            left = {dot: by for dot, by in told.dots.items() if dot not in self._settled}
            self._room.give_back(by for dot, by in told.dots.items() if dot not in left)
            told.dots = left
            if not left:
                del self._told[key]

    # What cannot be told

    def gap(self, untold: Coverage | None, readers: Collection[NodeId], now: Instant) -> str:
        """Say what nobody can tell any more, once that was waited for in vain; else nothing."""
        if self._is_overdue("behind", self._is_lost(readers), now):
            self._start_anew()
            return LOST
        heard = set(readers) - self.put_off
        if self._is_overdue("put off", len(heard) < majority(readers), now):
            self._start_anew()
            return PUT_OFF
        if untold is not None and self._is_overdue("untold", bool(untold), now):
            self._since.clear()
            self._absorb(untold)
            return UNTOLD.format(size_of(untold))
        return ""

    def _is_lost(self, readers: Collection[NodeId]) -> bool:
        """Tell whether most readers lack what is settled; that one has it may be a lie."""
        behind = sum(view.is_behind for view in self.readers.values())
        return self.is_ready and behind >= majority(readers)

    def _is_overdue(self, trouble: str, is_there: bool, now: Instant) -> bool:  # noqa: FBT001
        if not is_there:
            self._since.pop(trouble, None)
            return False
        return now - self._since.setdefault(trouble, now) >= WATCH_PATIENCE_S

    def _start_anew(self) -> None:
        self._room.give_back(by for told in self._told.values() for by in told.dots.values())
        self._told.clear()
        self.put_off.clear()
        self._is_wary = True
        self.readers.clear()
        self._since.clear()
        self.is_ready = False
        self._settle_at(())

    def close(self) -> None:
        """Give back what is remembered."""
        self._start_anew()


class NoRoom(Exception):
    """Too much is remembered already; it is to be told later."""
