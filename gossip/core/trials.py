"""What is taken in from others is on trial until it has been taken in.

An event, a publication of facts, a value: each comes to every node. One that makes the code of its
receivers fail would end all agents, one after the other, and again after each start, for it is
still told. So whoever takes such a thing in says what it is, and has whoever runs the node note
that elsewhere before, and that it went well after. What was noted when a life ended is to blame for
that, and is not taken in again once it was to blame twice (``agent/runtime/probation.py``).

What is only about reachability (pings, suspicions) is not tried: it has no words in it.
"""

from collections.abc import Callable

OnTrial = Callable[[str, Callable[[], None]], bool]
"""``on_trial(what, take)`` calls ``take`` and says so, or does not because ``what`` is set aside.

``what`` begins with the kind ("event", "query", "member", "record"), then a blank and what tells it
from all others of its kind: the same words at every node that it comes to, and at every time."""


def trusted(_what: str, take: Callable[[], None]) -> bool:
    """Take everything in, as where nobody keeps notes."""
    take()
    return True
