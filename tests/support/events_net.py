"""Hands for the tests of events and queries: a formed covey, and what its members said."""

from typing import Any

from gossip.core.tuning import LAN
from gossip.events.events import EventDelivered
from gossip.events.messages import ResponseKind
from gossip.events.queries import QueryReceived
from tests.support.membership_net import Net

HOLD_S = LAN.event_hold_rounds * LAN.gossip_interval_s
Delivered = dict[int, list[tuple[float, EventDelivered]]]


def formed(count: int, seed: int = 1, loss: float = 0.0) -> Net:
    net = Net(count, seed)
    net.join_all(within_s=8.0)
    net.loss = loss
    net.events.clear()
    return net


def send(net: Net, index: int, name: str, payload: bytes = b"") -> None:
    net.swims[index].with_delegate(
        lambda event_plane: event_plane.send_event(name, payload, net.now), net.now
    )
    net.settle(index)


def ask(
    net: Net, index: int, name: str, timeout_s: float = 5.0, tags: dict[str, str] | None = None
) -> int:
    swim = net.swims[index]
    number = swim.with_delegate(
        lambda event_plane: event_plane.ask(name, b"", tags or {}, timeout_s, net.now), net.now
    )
    net.settle(index)
    return number


def delivered(net: Net) -> Delivered:
    found: Delivered = {index: [] for index in net.swims}
    for at, index, event in net.events:
        if isinstance(event, EventDelivered):
            found.setdefault(index, []).append((at, event))
    return found


def names(net: Net, index: int) -> list[str]:
    return [one.event.name for _, one in delivered(net)[index]]


def told(net: Net, kind: type[Any], index: int) -> list[Any]:
    return [event for _, at, event in net.events if at == index and isinstance(event, kind)]


def answering(net: Net, *but: int, payload: bytes = b"here") -> None:
    """Let everybody but some answer each query as soon as it is heard."""
    settle = net.settle

    def settle_and_answer(index: int) -> None:
        before = len(net.events)
        settle(index)
        for _, _, event in net.events[before:]:
            if isinstance(event, QueryReceived) and index not in but:
                answer(index, event)
                settle_and_answer(index)

    def answer(index: int, asked: QueryReceived) -> None:
        words = asked.key, ResponseKind.ANSWERED, payload, net.now
        net.swims[index].with_delegate(lambda event_plane: event_plane.answer(*words), net.now)

    net.settle = settle_and_answer  # type: ignore[method-assign]
