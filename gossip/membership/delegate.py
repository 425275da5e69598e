"""What stands on the membership and travels with it, as Serf stands on memberlist.

The membership carries messages that it cannot read itself: in the room that updates leave in
packets, and over streams. Whoever makes a ``Swim`` hands it the layer that can (memberlist's
Delegate and EventDelegate in one); ``gossip/events`` is the one that Covey has.
"""

from typing import Protocol, TypeVar

from gossip.core.ids import NodeId
from gossip.core.machine import Instant
from gossip.core.tuning import Tuning
from gossip.membership.dissemination.outbound import Outbound
from gossip.membership.model.local_member import LocalMember
from gossip.membership.model.members import MemberChanged, MemberTable


class Delegate(Protocol):
    """A layer on the membership. It sends by the ``Outbound`` that it was made with."""

    @property
    def frame_tags(self) -> frozenset[int]:
        """The tags of its frames."""

    def receive(self, item: bytes, sender: NodeId, now: Instant) -> bool:
        """Take in one message of a datagram, if it is one of its own, and say whether it is.

        The sender is a member. Raises Malformed; then nothing has changed.
        """

    def receive_frame(self, data: bytes, peer: NodeId, now: Instant) -> None:
        """Take in a frame with one of its tags. Raises Malformed; then nothing has changed."""

    def on_member_changed(self, change: MemberChanged) -> None:
        """Take note of who is there."""

    def deadline(self) -> Instant:
        """Return when ``wake`` is next due."""

    def wake(self, now: Instant) -> None:
        """Let due timers act; harmless when called early."""


D = TypeVar("D", bound=Delegate, covariant=True)


class MakeDelegate(Protocol[D]):
    """Makes the layer of one membership machine, of the parts that they share."""

    def __call__(
        self,
        local: LocalMember,
        members: MemberTable,
        outbound: Outbound,
        tuning: Tuning,
        now: Instant,
    ) -> D:
        """Return the layer."""
