"""Waiting for something to become true, with a failure that says what was seen instead.

A live test states a promise ("within 10 s the others show it dead"), and what it really took is
printed beside it. Whether a promise about time is kept is what the benchmarks measure: a test ends
when something comes true, and gives up only when a machine that is merely busy would have been
done long ago.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from tests.support.patience import GIVE_UP_S

PATIENCE = 4.0
"""So many times a promise are waited for, where that is longer."""
POLL_S = 0.1

T = TypeVar("T")


class NeverHappenedError(AssertionError):
    """The condition did not come true in time; the message has the last thing seen."""


def patience_s(promised_s: float) -> float:
    """Return after how long a test no longer believes that it is only the machine."""
    return max(GIVE_UP_S, promised_s * PATIENCE)


def insist(ask: Callable[[], T], what: str) -> T:
    """Ask until there is an answer, and return it.

    For what is no test of its own: an election, or an owner that is late, refuses it any time.
    """
    return eventually(ask, lambda _: True, 0.0, what)


def eventually(
    look: Callable[[], T],
    accept: Callable[[T], bool],
    within_s: float,
    what: str,
) -> T:
    """Look until ``accept`` is true of what is seen, and return that.

    Errors while looking count as "not yet": an agent that starts refuses connections.
    Prints how long it took. Raises NeverHappenedError after ``patience_s(within_s)``.
    """
    started = time.monotonic()
    seen: object = "nothing"
    while True:
        try:
            latest = look()
            seen = latest
            if accept(latest):
                print(f"{what}: {time.monotonic() - started:.1f} s (promised: {within_s:g} s)")
                return latest
        except Exception as error:  # noqa: BLE001 - whatever it was, it is shown at the end
            seen = error
        if time.monotonic() - started > patience_s(within_s):
            raise NeverHappenedError(
                f"{what}: not within {patience_s(within_s):g} s; last seen: {seen!r}"
            )
        time.sleep(POLL_S)
