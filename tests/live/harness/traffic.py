"""Writes that go on while something else happens, and whether anybody was lost meanwhile."""

import contextlib
import threading
from collections.abc import Iterator

from edge_apps.client import ClientError
from tests.live.harness.agents import AgentProcess

WRITTEN_S = 60.0
"""What is on its way meanwhile is to come through; how fast, a busy machine decides."""


@contextlib.contextmanager
def traffic(agent: AgentProcess) -> Iterator[list[str]]:
    """Write keys as long as the block runs; give how each write went."""
    outcomes: list[str] = []
    over = threading.Event()

    def write() -> None:
        while not over.wait(0.05):
            key = f"/api/v1/kv/a{len(outcomes) % 50}"
            try:
                answer = agent.api.request("PUT", key, query={"timeout": WRITTEN_S}, body=b"1")
                outcomes.append(answer.json()["outcome"])
            except ClientError as error:
                outcomes.append(str(error))

    writing = threading.Thread(target=write)
    writing.start()
    try:
        yield outcomes
    finally:
        over.set()
        writing.join()


def buried(agent: AgentProcess) -> list[str]:
    """Return where this agent's log says that a member is dead.

    Whoever gets no time on a busy machine is suspected every now and then, and clears that up.
    """
    return [line for line in agent.log.splitlines() if " is dead" in line]
