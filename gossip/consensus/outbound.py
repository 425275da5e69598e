"""Where the parts of a Raft group leave what is to be saved, sent and told; and rule 1.

**Persist before reveal** lives here and nowhere else: what rests on something that is not on disk
yet is held until the batch with it is. Two things are told apart, so that a slow disk delays only
what depends on it: what was *promised* (term and vote), on which every answer rests, and all the
*rest* (entries, snapshots), on which only an acceptance of it rests. What a leader sends of its own
log waits for nothing: its own copy counts only once it is saved, and the entries are safe when a
majority has them, whoever is in it.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import cast

from gossip.consensus.messages import CODEC, Message
from gossip.consensus.storage import AppendChange, ConsensusChange, HardState
from gossip.core.ids import NodeId
from gossip.core.machine import Durability, Effect, Emit, Instant, Persist, SendFrame

Token = int


class ConsensusOutbound:
    """Changes, frames and events on their way out, in order."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.promised: Token = 0
        """The batch that must be saved before anything says which term this is."""
        self.waits_since: Instant | None = None
        """Since when the disk has owed us the end of a save, without one in between."""
        self._changes: list[ConsensusChange] = []
        self._token: Token = 0
        self._saved: Token = 0
        self._effects: deque[Effect] = deque()
        self._held: deque[tuple[Token, Callable[[], None]]] = deque()

    @property
    def latest(self) -> Token:
        """The batch that must be saved before all changes up to now are."""
        return self._token + 1 if self._changes else self._token

    def change(self, *changes: ConsensusChange) -> None:
        """Have these changes saved with the next batch."""
        self._changes.extend(changes)
        if any(isinstance(change, HardState) for change in changes):
            self.promised = self.latest

    def is_saved(self, token: Token) -> bool:
        """Tell whether a batch and all before it are on disk (rule 1)."""
        return token <= self._saved

    def when_saved(self, token: Token, action: Callable[[], None]) -> None:
        """Do this once a batch is on disk; at once if it is."""
        if self.is_saved(token):
            action()
        else:
            self._held.append((token, action))

    def send(self, message: Message, to: NodeId, after: Token) -> None:
        """Send a frame, once the batch ``after`` is on disk."""
        frame = SendFrame(CODEC.encode(message), to)
        self.when_saved(after, lambda: self._effects.append(frame))

    def emit(self, event: object) -> None:
        """Tell the application."""
        self._effects.append(Emit(event))

    def flush(self, now: Instant) -> Persist | None:
        """Return the next batch, if there is anything to save; it is handed to the disk now."""
        if not self._changes:
            return None
        self._token += 1
        if self.waits_since is None:
            self.waits_since = now
        changes, self._changes = _joined(self._changes), []
        return Persist(self._token, changes, Durability.FSYNC)

    def saved(self, token: Token, now: Instant) -> None:
        """Let go of what waited for this batch and those before it."""
        assert token <= self._token, "a batch is saved after it was handed out"
        self._saved = max(self._saved, token)
        self.waits_since = None if self.is_saved(self._token) else now
        waiting, self._held = self._held, deque()
        for after, action in waiting:
            self.when_saved(after, action)

    def drain(self) -> Iterator[Effect]:
        """Take out what is to be done, in order."""
        while self._effects:
            yield self._effects.popleft()


def _joined(changes: Iterable[ConsensusChange]) -> tuple[ConsensusChange, ...]:
    """Return the changes with those made one that append behind each other."""
    joined: list[ConsensusChange] = []
    for appends, group in groupby(changes, lambda each: isinstance(each, AppendChange)):
        if appends:
            entries = (entry for each in group for entry in cast("AppendChange", each).entries)
            joined.append(AppendChange(tuple(entries)))
        else:
            joined += group
    return tuple(joined)
