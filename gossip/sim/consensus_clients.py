"""Clients of a replicated state: they ask, wait, ask somebody else, and sometimes give up.

Each client has one request under way at a time. A write keeps its number over all attempts, so it
has its effect once, however often it is in the log. A client that gives up on a write comes back
under another name, for nobody can say what became of it: such an operation stays open for ever.

Times in a history are numbers of events, not seconds: what happened before what is then certain,
also within one instant.
"""

import random
from collections.abc import Callable, Iterator
from typing import Protocol

from gossip.consensus.raft import Raft
from gossip.consensus.requests import NotLeader, Overloaded
from gossip.core.machine import Instant
from gossip.sim.consensus_host import ConsensusHost
from gossip.sim.consensus_store import Answer, ClientCommand, CommandKind, encode_command
from gossip.sim.schedule import Schedule

ATTEMPT_S = 4.0
"""A client waits so long for an answer before it asks another host."""
RETRY_S = 0.3
"""It waits so long after a refusal."""
SILENCES_MAX = 4
REGISTERS, LISTS, LOCKS = ("r0", "r1"), ("l0",), ("k0",)
NAMED_LEADER_IS_ASKED = 0.8
"""Chance that a client believes what it is told about the leader; it may be an old one."""
VALUES_OF_ONE = 100_000
"""Each client has so many values of its own, so that a value tells who wrote it."""


class ClientOperation:
    """One request of one client, and what it was told."""

    def __init__(
        self, number: int, client: str, command: ClientCommand | None, key: str, called_at: int
    ) -> None:
        """``number`` is the client's, under whatever name; ``command`` None: a read."""
        self.number, self.client, self.command, self.key = number, client, command, key
        self.called_at = called_at
        self.answered_at: int | None = None
        self.answer: Answer = None
        self.silences = 0
        """So often was it asked and not answered in time."""
        self.is_given_up = False
        self.turn = 0
        """What was to happen in an earlier turn is void."""

    def __repr__(self) -> str:
        what = f"{self.command.kind.name} {self.command.arguments}" if self.command else "READ"
        told = "open" if self.answered_at is None else repr(self.answer)
        return f"{self.client} {what} {self.key}: {told}"

    @property
    def is_over(self) -> bool:
        """Whether the client waits for it no more."""
        return self.answered_at is not None or self.is_given_up


class ClientWorld(Protocol):
    """What a client needs of the world."""

    @property
    def schedule(self) -> Schedule:
        """Virtual time."""

    def event_number(self) -> int:
        """Return the number of what happens now; it grows with each call."""

    def somebody(self, rng: random.Random) -> ConsensusHost | None:
        """Return a host whose process runs or is paused; None: there is none."""

    def host_of(self, store: int) -> ConsensusHost | None:
        """Return the host that has this store."""

    def call(self, host: ConsensusHost, action: Callable[[Raft, Instant], None]) -> None:
        """Let the machine on a host take something in."""

    def expect(self, host: ConsensusHost, operation: ClientOperation, read: int | None) -> None:
        """Let the host tell the client when it knows the answer; ``read`` is the read's id."""


