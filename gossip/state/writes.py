"""A write at the owner that coordinates it.

::

    commit here ─(on disk)─> tell the other owners ─(W have it on disk)─> ok
                                     └─(time is over)─> indeterminate; repair goes on

Our own copy counts like any other: when it is on disk. If the owners change under way, the
count starts again among the new ones. What misses W is kept, and the missing owners are put on
the list of comparisons: a write is only ever repaired forward, never rolled back.
"""

from collections.abc import Callable

from gossip.ids import NodeId
from gossip.machine import Instant
from gossip.state.agenda import Agenda
from gossip.state.dots import Dot
from gossip.state.limits import REFUSALS_MAX, VALUE_BYTES_MAX
from gossip.state.messages import Store, Stored
from gossip.state.post import Post
from gossip.state.records import KeyState, encode_context
from gossip.state.registrar import Registrar
from gossip.state.repair import Repair
from gossip.state.replica import Replica
from gossip.state.requests import PutResult, Rejected, quorum

Finish = Callable[[PutResult | Rejected, Instant], None]


class Write:
    """A write that is under way."""

    def __init__(self, key: str, partition: int, state: KeyState, context: bytes) -> None:
        self.key = key
        self.partition = partition
        self.state = state
        self.context = context
        self.w: int | None = None
        self.needed = 0
        self.owners: tuple[NodeId, ...] = ()
        self.acks: set[NodeId] = set()
        self.refusals = 0
        self.finish: Finish = lambda _result, _now: None

    def result(self, outcome: str) -> PutResult:
        """Return how it stands."""
        versions = len(self.state.live)
        return PutResult(outcome, len(self.acks), self.needed, self.context, versions)


class Writes:
    """All writes that this node coordinates."""

    def __init__(self, replica: Replica, registrar: Registrar, repair: Repair, post: Post) -> None:
        self._replica = replica
        self._registrar = registrar
        self._repair = repair
        self._post = post
        self._writes: dict[int, Write] = {}
        self._agenda: Agenda[int] = Agenda()

    def __len__(self) -> int:
        return len(self._writes)

    def begin(
        self,
        key: str,
        value: bytes | None,
        w: int | None,
        replaced: tuple[Dot, ...] | None,
        timeout_s: float,
        finish: Finish,
        now: Instant,
    ) -> None:
        """Commit a put, or a delete if ``value`` is None, and see it through.

        Raises InvalidRequest; then nothing was changed.
        """
        registry = self._registrar.registry
        partition = registry.partition_of(key)
        quorum(w, len(registry.owners[partition]), "w")
        if value is not None and self._grows_too_large(partition, key, value, replaced):
            reason = (
                f"the versions under this key would exceed {VALUE_BYTES_MAX} bytes; read it, and "
                "put with the context of that get, which replaces what you have read"
            )
            finish(Rejected(reason), now)
            return
        state, dot = self._replica.write(partition, key, value, replaced, now)
        write = Write(key, partition, state, encode_context(key, [dot] if dot else []))
        write.w, write.finish = w, finish
        number = self._post.number()
        self._writes[number] = write
        self._agenda.set(number, now + timeout_s)
        self._tell_all(number, write)

    def _grows_too_large(
        self, partition: int, key: str, value: bytes, replaced: tuple[Dot, ...] | None
    ) -> bool:
        if replaced is None:
            return False
        live, gone = self._replica.record(partition, key).live, frozenset(replaced)
        left = sum(len(v.value) for v in live if v.dot not in gone)
        return left + len(value) > VALUE_BYTES_MAX and left > 0

    def _tell_all(self, number: int, write: Write) -> None:
        """Start counting among the owners of now."""
        write.owners = self._registrar.registry.owners[write.partition]
        # A w that was valid for the old owners may be too large for fewer new ones.
        write.needed = quorum(
            min(write.w, len(write.owners)) if write.w else None, len(write.owners), "w"
        )
        write.acks = set()
        for owner in write.owners:
            self._tell(number, write, owner)

    def _tell(self, number: int, write: Write, owner: NodeId) -> None:
        token = self._replica.token(write.partition)
        if owner == self._post.me:
            self._post.send(Stored(number), owner, token)
        else:
            epoch = self._registrar.registry.epoch
            self._post.send(Store(number, epoch, write.key, write.state), owner, token)

    def stored(self, message: Stored, peer: NodeId, now: Instant) -> bool:
        """An owner has it on disk. False if this is no write of ours, or no longer."""
        write = self._writes.get(message.number)
        if write is None:
            return False
        if peer in write.owners:
            write.acks.add(peer)
        if len(write.acks) >= write.needed:
            self._end(message.number, write, "ok", now)
        return True

    def _end(self, number: int, write: Write, outcome: str, now: Instant) -> None:
        del self._writes[number]
        self._agenda.cancel(number)
        self._post.counts[f"writes/{outcome}"] += 1
        write.finish(write.result(outcome), now)

    def refused(self, number: int, peer: NodeId, now: Instant) -> bool:
        """An owner refused: by now we follow its registry, so tell it again."""
        del now
        write = self._writes.get(number)
        if write is None:
            return False
        write.refusals += 1
        if peer in write.owners and write.refusals <= REFUSALS_MAX:
            self._tell(number, write, peer)
        return True

    def adopted(self, epoch_before: int) -> None:
        """Count again where the owners changed."""
        since = self._registrar.registry.since
        for number, write in list(self._writes.items()):
            if since[write.partition] > epoch_before:
                self._tell_all(number, write)

    def returned(self, peer: NodeId) -> None:
        """A peer can be reached again: tell it what it has not acknowledged."""
        for number, write in self._writes.items():
            if peer in write.owners and peer not in write.acks:
                self._tell(number, write, peer)

    def wake(self, now: Instant) -> None:
        """End writes whose time is over."""
        for number in self._agenda.pop_due(now):
            write = self._writes[number]
            for owner in write.owners:
                if owner not in write.acks:
                    self._repair.want(write.partition, owner)
            self._end(number, write, "indeterminate", now)

    def deadline(self) -> Instant | None:
        """Return when the next write runs out of time."""
        return self._agenda.deadline()
