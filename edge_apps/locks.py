"""Locks of the covey, held by a program as long as it can be sure of them.

A lock is held through a session with a time to live. A thread renews the session at a third of
that time. Whether it is still there is known without asking anybody: an answer says for how long
the session is sure to live, and that is counted from before the question was *sent*, on a clock
that goes on while the device sleeps. So ``lost`` becomes true before anybody else can get the lock,
also in a process that was stopped for an hour and has just been woken.

What no clock can promise: that a write which was sent before ``lost`` became true arrives before it
did. Whatever the lock protects should be shown ``token``, and refuse a smaller one than the largest
it has seen; ``Compare`` of a transaction does so for keys.
"""

import contextlib
import threading
import time
from typing import Any, Self

from edge_apps.client import AgentUnreachable, ApiError, Client, ClientError, Query

TTL_S, LOCK_DELAY_S = 15.0, 15.0
RENEWALS_PER_TTL = 3
RETRY_SHARE, RETRY_S_MAX = 0.1, 2.0
"""A renewal that failed is tried again after this share of the time to live, so long at most."""
LOOK_S = 1.0
"""How often at least a waiting thread looks at the clock: its own wait stands still in suspend."""
ASK_S, EXTRA_S = 20.0, 25.0
"""How long one question for a lock waits, and how much longer its answer may take: the voters may
be electing a leader first."""
AGAIN_S = 1.0
CLOSE_S = 3.0
"""How long letting go may take: what is not let go ends with its time to live."""
LOST_CODES = frozenset({"not-found", "usage", "not-permitted"})


class NotHeld(ClientError):
    """The lock was not to be had in time, or nobody knows, or the session was lost meanwhile."""

    def __init__(self, message: str, hint: str = "", *, is_taken: bool = False) -> None:
        super().__init__(message, hint)
        self.is_taken = is_taken
        """Whether an answer said so: others have the lock, or too few are inside the barrier."""


def not_known(what: str) -> NotHeld:
    """Return what to raise when the time is over and the last question was not answered."""
    return NotHeld(
        f"nobody could say {what}: the agent or most voters did not answer in time",
        "see `covey voters`, and try again",
    )


