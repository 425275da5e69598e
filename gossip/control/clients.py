"""Each command once: what was answered to whom, for as long as it may be asked again.

A client that gets no answer sends its command again, under the same sequence, and perhaps to
another leader; both copies may come to stand in the log. The table here belongs to the replicated
state, so every replica knows the first copy's outcome when it comes to the second, and gives the
same answer without carrying the command out again (Ongaro's thesis, section 6.3).

**The bound is exact.** A client says with each command which of its sequences are settled; their
outcomes are forgotten then, and a late copy of one is declined. At most CLIENTS_MAX clients and
CLIENTS_BYTES_MAX of outcomes are kept; beyond that goes the client that has been silent longest,
counted in the log. A client must have registered, and its number is the index at which it did: so
a copy of a forgotten client's command is declined as UNKNOWN_CLIENT, never carried out a second
time. Of what such a client has not heard the outcome, nobody can say any more what became of it.
"""

from collections import OrderedDict
from collections.abc import Iterator

import msgspec

from gossip.control.bounds import (
    CLIENT_BYTES_MAX,
    CLIENT_OUTCOMES_MAX,
    CLIENTS_BYTES_MAX,
    CLIENTS_MAX,
)
from gossip.control.outcomes import (
    SETTLED,
    UNKNOWN_CLIENT,
    UNSETTLED,
    CommandOutcome,
    Declined,
)

_SIZER = msgspec.msgpack.Encoder()


def outcome_bytes(outcome: CommandOutcome) -> int:
    """Return what an outcome counts for: its bytes in a snapshot."""
    return len(_SIZER.encode(outcome))


class SettledOutcome(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What a command came to, and at which index."""

    sequence: int
    index: int
    outcome: CommandOutcome
    size_bytes: int


class ControlClient(msgspec.Struct, array_like=True):
    """What is remembered of one client."""

    number: int
    settled: int = 0
    outcomes: dict[int, SettledOutcome] = {}
    size_bytes: int = 0


class ClientTable:
    """Manages what was answered to whom. Iterates from the longest silent client on."""

    def __init__(self) -> None:
        self._clients: OrderedDict[int, ControlClient] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._clients)

    def __iter__(self) -> Iterator[ControlClient]:
        return iter(self._clients.values())

    def register(self, number: int) -> None:
        """Make a client known."""
        self.restore(ControlClient(number))
        while len(self._clients) > CLIENTS_MAX:
            self._forget_longest_silent()

    def restore(self, client: ControlClient) -> None:
        """Take a client in as it is, as the last that was heard."""
        self._clients[client.number] = client
        self.size_bytes += client.size_bytes

    def before(self, number: int, sequence: int, settled: int) -> SettledOutcome | Declined | None:
        """Return what this very command came to before; None: it may be carried out now."""
        client = self._clients.get(number)
        if client is None:
            return Declined(
                UNKNOWN_CLIENT,
                "this client is not known (any more): of what it sent before and was not answered,"
                " nobody can tell whether it was carried out",
            )
        self._clients.move_to_end(number)
        self._settle(client, settled)
        if sequence < client.settled:
            return Declined(SETTLED, "this command was answered before, and its answer taken")
        known = client.outcomes.get(sequence)
        if known is not None:
            return known
        if len(client.outcomes) >= CLIENT_OUTCOMES_MAX or client.size_bytes >= CLIENT_BYTES_MAX:
            return Declined(UNSETTLED, "this client has too many answers that it did not settle")
        return None

    def outcome(self, number: int, sequence: int) -> SettledOutcome | None:
        """Return what a command came to, as far as it is kept."""
        client = self._clients.get(number)
        return client.outcomes.get(sequence) if client else None

    def remember(self, number: int, sequence: int, index: int, outcome: CommandOutcome) -> None:
        """Keep what a command came to."""
        size = outcome_bytes(outcome)
        client = self._clients[number]
        assert sequence not in client.outcomes, "a command is carried out once"
        client.outcomes[sequence] = SettledOutcome(sequence, index, outcome, size)
        self._grow(client, size)
        while self.size_bytes > CLIENTS_BYTES_MAX:
            self._forget_longest_silent()

    def _settle(self, client: ControlClient, settled: int) -> None:
        if settled <= client.settled:
            return
        client.settled = settled
        outcomes = client.outcomes
        over = [each for each in outcomes if each < settled]
        if over:
            self._grow(client, -sum([outcomes.pop(sequence).size_bytes for sequence in over]))

    def _grow(self, client: ControlClient, size_bytes: int) -> None:
        client.size_bytes += size_bytes
        self.size_bytes += size_bytes

    def _forget_longest_silent(self) -> None:
        _, client = self._clients.popitem(last=False)
        self.size_bytes -= client.size_bytes
