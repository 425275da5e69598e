"""Agents' files without agents: real stores and transfers, on one loop, over wires that are cut.

The shared keys are one dictionary for all, which answers at once: what becomes of records is tested
in ``gossip/kv``. Frames are bytes, as on streams.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

from agent.blocks.service import BlockService
from agent.config.settings import FileSettings
from gossip.core.ids import NodeId
from gossip.kv.records import Record, Version
from gossip.kv.requests import (
    Delete,
    Get,
    GetResult,
    List,
    ListEntry,
    ListResult,
    Put,
    PutResult,
    Value,
)
from gossip.registry.ownership import Ownership
from gossip.registry.placement import partition_of

PARTITIONS = 8


class SharedKeys:
    """What all nodes read and write."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.stamps = itertools.count(1)
        self.refused: set[str] = set()
        """Beginnings of keys whose writes end as indeterminate."""

    def answer(self, request: object) -> object:
        match request:
            case Put(key=key, value=value):
                if key.startswith(tuple(self.refused)):
                    return PutResult("indeterminate", 1, 2, b"")
                self.values[key] = value
                return PutResult("ok", 2, 2, b"")
            case Delete(key=key):
                self.values.pop(key, None)
                return PutResult("ok", 2, 2, b"")
            case Get(key=key):
                values = (self._value(key),) if key in self.values else ()
                return GetResult(values, b"", 2, 2, "ok")
            case List(prefix=prefix, after=after, limit=limit):
                keys = sorted(k for k in self.values if k.startswith(prefix) and k > after)
                entries = tuple(ListEntry(key, (self._value(key),)) for key in keys[:limit])
                return ListResult(entries, keys[limit - 1] if len(keys) > limit else "", "ok")
        raise AssertionError(request)

    def _value(self, key: str) -> Value:
        return Value(self.values[key], next(self.stamps), (1, 1))


class BlockNet:
    """Some nodes with their files, in directories of their own."""

    def __init__(
        self, folder: Path, names: Iterable[NodeId] = (1, 2, 3), copies: int = 3, **settings: int
    ) -> None:
        self.keys = SharedKeys()
        self.cut: set[NodeId] = set()
        """Who neither hears nor says anything."""
        self.gone: set[NodeId] = set()
        """Whom all believe to be dead."""
        self.ids = tuple(names)
        self.copies = copies
        self.frames = 0
        self.now = 0.0
        """What the clock of all nodes shows."""
        self.incomplete: set[NodeId] = set()
        """Whose copies of the records may lack some."""
        self.services: dict[NodeId, BlockService] = {}
        for node in self.ids:
            service = BlockService(self._driver(node), folder / str(node), FileSettings(**settings))
            self.services[node] = service

    async def __aenter__(self) -> Self:
        for service in self.services.values():
            await service.store.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        for service in self.services.values():
            await service.stop()

    def owners(self, key: str) -> tuple[NodeId, ...]:
        """Return who owns a key: those that follow each other from some node on."""
        return self._owners(partition_of(key, PARTITIONS))

    def _owners(self, first: int) -> tuple[NodeId, ...]:
        return tuple(self.ids[(first + n) % len(self.ids)] for n in range(self.copies))

    def _driver(self, me: NodeId) -> Any:
        async def request(asked: object) -> object:
            await asyncio.sleep(0)
            return self.keys.answer(asked)

        registry = SimpleNamespace(
            ids=lambda: self.ids,
            epoch=1,
            partitions=PARTITIONS,
            partition_of=lambda key: partition_of(key, PARTITIONS),
            owners_of=self.owners,
            ownership_of=lambda key: Ownership(self.owners(key), 1, 1),
            ownership=lambda partition: Ownership(self._owners(partition), 1, 1),
            table=[Ownership(self._owners(p), 1, 1) for p in range(PARTITIONS)],
        )
        replica = SimpleNamespace(
            digest=lambda partition: hash(tuple(self._records(partition))),
            is_complete=lambda _partition, _registry: me not in self.incomplete,
            scan=self._scan,
        )
        swim = SimpleNamespace(
            reachable_first=lambda nodes: sorted(nodes, key=lambda n: (n != me, n)),
            is_gone=lambda node: node in self.gone,
        )
        node = SimpleNamespace(
            settings=SimpleNamespace(me=me),
            swim=swim,
            state=SimpleNamespace(registry=registry, replica=replica),
        )
        return SimpleNamespace(
            node=node,
            request=request,
            send_frame=lambda data, to: self._send(data, me, to),
            waiting_bytes=lambda _to: 0,
            now=lambda: self.now,
        )

    def _records(self, partition: int) -> list[tuple[str, bytes]]:
        found = sorted(self.keys.values.items())
        return [each for each in found if partition_of(each[0], PARTITIONS) == partition]

    def _scan(
        self, partition: int, prefix: str, after: str, limit: int
    ) -> list[tuple[str, Record]]:
        found = [
            (key, Record((Version(1, 1, 1, value),)))
            for key, value in self._records(partition)
            if key.startswith(prefix) and key > after
        ]
        return found[:limit]

    def _send(self, data: bytes, sender: NodeId, to: NodeId) -> None:
        self.frames += 1
        if not self.cut.intersection((sender, to)):
            service = self.services[to]
            asyncio.get_running_loop().call_soon(service.receive_frame, data, sender)


async def parts_of(data: bytes, size_bytes: int = 300_000) -> AsyncIterator[bytes]:
    """Yield bytes as a client sends them."""
    for at in range(0, len(data), size_bytes):
        yield data[at : at + size_bytes]


async def all_of(parts: AsyncIterator[bytes]) -> bytes:
    """Return all that comes."""
    return b"".join([part async for part in parts])
