"""How strangers meet, and how those who lost each other meet again.

A *hint* is an address at which somebody may be: a seed from the configuration, an answer of DNS, an
announcement seen by mDNS, a line of the address book on disk. It proves nothing. We say Hello
there, with doubling pauses, then slowly for ever, until a packet of the covey comes from it.

Dead and forgotten peers are greeted too, each of them once in ``reconnect_rounds`` rounds, without
end: the other half of a split network looks exactly like a set of dead members, and after any
length of time one greeting that gets through brings both halves together (``exchange.py``). The
greeting carries our belief that the peer is dead, so that its first answer already refutes it.
"""

import math
import random
from collections.abc import Iterable

from gossip.ids import NodeId
from gossip.machine import Address, Instant
from gossip.membership.addresses import is_usable
from gossip.membership.beliefs import Beliefs
from gossip.membership.book import addresses_of
from gossip.membership.local import LocalMember
from gossip.membership.members import Member, MemberState
from gossip.membership.messages import Alive, Datagram, Hello
from gossip.membership.post import Post
from gossip.membership.roll import Roll
from gossip.membership.throttle import Throttle
from gossip.tuning import Tuning

HELLOS_PER_WAKE = 32
ASKED_MAX = 256
BUSY_S = 0.01
"""When more are due than one wake sends, the rest follow after this long."""


class Hint:
    """One address, and how often it was greeted in vain."""

    __slots__ = ("due_at", "greeted")

    def __init__(self, due_at: Instant) -> None:
        self.due_at = due_at
        self.greeted = 0


class Introductions:
    """Says Hello wherever somebody may be who is not listed as being there."""

    def __init__(
        self,
        local: LocalMember,
        roll: Roll,
        beliefs: Beliefs,
        post: Post,
        tuning: Tuning,
        rng: random.Random,
        now: Instant,
    ) -> None:
        self._local = local
        self._roll = roll
        self._beliefs = beliefs
        self._post = post
        self._tuning = tuning
        self._rng = rng
        self._hints: dict[Address, Hint] = {}
        self._asked = Throttle(tuning.gossip_interval_s, ASKED_MAX)
        self._answered = Throttle(tuning.gossip_interval_s / 2, ASKED_MAX)
        self._round: list[NodeId] = []
        self._reconnect_at = now + tuning.reconnect_interval_s * (0.5 + rng.random() / 2)

    def __len__(self) -> int:
        return len(self._hints)

    def add(self, addresses: Iterable[Address], now: Instant) -> None:
        """Note where somebody may be; an address seen anew is greeted soon again."""
        for address in addresses:
            if not is_usable(address) or address in self._local.alive.addresses:
                continue
            hint = self._hints.setdefault(address, Hint(now))
            hint.due_at = min(hint.due_at, now)
            if len(self._hints) > self._tuning.hints_max:
                self._drop_hopeless()

    def met(self, address: Address) -> None:
        """Stop greeting an address: a packet of the covey came from it."""
        if self._hints:
            self._hints.pop(address, None)

    def deadline(self) -> Instant:
        """Return when ``wake`` is next due."""
        if not self._hints:
            return self._reconnect_at
        hinted = min((hint.due_at for hint in self._hints.values()), default=self._reconnect_at)
        return min(hinted, self._reconnect_at)

    def wake(self, now: Instant) -> None:
        """Say Hello where it is due."""
        due = [address for address, hint in self._hints.items() if hint.due_at <= now]
        for address in due[:HELLOS_PER_WAKE]:
            self._follow(address, now)
        for address in due[HELLOS_PER_WAKE:]:
            self._hints[address].due_at = now + BUSY_S
        if self._reconnect_at <= now:
            self._reconnect_at = now + self._tuning.reconnect_interval_s
            self._reconnect()

    def hello(self, to: Address, *, wants_reply: bool, also: Datagram | None = None) -> None:
        """Introduce ourselves to whoever is there."""
        messages = (Hello(wants_reply), self._local.alive)
        self._post.send_plain(to, *messages, *([] if also is None else [also]))

    def ask(self, source: Address, now: Instant) -> None:
        """Ask who is there: packets come from it, and we lack the words to them."""
        if self._asked.allows(source, now):
            self._post.counts["introductions/asked for"] += 1
            self.hello(source, wants_reply=True)

    def answer(self, source: Address, others: Iterable[Member], now: Instant) -> None:
        """Answer a greeting with who we are, and with as many others as fit into the packet."""
        if self._answered.allows(source, now):
            claims = [self._beliefs.claim_of(member) for member in others]
            known = [claim for claim in claims if isinstance(claim, Alive)]
            self._post.send(source, Hello(wants_reply=False), self._local.alive, fill=known)

    def _follow(self, address: Address, now: Instant) -> None:
        if any(member.path == address for member in self._roll.members.live):
            self.met(address)
            return
        hint = self._hints[address]
        pause_s = self._tuning.hello_first_s * 2 ** min(hint.greeted, 32)
        # Members that were switched on together should not go on greeting together.
        pause_s = min(pause_s, self._tuning.hello_slowest_s) * (0.75 + self._rng.random() / 2)
        assert pause_s > 0, "greetings are spread over time"
        hint.greeted += 1
        hint.due_at = now + pause_s
        self.hello(address, wants_reply=True)

    def _reconnect(self) -> None:
        """Greet the next few of those who are dead or forgotten."""
        dead = self._roll.members.in_state(MemberState.DEAD)
        departed = {member.id: addresses_of(member) for member in dead}
        departed |= {peer.id: peer.addresses for peer in self._roll.book}
        if not departed:
            return
        if not self._round:
            self._round = sorted(departed)
            self._rng.shuffle(self._round)
        share = math.ceil(len(departed) / self._tuning.reconnect_rounds)
        for _ in range(min(share, self._tuning.reconnect_burst_max, len(self._round))):
            node = self._round.pop()
            for address in departed.get(node, ()):
                self._greet(node, address)

    def _greet(self, node: NodeId, address: Address) -> None:
        member = self._roll.members.get(node)
        belief = None if member is None else self._beliefs.claim_of(member)
        self._post.counts["reconnects/tried"] += 1
        self.hello(address, wants_reply=True, also=belief)

    def _drop_hopeless(self) -> None:
        hopeless = max(self._hints, key=lambda address: self._hints[address].greeted)
        del self._hints[hopeless]
        self._post.counts["hints_dropped/too many"] += 1
