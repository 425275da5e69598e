"""Who asks: where a gate has put it, for whoever answers."""

from agent.access.caller import Caller
from agent.http.request import Request

CALLER = "covey.caller"
"""In the scope of a request: who asks."""

NOBODY = Caller("nobody", frozenset())


def caller_of(request: Request) -> Caller:
    """Return who asks."""
    caller: Caller = request.scope.get(CALLER, NOBODY)
    return caller
