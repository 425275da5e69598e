"""A client for people: says what it waits for, and waits for an agent that is just starting.

``covey run &`` and the next line of a script are typed in one breath. An agent holds the lock of
its directory before it listens; while somebody holds it, a command waits for the agent instead of
claiming that there is none. Nothing is waited for where nobody is about to listen.
"""

import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from agent.cli.progress import WaitNotice
from agent.config.paths import Paths, service_is_installed
from agent.store.lock import is_held
from edge_apps.client import AgentForbidden, AgentTimedOut, AgentUnreachable, Client

if TYPE_CHECKING:
    from http.client import HTTPResponse

STARTING_S = 1.0
"""How long a node that has an identity may take from being called to holding its lock ..."""
STARTING_SHARE, STARTING_S_MAX = 5.0, 15.0
"""... or so many times as long as this command took to come here: a busy machine is slow for both.
Measured with ten at work on two cores, an agent took 0.6 to 1.1 s, and the command as long."""
STARTED_S = 60.0
"""And from there to listening: half a second, or ten where the machine is that busy."""
LOOK_S = 0.05

WAITED_FOR = {
    "/api/v1/apps": "for the app",
    "/api/v1/barriers": "for the voters",
    "/api/v1/control": "for the voters",
    "/api/v1/copies": "for the other nodes",
    "/api/v1/doctor": "for what the members see",
    "/api/v1/file": "for the owners of the file",
    "/api/v1/init": "for the agent to found the covey",
    "/api/v1/keys": "for the members",
    "/api/v1/kv-stats": "for the members to count",
    "/api/v1/kv-why": "for all owners of the key",
    "/api/v1/kv": "for the owners of the key",
    "/api/v1/locks": "for the voters",
    "/api/v1/queries": "for answers",
    "/api/v1/readings": "for the readings to be on disk",
    "/api/v1/rtt": "for what the members measured",
    "/api/v1/sessions": "for the voters",
    "/api/v1/settings": "for the voters",
    "/api/v1/sleep": "for the others to be told",
    "/api/v1/snapshot": "for the voters",
    "/api/v1/tokens": "for the issuer",
    "/api/v1/txn": "for the voters",
    "/api/v1/voters": "for the leader",
}
THE_AGENT = "for the agent"


class PatientClient(Client):
    """Speaks to the agent of these paths; what takes long is shown on stderr unless ``quiet``."""

    def __init__(self, paths: Paths, *, quiet: bool) -> None:
        super().__init__(paths.socket)
        self._paths = paths
        self._quiet = quiet

    @contextmanager
    def _exchange(
        self,
        method: str,
        target: str,
        body: bytes | Iterable[bytes] | None,
        headers: Mapping[str, str],
        timeout_s: float | None,
    ) -> "Iterator[tuple[HTTPResponse, socket.socket]]":
        with WaitNotice(_waited_for(target), quiet=self._quiet) as waiting:
            exchange = super()._exchange(method, target, body, headers, timeout_s)
            with exchange as opened:
                waiting.end()  # the answer has begun; a stream may last for ever
                yield opened

    def _connect(self, timeout_s: float | None) -> socket.socket:
        give_up = time.monotonic() + (_starting_s() if _is_founded(self._paths) else 0.0)
        began_s: float | None = None
        while True:
            try:
                return super()._connect(timeout_s)
            except (AgentForbidden, AgentTimedOut):
                raise
            except AgentUnreachable as error:
                if began_s is None and is_held(self._paths):
                    began_s = time.monotonic()
                    give_up = began_s + STARTED_S
                if time.monotonic() >= give_up:
                    raise self._absent(error) from None
            time.sleep(LOOK_S)

    def _absent(self, error: AgentUnreachable) -> AgentUnreachable:
        """Return the error with what keeps the agent from listening, as far as that can be seen."""
        message, hint = error.message, error.hint
        if is_held(self._paths):
            message = f"the agent on {self._paths.data} is starting, and does not listen yet"
            hint = (
                "wait for it: a store that is damaged or very full takes minutes; what it writes, "
                "to its terminal or to the journal, says more"
            )
        elif self._paths == Paths.of_service() and service_is_installed():
            hint = (
                "start the service: `sudo systemctl start covey`; `systemctl status covey` says "
                "how it ended"
            )
        told = AgentUnreachable(message, hint)
        told.was_asked = error.was_asked
        return told


def _starting_s() -> float:
    from agent.system.process_age import first_work_s  # few commands find no agent

    return min(max(STARTING_S, STARTING_SHARE * first_work_s()), STARTING_S_MAX)


def _is_founded(paths: Paths) -> bool:
    try:
        return paths.identity.exists()
    except PermissionError:  # somebody else's agent
        return False


def _waited_for(target: str) -> str:
    path = target.partition("?")[0]
    found = (words for prefix, words in WAITED_FOR.items() if path.startswith(prefix))
    return next(found, THE_AGENT)
