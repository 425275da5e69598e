"""Writes that look first: a quorum read decides what is to be written, or that nothing is.

A delete without a context has to know what there is: a coordinator that missed a write would
delete less than its caller believes. A conditional put writes only over what its caller has seen.
A member of a set, or a field of a map, takes the place of what there is of it
(``typed_writes.py``).

Looking and writing are two steps, and nothing is locked in between. What comes in between is not
among the dots that the write names, so it stays, as a sibling: such a write can lose nothing, and
of two that looked at the same time both may be carried out. *That one of them wins is not
promised*; the control plane's transactions promise it.
"""

from collections.abc import Callable

from gossip.core.errors import InvalidRequest
from gossip.core.machine import Instant
from gossip.kv.changes import CounterUpdate
from gossip.kv.forwarding import WriteForwarder
from gossip.kv.reads import AskedRead, Reads
from gossip.kv.records import Version, decode_context
from gossip.kv.requests import Delete, GetResult, Put, PutResult, Rejected, Update
from gossip.kv.restored_key import OTHER_VALUES, RestoreKey, are_the_same
from gossip.kv.typed_writes import decide_change
from gossip.kv.writes import AskedWrite

Decide = Callable[[AskedWrite, GetResult], AskedWrite | PutResult | Rejected]
"""Says by what was found what is to be written, or how the request ends without a write."""

UNKNOWN = (
    "too few owners of this key answered to know what there is; nothing was changed, so try again "
    "later"
)
SHORTEST_S = 0.01


class InformedWrites:
    """Begins the reads, and hands what they decide to the forwarder."""

    def __init__(self, reads: Reads, forwards: WriteForwarder) -> None:
        self._reads = reads
        self._forwards = forwards

    def begin(
        self, asked: AskedWrite, decide: Decide, is_wanted: Callable[[], bool], now: Instant
    ) -> None:
        """Read the key of what is asked; then go on by ``decide``. Raises InvalidRequest."""
        # What w asks is checked before the read, so that an error is raised here.
        self._forwards.check(asked.key, asked.w)

        def go_on(found: GetResult, now: Instant) -> None:
            if is_wanted():
                self._go_on(asked, decide, found, now)

        self._reads.begin(AskedRead(asked.key, None, asked.until, go_on), now)

    def _go_on(self, asked: AskedWrite, decide: Decide, found: GetResult, now: Instant) -> None:
        if found.outcome != "ok":
            asked.finish(Rejected(UNKNOWN, unreachable=True), now)
            return
        try:
            decided = decide(asked, found)
            if isinstance(decided, AskedWrite):
                decided = decided._replace(until=max(asked.until, now + SHORTEST_S))
                self._forwards.begin(decided, now)
                return
        except InvalidRequest as error:
            # The owners have become fewer than the w that was asked for, or what was found is
            # more than anybody may say that he has seen.
            decided = Rejected(str(error))
        asked.finish(decided, now)


def decision_of(request: Put | Delete | Update | RestoreKey, value: bytes) -> Decide:
    """Return what decides about a request once its key was read; ``value`` is what it puts."""
    match request:
        case Put():
            return checked_put(request, value)
        case Delete():
            return observed_delete
        case RestoreKey(versions=versions):
            return restored(versions)
        case Update():
            change = request.change
            assert not isinstance(change, CounterUpdate), "its coordinator decides about that"
            return decide_change(change)


def observed_delete(asked: AskedWrite, found: GetResult) -> AskedWrite | PutResult:
    """Delete all that was found."""
    if not found.values:
        return PutResult("ok", found.answered, found.needed, b"", 0)
    return asked._replace(replaced=decode_context(asked.key, found.context))


def checked_put(request: Put, value: bytes) -> Decide:
    """Return what puts ``value`` only if the key has the versions that the caller named."""
    named = decode_context(request.key, request.context) if request.context is not None else ()

    def decide(asked: AskedWrite, found: GetResult) -> AskedWrite | Rejected:
        there = decode_context(asked.key, found.context)
        if set(there) == set(named) or not (named or found.values):  # all of it has expired
            return asked._replace(value=value, replaced=there)
        if named:
            reason = "the key does not have the versions of this context any more; nothing was "
            return Rejected(f"{reason}written, so get it again", mismatch=True)
        reason = "the key exists already; nothing was written, so get it"
        return Rejected(reason, mismatch=True)

    return decide


def restored(versions: tuple[Version, ...]) -> Decide:
    """Return what puts versions back where the key has none, and replaces nothing."""

    def decide(asked: AskedWrite, found: GetResult) -> AskedWrite | PutResult | Rejected:
        if not found.live:
            return asked._replace(versions=versions, replaced=())
        if are_the_same(found.live, versions):
            return PutResult("unchanged", found.answered, found.needed, found.context)
        return Rejected(OTHER_VALUES, mismatch=True)

    return decide
