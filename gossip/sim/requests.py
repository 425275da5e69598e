"""Where clients hand in requests, and where the answers of the nodes find them again.

An answer carries the number under which its node took the request. Numbers begin anew with each
life, so a request is known by host, life and number together.
"""

from collections.abc import Callable
from typing import TypeVar

from gossip.core.machine import Instant
from gossip.kv.requests import Completed, Request, Watch, WatchEvent
from gossip.node import Node
from gossip.sim.driver import SimulatedDriver
from gossip.sim.host import Host
from gossip.sim.operations import Operation

Held = TypeVar("Held")
Ticket = tuple[str, int, int]
"""Host, life and number of a request."""


class RequestLog:
    """All operations of a world, in the order in which they were sent."""

    def __init__(self, driver: SimulatedDriver) -> None:
        self.operations: list[Operation] = []
        self._driver = driver
        self._open: dict[Ticket, Operation] = {}
        self._watched: dict[Ticket, list[WatchEvent]] = {}

    def submit(self, host: Host, request: Request, read: Operation | None) -> Operation:
        """Send a request to the node on a host; ``read`` is where its context comes from."""
        now = self._driver.schedule.now
        operation = Operation(len(self.operations), host.name, request, now)
        operation.read = read
        self.operations.append(operation)
        if host.is_down:
            operation.lose()
        else:
            self._driver.call(host, self._hand_in(host, request, self._open, operation))
        return operation

    def watch(self, host: Host, prefix: str) -> list[WatchEvent]:
        """Watch keys through a node; return the list to which events are added."""
        assert host.is_up, f"{host.name} is not up"
        events: list[WatchEvent] = []
        self._driver.call(host, self._hand_in(host, Watch(prefix=prefix), self._watched, events))
        return events

    def completed(self, host: Host, event: Completed) -> Operation:
        """Note an answer; return the operation that it belongs to."""
        operation = self._open.pop((host.name, host.life, event.request))
        operation.answer(event.result, self._driver.schedule.now)
        return operation

    def watch_event(self, host: Host, event: WatchEvent) -> None:
        """Note what a watch has seen."""
        self._watched[host.name, host.life, event.request].append(event)

    def lose(self, name: str) -> None:
        """Note that a process ended: what it was asked will get no answer."""
        for operation in self.operations:
            if operation.host == name:
                operation.lose()
        self._open = {ticket: held for ticket, held in self._open.items() if ticket[0] != name}

    @staticmethod
    def _hand_in(
        host: Host, request: Request, tickets: dict[Ticket, Held], held: Held
    ) -> Callable[[Node, Instant], None]:
        def begin(node: Node, now: Instant) -> None:
            number = node.submit(request, now)
            tickets[host.name, host.life, number] = held

        return begin
