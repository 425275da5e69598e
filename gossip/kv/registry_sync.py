"""Keeps the newest registry, and fetches it from whoever has it.

Registries spread by pull: a frame or a membership exchange that mentions a larger epoch makes us
ask its sender, and a question that was asked under a newer epoch is parked until the answer is
here. Nothing is pushed, except by the issuer, which offers a new registry to all nodes in it.
Who hands one over does not matter: the issuer's signature does.

A registry that somebody shows is followed once it is on the disk. Who followed it before, told the
issuer so, and then came back with the one of before, would answer for owners that the others have
let go: what was written meanwhile would be missing from its answers.

Two registries of one epoch with other bytes, or of which the later does not descend from the
earlier, prove a *fork*: the issuer was set back, and has signed another future. Which of the two
is right, nobody can tell here. So nothing is answered from then on, until a registry comes that
names both as its past (``registry.merge``).
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gossip.core.errors import Forged, Malformed
from gossip.core.ids import NodeId
from gossip.core.machine import Durability, Instant, Persist
from gossip.kv.limits import (
    ASK_INTERVAL_MAX_S,
    ASK_INTERVAL_S,
    BEHIND_PATIENCE_S,
    PARKED_BYTES_MAX,
    PARKED_FRAMES_MAX,
    SETTLE_S,
)
from gossip.kv.messages import (
    CODEC,
    FORKED,
    STALE_EPOCH,
    Question,
    Refused,
    RegistryAsk,
    RegistryOffer,
)
from gossip.kv.outbound import OutboundFrames
from gossip.kv.requests import RegistryAdopted, RegistryForked
from gossip.kv.storage import RegistryChange
from gossip.registry.lineage import Mark, mark_of
from gossip.registry.registry import Registry, SignedRegistry, Verify, open_registry

STRANGERS: NodeId = 0
"""All who are not in the registry, as one: 0 is nobody's id."""


@dataclass(slots=True)
class Named:
    """A newer registry that somebody named and nobody showed: since when, and its epoch."""

    since: Instant
    epoch: int
    ask_at: Instant
    pause_s: float = ASK_INTERVAL_S

    def is_in_vain(self, now: Instant) -> bool:
        """Say whether it was waited for long enough, for ever."""
        return now - self.since >= SETTLE_S

    def asked(self, now: Instant) -> None:
        """Ask again, and each time twice as late: in between there is room to ask others."""
        self.ask_at = now + self.pause_s
        self.pause_s = min(2 * self.pause_s, ASK_INTERVAL_MAX_S)


@dataclass(frozen=True, slots=True)
class OfferedRegistry:
    """A registry on its way to the disk, and who showed it; None: our copy of the log."""

    token: int
    epoch: int
    offer: RegistryOffer
    peer: NodeId | None
    announce: bool = False
    """Whether to offer it to all its nodes once it is followed."""


