"""Three agents of which each owns every shared key; one that is lost is replaced by a new one."""

import signal
from typing import Any

from bench.agreeing import (
    MEMBERS,
    TOKEN,
    VALUE,
    WHO,
    CoveyTrio,
    ask_json,
    eventually,
    free_ports,
)
from bench.http_load import RefusedError, http
from gossip.registry.placement import PARTITIONS

FORMED_WITHIN_S = 120.0
VOTE_WITHIN_S = 120.0


class CoveyKeys(CoveyTrio):
    """Three agents of which each owns every key."""

    def __init__(self) -> None:
        super().__init__()
        self.seats = list(range(MEMBERS))
        """Which agent has each of the three names; who replaces one has a number of its own."""

    def _form(self) -> None:
        super()._form()
        for number in self.seats:
            eventually(lambda number=number: self.owns_all(number), "all own all", FORMED_WITHIN_S)

    def owns_all(self, number: int) -> bool:
        """Tell whether three own all, and nothing is on its way, as an agent sees it."""
        ring = self._show(number, "ring")
        owned = [each["partitions"] for each in ring["nodes"]]
        return not any(ring["moving"].values()) and owned == [PARTITIONS] * MEMBERS

    def is_whole(self, number: int) -> bool:
        """Tell whether each partition has three complete copies, as all three agents say."""
        if not self.owns_all(number):
            return False
        status, stats = self._show(number, "ring/status"), self._show(number, "kv-stats")
        unfinished = [each.get("unfinished") for each in status["nodes"]]
        incomplete = [each.get("incomplete") for each in stats["nodes"]]
        is_done = unfinished == incomplete == [0] * MEMBERS
        return is_done and status["settled"] and not stats["short"]

    def copied(self, number: int) -> int:
        """Return how many bytes of records an agent has copied since it started."""
        name = f"node-{self.seats.index(number)}"
        nodes = self._show(number, "ring/status")["nodes"]
        return sum(each["copied"] for each in nodes if each["name"] == name)

    def _show(self, number: int, what: str) -> Any:
        return ask_json(self.addresses[number], http("GET", f"/api/v1/{what}", token=TOKEN))

    def lose_one(self) -> int:
        """Kill an agent that does not lead; return which of the three names it had."""
        eventually(lambda: self._votes(self.seats[0]) == MEMBERS, "three vote", VOTE_WITHIN_S)
        leader = self._status(self.seats[0])["leader"]
        lost = max(n for n in range(MEMBERS) if f"node-{n}" != leader)
        process = self.processes[self.seats[lost]]
        process.send_signal(signal.SIGKILL)
        process.wait()
        return lost

    def replace(self, lost: int, more: str = "") -> int:
        """Start a new agent in the place of one that was killed, as an operator does it."""
        number = len(self.processes)
        port, api_port = free_ports(2)
        self._peer_ports.append(port)
        # In pairs with the agents, as those of before; who asks them all leaves the dead ones out.
        self.addresses.append((WHO, api_port))
        self._prepare(number, more)
        there = next(seat for n, seat in enumerate(self.seats) if n != lost)
        token = self._covey(there, "token", "create").strip()
        seed = f"{WHO}:{self._peer_ports[there]}"

        def joins() -> bool:
            try:
                self._covey(number, "join", token, "--replace", f"node-{lost}", "--seed", seed)
            except RuntimeError as error:  # until it is known that the other one is gone
                raise RefusedError(str(error)) from None
            return True

        eventually(joins, f"node-{lost} is replaced", FORMED_WITHIN_S)
        self.start(number)
        self.seats[lost] = number
        return number

    def put(self, key: str) -> bytes:
        """Return the request that has a value of 128 bytes with two owners."""
        return http("PUT", f"/api/v1/kv/{key}?w=2", VALUE.encode(), TOKEN)

    def get(self, key: str) -> bytes:
        """Return the request that reads a key from two owners."""
        return http("GET", f"/api/v1/kv/{key}?r=2", token=TOKEN)

    def get_from_one(self, key: str) -> bytes:
        """Return the request that reads a key from what one owner has."""
        return http("GET", f"/api/v1/kv/{key}?r=1", token=TOKEN)
