"""Clients that take one lock from each other, and write down the tokens that they were given.

Whoever does not know whether it holds a lock lets it be: all go on to the next one. Nobody renews a
session, and each lasts for longer than the test.
"""

import itertools
import random
import secrets
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Self

from edge_apps.client import Client, ClientError
from tests.live.harness.agents import AgentProcess
from tests.live.harness.agreement_load import CLIENT_PATIENCE_S, PAUSE_S, call_of, check
from tests.support.linearizability import Call
from tests.support.sequential_models import TokenLock

SESSION_S = 600.0


class LockLoad:
    """Clients at work, one at each agent; use it as a context manager."""

    def __init__(self, agents: Iterable[AgentProcess]) -> None:
        self.history: list[Call] = []
        folder = secrets.token_hex(4)
        self._names = (f"load/{folder}/{number}" for number in itertools.count())
        self._lock = next(self._names)
        self._is_over = threading.Event()
        seats = list(agents)
        self._pool = ThreadPoolExecutor(len(seats))
        self._work = [self._pool.submit(self._take_turns, agent) for agent in seats]

    def check(self) -> None:
        """Fail unless two never held a lock at once, and each token was above those before it."""
        check(self.history, TokenLock())
        assert any(call.answer for call in self.history), "somebody held it"

    def _take_turns(self, agent: AgentProcess) -> None:
        api = Client(agent.directory / "covey.sock", timeout_s=CLIENT_PATIENCE_S)
        session, held = "", dict[str, int]()
        rng = random.Random(agent.name)
        while not self._is_over.wait(PAUSE_S * rng.random()):
            session = session or _opened(api, agent.name)
            if not session:
                continue
            name = self._lock
            if name in held:
                asked = partial(_let_go, api, name, session)
                call = call_of(agent.name, name, ("unlock", held[name]), asked)
            else:
                call = call_of(agent.name, name, ("lock",), partial(_take, api, name, session))
            if call is None:
                continue
            self.history.append(call)
            held.pop(name, None)
            if call.is_open:
                self._lock = next(self._names)
            elif call.request == ("lock",) and isinstance(call.answer, int):
                held[name] = call.answer

    def __enter__(self) -> Self:
        """Return the load itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop asking; raise what a client did not expect."""
        self._is_over.set()
        self._pool.shutdown()
        for each in self._work:
            each.result()


def _opened(api: Client, label: str) -> str:
    """Open a session; return nothing if that cannot be done now."""
    terms = {"ttl_s": SESSION_S, "lock_delay_s": 0.0, "label": label}
    try:
        return str(api.post("/api/v1/sessions", terms)["session"])
    except ClientError:
        time.sleep(PAUSE_S)
        return ""


def _take(api: Client, name: str, session: str) -> int | None:
    asked = {"session": session, "permits": 1, "value": "", "wait_s": 0}
    return int(api.request("PUT", f"/api/v1/locks/{name}", json=asked).json()["token"]) or None


def _let_go(api: Client, name: str, session: str) -> bool:
    answer = api.request("DELETE", f"/api/v1/locks/{name}", query={"session": session})
    return bool(answer.json()["held"])
