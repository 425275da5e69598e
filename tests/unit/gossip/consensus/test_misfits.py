"""What does not fit is counted under its reason and changes nothing; hostile bytes end nobody."""

import random
from typing import Any

import msgspec
import pytest

from gossip.consensus import messages as m
from gossip.consensus.configuration import Configuration, Voter
from gossip.consensus.storage import checksum
from tests.fuzz.hostile import Mutator
from tests.support.raft_group import RaftGroup
from tests.unit.gossip.consensus.test_vectors import MESSAGES

A, B, C, STRANGER = (Voter(number, 100 + number) for number in (1, 2, 3, 9))


Head = tuple[int, int, int, int, int]


def group() -> RaftGroup:
    group = RaftGroup().found("abc")
    group.elect("a")
    group.propose("a", "x")
    group.settle()
    return group


def head(sender: Voter = A, receiver: Voter = B, term: int = 2) -> Head:
    return (1, sender.store, receiver.store, 1001, term)


def mark(**changes: int) -> m.SnapshotMark:
    good = m.SnapshotMark(90, 2, Configuration((A, B, C)), 1, 5, checksum(b"state"), 3)
    return msgspec.structs.replace(good, **changes)


def entry(index: int, term: int = 2, kind: int = 1, data: bytes = b"") -> m.Entry:
    return m.Entry(index, term, m.EntryKind(kind), data)


MISFITS: list[tuple[str, m.Message, Voter]] = [
    ("receiver", m.Heartbeat(*head(receiver=C), 9, 3), A),
    ("own_store", m.Heartbeat(*head(sender=B), 9, 3), A),
    ("generation", m.Heartbeat(2, 1, 2, 1001, 2, 9, 3), A),
    ("generation", m.Heartbeat(0, 1, 2, 1001, 2, 9, 3), A),
    ("leap", m.Heartbeat(*head(term=2**32 + 3), 9, 3), A),
    ("node", m.Heartbeat(*head(), 9, 3), STRANGER),
    ("stranger", m.HeartbeatReply(*head(sender=STRANGER, term=99), 9), STRANGER),
    ("stranger", m.ReadRequest(*head(sender=STRANGER), 9), STRANGER),
    ("late", m.HeartbeatReply(*head(), 9), A),
    ("late", m.Heartbeat(*head(term=1), 9, 3), A),
    ("sticky", m.PreVoteRequest(*head(sender=C, term=9), 9, 9), C),
    ("sticky", m.VoteRequest(*head(sender=C, term=9), 9, 9, False), C),
    ("malformed", m.Heartbeat(*head(sender=Voter(2**63, 9)), 9, 3), Voter(2**63, 9)),
    ("malformed", m.VoteRequest(*head(sender=Voter(2**63, 9), term=9), 9, 9, True), A),
    ("malformed", m.Heartbeat(2**29 + 1, 1, 2, 1001, 2, 9, 3), A),
    ("no_leader", m.ReadReply(*head(sender=C), 9, 3), C),
    ("no_leader", m.ReadReply(*head(sender=STRANGER), 9, 3), STRANGER),
    ("no_successor", m.TimeoutNow(*head(sender=C)), C),
    ("malformed", m.Append(*head(), 3, 2, 0, (entry(5),)), A),
    ("malformed", m.Append(*head(), 3, 2, 0, (entry(4, term=1),)), A),
    ("malformed", m.Append(*head(), 3, 2, 0, (entry(4, term=3),)), A),
    ("malformed", m.Append(*head(), 3, 3, 0, ()), A),
    ("malformed", m.Append(*head(), 3, 2, 0, (entry(4, kind=2, data=b"\xc1"),)), A),
    ("malformed", m.SnapshotChunk(*head(), mark(), 0, checksum(b"sta") ^ 1, b"sta"), A),
    ("malformed", m.SnapshotChunk(*head(), mark(), 0, checksum(b"st"), b"st"), A),
    ("malformed", m.SnapshotChunk(*head(), mark(), 2, checksum(b""), b""), A),
    ("malformed", m.SnapshotChunk(*head(), mark(configuration_index=91), 0, 0, b"sta"), A),
]


@pytest.mark.parametrize(("reason", "message", "peer"), MISFITS)
def test_what_does_not_fit_is_counted_and_changes_nothing(
    reason: str, message: m.Message, peer: Voter
) -> None:
    talk = group()
    before = talk["b"].status()
    counted = dict(talk["b"].counts)
    talk["b"].receive(m.CODEC.encode(message), peer.node, talk.now)
    assert talk["b"].status() == before
    key = f"consensus_dropped/{reason}"
    assert {**counted, key: counted.get(key, 0) + 1} == dict(talk["b"].counts)


def test_entries_that_contradict_what_is_committed_are_refused() -> None:
    """No leader sends that; whoever does is not believed, whatever its term."""
    talk = group()
    log = talk["b"].following._state.log
    assert not log.accept([entry(3, term=3, data=b"other")])
    assert log.term_at(3) == 2


@pytest.mark.parametrize("data", [b"", b"\x90", b"\x91\x76", b"\x91\x7e", b"\xc1" * 9])
def test_bytes_that_are_no_message_are_counted(data: bytes) -> None:
    talk = group()
    before = talk["b"].status()
    talk["b"].receive(data, A.node, talk.now)
    assert talk["b"].status() == before
    assert sum(talk["b"].counts[f"consensus_dropped/{why}"] for why in ("malformed", "unknown"))


@pytest.mark.parametrize("seed", range(4))
def test_no_lie_ends_a_store_in_any_role(seed: int) -> None:
    """Whatever a member sends, in whatever order: nothing raises, and nothing committed changes."""
    rng = random.Random(seed)
    talk = group()
    if seed % 2:
        talk.campaign("b")
    goldens = [m.CODEC.encode(message) for message in MESSAGES]
    mutate = Mutator(rng)
    for _ in range(400):
        name, peer = rng.choice("abc"), rng.choice([A, B, C, STRANGER])
        data = rng.choice(goldens)
        message: Any = m.CODEC.decode(data)
        term = max(0, min(2**62, talk[name].term + rng.choice((-1, 0, 0, 1))))
        receiver = talk.stores[name].voter.store
        fitting = msgspec.structs.replace(
            message, generation=1, sender=peer.store, receiver=receiver, term=term
        )
        data = m.CODEC.encode(fitting)
        if rng.random() < 0.3:
            data = mutate.spoil(data)
        talk[name].receive(data, peer.node, talk.now)
        talk.collect(name)
        talk.now += rng.choice((0.0, 0.3, 6.0))
        talk[name].wake(talk.now)
        talk.collect(name)
        assert talk.stores[name].state[:1] in (["x"], [])
