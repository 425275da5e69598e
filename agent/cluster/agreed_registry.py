"""The registry and the tokens, as a majority has agreed on them: read, and changed by who may.

What a change says, and when it is declined, is in ``gossip/control/registry_table.py``. This turns
answers of the control plane into what an issuer goes on with: it is done, somebody was faster, or
an error for people.
"""

from collections.abc import Mapping
from typing import NamedTuple

from agent.exits import UNHEALTHY, AgentError
from agent.runtime.driver import Driver
from gossip.control.commands import ChangeRegistry
from gossip.control.lookups import ReadRegistry, RegistryResult
from gossip.control.outcomes import CONFLICT, Declined
from gossip.control.registry_table import TokenEntry
from gossip.control.requests import (
    ControlRead,
    ControlWrite,
    IndeterminateResult,
    UnavailableResult,
)

READ_S, CHANGE_S = 3.0, 5.0
"""Whoever waits for an issuer's answer asks the next one after ``server.RELAY_S``."""


class AgreedState(NamedTuple):
    """The registry and the tokens at one revision; ``signed`` is empty while there is none."""

    signed: bytes
    mark: bytes
    tokens: Mapping[bytes, TokenEntry]


class ConflictError(AgentError):
    """Somebody else changed what the change was made from; nothing of it was done."""


class NoMajorityError(AgentError):
    """Nothing was done, for no majority of the voters could be reached."""


class UnsureError(AgentError):
    """The change was sent, and nobody answered: it may be done yet, or not."""


class AgreedRegistry:
    """Reads and changes the registry in the log."""

    def __init__(self, driver: Driver) -> None:
        self._calls = driver.control

    async def read(self, *, stale: bool = False) -> AgreedState:
        """Return what is agreed; ``stale``: as far as this node's own copy has come.

        Raises NoMajorityError.
        """
        done = await self._calls.request(ControlRead(ReadRegistry(), stale, READ_S))
        if isinstance(done.result, UnavailableResult | IndeterminateResult):
            raise _without_majority(done.result.reason)
        found = done.result
        assert isinstance(found, RegistryResult), "each request has its own kind of result"
        return AgreedState(found.registry, found.mark, {each.id: each for each in found.tokens})

    async def change(self, change: ChangeRegistry) -> None:
        """Have a change agreed on.

        Raises ConflictError, NoMajorityError, UnsureError, and AgentError.
        """
        result: object = (await self._calls.request(ControlWrite(change, CHANGE_S))).result
        match result:
            case UnavailableResult(reason=reason):
                raise _without_majority(reason)
            case IndeterminateResult(reason=reason):
                raise UnsureError(f"nobody knows whether it was done: {reason}", "", UNHEALTHY)
            case Declined(code=code, reason=reason):
                message, _, hint = reason.partition("; ")
                kind = ConflictError if code == CONFLICT else AgentError
                raise kind(f"{message}; nothing was changed.", hint, UNHEALTHY)


def _without_majority(reason: str) -> NoMajorityError:
    """Say that nothing was done, what still works, and what to do."""
    message, _, hint = reason.partition(". ")
    return NoMajorityError(f"{message}.", hint, UNHEALTHY)
