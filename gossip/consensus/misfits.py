"""Which messages change nothing, and why: the reason is what they are counted under.

Each is about identity or form, and is looked at before anything is believed, the term included.
"""

from gossip.consensus import messages as m
from gossip.consensus.forms import entries_follow, is_possible
from gossip.consensus.replica_state import ReplicaState
from gossip.consensus.storage import checksum
from gossip.core.ids import NodeId

FROM_MEMBERS = (*m.ANSWERS, m.ReadRequest)
"""Whose words count only if the sender stands in our configuration. All else may come from somebody
that we have not heard of yet: the log that names it is still on its way here."""

TERM_LEAP_MAX = 2**32
"""Terms grow by one with each election; who names one that is so much later has its bits mixed up,
and would leave us none to count on with."""

JOINS = (m.PreVoteRequest, m.VoteRequest, m.Append, m.Heartbeat, m.SnapshotChunk)
"""By which a blank store learns to which generation it belongs."""


def misfit(state: ReplicaState, message: m.Message, peer: NodeId) -> str | None:
    """Return why a message from this node changes nothing; None if it may."""
    if message.receiver != state.me.store:
        return "receiver"
    if message.sender == state.me.store:
        return "own_store"
    if message.generation != state.generation and not joins(state, message):
        return "generation"
    if message.term > state.term + TERM_LEAP_MAX:
        return "leap"
    member = state.configuration.member(message.sender)
    if member is None and isinstance(message, FROM_MEMBERS):
        return "stranger"
    if member is not None and member.node != peer:
        return "node"
    return None if is_well_formed(message) else "malformed"


def joins(state: ReplicaState, message: m.Message) -> bool:
    """Tell whether a blank store takes over the generation of this message (rule 14).

    Whoever sends it knows the store, which a group of an earlier generation cannot.
    """
    return state.generation == 0 and message.generation > 0 and isinstance(message, JOINS)


def is_well_formed(message: m.Message) -> bool:
    """Tell whether the parts of a message fit each other."""
    match message:
        case m.Append():
            return _entries_follow(message)
        case m.SnapshotChunk(mark=mark, number=number, data=data):
            return (
                number < mark.chunks
                and len(data) == mark.chunk_size(number)
                and message.crc == checksum(data)
                and is_possible(mark)
                and mark.term <= message.term
            )
        case _:
            return True


def _entries_follow(message: m.Append) -> bool:
    """Tell whether entries have the indices and terms that a log of this term can have."""
    last_term = message.entries[-1].term if message.entries else message.previous_term
    follows = entries_follow(message.entries, message.previous_index, message.previous_term)
    return follows and last_term <= message.term
