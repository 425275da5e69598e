"""Writes that go on while something else happens, and whether anybody was accused meanwhile."""

import contextlib
import threading
from collections.abc import Iterator

from edge_apps.client import ClientError
from tests.live.harness.agents import AgentProcess


@contextlib.contextmanager
def traffic(agent: AgentProcess) -> Iterator[list[str]]:
    """Write keys as long as the block runs; give how each write went."""
    outcomes: list[str] = []
    over = threading.Event()

    def write() -> None:
        while not over.wait(0.05):
            key = f"/api/v1/kv/a{len(outcomes) % 50}"
            try:
                outcomes.append(agent.api.request("PUT", key, body=b"1").json()["outcome"])
            except ClientError as error:
                outcomes.append(str(error))

    writing = threading.Thread(target=write)
    writing.start()
    try:
        yield outcomes
    finally:
        over.set()
        writing.join()


def accused(agent: AgentProcess) -> list[str]:
    """Return where this agent's log says that a member is suspect or dead."""
    return [line for line in agent.log.splitlines() if " is suspect" in line or " is dead" in line]