class Client:
    """One client. It asks until it is told to stop."""

    def __init__(self, number: int, rng: random.Random, world: ClientWorld) -> None:
        self.operations: list[ClientOperation] = []
        self.is_stopped = False
        self._number, self._rng, self._world = number, rng, world
        self._names = (f"c{number}.{life}" for life in range(1_000_000))
        self._name = next(self._names)
        self._requests = 0
        self._values: Iterator[int] = iter(range(VALUES_OF_ONE * number + 1, 10**12))
        self._seen: dict[str, int | None] = {}
        self._tokens: dict[str, int] = {}
        self._asked: ConsensusHost | None = None

    @property
    def is_idle(self) -> bool:
        """Whether it waits for nothing."""
        return not self.operations or self.operations[-1].is_over

    def begin(self) -> None:
        """Think for a moment, then ask something."""
        self._world.schedule.after(self._rng.expovariate(2.0), self._ask)

    def answered(self, operation: ClientOperation, answer: Answer) -> None:
        """Take in an answer, the first one of an operation; then go on."""
        if operation.is_over:
            return
        operation.answer, operation.answered_at = answer, self._world.event_number()
        self._learn(operation)
        if not self.is_stopped:
            self.begin()

    def _learn(self, operation: ClientOperation) -> None:
        command, key, answer = operation.command, operation.key, operation.answer
        if command is None and (answer is None or isinstance(answer, int)):
            self._seen[key] = answer
        elif command is not None and command.kind is CommandKind.LOCK and isinstance(answer, int):
            self._tokens[key] = answer
        elif command is not None and command.kind is CommandKind.UNLOCK:
            self._tokens.pop(key, None)

    def _ask(self) -> None:
        if self.is_stopped:
            return
        command, key = self._next_request()
        number = self._world.event_number()
        operation = ClientOperation(self._number, self._name, command, key, number)
        self.operations.append(operation)
        self._attempt(operation, 0)

    def _next_request(self) -> tuple[ClientCommand | None, str]:
        rng = self._rng
        key = rng.choice((*REGISTERS, *REGISTERS, *LISTS, *LOCKS))
        if key in LOCKS:
            if key in self._tokens:
                return self._command(CommandKind.UNLOCK, key, self._tokens[key]), key
            return self._command(CommandKind.LOCK, key), key
        if rng.random() < 0.5:
            return None, key
        if key in LISTS:
            return self._command(CommandKind.APPEND, key, next(self._values)), key
        if rng.random() < 0.5:
            old, new = self._seen.get(key), next(self._values)
            return self._command(CommandKind.SWAP, key, old, new), key
        return self._command(CommandKind.WRITE, key, next(self._values)), key

    def _command(self, kind: CommandKind, key: str, *arguments: int | None) -> ClientCommand:
        self._requests += 1
        return ClientCommand(self._name, self._requests, kind, key, arguments)

    def _attempt(self, operation: ClientOperation, turn: int) -> None:
        """Ask a host: whoever the last one named, or any."""
        if operation.is_over or operation.turn != turn:
            return
        if operation.silences == SILENCES_MAX and self._may_give_up(operation):
            self._give_up(operation)
            return
        operation.turn += 1
        host, self._asked = self._asked or self._world.somebody(self._rng), None
        if host is None or host.is_down:
            self._later(operation, RETRY_S)
            return
        self._world.schedule.after(ATTEMPT_S, self._no_answer, operation, operation.turn)
        self._world.call(host, lambda raft, now: self._hand_in(operation, host, raft, now))

    def _later(self, operation: ClientOperation, after_s: float) -> None:
        operation.turn += 1
        self._world.schedule.after(after_s, self._attempt, operation, operation.turn)

    def _no_answer(self, operation: ClientOperation, turn: int) -> None:
        operation.silences += operation.turn == turn
        self._attempt(operation, turn)

    def _hand_in(
        self, operation: ClientOperation, host: ConsensusHost, raft: Raft, now: Instant
    ) -> None:
        if operation.is_over:
            return
        read = None
        try:
            if operation.command is None:
                read = raft.read(now)
            else:
                raft.propose([encode_command(operation.command)], now)
        except NotLeader as refusal:
            if refusal.leader is not None and self._rng.random() < NAMED_LEADER_IS_ASKED:
                self._asked = self._world.host_of(refusal.leader.store)
            self._later(operation, RETRY_S)
        except Overloaded:
            self._later(operation, RETRY_S)
        else:
            self._world.expect(host, operation, read)

    def _may_give_up(self, operation: ClientOperation) -> bool:
        """Tell whether it may come back as somebody else: who may hold a lock must not."""
        return not self.is_stopped and operation.key not in LOCKS and not self._tokens

    def _give_up(self, operation: ClientOperation) -> None:
        operation.is_given_up = True
        self._name = next(self._names)
        self._requests = 0
        self.begin()
