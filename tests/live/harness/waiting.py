"""Waiting for something to become true, with a failure that says what was seen instead.

A live test states a promise ("within 10 s the others show it dead"). On a busy machine with two
cores the promise is given ``PATIENCE`` times as long before the test calls it broken; what it
really took is printed.
"""

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE = 2.0
POLL_S = 0.1

T = TypeVar("T")


class NeverHappenedError(AssertionError):
    """The condition did not come true in time; the message has the last thing seen."""


def eventually(
    look: Callable[[], T],
    accept: Callable[[T], bool],
    within_s: float,
    what: str,
) -> T:
    """Look until ``accept`` is true of what is seen, and return that.

    Errors while looking count as "not yet": an agent that starts refuses connections.
    Prints how long it took. Raises NeverHappenedError after ``within_s`` times PATIENCE.
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
        if time.monotonic() - started > within_s * PATIENCE:
            raise NeverHappenedError(f"{what}: not within {within_s:g} s; last seen: {seen!r}")
        time.sleep(POLL_S)
