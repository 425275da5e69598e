"""Writes down what a request changes: who asked, from where, for what, and what came of it."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from agent.access.caller import Caller
from agent.api.interfaces import AgentServices
from agent.api.refusals import attempt_of
from agent.exits import AgentError
from agent.http.request import Request

NOTE = "covey.note"
"""In the scope of a request: what it changes, in a few words."""


QUOTER = json.JSONEncoder(ensure_ascii=False)
NAME_HEAD, NAME_TAIL = 32, 16
"""So much of a long name is shown; what it begins and ends with."""


def note_names(request: Request, names: Iterable[str]) -> None:
    """Say which names a request changes: each once, quoted, so that no two look like one."""
    note(
        request,
        " ".join(QUOTER.encode(_short(name)) for name in dict.fromkeys(names)),
    )


def _short(name: str) -> str:
    is_long = len(name) > NAME_HEAD + NAME_TAIL + 1
    return f"{name[:NAME_HEAD]}…{name[-NAME_TAIL:]}" if is_long else name


def note(request: Request, words: str) -> None:
    """Say what a request changes: names, and never a value or a secret."""
    request.scope[NOTE] = words


@contextmanager
def written_down(request: Request, caller: Caller) -> Iterator[None]:
    """Write the change down when it is over, however it ended. A stream has begun by then."""
    agent: AgentServices = request.app.state.agent
    outcome = "cut off"
    try:
        yield
        outcome = "ok"
    except AgentError as error:
        outcome = error.code
        raise
    except Exception:
        outcome = "failed"
        raise
    finally:
        attempt = attempt_of(caller.who, request.scope)
        words = request.scope.get(NOTE, "")
        agent.audit.change(caller.who, attempt.source, attempt.action, outcome, words)
