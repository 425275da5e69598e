"""Notices members that do not answer (SWIM section 3, with Lifeguard's changes).

Once per period one member is probed: a ping, the ping again, then relays that ping on our behalf;
whoever was reached by none of these until the period ends is suspected. A suspect that is probed
gets the accusation in the same packet, so that its answer already refutes it (Lifeguard's buddy
system). How patient we are depends on how well we seem to be ourselves (``awareness.py``).
"""

import random
from collections.abc import Callable

from gossip.ids import NodeId
from gossip.machine import Address, Instant
from gossip.membership.addresses import is_usable
from gossip.membership.awareness import PROBE_ANSWERED, Awareness
from gossip.membership.beliefs import Beliefs
from gossip.membership.book import addresses_of
from gossip.membership.contacts import Contacts
from gossip.membership.local import LocalMember
from gossip.membership.members import Member, MemberState, MemberTable
from gossip.membership.messages import Ack, Datagram, Nack, Ping, PingRequest, Suspect
from gossip.membership.post import Post
from gossip.membership.probe import Probe, ProbeEvent, ProbeOrder, ProbeState
from gossip.membership.relay import Errands
from gossip.tuning import Tuning


class Detector:
    """Probes members, and helps others to probe theirs."""

    def __init__(
        self,
        local: LocalMember,
        members: MemberTable,
        beliefs: Beliefs,
        post: Post,
        awareness: Awareness,
        order: ProbeOrder,
        contacts: Contacts,
        tuning: Tuning,
        rng: random.Random,
        now: Instant,
    ) -> None:
        self._local = local
        self._members = members
        self._beliefs = beliefs
        self._post = post
        self._counts = post.counts
        self._awareness = awareness
        self._order = order
        self._contacts = contacts
        self._tuning = tuning
        self._rng = rng
        self._number = 0
        self._probe: Probe | None = None
        self._errands = Errands(tuning)
        # Members that start together should not probe in step.
        self._next_at = now + rng.random() * tuning.probe_interval_s
        self._on_entry: dict[ProbeState, Callable[[Probe, Instant], None]] = {
            ProbeState.ASKED_AGAIN: self._ask_again,
            ProbeState.RELAYED: self._ask_relays,
            ProbeState.LOST: self._give_up,
        }

    # Time.

    def deadline(self) -> Instant:
        """Return when ``wake`` is next due."""
        probe = self._next_at if self._probe is None else self._probe.due_at
        errand = self._errands.deadline()
        return probe if errand is None else min(probe, errand)

    def wake(self, now: Instant) -> None:
        """Move the probe on, begin the next one, and send the nacks that are due."""
        for errand in self._errands.expire(now):
            self._counts["relays/nacked"] += 1
            self._post.send(errand.asker, Nack(errand.asked_number))
        if self._probe is not None and self._probe.due_at <= now:
            self._move(self._probe, now)
        if self._probe is None and self._next_at <= now:
            self._begin(now)

    def restart(self, now: Instant) -> None:
        """Abandon the probe under way without a verdict, and begin the next a period later."""
        self._probe = None
        self._next_at = now + self._tuning.probe_interval_s

    def _move(self, probe: Probe, now: Instant) -> None:
        probe.catch_up(now)
        if probe.move(ProbeEvent.TIME):
            self._on_entry[probe.state](probe, now)
        if probe.is_over:
            self._probe = None
            self._next_at = now

    # Our own probes.

    def _begin(self, now: Instant) -> None:
        target = self._order.take(self._others())
        if target is None:
            self._next_at = now + self._tuning.probe_interval_s
            return
        self._number += 1
        probe = Probe(self._number, target.id, target.boot, target.incarnation, now)
        probe.schedule(
            self._awareness.stretch(self._tuning.probe_timeout_s),
            self._awareness.stretch(self._tuning.probe_interval_s),
        )
        self._probe = probe
        self._ping(probe, attempt=0)

    def _ask_again(self, probe: Probe, _now: Instant) -> None:
        self._counts["probes/repeated"] += 1
        self._ping(probe, attempt=1)

    def _ping(self, probe: Probe, attempt: int) -> None:
        member = self._members.get(probe.target)
        if member is None:
            return
        addresses = addresses_of(member)
        messages: list[Datagram] = [Ping(probe.number, probe.target)]
        accusation = self._beliefs.claim_of(member)
        if isinstance(accusation, Suspect):
            messages.insert(0, accusation)
        self._post.send(addresses[attempt % len(addresses)], *messages)

    def _ask_relays(self, probe: Probe, _now: Instant) -> None:
        target = self._members.get(probe.target)
        relays = [
            member
            for member in self._others()
            if member.id != probe.target and member.state is MemberState.ALIVE
        ]
        if target is None or not relays:
            return
        self._counts["probes/relayed"] += 1
        request = PingRequest(probe.number, probe.target, addresses_of(target)[0])
        for relay in self._rng.sample(relays, min(self._tuning.probe_relays, len(relays))):
            assert relay.id not in (probe.target, self._local.id), "a relay is somebody else"
            probe.nacks[relay.id] = False
            self._post.send(addresses_of(relay)[0], request)

    def _give_up(self, probe: Probe, now: Instant) -> None:
        self._counts["probes/lost"] += 1
        self._awareness.note_lost_probe(len(probe.nacks), sum(probe.nacks.values()))
        member = self._members.get(probe.target)
        # A member that took a new incarnation meanwhile is there, whatever became of our pings.
        if member is not None and (member.boot, member.incarnation) == (
            probe.boot,
            probe.incarnation,
        ):
            accusation = Suspect(member.id, member.boot, member.incarnation, self._local.id)
            self._beliefs.claim(accusation, None, now)

    # Answers.

    def ack(self, message: Ack, sender: NodeId, now: Instant) -> None:
        """Take in an answer: to our probe, or to one that we do for somebody else."""
        errand = self._errands.answered(message.number, sender)
        if errand is not None:
            self._counts["relays/answered"] += 1
            self._post.send(errand.asker, Ack(errand.asked_number))
            return
        probe = self._probe
        if probe is None or probe.number != message.number or not probe.expects_answer_from(sender):
            self._counts["acks/unexpected"] += 1
            return
        if probe.state is ProbeState.ASKED:
            # Only here it is certain which ping was answered (Karn's rule).
            self._contacts.answered(sender, now - probe.started_at)
        if probe.move(ProbeEvent.ANSWER):
            self._counts["probes/answered"] += 1
            self._awareness.note(PROBE_ANSWERED)

    def nack(self, message: Nack, sender: NodeId) -> None:
        """Note that a relay is there, though it did not reach the target either."""
        probe = self._probe
        if probe is not None and probe.number == message.number and sender in probe.nacks:
            probe.nacks[sender] = True

    def ping(self, message: Ping, source: Address) -> None:
        """Answer, if it is we who are asked."""
        if message.target == self._local.id:
            self._post.send(source, Ack(message.number))
        else:
            self._counts["pings_ignored/for somebody else"] += 1

    def ping_request(self, message: PingRequest, source: Address, now: Instant) -> None:
        """Ping somebody on behalf of somebody else."""
        if not is_usable(message.address) or message.target == self._local.id:
            self._counts["relays/refused"] += 1
            return
        self._number += 1
        if not self._errands.begin(self._number, message.target, source, message.number, now):
            self._counts["relays/refused"] += 1
            return
        self._counts["relays/begun"] += 1
        self._post.send(message.address, Ping(self._number, message.target))

    def _others(self) -> list[Member]:
        """Return whom we can probe: of whom we know no address, we cannot judge either."""
        return [
            member
            for member in self._members.live
            if member.id != self._local.id and member.has_address
        ]