def boot_time_s() -> float:
    """Return seconds on the clock that goes on during suspend."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class HeldSession:
    """A session that is renewed in the background until ``close``, or until it is lost.

    Raises ClientError when it cannot be opened.
    """

    def __init__(
        self,
        client: Client,
        *,
        ttl_s: float = TTL_S,
        lock_delay_s: float = LOCK_DELAY_S,
        label: str = "",
    ) -> None:
        self._client, self.ttl_s = client, ttl_s
        self._sent_at = boot_time_s()
        wish = {"ttl_s": ttl_s, "lock_delay_s": lock_delay_s, "label": label}
        answer = client.request(
            "POST", "/api/v1/sessions", json=wish, timeout_s=ttl_s + EXTRA_S
        ).json()
        self.id: str = answer["session"]
        self._sure_until = self._sent_at + answer["sure_for_s"]
        self._has_ended = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="session", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> bool:
        """Whether the session is gone, or may be: who relies on it must stop."""
        return self._has_ended or boot_time_s() >= self._sure_until

    @property
    def sure_for_s(self) -> float:
        """For how long from now on the session is sure to be there, if nothing more is heard."""
        return 0.0 if self._has_ended else max(0.0, self._sure_until - boot_time_s())

    def ask(
        self,
        method: str,
        path: str,
        wait_s: float,
        *,
        query: Query | None = None,
        json: dict[str, Any] | None = None,
    ) -> dict[str, Any] | None:
        """Ask for what this session may hold, and wait for it, so long at most.

        Returns the answer; None if it is not known what became of it. Asking again does no harm.
        Raises ApiError for what was refused.
        """
        try:
            answer = self._client.request(
                method, path, query=query, json=json, timeout_s=wait_s + EXTRA_S
            )
        except ApiError as error:
            if error.code != "unhealthy":
                raise
        except AgentUnreachable:
            pass
        else:
            stands: dict[str, Any] = answer.json()
            return stands
        time.sleep(min(AGAIN_S, self.sure_for_s))
        return None

    def close(self) -> None:
        """End the session: what it holds is free at once, if the agent can be reached."""
        self._closing.set()
        self._has_ended = True
        with contextlib.suppress(ClientError):
            path = f"/api/v1/sessions/{self.id}"
            self._client.request("DELETE", path, timeout_s=CLOSE_S)

    def _renew(self) -> None:
        renew_at = self._sent_at + self.ttl_s / RENEWALS_PER_TTL
        while not self.lost:
            left_s = min(renew_at, self._sure_until) - boot_time_s()
            if left_s > 0:
                if self._closing.wait(min(LOOK_S, left_s)):
                    return
                continue
            renew_at = self._renew_once()

    def _renew_once(self) -> float:
        """Ask once; return when to ask again."""
        sent_at, retry_s = boot_time_s(), min(self.ttl_s * RETRY_SHARE, RETRY_S_MAX)
        try:
            answer = self._client.request(
                "PUT", f"/api/v1/sessions/{self.id}", timeout_s=max(0.1, self.sure_for_s)
            ).json()
        except ApiError as error:
            self._has_ended = self._has_ended or error.code in LOST_CODES
            return sent_at + retry_s
        except ClientError:
            return sent_at + retry_s
        self._sure_until = max(self._sure_until, sent_at + answer["sure_for_s"])
        return sent_at + self.ttl_s / RENEWALS_PER_TTL


class Lock:
    """A lock of the covey, for a ``with`` statement; see the text of this file.

    ``wait_s`` None waits for ever, 0 not at all. ``value`` is what everybody sees of its holder.
    Entering raises NotHeld, or another ClientError.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        *,
        ttl_s: float = TTL_S,
        wait_s: float | None = None,
        permits: int = 1,
        value: str = "",
        lock_delay_s: float = LOCK_DELAY_S,
    ) -> None:
        self._client, self.name = client, name
        self.wait_s = wait_s
        self._ttl_s, self._lock_delay_s = ttl_s, lock_delay_s
        self._permits, self._value = permits, value
        self.session: HeldSession | None = None
        self.token = 0
        """The fencing token while it is held; it grows with each holder."""

    @property
    def lost(self) -> bool:
        """Whether the lock is not held, or may not be: stop what it protects."""
        return not self.token or self.session is None or self.session.lost

    def acquire(self) -> int:
        """Take the lock; return its token. Raises NotHeld, or another ClientError."""
        label = f"lock {self.name}"[:200]
        self.session = HeldSession(
            self._client, ttl_s=self._ttl_s, lock_delay_s=self._lock_delay_s, label=label
        )
        try:
            self.token = self._wait(self.session)
        except BaseException:
            self.release()
            raise
        return self.token

    def release(self) -> None:
        """Let go of the lock; harmless when it is not held."""
        session, self.session, self.token = self.session, None, 0
        if session is not None:
            session.close()

    def _wait(self, session: HeldSession) -> int:
        give_up = None if self.wait_s is None else boot_time_s() + self.wait_s
        while not session.lost:
            left_s = ASK_S if give_up is None else max(0.0, give_up - boot_time_s())
            stands = self._ask(session, min(ASK_S, left_s))
            if stands and stands["token"]:
                token: int = stands["token"]
                return token
            if left_s <= 0 and stands is None:
                raise not_known(f"whether lock {self.name!r} is held by somebody else")
            if left_s <= 0:
                raise NotHeld(f"lock {self.name!r} is held by somebody else", is_taken=True)
        raise NotHeld(
            f"the session was lost while it waited for lock {self.name!r}", "see `covey voters`"
        )

    def _ask(self, session: HeldSession, wait_s: float) -> dict[str, Any] | None:
        """Ask for the lock; None if it is not known what became of it. Asking again is safe."""
        wish = {
            "session": session.id, "permits": self._permits, "value": self._value, "wait_s": wait_s,
        }  # fmt: skip
        return session.ask("PUT", f"/api/v1/locks/{self.name}", wait_s, json=wish)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_error: object) -> None:
        self.release()
