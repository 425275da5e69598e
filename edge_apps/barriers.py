"""Barriers of the covey: so many programs begin together, and end together.

Whoever enters waits until as many are inside as were agreed on; then all go on at once. Whoever
leaves waits until all have left. A program that dies while it is inside is out of it after its
session's time to live, and nobody waits for it for ever.
"""

from typing import Any, Self

from edge_apps.client import Client
from edge_apps.locks import ASK_S, TTL_S, HeldSession, NotHeld, boot_time_s, not_known


class Barrier:
    """A barrier of the covey, for a ``with`` statement; see the text of this file.

    ``count`` programs have to enter; ``wait_s`` None waits for them for ever. Entering raises
    NotHeld where they do not come in time, or another ClientError. One that is open still for those
    of before is entered when they have left it.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        count: int,
        *,
        ttl_s: float = TTL_S,
        wait_s: float | None = None,
    ) -> None:
        self._client, self.name, self.count = client, name, count
        self._ttl_s, self.wait_s = ttl_s, wait_s
        self.session: HeldSession | None = None
        self._is_open = False

    @property
    def lost(self) -> bool:
        """Whether this program is not inside any more, or may not be: the others go on without."""
        return not self._is_open or self.session is None or self.session.lost

    def enter(self) -> None:
        """Enter, and wait for the others. Raises NotHeld, or another ClientError."""
        label = f"barrier {self.name}"[:200]
        self.session = HeldSession(self._client, ttl_s=self._ttl_s, lock_delay_s=0.0, label=label)
        try:
            self._wait(self.session)
        except BaseException:
            self.give_up()
            raise

    def leave(self, wait_s: float | None = None) -> bool:
        """Leave, and wait so long for all others to leave, or for ever; tell whether they have.

        False, too, where this program was not inside any more.
        """
        session = self.session
        give_up = None if wait_s is None else boot_time_s() + wait_s
        try:
            while session is not None and not session.lost:
                left_s = ASK_S if give_up is None else max(0.0, give_up - boot_time_s())
                stands = self._ask("DELETE", session, min(ASK_S, left_s))
                if stands is not None and not stands["open"]:
                    return True
                if left_s <= 0:
                    break
            return False
        finally:
            self.give_up()

    def give_up(self) -> None:
        """Be out of it at once, and wait for nobody; harmless when not inside."""
        session, self.session, self._is_open = self.session, None, False
        if session is not None:
            session.close()

    def _wait(self, session: HeldSession) -> None:
        give_up = None if self.wait_s is None else boot_time_s() + self.wait_s
        while not session.lost:
            left_s = ASK_S if give_up is None else max(0.0, give_up - boot_time_s())
            stands = self._ask("PUT", session, min(ASK_S, left_s))
            if stands is not None and stands["open"]:
                self._is_open = True
                return
            if left_s > 0:
                continue
            if stands is None:
                raise not_known(f"how many have entered barrier {self.name!r}")
            raise NotHeld(
                f"{len(stands['inside'])} of {self.count} have entered barrier {self.name!r}"
                " in time",
                is_taken=True,
            )
        raise NotHeld(
            f"the session was lost while it waited at barrier {self.name!r}", "see `covey voters`"
        )

    def _ask(self, method: str, session: HeldSession, wait_s: float) -> dict[str, Any] | None:
        """Enter or leave, and wait; None if it is not known what became of it. Again is safe."""
        path = f"/api/v1/barriers/{self.name}"
        if method == "DELETE":
            query = {"session": session.id, "wait_s": wait_s or None}
            return session.ask(method, path, wait_s, query=query)
        body = {"session": session.id, "count": self.count, "wait_s": wait_s}
        return session.ask(method, path, wait_s, json=body)

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(self, *_error: object) -> None:
        self.leave()
