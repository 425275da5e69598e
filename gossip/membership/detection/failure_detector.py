"""Notices members that do not answer (SWIM section 3, with Lifeguard's changes).

Once per period one member is probed: a ping, the ping again, then relays that ping on our behalf;
whoever was reached by none of these until the period ends is suspected. A suspect that is probed
gets the accusation in the same packet, so that its answer already refutes it (Lifeguard's buddy
system). How patient we are depends on how well we seem to be ourselves (``awareness.py``).
"""

from collections.abc import Callable

from gossip.core.ids import NodeId
from gossip.core.machine import Address, Instant
from gossip.membership.detection.awareness import PROBE_ANSWERED
from gossip.membership.detection.probe import (
    IndirectPings,
    Probe,
    ProbeEvent,
    ProbeState,
)
from gossip.membership.detection.shared_parts import SharedParts
from gossip.membership.detection.updates import MemberUpdates
from gossip.membership.model.addresses import is_gossiped, is_usable
from gossip.membership.model.members import MemberState
from gossip.membership.model.messages import (
    FRAMES,
    Ack,
    CoordinateUpdate,
    Datagram,
    Nack,
    Ping,
    PingRequest,
    StreamPing,
    StreamPong,
    Suspect,
)


class FailureDetector:
    """Probes members, and helps others to probe theirs."""

    def __init__(
        self,
        shared: SharedParts,
        updates: MemberUpdates,
        now: Instant,
    ) -> None:
        self._local = shared.local
        self._members = shared.members
        self._updates = updates
        self._outbound = shared.outbound
        self._counts = shared.counts
        self._awareness = shared.awareness
        self._order = shared.order
        self._reachability = shared.reachability
        self._tuning = shared.tuning
        self._rng = shared.rng
        self._number = 0
        self._probe: Probe | None = None
        self._asked_by_stream: dict[NodeId, None] = {}
        self._indirect_pings = IndirectPings(shared.tuning)
        # Members that start together should not probe in step.
        self._next_at = now + shared.rng.random() * shared.tuning.probe_interval_s
        self._on_entry: dict[ProbeState, Callable[[Probe, Instant], None]] = {
            ProbeState.RETRIED: self._ask_again,
            ProbeState.INDIRECT: self._ask_relays,
            ProbeState.LOST: self._give_up,
        }

    # Time.

    def deadline(self) -> Instant:
        """Return when ``wake`` is next due."""
        probe = self._next_at if self._probe is None else self._probe.due_at
        return min(probe, self._indirect_pings.deadline()) if self._indirect_pings else probe

    def wake(self, now: Instant) -> None:
        """Move the probe on, begin the next one, and send the nacks that are due."""
        for indirect_ping in self._indirect_pings.expire(now) if self._indirect_pings else ():
            self._counts["relays/nacked"] += 1
            self._outbound.send(indirect_ping.asker, Nack(indirect_ping.asked_number))
        if self._probe is not None and self._probe.due_at <= now:
            self._move(self._probe, now)
        if self._probe is None and self._next_at <= now:
            self._begin(now)

    def next_number(self) -> int:
        """Return a number that no other ping of ours has."""
        self._number += 1
        return self._number

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
        target = self._order.next(self._members, self._local.id)
        if target is None:
            self._next_at = now + self._tuning.probe_interval_s
            return
        probe = Probe(self.next_number(), target.id, target.boot, target.incarnation, now)
        probe.schedule(
            self._awareness.stretch(self._timeout_s(target.id)),
            self._awareness.stretch(self._tuning.probe_interval_s),
        )
        self._probe = probe
        self._ping(probe, probe.number, now)

    def _timeout_s(self, target: NodeId) -> float:
        return self._tuning.timeout_s(self._reachability.expected_rtt_s(target))

    def _ask_again(self, probe: Probe, now: Instant) -> None:
        self._counts["probes/repeated"] += 1
        self._ping(probe, self.next_number(), now)

    def _ping(self, probe: Probe, number: int, now: Instant) -> None:
        member = self._members.get(probe.target)
        if member is None or not member.has_address:
            return
        addresses = member.addresses_by_preference
        attempt = len(probe.pinged_at)
        probe.pinged_at[number] = now
        messages: list[Datagram] = [Ping(number, probe.target)]
        accusation = self._updates.update_of(member)
        if isinstance(accusation, Suspect):
            messages.insert(0, accusation)
        self._outbound.send(addresses[attempt % len(addresses)], *messages)

    def _ask_relays(self, probe: Probe, now: Instant) -> None:
        self._ask_by_stream(probe, now)
        target = self._members.get(probe.target)
        relays = [
            member
            for member in self._members.others(self._local.id)
            if member.id != probe.target and member.state is MemberState.ALIVE
        ]
        if target is None or not target.has_address or not relays:
            return
        self._counts["probes/relayed"] += 1
        request = PingRequest(probe.number, probe.target, target.addresses_by_preference[0])
        for relay in self._rng.sample(relays, min(self._tuning.probe_relays, len(relays))):
            assert relay.id not in (probe.target, self._local.id), "a relay is somebody else"
            probe.nacks[relay.id] = False
            self._outbound.send(relay.addresses_by_preference[0], request)

    def _ask_by_stream(self, probe: Probe, now: Instant) -> None:
        """Ping by stream as well: where UDP is blocked, the member is flagged and not dead.

        Whose streams alone have worked for ``stream_alone_s`` is judged by its silence again:
        it does not do its part, however well its kernel and its TLS stack may be.
        """
        member = self._members.get(probe.target)
        if member is None:
            return
        silent_s = self._reachability.last_datagram_s(member.id, now)
        if silent_s is None:
            silent_s = now - member.changed_at
        if silent_s > self._tuning.stream_alone_s:
            self._counts["probes/streams not trusted"] += 1
            return
        self._counts["probes/asked by stream"] += 1
        self._asked_by_stream[member.id] = None
        accusation = self._updates.update_of(member)
        suspect = accusation if isinstance(accusation, Suspect) else None
        self._outbound.send_frame(member.id, FRAMES.encode(StreamPing(probe.number, suspect)))

    def _give_up(self, probe: Probe, now: Instant) -> None:
        self._counts["probes/lost"] += 1
        self._awareness.record_lost_probe(len(probe.nacks), sum(probe.nacks.values()))
        member = self._members.get(probe.target)
        # A member that took a new incarnation meanwhile is there, whatever became of our pings.
        if member is not None and (member.boot, member.incarnation) == (
            probe.boot,
            probe.incarnation,
        ):
            accusation = Suspect(member.id, member.boot, member.incarnation, self._local.id)
            self._updates.apply(accusation, None, now)

    # Answers.

    def ack(self, message: Ack, sender: NodeId, now: Instant) -> None:
        """Take in an answer: to our probe, or to one that we do for somebody else."""
        indirect_ping = self._indirect_pings.answered(message.number, sender)
        if indirect_ping is not None:
            self._counts["relays/answered"] += 1
            self._outbound.send(indirect_ping.asker, Ack(indirect_ping.asked_number))
            return
        probe = self._probe
        if probe is None or not probe.expects_answer(message.number, sender):
            self._counts["acks/unexpected"] += 1
            return
        if sender == probe.target:
            self._reachability.reached(sender, now)
            # Each ping has its own number, so it is certain which one was answered.
            if (pinged_at := probe.pinged_at.get(message.number)) is not None:
                self._reachability.answered(sender, now - pinged_at)
        else:
            self._reachability.found_open(probe.target)
        if probe.move(ProbeEvent.ANSWER):
            self._counts["probes/answered"] += 1
            self._awareness.record(PROBE_ANSWERED)

    def stream_ping(self, ping: StreamPing, peer: NodeId, now: Instant) -> None:
        """Answer a ping that came by a stream, and what it says about us."""
        if ping.suspect is not None and ping.suspect.member == self._local.id:
            self._updates.apply(ping.suspect, None, now)
        self._counts["pings_answered/by stream"] += 1
        pong = StreamPong(ping.number, self._local.alive)
        self._outbound.send_frame(peer, FRAMES.encode(pong))

    def stream_pong(self, pong: StreamPong, peer: NodeId, now: Instant) -> bool:
        """Take in that a member lives whom no ping reaches; say whether our probe asked."""
        self._asked_by_stream.pop(peer, None)
        probe = self._probe
        expected = probe is not None and (probe.number, probe.target) == (pong.number, peer)
        if probe is None or not expected or pong.alive.member != peer:
            return False
        if probe.move(ProbeEvent.ANSWER):
            self._counts["probes/answered by stream"] += 1
            self._reachability.found_blocked(peer)
            self._updates.apply(pong.alive, None, now)
        return True

    def stream_failed(self, peer: NodeId) -> bool:
        """Note that a stream broke; say whether all it was to carry is a ping of ours."""
        was_asked = peer in self._asked_by_stream
        self._asked_by_stream.pop(peer, None)
        return was_asked

    def nack(self, message: Nack, sender: NodeId) -> None:
        """Note that a relay is there, though it did not reach the target either."""
        probe = self._probe
        if probe is not None and probe.number == message.number and sender in probe.nacks:
            probe.nacks[sender] = True

    def ping(self, message: Ping, sender: NodeId, source: Address, now: Instant) -> None:
        """Answer, if it is we who are asked."""
        if message.target == self._local.id:
            self._outbound.send(source, *self._news_for(sender, now), Ack(message.number))
        else:
            self._counts["pings_ignored/for somebody else"] += 1

    def _news_for(self, sender: NodeId, now: Instant) -> list[Datagram]:
        """Return our place, if this member should hear it with our answer."""
        if sender not in self._members:
            return []
        place = self._reachability.coordinates.news_for(sender, now)
        return [] if place is None else [CoordinateUpdate(place)]

    def ping_request(self, message: PingRequest, source: Address, now: Instant) -> None:
        """Ping somebody on behalf of somebody else."""
        address = self._address_of_target(message)
        if address is None or message.target == self._local.id:
            self._counts["relays/refused"] += 1
            return
        number = self.next_number()
        if not self._indirect_pings.begin(number, message.target, source, message.number, now):
            self._counts["relays/refused"] += 1
            return
        self._counts["relays/begun"] += 1
        self._outbound.send(address, Ping(number, message.target))

    def _address_of_target(self, request: PingRequest) -> Address | None:
        """Return where to ping the target: where the asker says, if that means the same here.

        A link-local address is another place on each device, and one of Docker's is ourselves.
        Then we ping it where we know it to be; None when we do not.
        """
        if not is_usable(request.address):
            return None
        if is_gossiped(request.address) and request.address not in self._local.own:
            return request.address
        member = self._members.get(request.target)
        return next(iter(member.addresses_by_preference), None) if member is not None else None
