"""Quorum reads, with repair before the answer.

::

    round       asked of               ends when
    look        R owners               all have answered the same: done, one round trip
                (more, if slow)        they have answered differently: weigh
    weigh       the same R             each has said which of all these dots it has seen. There
                                       are new ones among the answers: weigh again, with these;
                                       else combine; nobody behind: done; else mend
    mend        those that are behind  each has the combined state on disk: done

A version is dropped if somebody who lacks it has seen it: so "deleted here" beats a stale copy
there, without tombstones. Because the losers are mended first, two reads that follow each other
never go back in time. So that this holds when other owners take over in between, most of those
pending are asked as well once their word counts (``ownership.py``), and mended like owners. When
time runs out, or too few can answer, the result is "unavailable" and holds no values: fewer than R
answers prove nothing.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.kv.joint_quorum import JointQuorum
from gossip.kv.limits import HEDGE_S, REFUSALS_MAX, RETRY_S
from gossip.kv.messages import INCOMPLETE, Fetch, Fetched, Store
from gossip.kv.parts import KvParts
from gossip.kv.records import KeyState, combine, encode_context
from gossip.kv.requests import GetResult
from gossip.kv.timers import TimerQueue
from gossip.registry.ownership import Ownership

Finish = Callable[[GetResult, Instant], None]

READ, RESOLVE, REPAIR = "read", "resolve", "repair"
OVER, HEDGE = "over", "hedge"


class AskedRead(NamedTuple):
    """What somebody wants to know: a key, by ``r`` of its owners, most of them if that is None."""

    key: str
    r: int | None
    until: Instant
    finish: Finish


class Read:
    """A read that is under way."""

    def __init__(self, asked: AskedRead, quorum: JointQuorum) -> None:
        self.key = asked.key
        self.r = asked.r
        self.finish = asked.finish
        self.quorum = quorum
        self.number = 0
        self.round = READ
        self.waiting: list[NodeId] = []
        self.asked: set[NodeId] = set()
        self.answers: dict[NodeId, KeyState] = {}
        self.weighed: frozenset[tuple[int, int]] = frozenset()
        self.combined = KeyState()
        self.agreed: set[NodeId] = set()
        self.refusals = 0


class Reads:
    """All reads that this node coordinates; any node can, owner or not."""

    def __init__(self, parts: KvParts) -> None:
        self._replica, self._is_gone = parts.replica, parts.view.is_gone
        self._registry_sync = parts.registry_sync
        self._outbound, self._home = parts.outbound, parts.home
        self._order, self._shown = parts.view.order, parts.shown
        self._reads: dict[int, Read] = {}
        self._by_question: dict[int, int] = {}
        self._timers: TimerQueue[tuple[int, str]] = TimerQueue()

    def __len__(self) -> int:
        return len(self._reads)

    def begin(self, asked: AskedRead, now: Instant) -> int:
        """Read a key; return the number by which to cancel. Raises InvalidRequest."""
        asked = asked._replace(r=self._home.copies(asked.key, asked.r))
        read = Read(asked, JointQuorum.of_read(self._ownership(asked.key), asked.r))
        name = self._outbound.number()
        if asked.r == 1 and self._is_answered_here(asked, now):
            return name
        self._reads[name] = read
        self._timers.set((name, OVER), asked.until)
        self._read(name, read, now)
        return name

    def _is_answered_here(self, asked: AskedRead, now: Instant) -> bool:
        """Answer a read that asks for one owner, if that is us and all that it shows is on disk."""
        registry = self._registry_sync.registry
        partition = registry.partition_of(asked.key)
        ownership = registry.ownership(partition)
        if len(ownership.read_sets) > 1 or not self._replica.is_complete(partition, registry):
            return False
        if not self._outbound.is_saved(self._replica.token(partition)):
            return False
        self._finish(
            asked.key, self._replica.answer(partition, asked.key, ()), 1, asked.finish, now
        )
        return True

    def _ownership(self, key: str) -> Ownership:
        return self._registry_sync.registry.ownership_of(key)

    def _askable(self, read: Read) -> list[NodeId]:
        """Return those whose answers count, but for who was removed."""
        return [node for node in read.quorum.nodes if node in self._registry_sync.members]

    def cancel(self, name: int) -> None:
        """Forget a read; harmless if it is over."""
        read = self._reads.pop(name, None)
        if read is not None:
            self._by_question.pop(read.number, None)
            self._timers.cancel((name, OVER))
            self._timers.cancel((name, HEDGE))

    def _read(self, name: int, read: Read, now: Instant) -> None:
        """Begin the first round, with the placement of now."""
        ownership = self._ownership(read.key)
        # An r that was valid for the owners of before may be too large for fewer new ones.
        r = min(read.r, len(ownership.readers)) if read.r else None
        read.quorum = JointQuorum.of_read(ownership, r)
        me, nodes = self._outbound.me, self._askable(read)
        others = self._order(node for node in nodes if node != me)
        read.waiting = [me, *others] if me in nodes else others
        self._new_round(name, read, READ)
        read.weighed = frozenset()
        self._timers.set((name, HEDGE), now + HEDGE_S)
        for node in read.quorum.chosen(read.waiting, ()):
            self._ask_waiting(read, node)

    def _new_round(self, name: int, read: Read, round_: str) -> None:
        """Answers to the round before do not count any more."""
        self._by_question.pop(read.number, None)
        read.number = self._outbound.number()
        self._by_question[read.number] = name
        read.round = round_
        read.asked, read.answers = set(), {}

    def _ask_one_more(self, read: Read) -> bool:
        """Ask the next one that may bring the quorum nearer; False if there is none."""
        for node in read.quorum.chosen(read.waiting, read.answers)[:1]:
            self._ask_waiting(read, node)
            return True
        return False

    def _ask_waiting(self, read: Read, node: NodeId) -> None:
        read.waiting.remove(node)
        self._ask(read, node, ())

    def _ask(self, read: Read, node: NodeId, dots: Iterable[tuple[int, int]]) -> None:
        read.asked.add(node)
        epoch = self._registry_sync.registry.epoch
        self._outbound.send(Fetch(read.number, epoch, read.key, tuple(sorted(dots))), node)

    def fetched(self, message: Fetched, peer: NodeId, now: Instant) -> None:
        """An owner has answered."""
        name = self._by_question.get(message.number)
        read = self._reads[name] if name is not None else None
        if name is None or read is None or peer not in read.asked or read.round == REPAIR:
            self._outbound.counts["frames_dropped/unexpected_answer"] += 1
            return
        read.answers[peer] = message.state
        if read.round == READ and read.quorum.is_met(read.answers):
            self._judge(name, read, now)
        elif read.round == RESOLVE and read.answers.keys() == read.asked:
            self._weighed(name, read, now)

    def _judge(self, name: int, read: Read, now: Instant) -> None:
        """Compare the answers, now that there are as many as needed."""
        sets = {state.dots() for state in read.answers.values()}
        if len(sets) == 1:
            read.combined = next(iter(read.answers.values()))
            self._succeed(name, read, now)
            return
        self._outbound.counts["reads/diverged"] += 1
        self._resolve(name, read)

    def _resolve(self, name: int, read: Read) -> None:
        """Ask those that answered what they have seen of all that any of them holds."""
        nodes = sorted(read.answers)
        read.weighed = read.weighed.union(*(state.dots() for state in read.answers.values()))
        self._new_round(name, read, RESOLVE)
        for node in nodes:
            self._ask(read, node, read.weighed)

    def _weighed(self, name: int, read: Read, now: Instant) -> None:
        """Combine the answers, unless one brought a version that not all were asked about.

        It may be an old one that has only now arrived there; another of them knows what replaced
        it, and was not asked.
        """
        if all(state.dots() <= read.weighed for state in read.answers.values()):
            self._combine(name, read, now)
            return
        self._outbound.counts["reads/weighed_again"] += 1
        self._resolve(name, read)

    def _combine(self, name: int, read: Read, now: Instant) -> None:
        """Weigh the answers, and mend those that are behind."""
        read.combined = combine(read.answers.values())
        wanted = read.combined.dots()
        behind = [node for node, state in read.answers.items() if state.dots() != wanted]
        if not behind:
            self._succeed(name, read, now)
            return
        read.agreed = read.answers.keys() - behind
        self._new_round(name, read, REPAIR)
        epoch = self._registry_sync.registry.epoch
        for node in sorted(behind):
            read.asked.add(node)
            self._outbound.send(Store(read.number, epoch, read.key, read.combined), node)
            self._outbound.counts["repairs/reads"] += 1

    def stored(self, number: int, peer: NodeId, now: Instant) -> bool:
        """An owner was mended. False if this is not about a read of ours."""
        name = self._by_question.get(number)
        if name is None:
            return False
        read = self._reads[name]
        if read.round == REPAIR and peer in read.asked:
            read.asked.discard(peer)
            read.agreed.add(peer)
            if not read.asked:
                self._succeed(name, read, now)
        return True

    def _succeed(self, name: int, read: Read, now: Instant) -> None:
        self.cancel(name)
        _, needed = read.quorum.progress(())
        self._finish(read.key, read.combined, needed, read.finish, now)

    def _finish(self, key: str, state: KeyState, needed: int, finish: Finish, now: Instant) -> None:
        context = encode_context(key, state.dots())
        self._outbound.counts["reads/ok"] += 1
        values = self._shown.of(key, state.live, now)
        live = self._shown.unexpired(state.live, now)
        finish(GetResult(values, context, needed, needed, "ok", live), now)

    def refused(self, number: int, peer: NodeId, reason: int, now: Instant) -> bool:
        """An owner cannot answer: ask another. False if this is not about a read of ours."""
        name = self._by_question.get(number)
        if name is None:
            return False
        read = self._reads[name]
        read.refusals += 1
        self._without(name, read, peer, now)
        if reason == INCOMPLETE and read.refusals <= REFUSALS_MAX:
            read.waiting.append(peer)
        return True

    def _without(self, name: int, read: Read, peer: NodeId, now: Instant) -> None:
        """Go on without this owner."""
        if peer not in read.asked or peer in read.answers:
            return
        if read.round == READ:
            read.asked.discard(peer)
            self._ask_one_more(read)
        else:
            # It answered in the first round and is gone now: begin again with the others.
            self._read(name, read, now)
            read.waiting = [node for node in read.waiting if node != peer] + [peer]

    def unreachable(self, peer: NodeId, now: Instant) -> None:
        """A peer cannot be reached: ask others instead."""
        for name, read in list(self._reads.items()):
            self._without(name, read, peer, now)

    def adopted(self, epoch_before: int, now: Instant) -> None:
        """Begin again where the owners changed."""
        registry = self._registry_sync.registry
        for name, read in list(self._reads.items()):
            if registry.ownership_of(read.key).since > epoch_before:
                self._read(name, read, now)

    def wake(self, now: Instant) -> None:
        """Ask further owners for what is slow; end what is too late."""
        for name, what in self._timers.pop_due(now):
            read = self._reads.get(name)
            if read is None:
                continue
            if what == OVER:
                self._fail(name, read, now)
            else:
                self._hedge(name, read, now)

    def _hedge(self, name: int, read: Read, now: Instant) -> None:
        if read.round != READ:
            return
        if self._is_hopeless(read):
            self._fail(name, read, now)
            return
        asked = self._ask_one_more(read)
        self._timers.set((name, HEDGE), now + (HEDGE_S if asked else RETRY_S))
        if not asked:
            # All were asked; those that did not answer are asked again.
            nodes = self._askable(read)
            read.waiting = self._order(node for node in nodes if node not in read.answers)

    def _is_hopeless(self, read: Read) -> bool:
        """Tell whether those that are not gone are too few, and have had time to prove us wrong."""
        assert read.round == READ, "later rounds are between those that answered"
        there = [n for n in self._askable(read) if n in read.answers or not self._is_gone(n)]
        return not read.quorum.is_met(there)

    def _fail(self, name: int, read: Read, now: Instant) -> None:
        answered, needed = read.quorum.progress(
            read.agreed if read.round == REPAIR else read.answers
        )
        self.cancel(name)
        self._outbound.counts["reads/unavailable"] += 1
        read.finish(GetResult((), b"", answered, needed, "unavailable"), now)

    def deadline(self) -> Instant | None:
        """Return when the next read needs attention."""
        return self._timers.deadline()
