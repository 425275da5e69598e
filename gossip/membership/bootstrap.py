"""How strangers meet, and how those who lost each other meet again.

A *candidate* is an address at which somebody may be: a seed from the configuration, an answer of
DNS, an announcement seen by mDNS, a peer known from before. It proves nothing. We say Hello there,
with doubling pauses, then slowly for ever, until a packet of the covey comes from it.

A few candidates at a time are followed: where many devices are switched on together, the first
answers bring news of the others. A candidate at which a live member says to be can wait until the
crowd has settled, and is not followed again while somebody is there who answered: most members have
several addresses, and mDNS tells all of them to everybody every minute. It is not ignored either,
because two sites may number their devices alike. Nor is it forgotten that a member answered there:
when it is dead, it is looked for there as well, whatever addresses it said to have.

There is room for so many candidates. Those named last are followed first; when there are too many,
those go to which most Hellos went in vain, of them those named longest ago, and of what was named
at once, the last: whoever names candidates puts the best first.

Dead and forgotten peers get Hellos too, each of them once in ``reconnect_rounds`` rounds, without
end: the other half of a split network looks exactly like a set of dead members, and after any
length of time one Hello that gets through brings both halves together (``sync.py``). It carries our
update that the peer is dead, so that its first answer already refutes it.
"""

import math
from collections.abc import Container, Iterable, Iterator

from gossip.core.ids import NodeId
from gossip.core.machine import Address, Instant
from gossip.membership.detection.shared_parts import SharedParts
from gossip.membership.detection.updates import MemberUpdates
from gossip.membership.model.addresses import is_usable
from gossip.membership.model.members import Member, MemberState
from gossip.membership.model.messages import Alive, Datagram, Hello
from gossip.membership.model.rate_limit import Throttle

HELLOS_PER_WAKE = 6
"""When more are due, the rest follow a gossip interval later."""
ASKED_MAX = 256
ANSWERED_MAX = 4096
"""Addresses remembered at which somebody answered; the longest known goes first."""


class Candidate:
    """One address, and how often it was greeted in vain."""

    __slots__ = ("due_at", "hellos", "is_postponed", "rank", "sequence")

    def __init__(self, due_at: Instant) -> None:
        self.due_at = due_at
        self.hellos = 0
        self.is_postponed = False
        self.sequence = 0
        self.rank = 0

    @property
    def hopelessness(self) -> tuple[int, int, int]:
        """Which candidate to follow last, and to give up when there are too many: the largest."""
        return self.hellos, -self.sequence, self.rank


