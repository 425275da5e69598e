"""Counting at the owner that coordinates it: an increment belongs to exactly one node's share.

A counter's version has a **share** of each node that ever counted there: the sum of all that was
counted at that node, with the number of its last write. Whoever coordinates an increment joins the
shares of all versions that it holds, adds to its own share alone, and replaces these versions by
one that has them all. So a version is only ever replaced by one that knows at least as much of each
node, and of a node's shares the latest has all the others in it. The number of versions stays that
of writes that did not know of each other, the number of shares that of nodes.

*Which of a node's shares is the latest* has to be beyond doubt, also after a crash. A node's shares
are ordered by its **life** and the dot's counter in it. A life is one actor: another one begins
with each start of the process, with each copy that is let go and taken over again, and wherever
else an actor ends. A later life goes on from the total that its copy has. So it must have all that
was acknowledged: an owner whose copy is not complete coordinates no increment (``forwarding.py``).
What was not acknowledged and is not in that copy (the power failed before it was on the disk) is
then superseded, for good: it was indeterminate, and ends as not counted. Nothing is ever counted
twice, since a share is never added to another one of its node.
"""

from collections.abc import Sequence

from gossip.core.errors import InvalidRequest
from gossip.core.ids import NodeId
from gossip.kv.records import Version
from gossip.kv.typed_values import INT64_MAX, CounterValue, Life, Share, join_shares, typed_of


class CountError(InvalidRequest):
    """A key whose versions are no counter, or a sum out of bounds. Nothing was changed."""


def increased(live: Sequence[Version], me: NodeId, life: Life, n: int, by: int) -> CounterValue:
    """Return a counter in the place of all these versions, with ``by`` more in our share.

    ``n`` is the counter of the dot that it will have. Raises CountError.
    """
    counters = [typed_of(version.value) for version in live]
    shares = join_shares(_all_counters(counters))
    mine = shares.get(me, Share(me, life, 0, 0))
    total, later = mine.total + by, _later(mine, life, n)
    if abs(total) > INT64_MAX or later[1] > INT64_MAX:
        raise CountError("the counter would leave 64 bits; nothing was counted")
    shares[me] = Share(me, later, n, total)
    assert shares[me] > mine, "an increment is later than all that its node counted before"
    return CounterValue(tuple(sorted(shares.values())))


def _later(known: Share, life: Life, n: int) -> Life:
    """Return our life, unless a share of ours is said to be later than what we would write.

    So it is with a device that was set back to an earlier start, and with a member that lies. Then
    ours outbids that one.
    """
    if (life, n) > (known.life, known.n):
        return life
    boot, turn = known.life
    return boot, turn + 1


def _all_counters(values: Sequence[object]) -> list[CounterValue]:
    counters = [value for value in values if isinstance(value, CounterValue)]
    if len(counters) < len(values):
        raise CountError("this key has a value that is no counter; nothing was counted")
    return counters
