"""What members can say to a control plane that no honest one says: it is counted, and changes
nothing, and the node goes on."""

from collections.abc import Callable

import msgspec
import pytest

from gossip.consensus import messages as raft_messages
from gossip.consensus.configuration import Configuration
from gossip.consensus.messages import SNAPSHOT_BYTES_MAX, Entry, EntryKind, SnapshotMark
from gossip.consensus.storage import checksum
from gossip.control import log_copy
from gossip.control import messages as m
from gossip.control.commands import Transact
from gossip.control.locks import Lock, LockHolder
from gossip.control.outcomes import Declined
from gossip.control.plane import ControlPlane
from gossip.control.requests import ControlWrite, CopyHalted
from gossip.control.state_image import IMAGE_VERSION, StateImage
from gossip.control.transactions import PutKey
from gossip.core.ids import NodeId
from gossip.core.machine import SendFrame
from tests.support.control_net import ControlNet, voter

LIAR, VICTIM = 1, 2
HEARSAY = m.Hearsay(0, 0, (), 0)
BEYOND = 2**64 - 1


class Liar:
    """Answers what a copy asks in the name of its only voter; time is the test's."""

    def __init__(self) -> None:
        self.net = ControlNet(2)
        self.net.put(1, "a", b"1")
        self.net.agree()
        self.net.separate(LIAR)
        self.plane: ControlPlane = self.net.planes[VICTIM]
        self.index = self.plane.state.index
        self.asks: list[m.ControlAsk] = []
        self.wait(log_copy.WAIT_S + log_copy.PATIENCE_S + log_copy.AGAIN_FIRST_S)

    def wait(self, duration_s: float) -> None:
        self.net.now += duration_s
        self.plane.wake(self.net.now)
        self.plane.wake(self.net.now + 1)
        self.collect()

    def collect(self) -> None:
        for effect in self.plane.effects():
            if isinstance(effect, SendFrame):
                message = m.CODEC.decode(effect.data)
                if isinstance(message, m.ControlAsk):
                    self.asks.append(message)

    def say(self, body: m.AnswerBody, peer: NodeId = LIAR, number: int | None = None) -> None:
        answer = m.ControlAnswer(self.asks[-1].number if number is None else number, body)
        self.plane.receive_frame(m.CODEC.encode(answer), peer, self.net.now)
        self.collect()

    def snapshot(self, data: bytes, index: int = 99) -> None:
        self.say(m.MarkAnswer(1, mark(index, data)))
        self.say(m.ChunkAnswer(index, 0, data))


def mark(index: int, data: bytes, **changes: int) -> SnapshotMark:
    good = SnapshotMark(
        index, 1, Configuration((voter(1),)), 1, len(data), checksum(data), m.CHUNK_BYTES
    )
    return msgspec.structs.replace(good, **changes)


def entry(index: int, term: int = 9, kind: int = 0, data: bytes = b"") -> Entry:
    return Entry(index, term, EntryKind(kind), data)


def test_an_answer_counts_from_who_was_asked_alone() -> None:
    liar = Liar()
    before = liar.plane.directory.hearsay()
    stranger = m.PullAnswer(1, (), m.Hearsay(9, 2**60, (9,), 2**60))
    liar.say(stranger, peer=9)
    liar.say(m.RedirectAnswer(m.RedirectReason.NOT_LEADER, stranger.hearsay), number=7)
    assert liar.plane.directory.hearsay() == before
    assert liar.plane.counts["control_answers/late"] == 2
    liar.say(stranger)
    assert liar.plane.directory.leader == 9


def test_an_outcome_counts_from_who_was_asked_alone() -> None:
    net = ControlNet(2)
    net.put(2, "a", b"1")
    net.agree()
    net.separate(1)
    plane = net.planes[2]
    number = net.submit(2, write())
    (asked,) = plane.proposals._asked
    forged = m.OutcomeAnswer(9, Declined("no", "forged"))
    plane.receive_frame(m.CODEC.encode(m.ControlAnswer(asked, forged)), 9, net.now)
    list(plane.effects())
    assert len(plane.proposals) == 1
    assert (2, number) not in net.results


def write() -> ControlWrite:
    return ControlWrite(Transact((), (PutKey("b", b""),)), 30.0)


