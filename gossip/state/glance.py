"""Many partitions at once, looked at with one other node.

::

    me                                          other
    Glance(partition, digest, clock mark; ...)  ->
                                                <-  Glanced(the same partitions, complete or not)

Whoever takes over partitions has to hear what others hold of them, and mostly that is exactly what
it holds itself: nothing, or all. For these a pass (``comparison.py``) would change nothing, since
the same live versions under the same clock are the same copy, so one frame each way stands for
the passes of all of them. A covey that starts for the first time has nothing but such partitions:
without glances, a hundred nodes say so to each other in some eighty thousand frames each way.

What is not named in the answer gets a pass of its own; so does everything when the answer stays
away for ``GLANCE_TIMEOUT_S``, and what the asker then tries again is its own affair.
"""

from collections.abc import Callable, Iterable

from gossip.ids import NodeId
from gossip.machine import Instant
from gossip.state.agenda import Agenda
from gossip.state.limits import GLANCE_TIMEOUT_S
from gossip.state.messages import Glance, Glanced
from gossip.state.post import Post
from gossip.state.registrar import Registrar
from gossip.state.replica import Replica

Seen = Callable[[int, NodeId, bool | None, Instant], None]
"""(partition, peer, its copy is ours and complete or not; None: it differs, now)"""


class Glances:
    """The glances that this node awaits answers to."""

    def __init__(self, replica: Replica, registrar: Registrar, post: Post) -> None:
        self.seen: Seen = lambda _partition, _peer, _complete, _now: None
        self._replica = replica
        self._registrar = registrar
        self._post = post
        self._awaited: dict[int, tuple[NodeId, frozenset[int]]] = {}
        self._agenda: Agenda[int] = Agenda()

    def __len__(self) -> int:
        return len(self._awaited)

    def awaits(self, peer: NodeId | None) -> bool:
        """Tell whether an answer from this peer is awaited."""
        return any(asked == peer for asked, _ in self._awaited.values())

    def begin(self, partitions: Iterable[int], peer: NodeId, now: Instant) -> None:
        """Ask a peer; ``seen`` will be called for each partition if it answers."""
        replica, asked = self._replica, sorted(partitions)
        number, epoch = self._post.number(), self._registrar.registry.epoch
        self._awaited[number] = peer, frozenset(asked)
        self._agenda.set(number, now + GLANCE_TIMEOUT_S)
        marks = tuple((p, replica.digest(p), replica.clock_mark(p)) for p in asked)
        token = max(map(replica.token, asked), default=0)
        self._post.send(Glance(number, epoch, marks), peer, token)
        self._post.counts["glances/begun"] += 1

    def glanced(self, message: Glanced, peer: NodeId, now: Instant) -> None:
        """The other has looked at our digests."""
        awaited = self._awaited.get(message.number)
        if awaited is None or awaited[0] != peer:
            self._post.counts["frames_dropped/unexpected_answer"] += 1
            return
        self._forget(message.number)
        same = dict(message.same)
        for partition in sorted(awaited[1]):
            self.seen(partition, peer, same.get(partition), now)

    def _forget(self, number: int) -> None:
        self._agenda.cancel(number)
        del self._awaited[number]

    def refused(self, number: int, peer: NodeId) -> bool:
        """A question was refused: await no answer. False if it was not one of ours."""
        if number not in self._awaited or self._awaited[number][0] != peer:
            return False
        self._post.counts["glances/failed"] += 1
        self._forget(number)
        return True

    def unreachable(self, peer: NodeId) -> None:
        """Await nothing from this peer any more."""
        for number in [n for n, (asked, _) in self._awaited.items() if asked == peer]:
            self._forget(number)

    def restart(self) -> None:
        """Await nothing any more: the placement has changed."""
        for number in list(self._awaited):
            self._forget(number)

    def wake(self, now: Instant) -> None:
        """Give up glances that got no answer."""
        for number in self._agenda.pop_due(now):
            self._post.counts["glances/failed"] += 1
            del self._awaited[number]

    def deadline(self) -> Instant | None:
        """Return when the next glance is to be given up."""
        return self._agenda.deadline()