class RegistrySync:
    """The current registry of one node, ``registry``, and its bytes, ``signed``.

    ``tokens`` numbers what is to be saved.
    """

    def __init__(
        self,
        signed: bytes,
        verify: Verify,
        outbound: OutboundFrames,
        tokens: Iterator[int],
        now: Instant,
    ) -> None:
        self.signed = signed
        self.registry: Registry = open_registry(signed, verify)
        self.mark = _mark_of(signed)
        self.short_mark = short_mark_of(self.mark)
        """What packets carry of it."""
        self.rival: Registry | None = None
        """The registry that shows that ours has forked; None while all is well."""
        self.rival_signed = b""
        self._since = now
        self._has_met_member = False
        self._ask_at: Instant | None = None
        self._named: dict[NodeId, Named] = {}
        self.members = frozenset(self.registry.ids())
        """Who belongs, for quick looks."""
        self.on_adopted: Callable[[int, Instant], None] = lambda _epoch_before, _now: None
        self._parked: deque[tuple[Question, NodeId, int]] = deque()
        self._parked_bytes = 0
        self._verify = verify
        self._outbound = outbound
        self._asked: dict[NodeId, Instant] = {}
        self._tokens = tokens
        self._saving: OfferedRegistry | None = None
        self._next: OfferedRegistry | None = None

    def adopt(self, signed: bytes, now: Instant, *, announce: bool = False) -> bool:
        """Follow this registry, which is on our disk, if it is newer than ours and of our covey.

        False when it is not newer. Raises Malformed or Forged. ``announce``: offer it to all
        nodes of the registry, as the issuer does with one that it just signed.
        """
        registry, mark = self._open(signed)
        if self._is_rival(registry, mark):
            self._record_fork(registry, signed)
            return False
        if registry.epoch <= self.registry.epoch:
            return False
        assert not registry.denies(mark, self.registry.epoch, self.mark), "it descends from ours"
        before, self.registry, self.signed = self.registry, registry, signed
        self.mark, self.short_mark = mark, short_mark_of(mark)
        if self.rival is not None and not self._denies(self.rival.epoch, self.rival.mark):
            self.rival = None
        self.members = frozenset(registry.ids())
        self._asked.clear()
        self._ask_at = None
        if not announce:  # what we signed ourselves proves nobody right
            self._shown(registry.epoch)
        self._outbound.emit(RegistryAdopted(signed, registry))
        if announce:
            for node in sorted(set(registry.ids()) - {self._outbound.me}):
                self._outbound.send(RegistryOffer(signed), node)
        self.on_adopted(before.epoch, now)
        return True

    def is_next(self, signed: bytes) -> bool:
        """Tell whether this registry is to be followed after ours. Raises Malformed or Forged."""
        registry, mark = self._open(signed)
        return registry.epoch > self.registry.epoch and not self._is_rival(registry, mark)

    def members_of(self, signed: bytes) -> frozenset[NodeId]:
        """Return who belongs by a registry of our covey. Raises Malformed or Forged."""
        registry, _ = self._open(signed)
        return frozenset(registry.ids())

    def _open(self, signed: bytes) -> tuple[Registry, Mark]:
        """Return a registry of our covey and its mark. Raises Malformed or Forged."""
        registry = open_registry(signed, self._verify)
        if registry.cluster_id != self.registry.cluster_id:
            raise Forged("a registry of another covey")
        if registry.partitions != self.registry.partitions:
            raise Malformed("a registry that changes the number of partitions")
        return registry, _mark_of(signed)

    def _is_rival(self, registry: Registry, mark: Mark) -> bool:
        """Tell whether this one and ours cannot have one past."""
        if registry.epoch > self.registry.epoch:
            return registry.denies(mark, self.registry.epoch, self.mark)
        return self._denies(registry.epoch, mark)

    def _denies(self, epoch: int, mark: Mark) -> bool:
        return self.registry.denies(self.mark, epoch, mark)

    def _record_fork(self, rival: Registry, signed: bytes) -> None:
        self._outbound.counts["registries_refused/forked"] += 1
        if self.rival is None or self.rival.epoch < rival.epoch:
            assert rival.cluster_id == self.registry.cluster_id, "another covey is no fork"
            self.rival, self.rival_signed = rival, signed
            self._shown(rival.epoch)
            self._outbound.emit(RegistryForked(signed, rival))

    def on_epoch(self, peer: NodeId, epoch: int, short_mark: int, now: Instant) -> None:
        """A packet says which registry its sender follows: catch up, or find out about a fork."""
        ours = self.registry.epoch
        if not self._has_met_member:
            self._has_met_member = epoch > 0 and self.registry.node(peer) is not None
        if epoch == 0 or (epoch == ours and short_mark == self.short_mark):
            return
        if epoch > ours:
            self._lag(peer, epoch, now)
            return
        if peer not in self.members:
            return  # anybody who has the covey's secret can invent senders; see strangers.py
        behind = ours - epoch
        known = self.mark if behind == 0 else (*self.registry.lineage, b"")[:behind][-1]
        if known and short_mark_of(known) != short_mark:
            self._offer(peer, now)

    def is_current(self, now: Instant) -> bool:
        """Say whether an issuer may sign the next registry: nobody is known to have a newer one.

        An issuer that has just started, perhaps from a backup, first hears a member, or waits for
        one in vain. Who names a newer one and does not show it holds it up for a moment, once.
        """
        if self._named:
            return all(named.is_in_vain(now) for named in self._named.values())
        return self._has_met_member or now - self._since >= SETTLE_S

    def _lag(self, peer: NodeId, epoch: int, now: Instant) -> None:
        """Ask for a newer registry, unless it comes by itself at once."""
        if self._ask_at is None:
            self._ask_at = now + BEHIND_PATIENCE_S
        named = self._record_named(peer, epoch, now)
        if self.rival is not None and epoch <= self.rival.epoch:
            return  # we know it, and do not follow
        if now >= max(self._ask_at, named.ask_at):
            self._ask_at = now + ASK_INTERVAL_S
            named.asked(now)
            self.follow_epoch(peer, epoch, now)

    def _record_named(self, peer: NodeId, epoch: int, now: Instant) -> Named:
        """Remember who named a newer registry; strangers can be invented, and count as one."""
        who = peer if peer in self.members else STRANGERS
        named = self._named.setdefault(who, Named(now, epoch, now))
        named.epoch = max(named.epoch, epoch)
        return named

    def _shown(self, epoch: int) -> None:
        """Somebody showed a registry of this epoch: who named it, or an earlier one, was right."""
        self._named = {
            who: named
            for who, named in self._named.items()
            if named.epoch > epoch and (who in self.members or who == STRANGERS)
        }

    def _offer(self, peer: NodeId, now: Instant) -> None:
        """Show ours to whoever follows another one of the same past; it answers with its own."""
        if now >= self._asked.get(peer, now):
            self._asked[peer] = now + ASK_INTERVAL_S
            self._outbound.send(RegistryOffer(self.signed), peer)

    def follow_epoch(self, peer: NodeId, epoch: int, now: Instant) -> None:
        """Somebody mentioned an epoch: ask for its registry if we are behind."""
        if epoch <= self.registry.epoch or now < self._asked.get(peer, now):
            return
        self._asked[peer] = now + ASK_INTERVAL_S
        self._outbound.send(RegistryAsk(self.registry.epoch), peer)

    def offered(self, message: RegistryOffer, peer: NodeId, now: Instant) -> None:
        """A peer sent a registry: save it if it is newer than ours, else the peer gets ours."""
        try:
            registry, mark = self._open(message.signed)
        except (Malformed, Forged):
            self._outbound.counts["frames_dropped/bad_registry"] += 1
            return
        if self._is_rival(registry, mark):
            self._record_fork(registry, message.signed)
        elif registry.epoch > self.registry.epoch:
            self._save(OfferedRegistry(next(self._tokens), registry.epoch, message, peer))
            return
        if self.rival is not None:
            self._offer(peer, now)
        elif message.signed != self.signed:
            self._outbound.send(RegistryOffer(self.signed), peer)

    def committed(self, signed: bytes, *, announce: bool) -> None:
        """Our copy of the log has this registry: save it if it is newer than ours.

        Its signature counts as anybody's, for who votes need not hold the authority's key.
        """
        try:
            registry, mark = self._open(signed)
        except (Malformed, Forged):
            self._outbound.counts["registries_refused/committed"] += 1
            return
        if self._is_rival(registry, mark):
            self._record_fork(registry, signed)
        elif registry.epoch > self.registry.epoch:
            offer, token = RegistryOffer(signed), next(self._tokens)
            self._save(OfferedRegistry(token, registry.epoch, offer, None, announce))

    def _save(self, fresh: OfferedRegistry) -> None:
        """Have a registry written; of those that come meanwhile, the newest is the next."""
        under_way = self._next or self._saving
        if under_way is not None and fresh.epoch <= under_way.epoch:
            self._outbound.counts["frames_dropped/registry_again"] += 1
        elif self._saving is not None:
            self._next = fresh
        else:
            self._saving = fresh
            change = RegistryChange(fresh.epoch, fresh.offer.signed)
            self._outbound.perform(Persist(fresh.token, (change,), Durability.FSYNC))

    def saved(self, token: int, now: Instant) -> bool:
        """Follow the registry that was saved under this token; False if none was."""
        saved = self._saving
        if saved is None or saved.token != token:
            return False
        waiting, self._saving, self._next = self._next, None, None
        try:
            self.adopt(saved.offer.signed, now, announce=saved.announce)
            self._shown(saved.epoch)
        except Forged:  # of an authority that was given up meanwhile
            self._outbound.counts["frames_dropped/bad_registry"] += 1
        if waiting is not None:
            self._take_waiting(waiting, now)
        return True

    def _take_waiting(self, waiting: OfferedRegistry, now: Instant) -> None:
        """Look anew at what came while another one was written."""
        if waiting.peer is None:
            self.committed(waiting.offer.signed, announce=waiting.announce)
        else:
            self.offered(waiting.offer, waiting.peer, now)

    def asked(self, message: RegistryAsk, peer: NodeId, now: Instant) -> None:
        """A peer wants our registry; or is ahead of us after all."""
        if message.epoch < self.registry.epoch:
            self._outbound.send(RegistryOffer(self.signed), peer)
        self.follow_epoch(peer, message.epoch, now)

    def agrees(self, question: Question, partition: int, peer: NodeId, now: Instant) -> bool:
        """Tell whether a question about a partition may be answered under our registry.

        Otherwise it was refused, or parked until the newer registry is here.
        """
        if self.rival is not None:
            self.refuse(question, peer, FORKED)
            return False
        if question.epoch > self.registry.epoch:
            self.hold(question, peer, now)
            return False
        if question.epoch < self.registry.ownership(partition).since:
            self._outbound.send(RegistryOffer(self.signed), peer)
            self.refuse(question, peer, STALE_EPOCH)
            return False
        return True

    def refuse(self, question: Question, peer: NodeId, reason: int) -> None:
        """Tell a peer that its question changed nothing."""
        self._outbound.counts["requests/refused"] += 1
        self._outbound.send(Refused(question.number, self.registry.epoch, reason), peer)

    def hold(self, question: Question, peer: NodeId, now: Instant) -> None:
        """Keep a question that was asked under a newer registry, and ask for that registry."""
        size_bytes = len(CODEC.encode(question))
        self._parked.append((question, peer, size_bytes))
        self._parked_bytes += size_bytes
        while len(self._parked) > PARKED_FRAMES_MAX or self._parked_bytes > PARKED_BYTES_MAX:
            self._parked_bytes -= self._parked.popleft()[-1]
            self._outbound.counts["frames_dropped/parked_too_many"] += 1
        self.follow_epoch(peer, question.epoch, now)

    def unpark(self) -> list[tuple[Question, NodeId]]:
        """Return the parked questions, in their order, and keep them no longer."""
        waiting = [(question, peer) for question, peer, _ in self._parked]
        self._parked.clear()
        self._parked_bytes = 0
        return waiting


def short_mark_of(mark: Mark) -> int:
    """Return the first 32 bits of a mark: enough to see that two differ."""
    return int.from_bytes(mark[:4])


def _mark_of(signed: bytes) -> Mark:
    return mark_of(SignedRegistry.decode(signed).payload)