class Bootstrap:
    """Says Hello wherever somebody may be who is not listed as being there."""

    def __init__(
        self,
        shared: SharedParts,
        updates: MemberUpdates,
        now: Instant,
    ) -> None:
        self._local = shared.local
        self._member_list = shared.member_list
        self._updates = updates
        self._outbound = shared.outbound
        self._tuning = shared.tuning
        self._rng = shared.rng
        self._candidates: dict[Address, Candidate] = {}
        self._sequence = 0
        self._answered_at: dict[Address, NodeId] = {}
        self._asked = Throttle(shared.tuning.gossip_interval_s, ASKED_MAX)
        self._answered = Throttle(shared.tuning.gossip_interval_s / 2, ASKED_MAX)
        self._round: list[NodeId] = []
        self._reconnect_at = now + shared.tuning.reconnect_interval_s * (
            0.5 + shared.rng.random() / 2
        )

    def __len__(self) -> int:
        return len(self._candidates)

    def add(self, addresses: Iterable[Address], now: Instant) -> None:
        """Note where somebody may be, best first; an address seen anew is greeted soon again."""
        inhabited = self._inhabited() if self._answered_at else frozenset()
        usable = [each for each in addresses if is_usable(each) and each not in self._local.own]
        wanted = [each for each in usable if each not in self._answered_at or each not in inhabited]
        self._sequence += 1
        for behind, address in enumerate(wanted[: self._tuning.candidates_max]):
            candidate = self._candidates.setdefault(address, Candidate(now))
            candidate.sequence, candidate.rank = self._sequence, behind
            if not candidate.is_postponed:
                candidate.due_at = min(candidate.due_at, now)
        self._outbound.counts["candidates_dropped/too many"] += max(
            0, len(wanted) - self._tuning.candidates_max
        )
        self._drop_hopeless()

    def reached(self, address: Address, sender: NodeId) -> None:
        """Stop greeting an address: a packet of the covey came from it."""
        if self._candidates and self._candidates.pop(address, None) is not None:
            self._answered_at.pop(address, None)
            self._answered_at[address] = sender
            if len(self._answered_at) > ANSWERED_MAX:
                del self._answered_at[next(iter(self._answered_at))]

    def _inhabited(self) -> set[Address]:
        """Return where the live members are, or say to be."""
        live = self._member_list.members.live
        found = {address for member in live for address in member.addresses}
        return found.union(member.path for member in live if member.path is not None)

    def deadline(self) -> Instant:
        """Return when ``wake`` is next due."""
        if not self._candidates:
            return self._reconnect_at
        next_at = min(
            (candidate.due_at for candidate in self._candidates.values()),
            default=self._reconnect_at,
        )
        return min(next_at, self._reconnect_at)

    def wake(self, now: Instant) -> None:
        """Say Hello where it is due."""
        due = [
            address for address, candidate in self._candidates.items() if candidate.due_at <= now
        ]
        if due:
            self._follow_all(due, now)
        if self._reconnect_at <= now:
            self._reconnect_at = now + self._tuning.reconnect_interval_s
            self._reconnect(now)

    def hello(self, to: Address, *, wants_reply: bool, also: Datagram | None = None) -> None:
        """Introduce ourselves to whoever is there."""
        messages = (Hello(wants_reply), self._local.alive)
        self._outbound.send_plain(to, *messages, *([] if also is None else [also]))

    def request_description(self, source: Address, now: Instant) -> None:
        """Ask who is there: packets come from it, and we lack the words to them."""
        if self._asked.allows(source, now):
            self._outbound.counts["bootstraps/asked for"] += 1
            self.hello(source, wants_reply=True)

    def reply_hello(self, source: Address, others: Iterable[Member], now: Instant) -> None:
        """Answer a greeting with who we are, and with as many others as fit into the packet."""
        if self._answered.allows(source, now):
            updates = [self._updates.update_of(member) for member in others]
            known = [update for update in updates if isinstance(update, Alive)]
            self._outbound.send(source, Hello(wants_reply=False), self._local.alive, fill=known)

    def _follow_all(self, due: list[Address], now: Instant) -> None:
        """Greet a few, first those that never were; put off those who seem to be known."""
        paths, listed = (
            {member.path for member in self._member_list.members.live},
            self._inhabited(),
        )
        due.sort(key=lambda address: self._candidates[address].hopelessness)
        sent = 0
        for address in due:
            candidate = self._candidates[address]
            if address in paths:
                del self._candidates[address]
            elif address in listed and not candidate.hellos and not candidate.is_postponed:
                candidate.is_postponed = True
                candidate.due_at = now + self._tuning.hello_slowest_s * (
                    0.5 + self._rng.random() / 2
                )
            elif sent < HELLOS_PER_WAKE:
                sent += 1
                self._follow(address, now)
            else:
                candidate.due_at = now + self._tuning.gossip_interval_s

    def _follow(self, address: Address, now: Instant) -> None:
        candidate = self._candidates[address]
        pause_s = self._tuning.hello_first_s * 2 ** min(candidate.hellos, 32)
        # Members that were switched on together should not go on greeting together.
        pause_s = min(pause_s, self._tuning.hello_slowest_s) * (0.75 + self._rng.random() / 2)
        assert pause_s > 0, "greetings are spread over time"
        candidate.hellos += 1
        candidate.due_at = now + pause_s
        self.hello(address, wants_reply=True)

    def _reconnect(self, now: Instant) -> None:
        """Greet the next few of those who are dead or forgotten."""
        departed = {member.id: member.addresses_by_preference for member in self._missed(now)}
        departed |= {peer.id: peer.addresses for peer in self._member_list.departed}
        if not departed:
            return
        answered_at = self._answered_by(departed)
        if not self._round:
            self._round = sorted(departed)
            self._rng.shuffle(self._round)
        share = math.ceil(len(departed) / self._tuning.reconnect_rounds)
        for _ in range(min(share, self._tuning.reconnect_burst_max, len(self._round))):
            node = self._round.pop()
            for address in dict.fromkeys((*departed.get(node, ()), *answered_at.get(node, ()))):
                if address not in self._local.own:
                    self._send_hello(node, address)

    def _answered_by(self, nodes: Container[NodeId]) -> dict[NodeId, list[Address]]:
        """Return where these nodes once answered, if a candidate had led us there."""
        found: dict[NodeId, list[Address]] = {}
        for address, node in self._answered_at.items():
            if node in nodes:
                found.setdefault(node, []).append(address)
        return found

    def _missed(self, now: Instant) -> Iterator[Member]:
        """Yield who is dead, and who left a moment ago.

        A goodbye may have been said by somebody else. Whoever did not say it can answer, and must
        be asked: when all believe it of all, nobody else speaks to anybody any more.
        """
        for member in self._member_list.members.in_state(MemberState.DEAD, MemberState.LEFT):
            if member.state is MemberState.DEAD or now - member.changed_at < self._tuning.healed_s:
                yield member

    def _send_hello(self, node: NodeId, address: Address) -> None:
        member = self._member_list.members.get(node)
        update = None if member is None else self._updates.update_of(member)
        self._outbound.counts["reconnects/tried"] += 1
        self.hello(address, wants_reply=True, also=update)

    def _drop_hopeless(self) -> None:
        """Keep as many candidates as there is room for."""
        excess = len(self._candidates) - self._tuning.candidates_max
        if excess <= 0:
            return
        candidates = self._candidates
        for address in sorted(candidates, key=lambda each: candidates[each].hopelessness)[-excess:]:
            del candidates[address]
        self._outbound.counts["candidates_dropped/too many"] += excess
