"""The hearing side of watches: what applications of this node watch, put together from the owners.

::

    Subscribe(marks of what is settled)  ->  each reader, every LEASE_RENEWAL_S
                                         <- WatchSubscribeReply(same, differing)
    for what differs:  WatchAsk(settled, seen)  ->
                                         <- WatchPage(keys with their states), page after page
    in between                           <- Changed(state), at once, which may be lost

Changes are told as they come; some moments later all readers are asked, and what most of them have
told whole is settled and becomes the token. What to believe of whom is in ``watched_partition.py``.
"""

from collections import Counter
from collections.abc import Collection

from gossip.core.errors import InvalidRequest
from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.kv.coverages import sound
from gossip.kv.dots import Coverage
from gossip.kv.limits import (
    LEASE_RENEWAL_S,
    SESSION_TIMEOUT_S,
    SURVEY_PARTITIONS_MAX,
    TELLER_DOTS_MIN,
    WATCH_ASKS_MAX,
    WATCH_MEMORY_DOTS,
    WATCH_PATIENCE_S,
    WATCH_SETTLE_S,
)
from gossip.kv.messages import (
    Changed,
    Subscribe,
    Unsubscribe,
    WatchAsk,
    WatchedChange,
    WatchPage,
    WatchSubscribe,
    WatchSubscribeReply,
)
from gossip.kv.parts import KvParts
from gossip.kv.records import KeyState, Version
from gossip.kv.requests import Watch, WatchEvent
from gossip.kv.timers import TimerQueue
from gossip.kv.watch_token import decode_token, encode_token, watched_mark
from gossip.kv.watched_partition import NoRoom, ReaderView, Room, WatchedPartition
from gossip.registry.places import PLACES_FROM


class OpenWatch:
    """One watch of an application."""

    def __init__(self, request: int, watch: Watch) -> None:
        self.request = request
        self.watch = watch
        self.text = (watch.prefix if watch.key is None else watch.key) or ""
        self.is_prefix = watch.key is None
        self.mark = watched_mark(self.text, is_prefix=self.is_prefix)
        self.partitions: dict[int, WatchedPartition] = {}
        self.room = Room(WATCH_MEMORY_DOTS)
        """Shared out when it is known how many owners may tell."""
        self.unsettled: set[int] = set()
        """Where something was told since the readers were last asked."""
        self.queue: dict[tuple[int, NodeId], None] = {}
        """Partitions and readers that are to be asked, in this order."""
        self.answered: set[NodeId] = set()
        """Who understands what is asked here; versions before this one do not."""
        self.token: bytes | None = None
        self.is_token_old = True
        self.orders: dict[NodeId, tuple[int, int]] = {}
        """Of each reader the life that was heard last, and how far the frames of that have come."""

    def wants(self, key: str) -> bool:
        """Tell whether changes of this key are to be told."""
        return key.startswith(self.text) if self.is_prefix else key == self.text

    @property
    def is_ready(self) -> bool:
        """Whether it is known of every partition where it begins."""
        return all(each.is_ready for each in self.partitions.values())


class WatchQuery:
    """A question that a reader has not answered."""

    def __init__(self, number: int, partition: int, reader: NodeId) -> None:
        self.watch = number
        self.partition = partition
        self.reader = reader
        self.mark = 0
        self.is_new = False
        self.after = ""
        self.life = 0
        self.extras: Coverage = ()
        self.began: Instant = 0.0


