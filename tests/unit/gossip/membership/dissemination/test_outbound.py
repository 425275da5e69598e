"""Kinds of messages as ``/metrics`` calls them: dashboards of others go by these words."""

from typing import get_args

from gossip.core.machine import Address
from gossip.core.tuning import LAN
from gossip.events.messages import SENT
from gossip.membership.dissemination.outbound import KINDS, Outbound
from gossip.membership.model.members import MemberTable
from gossip.membership.model.messages import Datagram, Ping, PingRequest


def test_every_kind_of_datagram_has_a_label_of_its_own() -> None:
    assert set(KINDS) == set(get_args(Datagram))
    assert len(set(KINDS.values())) == len(KINDS)


def test_labels_are_what_they_were() -> None:
    """Whatever the classes are called: add to this list, and change nothing in it."""
    assert sorted(KINDS.values()) == [
        "ack", "alive", "asleep", "coordinate", "dead", "filler", "hello", "indirect_ping", "left",
        "nack", "ping", "suspect",
    ]  # fmt: skip
    assert sorted(SENT.values()) == ["messages_sent/query", "messages_sent/query_response"]


def test_what_is_sent_is_counted_under_its_label() -> None:
    outbound = Outbound(MemberTable(), LAN)
    there, third = Address("192.0.2.1", 7946), Address("192.0.2.5", 7946)
    outbound.send(there, Ping(1, 2), Ping(3, 2), PingRequest(4, 5, third))
    assert outbound.counts == {"messages_sent/ping": 2, "messages_sent/indirect_ping": 1}
