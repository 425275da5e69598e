"""The parts of the world of a Raft group that stand by themselves: disks, shadows, clocks."""

import random

import pytest

from gossip.consensus.configuration import Configuration, Voter, encode_configuration
from gossip.consensus.messages import Entry, EntryKind, SnapshotMark
from gossip.consensus.storage import (
    AppendChange,
    ArrivalChange,
    ChunkChange,
    CompactChange,
    HardState,
    MemoryLog,
    SnapshotChange,
    TruncateChange,
    checksum,
)
from gossip.core.machine import Durability, Persist
from gossip.sim.consensus_checkers import holds, last_index, quorums_apart
from gossip.sim.consensus_store import ClientCommand, CommandKind, ConsensusStore, encode_command
from gossip.sim.device_clock import DeviceClock
from gossip.sim.log_disk import LogDisk
from gossip.sim.log_shadow import LogShadow

RNG_SEEDS = range(40)
FSYNC, FLUSH = Durability.FSYNC, Durability.FLUSH


def entry(index: int, term: int, data: bytes = b"") -> Entry:
    return Entry(index, term, EntryKind.COMMAND, data)


def batch(token: int, *changes: object, durability: Durability = FSYNC) -> Persist:
    return Persist(token, changes, durability)


def voters(*stores: int) -> tuple[Voter, ...]:
    return tuple(Voter(store, store) for store in stores)


def appended(disk: LogDisk) -> list[int]:
    return [each.index for each in disk.open().entries]


def test_what_was_synced_outlives_the_power() -> None:
    for seed in RNG_SEEDS:
        disk = LogDisk()
        disk.commit(batch(1, HardState(1, 1, 7), AppendChange((entry(1, 1),))), now=0.0)
        assert disk.lose_power([], random.Random(seed), now=0.0) == 0
        assert appended(disk) == [1]
        assert disk.open().hard == HardState(1, 1, 7)


def test_of_what_is_being_written_any_first_part_survives_in_whole_batches() -> None:
    kept = set()
    for seed in RNG_SEEDS:
        disk = LogDisk()
        disk.commit(batch(1, HardState(1, 1), AppendChange((entry(1, 1),))), now=0.0)
        writing = [
            batch(2, AppendChange((entry(2, 1), entry(3, 1)))),
            batch(3, HardState(1, 2), AppendChange((entry(4, 2),))),
        ]
        lost = disk.lose_power(writing, random.Random(seed), now=0.0)
        stored = disk.open()
        assert (len(stored.entries), lost) in {(1, 2), (3, 1), (4, 0)}
        assert (stored.hard.term == 2) is (len(stored.entries) == 4)
        kept.add(len(stored.entries))
    assert kept == {1, 3, 4}


def test_a_start_syncs_what_the_end_of_a_process_left() -> None:
    for seed in RNG_SEEDS:
        disk = LogDisk()
        disk.end_process([batch(1, HardState(1, 5, 7))], random.Random(seed))
        found = disk.open().hard
        disk.lose_power([], random.Random(seed), now=0.0)
        assert disk.open().hard == found


def test_what_was_only_flushed_outlives_the_process_and_not_the_power() -> None:
    outcomes = set()
    for seed in RNG_SEEDS:
        disk = LogDisk()
        disk.commit(batch(1, HardState(1, 5, 7), durability=FLUSH), now=0.0)
        disk.lose_power([], random.Random(seed), now=0.5)
        outcomes.add(disk.open().hard.term)
    assert outcomes == {0, 5}
    disk = LogDisk()
    disk.commit(batch(1, HardState(1, 5, 7), durability=FLUSH), now=0.0)
    disk.lose_power([], random.Random(1), now=5.0)
    assert disk.open().hard.term == 5, "by then it was on the platter anyway"


def test_a_sync_takes_along_what_was_flushed_before() -> None:
    for seed in RNG_SEEDS:
        disk = LogDisk()
        first = HardState(1, 1), AppendChange((entry(1, 1),))
        disk.commit(batch(1, *first, durability=FLUSH), now=0.0)
        disk.commit(batch(2, AppendChange((entry(2, 1),))), now=0.1)
        disk.lose_power([], random.Random(seed), now=0.1)
        assert appended(disk) == [1, 2]


def mark_at(index: int, configuration: Configuration) -> SnapshotMark:
    return SnapshotMark(index, 1, configuration, 1, 3, checksum(b"abc"), 3)


