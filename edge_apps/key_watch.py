"""Watches of shared keys, as apps have them: changes one by one, over breaks of the connection.

The agent gives a token now and then: all changes before it have been told. After a break this goes
on from the last one, so a change may come twice, and none is missed without being said.
"""

import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from edge_apps.client import AgentTimedOut, AgentUnreachable, Client

RETRY_S = 1.0
PATH = "/api/v1/watch"


class KeyChange(NamedTuple):
    """What happened to a key: ``kind`` is "put", "delete", or "gap" for changes that nobody knows.

    After a gap read what there is: ``key`` is empty.
    """

    kind: str
    key: str
    values: tuple[bytes, ...]
    """All versions that the key has now, the newest first; none after a delete."""
    token: str
    """From here on ``since`` goes on; some changes before this one may then come again."""

    @property
    def value(self) -> bytes | None:
        """The newest value; None after a delete."""
        return self.values[0] if self.values else None


class KeyWatch:
    """The changes of a key, or of all keys with a prefix: iterate over it."""

    def __init__(
        self,
        client: Client,
        subject: dict[str, str],
        since: str,
        idle_s: float | None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client, self._subject, self._idle_s, self._wait = client, subject, idle_s, wait
        self._token = since

    def __iter__(self) -> Iterator[KeyChange]:
        """Yield changes. Ends when none came for ``idle_s``. Raises ApiError."""
        while True:
            try:
                yield from self._once()
            except AgentTimedOut:
                if self._idle_s is not None:
                    return
            except AgentUnreachable:
                pass  # it starts anew, or is cut off: what happened meanwhile is told then
            self._wait(RETRY_S)

    def _once(self) -> Iterator[KeyChange]:
        asked = {"since": self._token} if self._token else {}
        for told in self._client.stream(
            PATH, query=self._subject, json=asked, idle_timeout_s=self._idle_s
        ):
            match told.get("kind"):
                case "mark":
                    self._token = told["token"]
                case "put" | "delete" | "gap" as kind:
                    values = tuple(_bytes_of(value) for value in told.get("values", ()))
                    yield KeyChange(kind, told.get("key", ""), values, self._token)


def _bytes_of(value: dict[str, Any]) -> bytes:
    text = value.get("value")
    return b64decode(value["value_base64"]) if text is None else str(text).encode()
