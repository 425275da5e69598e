"""What waits for the control plane, when the agent ends under it."""

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from agent.exits import AgentError
from agent.runtime.control_requests import ControlRequests
from gossip.control.commands import Transact
from gossip.control.requests import ControlWrite


def test_a_command_that_is_under_way_at_the_end_is_not_said_to_be_undone() -> None:
    """It was sent to a leader: its entry may count long after this agent is gone."""

    async def scenario() -> None:
        plane = SimpleNamespace(submit=lambda _request, _now: 7)

        def on_plane(action: Any) -> Any:
            return action(plane, 0.0)

        requests = ControlRequests(on_plane, lambda: 0.0, Counter())
        waiting = asyncio.create_task(requests.request(ControlWrite(Transact((), ()))))
        await asyncio.sleep(0)
        requests.fail(AgentError("the disk failed"), AgentError("indeterminate: the disk failed"))
        with pytest.raises(AgentError, match="indeterminate"):
            await waiting

    asyncio.run(scenario())
