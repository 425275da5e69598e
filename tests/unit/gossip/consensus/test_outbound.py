"""Rule 1: what rests on a batch leaves when it is on disk, and nothing else waits."""

from gossip.consensus.messages import Entry, EntryKind, Heartbeat
from gossip.consensus.outbound import ConsensusOutbound
from gossip.consensus.storage import AppendChange, HardState, TruncateChange
from gossip.core.machine import Durability, SendFrame

BEAT = Heartbeat(1, 1, 2, 3, 4, 5, 6)


def sent(outbound: ConsensusOutbound) -> list[int]:
    return [effect.to for effect in outbound.drain() if isinstance(effect, SendFrame)]


def test_a_frame_waits_for_its_batch_and_for_those_before_it() -> None:
    outbound = ConsensusOutbound()
    outbound.change(HardState(1, 2, 3))
    outbound.send(BEAT, 10, outbound.latest)
    outbound.send(BEAT, 11, 0)
    first = outbound.flush(0.0)
    assert first is not None
    assert first.durability is Durability.FSYNC
    outbound.change(AppendChange(()))
    outbound.send(BEAT, 12, outbound.latest)
    second = outbound.flush(0.0)
    assert second is not None
    assert sent(outbound) == [11]
    outbound.saved(first.token, 0.0)
    assert sent(outbound) == [10]
    outbound.saved(second.token, 0.0)
    assert sent(outbound) == [12]


def test_what_was_promised_does_not_wait_for_entries() -> None:
    """A disk that is at work on entries does not keep heartbeats from being answered."""
    outbound = ConsensusOutbound()
    outbound.change(HardState(1, 2, 3))
    promise = outbound.flush(0.0)
    assert promise is not None
    outbound.saved(promise.token, 0.0)
    outbound.change(AppendChange(()))
    assert outbound.promised == promise.token
    assert outbound.latest == promise.token + 1
    outbound.send(BEAT, 10, outbound.promised)
    assert sent(outbound) == [10]


def test_changes_of_one_turn_share_a_batch_in_their_order() -> None:
    outbound = ConsensusOutbound()
    assert outbound.flush(0.0) is None
    one, two, three = (Entry(index, 2, EntryKind.COMMAND, b"x") for index in (1, 2, 3))
    outbound.change(HardState(1, 2, 3), AppendChange((one,)))
    outbound.change(AppendChange((two, three)))
    outbound.change(TruncateChange(2), AppendChange((three,)))
    persist = outbound.flush(0.0)
    assert persist is not None
    appends = AppendChange((one, two, three)), TruncateChange(2), AppendChange((three,))
    assert persist.changes == (HardState(1, 2, 3), *appends), "appends in a row are one"
    assert outbound.flush(0.0) is None


def test_actions_come_in_their_order_and_may_wait_again() -> None:
    outbound = ConsensusOutbound()
    outbound.change(AppendChange(()))
    done: list[str] = []
    outbound.when_saved(1, lambda: outbound.when_saved(2, lambda: done.append("later")))
    outbound.when_saved(1, lambda: done.append("now"))
    assert outbound.flush(0.0) is not None
    outbound.saved(1, 0.0)
    assert done == ["now"]
    outbound.change(AppendChange(()))
    assert outbound.flush(0.0) is not None
    outbound.saved(2, 0.0)
    assert done == ["now", "later"]


def test_it_knows_since_when_the_disk_says_nothing() -> None:
    outbound = ConsensusOutbound()
    assert outbound.waits_since is None
    for at in (10.0, 12.0):
        outbound.change(AppendChange(()))
        assert outbound.flush(at) is not None
        assert outbound.waits_since == 10.0
    outbound.saved(1, 13.0)
    assert outbound.waits_since == 13.0, "it goes on with the next"
    outbound.saved(2, 14.0)
    assert outbound.waits_since is None