LIES: dict[str, Callable[[int], m.AnswerBody]] = {
    "a gap": lambda i: m.PullAnswer(1, (entry(i + 1), entry(i + 3)), HEARSAY),
    "from before": lambda i: m.PullAnswer(1, (entry(i),), HEARSAY),
    "an earlier term": lambda i: m.PullAnswer(1, (entry(i + 1, 9), entry(i + 2, 8)), HEARSAY),
    "no term": lambda i: m.PullAnswer(1, (entry(i + 1, 0),), HEARSAY),
    "no configuration": lambda i: m.PullAnswer(1, (entry(i + 1, 9, 2, b"x"),), HEARSAY),
    "no generation": lambda i: m.PullAnswer(0, (entry(i + 1),), HEARSAY),
    "a mark of no term": lambda i: m.MarkAnswer(1, mark(i + 9, b"", term=0)),
    "a later configuration": lambda i: m.MarkAnswer(1, mark(3, b"", configuration_index=9)),
    "chunks without end": lambda i: m.MarkAnswer(
        1, mark(i + 9, b"", size_bytes=SNAPSHOT_BYTES_MAX, chunk_bytes=1)
    ),
    "more than fits": lambda i: m.MarkAnswer(1, mark(i + 9, b"", size_bytes=2**60)),
    "a generation beyond": lambda i: m.PullAnswer(BEYOND, (), HEARSAY),
    "an index beyond": lambda i: m.PullAnswer(1, (), m.Hearsay(9, BEYOND, (9,), BEYOND)),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_copy_takes_over_what_a_log_can_be_alone(lie: str) -> None:
    liar = Liar()
    before = liar.plane.state.snapshot()
    liar.say(LIES[lie](liar.index))
    liar.wait(70.0)
    liar.wait(70.0)
    assert (liar.plane.state.index, liar.plane.state.snapshot()) == (liar.index, before)
    assert liar.plane.part.copy.generation == 1


def test_a_snapshot_that_nobody_can_have_made_ends_nobody() -> None:
    overbooked = Lock("l", 1, tuple(LockHolder(n, n) for n in (1, 2)), (), ())
    image = StateImage(IMAGE_VERSION, (), (), (overbooked,), (), ())
    ahead = StateImage(IMAGE_VERSION, (), (), (Lock("l", 1, (LockHolder(1, 2**60),)),), (), ())
    images = (msgspec.msgpack.encode(each) for each in (image, ahead))
    for place, data in enumerate((b"nonsense", *images)):
        liar = Liar()
        liar.snapshot(data)
        assert liar.plane.state.index == liar.index, place
        assert liar.plane.counts["control_copies/malformed"] == 1
        asked = len(liar.asks)
        liar.wait(30.0)
        assert any(isinstance(ask.body, m.PullAsk) for ask in liar.asks[asked:])


def test_a_chunk_is_the_one_that_was_asked_for() -> None:
    liar = Liar()
    liar.say(m.MarkAnswer(1, mark(99, bytes(m.CHUNK_BYTES))))
    asked = len(liar.asks)
    liar.say(m.ChunkAnswer(99, 1, b""))
    assert len(liar.asks) == asked, "an empty one is no reason to ask again at once"


def test_who_answers_at_once_that_nothing_is_new_is_not_asked_at_once() -> None:
    liar = Liar()
    asked = len(liar.asks)
    liar.say(m.PullAnswer(1, (), HEARSAY))
    assert len(liar.asks) == asked
    liar.wait(log_copy.NO_NEWS_S)
    assert len(liar.asks) == asked + 1


def test_a_copy_that_cannot_read_on_does_not_ask_without_end() -> None:
    liar = Liar()
    asked = len(liar.asks)
    liar.say(m.PullAnswer(1, (entry(liar.index + 1, 9, 1, b"\xc1"),), HEARSAY))
    assert liar.plane.applier.is_halted
    assert len(liar.asks) == asked


def test_a_voter_that_gets_a_snapshot_it_cannot_read_halts_and_goes_on_voting() -> None:
    net = ControlNet(3)
    net.vote(1, 2, 3)
    plane, leader = net.planes[2], net.leader()
    if plane is leader:
        plane = net.planes[3]
    net.separate(plane.me.node)
    data = b"of a later version"
    raft = plane.part.raft
    assert raft is not None
    at = mark(raft.last_index + 50, data, term=raft.term)
    leading = leader.part.raft
    assert leading is not None
    chunk = raft_messages.SnapshotChunk(
        1, leader.me.store, plane.me.store, leading._state.boot, raft.term, at, 0,
        checksum(data), data,
    )  # fmt: skip
    plane.receive_frame(raft_messages.CODEC.encode(chunk), leader.me.node, net.now)
    net._perform(plane.me.node)
    net.run(1.0)
    assert plane.applier.is_halted
    assert any(isinstance(told, CopyHalted) for told in net.told[plane.me.node])


def test_no_registration_is_remembered_that_nobody_waits_for() -> None:
    net = ControlNet(2)
    net.separate(1)
    plane = net.planes[2]
    plane.directory.learn(m.Hearsay(1, 1, (1,), 1))
    net.submit(2, write())
    net.run(100.0)
    assert not plane.proposals._asked
