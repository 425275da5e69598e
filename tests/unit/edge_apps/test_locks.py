"""What a program is told of a lock or a barrier when nobody can say how it stands."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from agent.cli import lock as lock_command
from agent.exits import NO, UNHEALTHY, AgentError
from edge_apps import locks
from edge_apps.barriers import Barrier
from edge_apps.client import AgentUnreachable, ApiError, Response
from edge_apps.locks import RETRY_S_MAX, HeldSession, Lock, NotHeld, boot_time_s

OUTAGE = ApiError(503, "unhealthy", "unavailable: no majority of the voters could be reached")
TAKEN = {"token": 0, "position": 0}
ALONE = {"open": False, "inside": ["7"]}


class Agent:
    """Opens sessions, and answers everything else as a test says."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def request(self, method: str, path: str, **_: Any) -> Response:
        if path == "/api/v1/sessions":
            return answer({"session": "7", "sure_for_s": 3_000.0})
        if method == "DELETE":
            return answer({})
        told = self.answers.pop(0)
        if isinstance(told, Exception):
            raise told
        return answer(told)


def answer(body: Any) -> Response:
    return Response(200, {}, json.dumps(body).encode())


def lock(agent: Any, wait_s: float = 0.0) -> None:
    Lock(agent, "door", wait_s=wait_s, ttl_s=3_600.0).acquire()


def barrier(agent: Any, wait_s: float = 0.0) -> None:
    Barrier(agent, "start", 2, wait_s=wait_s, ttl_s=3_600.0).enter()


WAYS = pytest.mark.parametrize(("begin", "closed"), [(lock, TAKEN), (barrier, ALONE)])


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "AGAIN_S", 0.0)


@WAYS
@pytest.mark.parametrize("error", [OUTAGE, AgentUnreachable("the agent does not run")])
def test_nobody_is_said_to_have_it_when_nobody_knows(
    begin: Callable[..., None], closed: Any, error: Exception
) -> None:
    with pytest.raises(NotHeld, match="nobody could say") as refusal:
        begin(Agent(error))
    assert not refusal.value.is_taken
    with pytest.raises(NotHeld) as refusal:
        begin(Agent(closed))
    assert refusal.value.is_taken


@WAYS
def test_what_was_so_before_an_outage_is_not_said_to_be_so_after_it(
    begin: Callable[..., None], closed: Any
) -> None:
    agent = Agent(closed, *[OUTAGE] * 1_000)
    with pytest.raises(NotHeld, match="nobody could say") as refusal:
        begin(agent, wait_s=0.001)
    assert not refusal.value.is_taken


def test_a_command_that_somebody_else_is_believed_to_run_is_not_told_so() -> None:
    """A script that does nothing because another one does it would be wrong."""
    for told, status in ((TAKEN, NO), (OUTAGE, UNHEALTHY)):
        held = Lock(Agent(told), "door", wait_s=0.0)  # type: ignore[arg-type]
        with pytest.raises(AgentError) as refusal:
            lock_command._acquire(Quiet(), held)  # type: ignore[arg-type]
        assert refusal.value.status == status


class Quiet:
    quiet = True


def test_a_renewal_that_failed_is_tried_again_soon_however_long_the_session_lives() -> None:
    session = HeldSession(Agent(OUTAGE), ttl_s=86_400.0)  # type: ignore[arg-type]
    session._closing.set()
    assert session._renew_once() <= boot_time_s() + RETRY_S_MAX
