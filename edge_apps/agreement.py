"""Transactions of the covey's control plane, for apps: compare keys, and change them together.

Small facts that all devices must agree on: who is in charge, which version is wanted, how far
something has come. A majority of the covey's voters has a change on its disks before ``transact``
returns. The names that an app uses are its own: the agent keeps them under ``apps/NAME/``, where
the same app on all devices finds them, and no other app does.
"""

import base64
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from edge_apps.barriers import Barrier
from edge_apps.client import Client
from edge_apps.locks import LOCK_DELAY_S, TTL_S, Lock

Field = Literal["value", "version", "created", "modified", "token", "count"]
Relation = Literal["=", "!=", "<", ">"]


class Compare(NamedTuple):
    """One comparison of what is there with an operand: ``Compare("door", "version", "=", 0)``.

    The version counts writes, 0 says that there is no such key. ``value`` is compared with text or
    bytes, everything else with a number; ``token`` is that of the lock of this name, and compared
    by = and != alone.
    """

    key: str
    field: Field
    relation: Relation
    operand: int | str | bytes


class Put(NamedTuple):
    """Write a value; text travels as UTF-8."""

    key: str
    value: str | bytes


class Get(NamedTuple):
    """Read a key; with ``is_prefix``, all keys that begin so."""

    key: str
    is_prefix: bool = False


class Delete(NamedTuple):
    """Delete a key; with ``is_prefix``, all keys that begin so."""

    key: str
    is_prefix: bool = False


Operation = Put | Get | Delete


class Entry(NamedTuple):
    """A key as it is: ``version`` counts its writes, ``modified`` is the revision of the last."""

    key: str
    value: bytes
    version: int
    modified: int


class Outcome(NamedTuple):
    """What became of a transaction: whether all comparisons held, and what was read, in order."""

    succeeded: bool
    revision: int
    read: list[Entry]


class AgentAgreement:
    """The control plane, through the agent's HTTP API. ``prefix`` stands before all names."""

    def __init__(self, client: Client, prefix: str) -> None:
        self._client, self._prefix = client, prefix

    def lock(
        self,
        name: str,
        *,
        ttl_s: float = TTL_S,
        wait_s: float | None = None,
        permits: int = 1,
        value: str = "",
        lock_delay_s: float = LOCK_DELAY_S,
    ) -> Lock:
        """Return a lock for a ``with`` statement; see ``edge_apps/locks.py``."""
        return Lock(
            self._client,
            self._prefix + name,
            ttl_s=ttl_s,
            wait_s=wait_s,
            permits=permits,
            value=value,
            lock_delay_s=lock_delay_s,
        )

    def barrier(
        self, name: str, count: int, *, ttl_s: float = TTL_S, wait_s: float | None = None
    ) -> Barrier:
        """Return a barrier for a ``with`` statement; see ``edge_apps/barriers.py``."""
        return Barrier(self._client, self._prefix + name, count, ttl_s=ttl_s, wait_s=wait_s)

    def transact(
        self,
        compare: Sequence[Compare] = (),
        then: Sequence[Operation] = (),
        otherwise: Sequence[Operation] = (),
    ) -> Outcome:
        """Do ``then`` if all comparisons hold, else ``otherwise``: all of it or nothing.

        Raises AgentUnreachable, or ApiError: with code ``unhealthy`` nothing was done, or nobody
        knows, as its message says.
        """
        asked = {
            "compare": [self._compare(each) for each in compare],
            "then": [self._operation(each) for each in then],
            "else": [self._operation(each) for each in otherwise],
        }
        answer = self._client.request("POST", "/api/v1/txn", json=asked, timeout_s=15.0).json()
        read = [self._entry(e) for result in answer["results"] for e in result.get("entries", ())]
        return Outcome(answer["succeeded"], answer["revision"], read)

    def _compare(self, compare: Compare) -> dict[str, Any]:
        operand: dict[str, Any] = {"operand": compare.operand}
        if compare.field == "value":
            operand = _as_json(compare.operand, "operand")
        told = {"key": self._prefix + compare.key, "field": compare.field}
        return {**told, "relation": compare.relation, **operand}

    def _operation(self, operation: Operation) -> dict[str, Any]:
        key = self._prefix + operation.key
        match operation:
            case Put(value=value):
                return {"put": key, **_as_json(value, "value")}
            case Get(is_prefix=is_prefix):
                return {"range" if is_prefix else "get": key}
            case Delete(is_prefix=is_prefix):
                return {"delete_prefix" if is_prefix else "delete": key}

    def _entry(self, told: dict[str, Any]) -> Entry:
        packed = told.get("value_base64")
        value = told["value"].encode() if packed is None else base64.b64decode(packed)
        key = told["key"].removeprefix(self._prefix)
        return Entry(key, value, told["version"], told["modified"])


def _as_json(value: str | bytes | int, name: str) -> dict[str, str]:
    if isinstance(value, bytes):
        return {f"{name}_base64": base64.b64encode(value).decode()}
    return {name: str(value)}