def test_a_shadow_is_what_the_log_has_to_be() -> None:
    first, second = Configuration(voters(1, 2, 3)), Configuration(voters(1, 2, 4))
    log = MemoryLog()
    shadow = LogShadow(log.stored())
    steps: list[object] = [
        HardState(1, 1),
        AppendChange((Entry(1, 1, EntryKind.CONFIGURATION, encode_configuration(first)),)),
        AppendChange((entry(2, 1), entry(3, 1))),
        AppendChange((Entry(4, 1, EntryKind.CONFIGURATION, encode_configuration(second)),)),
        TruncateChange(3),
        AppendChange((entry(4, 2), entry(5, 2))),
        ArrivalChange(mark_at(3, first)),
        ChunkChange(0, b"abc"),
        SnapshotChange(mark_at(3, first)),
        CompactChange(2),
    ]
    configured = []
    for step in steps:
        shadow.apply(step)
        log.apply([step])
        assert shadow.terms == {each.index: each.term for each in log.entries}
        assert shadow.last == last_index(log)
        configured.append(shadow.configuration)
    assert configured[3] == (4, second)
    assert configured[4] == (1, first), "who takes part is what is in the log, and no more"
    assert vars(LogShadow(log.stored())) == vars(shadow)
    assert shadow.covers(3, 1)
    assert not shadow.covers(4, 1)
    assert list(shadow.removed_by(TruncateChange(4))) == [(5, 2)]
    assert holds(log, 3, 9), "it is in the snapshot"
    assert holds(log, 5, 2)
    assert not holds(log, 5, 1)
    assert not holds(log, 6, 2)


@pytest.mark.parametrize(
    ("one", "other", "is_apart"),
    [
        (voters(1, 2, 3), voters(1, 2, 3), False),
        (voters(1, 2, 3), voters(1, 2, 3, 4), False),
        (voters(1, 2, 3), voters(1, 2, 4), True),
        (voters(1), voters(1, 2, 3), True),
        (voters(1, 2, 3), voters(1, 2, 3, 4, 5), True),
    ],
)
def test_quorums_that_can_decide_apart_are_found(
    one: tuple[Voter, ...], other: tuple[Voter, ...], is_apart: bool
) -> None:
    """Two that differ by one voter always meet; a joint configuration meets both."""
    before, after = Configuration(one), Configuration(other)
    assert (quorums_apart(before, after) is not None) is is_apart
    joint = before.joint(after)
    assert quorums_apart(before, joint) is None
    assert quorums_apart(joint, after) is None


def test_a_clock_is_exact_also_when_it_is_fast_slow_or_ahead() -> None:
    clock, rng = DeviceClock(4096.0), random.Random(1)
    now, before = 0.0, clock.local(0.0)
    for _ in range(200):
        now += rng.randrange(1, 2**22) / 2**20
        read = clock.local(now)
        assert read > before
        due = read + rng.random()
        assert clock.local(clock.world_time(due)) >= due - 2**-20
        assert clock.local(clock.world_time(due) - 2**-19) < due
        if rng.random() < 0.5:
            clock.set_rate(rng.choice((0.5, 0.9, 1.0, 1.1, 2.0)), now)
        else:
            clock.jump(rng.choice((0.0, 6.0)), now)
        before = read


def commands(*requests: tuple[str, int, CommandKind, str, tuple[int | None, ...]]) -> list[Entry]:
    return [
        entry(index, 1, encode_command(ClientCommand(*request)))
        for index, request in enumerate(requests, 1)
    ]


def test_a_request_that_is_in_the_log_twice_has_its_effect_once() -> None:
    machine = ConsensusStore()
    log = commands(
        ("a", 1, CommandKind.APPEND, "l", (7,)),
        ("a", 1, CommandKind.APPEND, "l", (7,)),
        ("b", 1, CommandKind.LOCK, "k", ()),
        ("c", 1, CommandKind.LOCK, "k", ()),
        ("b", 1, CommandKind.LOCK, "k", ()),
        ("b", 2, CommandKind.UNLOCK, "k", (3,)),
        ("b", 1, CommandKind.LOCK, "k", ()),
        ("c", 2, CommandKind.LOCK, "k", ()),
        ("c", 3, CommandKind.SWAP, "r", (None, 1)),
    )
    outcomes = [machine.apply(each) for each in log]
    assert [each and each[1] for each in outcomes] == ["ok", "ok", 3, None, 3, True, None, 8, True]
    assert outcomes[6] is None, "an old request is answered to nobody"
    assert machine.read("l") == (7,)
    assert machine.read("r") == 1


def test_a_state_is_its_snapshot() -> None:
    log = commands(
        ("a", 1, CommandKind.WRITE, "r", (1,)),
        ("b", 1, CommandKind.APPEND, "l", (2,)),
        ("b", 2, CommandKind.LOCK, "k", ()),
        ("a", 2, CommandKind.SWAP, "r", (1, 3)),
    )
    whole, begun, restored = ConsensusStore(), ConsensusStore(), ConsensusStore()
    for each in log:
        whole.apply(each)
    for each in log[:2]:
        begun.apply(each)
    restored.restore(begun.snapshot(), begun.index)
    for each in log[2:]:
        restored.apply(each)
    assert restored.snapshot() == whole.snapshot()
    assert (restored.index, restored.digest) == (whole.index, whole.digest)
    assert restored.digest != begun.digest
