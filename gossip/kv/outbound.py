"""Where the parts of the state plane leave what is to happen: frames, events, batches.

Two rules live here and nowhere else. A frame that reveals unsaved changes is held until their
batch is on disk (``after``), and one that promises more, until that is synced. And a frame to
ourselves takes no detour through bytes: it goes
into ``own``, which the plane empties before it returns, so that a node which happens to own a
key is asked like any other owner.
"""

import random
from collections import Counter, deque
from collections.abc import Iterator

from gossip.core.ids import NodeId
from gossip.core.machine import Effect, Emit, SendFrame, SyncDisk
from gossip.core.tuning import FRAME_BYTES_MAX
from gossip.kv.messages import CODEC, Message

NUMBER_RANDOM_BITS, NUMBER_COUNT_BITS = 31, 32


class OutboundFrames:
    """Outgoing frames and events of the shared keys of one node."""

    def __init__(self, me: NodeId, rng: random.Random) -> None:
        self.me = me
        self.own: deque[Message] = deque()
        self.counts: Counter[str] = Counter()
        # An answer to our former life may still be under way: start where it never was.
        self.life = rng.getrandbits(NUMBER_RANDOM_BITS) or 1
        """Tells this start of the process from those before it."""
        self._number = self.life << NUMBER_COUNT_BITS
        self._effects: deque[Effect] = deque()
        self._held: dict[int, list[tuple[Message, NodeId]]] = {}
        self._encoded: tuple[Message | None, bytes] = None, b""
        """The last message: the next one is often the same, to another owner."""
        self._saved = 0
        self._held_synced: dict[int, list[tuple[Message, NodeId]]] = {}
        self._synced = -1
        """Nothing yet: what a former life has left on the disk, nobody may have synced."""

    def number(self) -> int:
        """Return a number that no other question of this node carries."""
        self._number += 1
        return self._number

    def send(self, message: Message, to: NodeId, after: int = 0) -> None:
        """Send a frame, once the batch ``after`` is on disk."""
        if after > self._saved:
            self._held.setdefault(after, []).append((message, to))
        elif to == self.me:
            self.own.append(message)
        else:
            self._encode(message, to)

    def send_synced(self, message: Message, to: NodeId, after: int) -> None:
        """Send a frame, once the batch ``after`` and all before it survive a power cut."""
        if after <= self._synced:
            self.send(message, to)
            return
        if after not in self._held_synced:
            self._effects.append(SyncDisk(after))
        self._held_synced.setdefault(after, []).append((message, to))

    def _encode(self, message: Message, to: NodeId) -> None:
        last, data = self._encoded
        if message is not last:
            data = CODEC.encode(message)
            self._encoded = message, data
        if len(data) > FRAME_BYTES_MAX:
            self.counts["frames_dropped/too_large"] += 1
            return
        self._effects.append(SendFrame(data, to))

    def perform(self, effect: Effect) -> None:
        """Have this done behind all that is to be done so far."""
        self._effects.append(effect)

    def emit(self, event: object) -> None:
        """Tell the application."""
        self._effects.append(Emit(event))

    def is_saved(self, token: int) -> bool:
        """Tell whether what waits for this batch may be said."""
        return token <= self._saved

    def saved(self, token: int) -> None:
        """Let go of what waited for this batch and those before it."""
        self._saved = max(self._saved, token)
        for waited in sorted(t for t in self._held if t <= self._saved):
            for message, to in self._held.pop(waited):
                self.send(message, to)
        self._encoded = None, b""

    def synced(self, token: int) -> None:
        """Let go of what waited for this batch, and those before it, to survive a power cut."""
        assert token <= self._saved, "what is not written yet cannot be synced"
        self._synced = max(self._synced, token)
        for waited in sorted(t for t in self._held_synced if t <= self._synced):
            for message, to in self._held_synced.pop(waited):
                self.send(message, to)

    def drain(self) -> Iterator[Effect]:
        """Take out what is to be done, in order."""
        while self._effects:
            yield self._effects.popleft()
