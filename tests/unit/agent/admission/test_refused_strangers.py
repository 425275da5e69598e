"""Strangers with the covey's keys or certificates in the audit log: which, when, and how many."""

import asyncio
import logging
from collections.abc import Callable

import pytest

from agent.access.repeated_refusals import RepeatedRefusals
from agent.admission.refused_strangers import DOUBTED_MAX, RefusedStrangers
from agent.net.authorization import ShownCertificate, StreamRefused
from gossip.core.machine import Address
from gossip.registry.node import SERIAL_BYTES, RegisteredNode
from gossip.registry.registry import Registry, admit, found, remove
from gossip.registry.strangers import DatagramRefused

ADA, BOB, CY = 1, 2, 3
NOW, BEFORE = b"1" * SERIAL_BYTES, b"0" * SERIAL_BYTES
HOST = "10.0.0.9"
DATAGRAM, STREAM = "a datagram in its name", "a stream with its certificate"


class Door:
    """A registry with ada and bob, from which cy was removed, and what was told of strangers."""

    def __init__(self) -> None:
        self.registry = admit(found(bytes(16), RegisteredNode(ADA, "ada"), 4), _bob(NOW))
        self.registry = remove(admit(self.registry, RegisteredNode(CY, "cy")), CY)
        self.told: list[tuple[str, str, str, str, int]] = []
        refusals = RepeatedRefusals(lambda *entry: self.told.append(entry))
        self.strangers = RefusedStrangers(refusals, lambda: self.registry, self._admits)

    def _admits(self, shown: ShownCertificate) -> bool:
        entry = self.registry.node(shown.node)
        return entry is not None and entry.shows(shown.serial)

    def dialled(self, node: int, serial: bytes = BEFORE) -> None:
        self.strangers.on_event(StreamRefused(ShownCertificate(node, serial), HOST))

    def heard(self, node: int, host: str = HOST) -> None:
        self.strangers.on_event(DatagramRefused(node, Address(host, 7747)))


def _bob(*serials: bytes) -> RegisteredNode:
    return RegisteredNode(BOB, "bob", serials=serials)


def at_the_door(scenario: Callable[[Door], None]) -> Door:
    async def run() -> Door:
        door = Door()
        scenario(door)
        return door

    return asyncio.run(run())


def test_a_removed_node_is_written_down_at_once(caplog: pytest.LogCaptureFixture) -> None:
    def scenario(door: Door) -> None:
        door.heard(CY)
        door.dialled(CY)

    with caplog.at_level(logging.WARNING):
        door = at_the_door(scenario)
    who = "node cy (0000000000000003)"
    assert door.told == [(who, HOST, DATAGRAM, "removed_node", 1)], "the second is like the first"
    assert f"refused {DATAGRAM} of {who}, from {HOST}: it was removed" in caplog.text


def test_a_certificate_that_was_replaced_is_written_down_when_it_is_so_still() -> None:
    def scenario(door: Door) -> None:
        door.dialled(BOB)
        door.dialled(BOB)
        assert not door.told, "it may have a new one of which nobody here has heard"
        door.strangers.close()

    who = "node bob (0000000000000002)"
    assert at_the_door(scenario).told == [(who, HOST, STREAM, "old_certificate", 2)]


def test_who_was_let_in_a_moment_ago_is_nobody_to_write_down() -> None:
    def scenario(door: Door) -> None:
        door.heard(4)
        door.dialled(5)
        door.dialled(BOB)
        door.heard(6)
        registry: Registry = door.registry
        for node in (RegisteredNode(4, "dee"), RegisteredNode(5, "eve", serials=(BEFORE,))):
            registry = admit(registry, node)
        door.registry = registry
        door.strangers.close()

    told = at_the_door(scenario).told
    assert told == [
        ("node bob (0000000000000002)", HOST, STREAM, "old_certificate", 1),
        ("node (0000000000000006)", HOST, DATAGRAM, "unknown_node", 1),
    ]


def test_a_flood_of_invented_names_is_bounded_and_counted() -> None:
    def scenario(door: Door) -> None:
        for number in range(1000):
            door.heard(100 + number, f"10.0.{number // 250}.{number % 250}")
        assert len(door.strangers._doubted) == DOUBTED_MAX
        door.strangers.close()
        door.strangers._refusals.flush()

    told = at_the_door(scenario).told
    assert len(told) < 200
    assert sum(times for *_, times in told) == 1000
