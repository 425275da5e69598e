"""Clients that read, write and compare-and-set what devices agree on, and write down what happened.

What a client was told decides how its call stands in the history. "Unavailable" promises that
nothing was done, so such a call is left out, and a value of it that is read all the same is a lie
that the checker finds. "Indeterminate", or no answer at all, leaves a call open.
"""

import itertools
import random
import secrets
import threading
import time
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Self

from edge_apps.client import AgentUnreachable, ApiError, Client
from tests.live.harness.agents import AgentProcess
from tests.support.linearizability import Call, Model, Verdict, judge
from tests.support.sequential_models import Register

KEYS, MORE_MAX = 3, 4
ASK_S = 5.0
CLIENT_PATIENCE_S = 60.0
PAUSE_S = 0.1
NOT_FOUND, UNAVAILABLE, GAVE_UP = 404, 503, 504


class AgreementLoad:
    """Clients at work, each at one agent; use it as a context manager."""

    def __init__(self, agents: Iterable[AgentProcess], clients_each: int = 2) -> None:
        self.history: list[Call] = []
        folder = secrets.token_hex(4)
        self._keys = [f"load/{folder}/{number}" for number in range(KEYS)]  # nobody wrote there yet
        self._is_over = threading.Event()
        self._numbers = itertools.count(1)
        seats = [(agent, number) for agent in agents for number in range(clients_each)]
        self._pool = ThreadPoolExecutor(len(seats) + MORE_MAX)
        self._work = [
            self._pool.submit(self._ask_on, agent, f"{agent.name}-{number}")
            for agent, number in seats
        ]

    def ask_more(self, agent: AgentProcess) -> None:
        """Have one more client ask an agent, from now on."""
        name = f"{agent.name}-more-{next(self._numbers)}"
        self._work.append(self._pool.submit(self._ask_on, agent, name))

    def answered_since(self, moment: float, *, by: str = "") -> list[Call]:
        """Return the writes that were asked after a moment, and acknowledged; ``by`` one agent."""
        return [
            call
            for call in list(self.history)
            if call.called_at > moment
            and not call.is_open
            and call.request[0] == "write"  # type: ignore[index]
            and call.client.startswith(by)
        ]

    def check(self) -> None:
        """Fail unless the history can have happened one call after the other."""
        check(self.history, Register())

    def _ask_on(self, agent: AgentProcess, client: str) -> None:
        rng = random.Random(client)
        api = Client(agent.directory / "covey.sock", timeout_s=CLIENT_PATIENCE_S)
        seen: dict[str, str | None] = dict.fromkeys(self._keys)
        while not self._is_over.is_set():
            key = rng.choice(self._keys)
            request = self._request(rng, seen[key])
            call = call_of(client, key, request, partial(_ask, api, key, request))
            if call is not None:
                self.history.append(call)
                if call.request == ("read",) and not call.is_open:
                    seen[key] = call.answer  # type: ignore[assignment]
            time.sleep(PAUSE_S)

    def _request(self, rng: random.Random, seen: str | None) -> tuple[str, ...]:
        value = f"v{next(self._numbers)}"
        match rng.randrange(4):
            case 0 | 1:
                return ("read",)
            case 2 if seen is not None:
                return ("swap", seen, value)
        return ("write", value)

    def __enter__(self) -> Self:
        """Return the load itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop asking; raise what a client did not expect."""
        self._is_over.set()
        self._pool.shutdown()
        for each in self._work:
            each.result()


def call_of(
    client: str, key: str, request: tuple[Hashable, ...], ask: Callable[[], Hashable]
) -> Call | None:
    """Ask, and return what is known of it; None if it certainly did not happen."""
    called_at = time.monotonic()
    try:
        answer = ask()
    except ApiError as error:
        if error.status not in (UNAVAILABLE, GAVE_UP):
            raise
        is_known = error.status == UNAVAILABLE and "indeterminate" not in error.message
        return None if is_known else Call(client, key, request, None, called_at)
    except AgentUnreachable as error:
        return Call(client, key, request, None, called_at) if error.was_asked else None
    return Call(client, key, request, answer, called_at, time.monotonic())


def check(history: list[Call], model: Model) -> None:
    """Fail unless a history can have happened one call after the other."""
    wrong = [str(e) for e in judge(history, model) if e.verdict is not Verdict.LINEARIZABLE]
    told = sum(not call.is_open for call in history)
    print(f"{len(history)} calls, {told} of them answered")
    assert not wrong, "\n".join(wrong)


def _ask(api: Client, key: str, request: tuple[str, ...]) -> Any:
    """Return the answer as the model has it. Raises ClientError."""
    if request == ("read",):
        try:
            return api.get(f"/api/v1/control/{key}", timeout=ASK_S)["value"]
        except ApiError as error:
            if error.status == NOT_FOUND:
                return None
            raise
    body: dict[str, Any] = {"then": [{"put": key, "value": request[-1]}]}
    if request[0] == "swap":
        body["compare"] = [{"key": key, "operand": request[1]}]
    done = api.request("POST", "/api/v1/txn", query={"timeout": ASK_S}, json=body).json()
    return done["succeeded"] if request[0] == "swap" else "ok"