class WatchClient:
    """Manages the hearing side: watches of this node's applications."""

    def __init__(self, parts: KvParts) -> None:
        self._registry_sync = parts.registry_sync
        self._outbound, self._shown = parts.outbound, parts.shown
        self._watches: dict[int, OpenWatch] = {}
        self._asks: dict[int, WatchQuery] = {}
        self._timers: TimerQueue[int] = TimerQueue()
        self._renewal: Instant | None = None
        self._settling: Instant | None = None

    def __len__(self) -> int:
        return len(self._watches)

    # What applications want

    def begin(self, request: int, watch: Watch, now: Instant) -> None:
        """Watch from now on, or from a token on. Raises InvalidRequest for one that is none."""
        run = OpenWatch(request, watch)
        wanted = self._partitions_of(watch)
        told: dict[int, Coverage] = {}
        if watch.since is not None:
            told = decode_token(watch.since, run.mark)
            if _of_table(wanted) and _of_table(told) != _of_table(wanted):
                raise InvalidRequest("this token is of another covey; begin without one")
            # Of a place that came since then, nothing was told.
            told = {each: told.get(each, ()) for each in wanted}
        room = run.room
        run.partitions = {each: WatchedPartition(room, told.get(each)) for each in wanted}
        owners = max(1, len(self._all_readers(run)))
        run.room.share = max(TELLER_DOTS_MIN, WATCH_MEMORY_DOTS // owners)
        number = self._outbound.number()
        self._watches[number] = run
        self._renew(number, run)
        for partition in run.partitions:
            self._want(run, partition)
        if self._renewal is None:
            self._renewal = now + LEASE_RENEWAL_S
        self._work(now)

    def cancel(self, request: int) -> bool:
        """End a watch. False if there is none."""
        for number, run in list(self._watches.items()):
            if run.request == request:
                del self._watches[number]
                for ask in [n for n, each in self._asks.items() if each.watch == number]:
                    self._give_up(ask)
                for node in self._all_readers(run):
                    self._outbound.send(Unsubscribe(number), node)
                return True
        return False

    def _partitions_of(self, watch: Watch) -> Collection[int]:
        registry = self._registry_sync.registry
        if watch.key is not None:
            return (registry.partition_of(watch.key),)
        return registry.partitions_of(watch.prefix or "")

    def _readers(self, partition: int) -> tuple[NodeId, ...]:
        return self._registry_sync.registry.ownership(partition).readers

    def _all_readers(self, run: OpenWatch) -> list[NodeId]:
        """Return whom to ask; who was removed is not, and counts all the same."""
        found = {node for partition in run.partitions for node in self._readers(partition)}
        return sorted(found.intersection(self._registry_sync.members))

    # Subscriptions

    def _renew(self, number: int, run: OpenWatch, only: NodeId | None = None) -> None:
        for node in self._all_readers(run):
            if only is not None and node != only:
                continue
            marks = [
                (p, each.mark) for p, each in run.partitions.items() if node in self._readers(p)
            ]
            for at in range(0, len(marks), SURVEY_PARTITIONS_MAX):
                some = tuple(marks[at : at + SURVEY_PARTITIONS_MAX])
                self._outbound.send(WatchSubscribe(number, run.text, run.is_prefix, some), node)

    def _subscribe_before(self, number: int, run: OpenWatch) -> None:
        """Ask those that have not answered as versions before this one understand it."""
        for node in set(self._all_readers(run)) - run.answered:
            self._outbound.send(Subscribe(number, run.text, run.is_prefix), node)

    def subscribed(self, message: WatchSubscribeReply, peer: NodeId, now: Instant) -> None:
        """A reader will tell of changes; where its clock is another one, ask what is missing."""
        run = self._watches.get(message.number)
        if run is None:
            self._outbound.send(Unsubscribe(message.number), peer)
            return
        run.answered.add(peer)
        for partition, mark in message.same:
            watched = run.partitions.get(partition)
            if watched is None or peer not in self._readers(partition):
                continue
            if watched.is_ready and watched.mark == mark:
                watched.completed(watched.reader(peer, message.life), ())
                self._settle(run, partition, now)
            else:
                self._want(run, partition, peer)
        for partition in message.differing:
            if partition in run.partitions:
                self._want(run, partition, peer)
        self._work(now)

    def changed(self, message: WatchedChange, peer: NodeId, now: Instant) -> None:
        """A reader tells of a change."""
        run = self._watches.get(message.number)
        if run is None:
            self._outbound.send(Unsubscribe(message.number), peer)
            return
        partition = self._registry_sync.registry.partition_of(message.key)
        watched = run.partitions.get(partition)
        if watched is None or not self._may_tell(run, message.key, peer):
            return
        life, order = run.orders.get(peer, (0, 0))
        if message.life == life and message.order <= order:
            return  # an old frame once more
        run.orders[peer] = message.life, message.order
        if watched.is_believed(peer, message.life):
            self._tell(run, watched, message.key, message.state, peer, now)
        self._unsettle(run, partition, now)

    def changed_before(self, message: Changed, peer: NodeId, now: Instant) -> None:
        """An owner of an earlier version tells of a change: passed on, best effort as it was."""
        run = self._watches.get(message.number)
        if run is None:
            self._outbound.send(Unsubscribe(message.number), peer)
        elif not self._may_tell(run, message.key, peer):
            return
        elif message.came:
            self._emit(run, message.key, message.came, now)
        elif message.went and not message.left:
            self._outbound.emit(WatchEvent(run.request, message.key, "delete"))

    def _may_tell(
        self, run: OpenWatch, key: str, peer: NodeId, partition: int | None = None
    ) -> bool:
        """Tell whether a key is watched, and this its reader: a liar shows nobody other keys.

        Nor is it told what lay in another ``partition`` before the key had a place of its own.
        """
        lies_in = self._registry_sync.registry.partition_of(key)
        is_there = partition in (None, lies_in)
        if run.wants(key) and is_there and peer in self._readers(lies_in):
            return True
        self._outbound.counts["frames_dropped/not_watched"] += 1
        return False

    def _tell(
        self,
        run: OpenWatch,
        watched: WatchedPartition,
        key: str,
        state: KeyState,
        teller: NodeId,
        now: Instant,
    ) -> bool:
        """Tell what is new in a state; False if there is no room to remember it, so not now."""
        try:
            news = watched.take(key, state, teller)
        except NoRoom:
            self._outbound.counts["watches/put_off"] += 1
            watched.put_off.add(teller)
            return False
        if news is not None:
            self._emit(run, key, news.live, now)
        return True

    def _emit(self, run: OpenWatch, key: str, live: tuple[Version, ...], now: Instant) -> None:
        """Tell what a key has now, as far as it is shown."""
        values = self._shown.of(key, live, now)
        kind = "put" if values else "delete"
        self._outbound.emit(WatchEvent(run.request, key, kind, values))

    def _unsettle(self, run: OpenWatch, partition: int, now: Instant) -> None:
        """Ask the readers of a partition some moments later."""
        run.unsettled.add(partition)
        if self._settling is None:
            self._settling = now + WATCH_SETTLE_S

    # Questions

    def _want(self, run: OpenWatch, partition: int, reader: NodeId | None = None) -> None:
        """Put readers on the list of those to ask about a partition."""
        for node in self._readers(partition) if reader is None else (reader,):
            is_askable = node in self._registry_sync.members and node in self._readers(partition)
            if is_askable:
                run.queue[partition, node] = None

    def _work(self, now: Instant) -> None:
        """Ask what is on the lists; of each reader so much at once that silence holds up none."""
        busy = Counter(ask.reader for ask in self._asks.values())
        under_way = {(ask.watch, ask.partition, ask.reader) for ask in self._asks.values()}
        for number, run in self._watches.items():
            for partition, reader in list(run.queue):
                if busy[reader] < WATCH_ASKS_MAX:
                    del run.queue[partition, reader]
                    if (number, partition, reader) not in under_way:
                        busy[reader] += 1
                        self._ask(WatchQuery(number, partition, reader), now)

    def _ask(self, ask: WatchQuery, now: Instant) -> None:
        run = self._watches[ask.watch]
        watched = run.partitions[ask.partition]
        number = self._outbound.number()
        if ask.after == "":
            ask.mark, ask.is_new, ask.began = watched.mark, not watched.is_ready, now
        assert (ask.life == 0) == (ask.after == ""), "a pass goes on with the life that began it"
        self._asks[number] = ask
        self._timers.set(number, now + SESSION_TIMEOUT_S)
        question = WatchAsk(
            number, self._registry_sync.registry.epoch, ask.partition, run.text, run.is_prefix,
            watched.settled, watched.seen(), ask.is_new, ask.after, ask.life,
        )  # fmt: skip
        self._outbound.send(question, ask.reader)

    def _give_up(self, number: int) -> None:
        self._timers.cancel(number)
        del self._asks[number]

    def paged(self, message: WatchPage, peer: NodeId, now: Instant) -> None:
        """A reader says what is missing."""
        ask = self._asks.get(message.number)
        if ask is None or ask.reader != peer:
            self._outbound.counts["frames_dropped/unexpected_answer"] += 1
            return
        self._give_up(message.number)
        run = self._watches[ask.watch]
        watched = run.partitions[ask.partition]
        view = watched.reader(peer, message.life)
        is_over = ask.mark != watched.mark or ask.is_new == watched.is_ready
        if is_over or (ask.life and ask.life != message.life):
            self._want(run, ask.partition, peer)
        elif ask.is_new:
            self._begin(run, ask.partition, view, sound(message.extras))
        elif not message.is_level:
            watched.fell_behind(view)
        elif not self._take_page(run, ask, watched, message, now):
            self._unsettle(run, ask.partition, now)
        elif message.horizon:
            if now - ask.began >= WATCH_PATIENCE_S:
                watched.slow.add(peer)
            ask.after, ask.life = message.horizon, message.life
            self._ask(ask, now)
            return
        else:
            watched.completed(view, ask.extras)
        self._settle(run, ask.partition, now)
        self._work(now)

    def _begin(self, run: OpenWatch, partition: int, view: ReaderView, clock: Coverage) -> None:
        view.extras = clock
        if run.partitions[partition].begin(self._readers(partition)):
            run.is_token_old = True
            self._want(run, partition)

    def _take_page(
        self,
        run: OpenWatch,
        ask: WatchQuery,
        watched: WatchedPartition,
        message: WatchPage,
        now: Instant,
    ) -> bool:
        """Tell what is on a page; False if not all of it could be told."""
        if not ask.after:
            ask.extras = sound(message.extras)
        if message.horizon and message.horizon <= ask.after:
            return False
        watched.pass_over(message.others)
        return all(
            self._tell(run, watched, key, watched.vouched(key, state, ask.extras), ask.reader, now)
            for key, state in message.entries
            if self._may_tell(run, key, ask.reader, ask.partition)
        )

    # Settling

    def _settle(self, run: OpenWatch, partition: int, now: Instant) -> None:
        """Settle what most readers have told whole, unless one of them is just about it."""
        watched = run.partitions[partition]
        is_telling = any(
            ask.after
            and ask.partition == partition
            and ask.reader not in watched.slow
            and run is self._watches.get(ask.watch)
            for ask in self._asks.values()
        )
        if is_telling or not watched.is_ready:
            return
        readers, before = self._readers(partition), watched.mark
        untold = watched.settle(readers)
        if reason := watched.gap(untold, readers, now):
            self._outbound.counts["watches/gaps"] += 1
            self._outbound.emit(WatchEvent(run.request, "", "gap", reason=reason))
            self._want(run, partition)
        if watched.mark != before:
            run.is_token_old = True
            if self._has_doubts(watched, readers):
                self._unsettle(run, partition, now)
        if run.token is None:
            self._tell_token(run)
        elif run.is_token_old and self._settling is None:
            self._settling = now + WATCH_SETTLE_S

    def _has_doubts(self, watched: WatchedPartition, readers: Collection[NodeId]) -> bool:
        """Tell whether a reader is to be asked again before it is believed."""
        heard = (watched.readers.get(node) for node in readers)
        return any(view is not None and not view.is_level for view in heard)

    def _tell_token(self, run: OpenWatch) -> None:
        """Give a new token, if what was settled has grown."""
        if not run.is_token_old or not run.is_ready:
            return
        assert run.partitions, "a watch is of some partition"
        run.is_token_old = False
        token = encode_token(run.mark, {p: each.settled for p, each in run.partitions.items()})
        if token != run.token:
            run.token = token
            self._outbound.emit(WatchEvent(run.request, "", "mark", token=token))

    # What happens around it

    def adopted(self, changed: set[int], now: Instant) -> None:
        """Ask the readers of now about partitions that have changed, and of places that came."""
        for run in self._watches.values():
            changed = changed | self._replace(run)
        for number, ask in list(self._asks.items()):
            if ask.partition in changed:
                self._give_up(number)
        for number, run in self._watches.items():
            moved = changed & run.partitions.keys()
            for partition in moved:
                self._want(run, partition)
            if moved:
                self._renew(number, run)
        self._work(now)

    def _replace(self, run: OpenWatch) -> set[int]:
        """Watch the partitions of now; return those that came, or were given up.

        Nothing was told of what a new place has: it is from the beginning that it is watched.
        """
        wanted = set(self._partitions_of(run.watch))
        gone, come = run.partitions.keys() - wanted, wanted - run.partitions.keys()
        for partition in gone:
            run.partitions.pop(partition).close()
        run.unsettled -= gone
        run.queue = {pair: None for pair in run.queue if pair[0] not in gone}
        assert wanted, "every key has a partition"
        run.partitions |= {each: WatchedPartition(run.room, ()) for each in sorted(come)}
        run.is_token_old = run.is_token_old or bool(gone or come)
        return come | gone

    def refused(self, number: int, peer: NodeId, now: Instant) -> bool:
        """A reader cannot answer now: ask again later. False if it was not asked."""
        ask = self._asks.get(number)
        if ask is None or ask.reader != peer:
            return False
        self._give_up(number)
        run = self._watches[ask.watch]
        run.partitions[ask.partition].unreachable(ask.reader)
        self._unsettle(run, ask.partition, now)
        self._settle(run, ask.partition, now)
        return True

    def unreachable(self, peer: NodeId, now: Instant) -> None:
        """Frames of a peer may be lost."""
        for number in [n for n, ask in self._asks.items() if ask.reader == peer]:
            self.refused(number, peer, now)
        for run in self._watches.values():
            for watched in run.partitions.values():
                watched.unreachable(peer)

    def returned(self, peer: NodeId, now: Instant) -> None:
        """A peer can be reached again: it may have forgotten us."""
        for number, run in self._watches.items():
            self._renew(number, run, peer)
        self._work(now)

    def wake(self, now: Instant) -> None:
        """Renew leases, ask again, and give tokens."""
        for number in list(self._timers.pop_due(now)):
            self.refused(number, self._asks[number].reader, now)
        if self._renewal is not None and now >= self._renewal:
            for number, run in self._watches.items():
                self._renew(number, run)
                self._subscribe_before(number, run)
            self._renewal = now + LEASE_RENEWAL_S if self._watches else None
        if self._settling is not None and now >= self._settling:
            self._settling = None
            for run in self._watches.values():
                self._tell_token(run)
                for partition in run.unsettled:
                    self._want(run, partition)
                run.unsettled.clear()
        self._work(now)

    def deadline(self) -> Instant | None:
        """Return when the next of these is due."""
        dues = (self._renewal, self._settling, self._timers.deadline())
        return min((due for due in dues if due is not None), default=None)


def _of_table(numbers: Collection[int]) -> set[int]:
    """Return those of some partitions that every registry of a covey has."""
    return {number for number in numbers if number < PLACES_FROM}
