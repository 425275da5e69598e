"""Puts messages and updates into packets, and keeps all effects in their order.

Whatever goes to somebody takes along as many updates as still fit: that is how SWIM spreads news
without packets of their own while there is other traffic.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence

from gossip.core.ids import NodeId
from gossip.core.machine import Address, Effect, Emit, SendDatagram, SendFrame
from gossip.core.trials import OnTrial, trusted
from gossip.core.tuning import BODY_BYTES_MAX, ENVELOPE_BYTES, NARROW_PACKET_BYTES, Tuning
from gossip.core.wire import LENGTH_BYTES, pack
from gossip.membership.dissemination.broadcast_queue import TransmitLimitedQueue
from gossip.membership.model.members import MemberTable
from gossip.membership.model.messages import (
    DATAGRAMS,
    Ack,
    Alive,
    Asleep,
    CoordinateUpdate,
    Datagram,
    Dead,
    Filler,
    Hello,
    Left,
    Nack,
    Ping,
    PingRequest,
    Suspect,
)

NARROW_BODY_BYTES = NARROW_PACKET_BYTES - ENVELOPE_BYTES
FILLER_HEAD_BYTES = LENGTH_BYTES + 5
"""What a Filler of hundreds of bytes takes beside its zeros."""

KINDS: dict[type[Datagram], str] = {
    Ping: "ping",
    Ack: "ack",
    PingRequest: "indirect_ping",
    Nack: "nack",
    Hello: "hello",
    CoordinateUpdate: "coordinate",
    Filler: "filler",
    Alive: "alive",
    Suspect: "suspect",
    Dead: "dead",
    Left: "left",
    Asleep: "asleep",
}
"""What each kind of message is called in ``/metrics``: this is never changed with a class name."""

SENT = {kind: f"messages_sent/{label}" for kind, label in KINDS.items()}
"""Under which name each kind of message is counted: looked up, for it is needed all the time."""


class Outbound:
    """Puts messages into packets, with updates and broadcasts in the room that is left over."""

    def __init__(self, members: MemberTable, tuning: Tuning) -> None:
        self.update_queue = TransmitLimitedQueue(tuning.updates_max)
        self.broadcast_queue = TransmitLimitedQueue(tuning.events_kept_max)
        self.counts: Counter[str] = Counter()
        self.first_message: Datagram | None = None
        """What stands first in every packet: our goodbye, or how long we sleep."""
        self.on_trial: OnTrial = trusted
        """What takes in the words of others."""
        self._members = members
        self._tuning = tuning
        self._narrow: set[Address] = set()
        self._effects: deque[Effect] = deque()

    @property
    def has_news(self) -> bool:
        """Whether there is anything to tell everybody."""
        return len(self.update_queue) > 0 or len(self.broadcast_queue) > 0

    def send(self, to: Address, *messages: Datagram, fill: Sequence[Datagram] = ()) -> None:
        """Send the messages in one packet, then updates, broadcasts, and of ``fill`` what fits."""
        first = () if self.first_message is None else (self.first_message,)
        items = [self._encode(message) for message in (*first, *messages)]
        while _packed_bytes(items) > BODY_BYTES_MAX:
            # Long descriptions beside a goodbye, with signatures: what has no room goes ahead.
            self._effects.append(SendDatagram(pack([items.pop()]), to))
        self._pack(to, items, fill)

    def send_item(self, to: Address, item: bytes) -> None:
        """Send a message of a layer on the membership, which counts it, as ``send`` does ours."""
        first = () if self.first_message is None else (self._encode(self.first_message),)
        self._pack(to, [*first, item])

    def send_plain(self, to: Address, *messages: Datagram) -> None:
        """Send the messages without updates: to one of whom we do not know whether it is there."""
        items = [self._encode(message) for message in messages]
        while _packed_bytes(items) > BODY_BYTES_MAX:
            self._effects.append(SendDatagram(pack([items.pop()]), to))
        self._effects.append(SendDatagram(pack(items), to))

    def send_full(self, to: Address, *messages: Datagram) -> None:
        """Send the messages in a packet as large as packets may be, also on a narrow path."""
        items = [self._encode(message) for message in messages]
        zeros = BODY_BYTES_MAX - _packed_bytes(items) - FILLER_HEAD_BYTES
        items.append(self._encode(Filler(bytes(zeros))))
        body = pack(items)
        assert len(body) == BODY_BYTES_MAX, "it is to be seen whether just such ones pass"
        self._effects.append(SendDatagram(body, to))

    def narrow(self, addresses: Iterable[Address], *, is_narrow: bool) -> None:
        """Pack less, or again as much as ever, into packets to these addresses."""
        if is_narrow:
            self._narrow.update(addresses)
        else:
            self._narrow.difference_update(addresses)

    def send_frame(self, to: NodeId, data: bytes) -> None:
        """Send a frame over a stream."""
        self.counts["gossip_bytes/streams sent"] += len(data)
        self._effects.append(SendFrame(data, to))

    def emit(self, event: object) -> None:
        """Tell the application."""
        self._effects.append(Emit(event))

    def drain(self) -> Iterator[Effect]:
        """Yield what is to be done, in order."""
        while self._effects:
            yield self._effects.popleft()

    def _pack(self, to: Address, items: list[bytes], fill: Sequence[Datagram] = ()) -> None:
        """Send a packet of these, and of what is waiting and fits."""
        if self.has_news:
            items += self._news(self._room_bytes(to, items))
        if fill:
            items += self._fitting(fill, self._room_bytes(to, items))
        if items:
            self._effects.append(SendDatagram(pack(items), to))

    def _room_bytes(self, to: Address, items: Sequence[bytes]) -> int:
        """Return what is left of a packet beside these; on a narrow path they may be too large."""
        packed_bytes = _packed_bytes(items)
        assert packed_bytes <= BODY_BYTES_MAX, "what is sent together fits into a packet"
        most_bytes = NARROW_BODY_BYTES if to in self._narrow else BODY_BYTES_MAX
        return max(0, most_bytes - packed_bytes)

    def _news(self, room_bytes: int) -> list[bytes]:
        """Return updates, then broadcasts, that fit into the room."""
        transmit_limit = self._tuning.transmit_limit(len(self._members.live_ids))
        told = self.update_queue.select(room_bytes, transmit_limit)
        self.counts["updates/told"] += len(told)
        said = self.broadcast_queue.select(room_bytes - _packed_bytes(told), transmit_limit)
        self.counts["updates/events and queries told"] += len(said)
        return told + said

    def _encode(self, message: Datagram) -> bytes:
        self.counts[SENT[type(message)]] += 1
        return DATAGRAMS.encode(message)

    def _fitting(self, fill: Sequence[Datagram], room_bytes: int) -> Iterator[bytes]:
        for message in fill:
            data = DATAGRAMS.encode(message)
            room_bytes -= LENGTH_BYTES + len(data)
            if room_bytes < 0:
                return
            yield data


def _packed_bytes(items: Sequence[bytes]) -> int:
    return sum(LENGTH_BYTES + len(item) for item in items)
