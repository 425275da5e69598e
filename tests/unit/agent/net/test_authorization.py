"""Streams with those whose certificate is of the covey, and whom the registry does not know."""

import asyncio
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from agent.net.authorization import ShownCertificate, StreamRefused
from agent.runtime.driver import Driver
from gossip.core.machine import Address
from gossip.node import Node
from gossip.registry.node import SERIAL_BYTES, RegisteredNode
from gossip.registry.registry import admit, found
from gossip.registry.strangers import DatagramRefused
from tests.unit.agent.net.test_streams import End, eventually, pair


def test_who_is_not_in_the_registry_is_only_shown_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pair(tmp_path) as (one, two):
            one_id, two_id = one.who.node_id, two.who.node_id
            two.strangers.add(one_id)
            one.streams.send(b"let me in", two_id)
            await eventually(lambda: one.frames)
            assert one.frames[0] == (two_id, b"registry of pi2")
            assert two.knocks[0] == one_id
            assert two.counts["streams_refused/stranger"] >= 1
            # What it says is for the driver, which takes a registry alone of it.
            two.strangers.clear()
            before = len(two.frames)
            one.streams.send(b"now", two_id)
            await eventually(lambda: (one_id, b"now") in two.frames[before:] or _again(one, two))

    asyncio.run(scenario())


def _again(one: End, two: End) -> bool:
    one.streams.send(b"now", two.who.node_id)
    return False


def test_nothing_but_our_registry_goes_to_who_is_not_in_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pair(tmp_path) as (one, two):
            one.strangers.add(two.who.node_id)
            one.streams.send(b"a secret", two.who.node_id)
            await eventually(lambda: one.unreachable)
            await eventually(lambda: two.frames)
            assert two.frames == [(one.who.node_id, b"registry of pi1")]
            assert one.counts["streams/registry_shown"] == 1

    asyncio.run(scenario())


def test_open_streams_end_when_the_registry_drops_the_peer(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pair(tmp_path) as (one, two):
            one.streams.send(b"x", two.who.node_id)
            two.streams.send(b"y", one.who.node_id)
            await eventually(lambda: one.frames and two.frames)
            one.streams.close_strangers()
            assert one.counts["streams/closed_as_strangers"] == 0
            one.strangers.add(two.who.node_id)
            one.streams.close_strangers()
            assert one.counts["streams/closed_as_strangers"] == 2, "the one dialled, and the other"
            await eventually(lambda: one.who.node_id in two.closed)
            await eventually(lambda: two.counts["streams/ended"] >= 1)

    asyncio.run(scenario())


def test_the_door_asks_the_registry_for_the_node_and_for_its_certificate() -> None:
    former, current = b"0" * SERIAL_BYTES, b"1" * SERIAL_BYTES
    entry = RegisteredNode(2, "bob", serials=(current,))
    registry = admit(found(bytes(16), RegisteredNode(1, "ada"), 4), entry)
    node = SimpleNamespace(state=SimpleNamespace(registry=registry))
    nothing = cast("Any", None)
    driver = Driver(cast("Node", node), nothing, nothing, {}, Counter(), nothing)
    assert driver.admits(ShownCertificate(2, current))
    assert not driver.admits(ShownCertificate(2, former)), "it was replaced"
    assert not driver.admits(ShownCertificate(1, current)), "it is somebody else's"
    assert not driver.admits(ShownCertificate(3, current))


def test_who_was_not_let_in_is_told_to_those_who_listen_and_fills_no_queue() -> None:
    nothing, told = cast("Any", None), list[object]()
    driver = Driver(nothing, nothing, nothing, {}, Counter(), nothing)
    driver.listen(told.append)
    queue, shown = driver.subscribe(), ShownCertificate(2, b"0" * SERIAL_BYTES)
    driver.knocked(shown, "10.0.0.9")
    refused = DatagramRefused(3, Address("10.0.0.9", 7747))
    driver._publish(refused)
    assert told == [StreamRefused(shown, "10.0.0.9"), refused]
    assert queue._queue.empty()
