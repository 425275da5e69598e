"""Scenarios about one rule each, for rules that storms of faults would meet too seldom.

Each raises a ``Violation`` when its rule is broken. ``test_consensus.py`` runs them as they are,
``test_consensus_mutations.py`` with the rule switched off.
"""

from contextlib import suppress
from functools import partial

from gossip.consensus.configuration import Configuration
from gossip.consensus.messages import CHUNK_BYTES_MAX, CODEC, SnapshotChunk, VoteRequest
from gossip.consensus.raft import Raft
from gossip.consensus.roles import Role
from gossip.consensus.storage import mark_of
from gossip.consensus.tuning import ConsensusTuning
from gossip.core.errors import InvalidRequest
from gossip.sim.consensus_checkers import standard_checkers
from gossip.sim.consensus_clients import ClientOperation
from gossip.sim.consensus_host import ConsensusHost
from gossip.sim.consensus_store import ClientCommand, CommandKind, ConsensusStore, encode_command
from gossip.sim.consensus_world import ConsensusWorld
from gossip.sim.invariants import Violation
from gossip.sim.network import Conditions

MSGPACK_UINT32 = b"\xce"
"""Stands before the digest, which is the first large number of a state."""
NEVER_S = 1e6
SMALL = ConsensusTuning(trailing_entries=2, chunk_bytes=64, learner_settle_s=2.0, read_retry_s=5.0)


def world_of(
    *names: str, voters: int = 3, compact_every: int | None = None, ordered: bool = True
) -> ConsensusWorld:
    """Return a world whose first devices are voters, and which has a leader."""
    world = ConsensusWorld(
        1,
        tuning=SMALL,
        ordered=ordered,
        compact_every=compact_every,
        checkers=standard_checkers(),
    )
    world.add(*names)
    world.found(*names[:voters])
    demand(world.run_until(world.is_settled, within_s=60) is not None, "a first leader")
    return world


def demand(true: bool, what: str) -> None:
    """Raise a Violation when something is not so."""
    if not true:
        raise Violation(f"Scenario: there was not {what}")


def leader_of(world: ConsensusWorld) -> ConsensusHost:
    """Return who leads; somebody has to."""
    leader = world.leader()
    demand(leader is not None, "a leader")
    assert leader is not None, "the demand above"
    return leader


def followers_of(world: ConsensusWorld) -> list[ConsensusHost]:
    """Return all who do not lead, in the order of their names."""
    leader = leader_of(world)
    return [host for host in world.hosts.values() if host is not leader]


def write(world: ConsensusWorld, count: int, client: str = "writer", first: int = 1) -> None:
    """Let the leader take in so many writes, a tenth of a second apart."""
    for number in range(first, first + count):
        command = ClientCommand(client, number, CommandKind.WRITE, "r0", (number,))
        world.call(leader_of(world), partial(_propose, command))
        world.run(0.1)


def _read(world: ConsensusWorld, host: ConsensusHost) -> None:
    operation = ClientOperation(0, "reader", None, "r0", world.event_number())
    world.call(host, lambda raft, now: world.expect(host, operation, raft.read(now)))


def _propose(command: ClientCommand, raft: Raft, now: float) -> None:
    raft.propose([encode_command(command)], now)


def who_was_cut_off_does_not_depose() -> None:
    """A follower that hears nobody for minutes comes back, and the leader stays (PreVote)."""
    world = world_of("a", "b", "c")
    leader, (lonely, _) = leader_of(world), followers_of(world)
    term = leader.raft.term
    world.partition([lonely.name])
    world.run(120)
    world.join_sides()
    world.run(30)
    demand(leader.raft.role is Role.LEADER, "the leader of before")
    demand(leader.raft.term == term, f"term {term}, but {leader.raft.term}")


def who_does_not_hear_the_leader_does_not_depose_it() -> None:
    """Frames from the leader to one follower are lost; the others, who hear it, do not vote."""
    world = world_of("a", "b", "c", "d", voters=3)
    leader, (deaf, *_) = leader_of(world), followers_of(world)
    term = leader.raft.term
    world.cut(leader.name, deaf.name)
    world.run(120)
    world.mend(leader.name, deaf.name)
    world.run(30)
    demand(leader.raft.role is Role.LEADER, "the leader of before")
    demand(leader.raft.term == term, f"term {term}, but {leader.raft.term}")


def who_leads_nobody_steps_down() -> None:
    """A leader without a majority takes itself for one no longer than an election takes."""
    world = world_of("a", "b", "c")
    leader = leader_of(world)
    world.partition([leader.name])
    world.run(2 * world.tuning.election_max_s + 5)
    demand(leader.raft.role is not Role.LEADER, "an end of the lonely leader")
    other = leader_of(world)
    demand(other is not leader, "another leader")


def who_is_ahead_in_terms_finds_back() -> None:
    """A voter whose term is above the leader's, from a candidacy of which nobody heard, takes part
    again: the leader hears of the term from the answers to its own messages.
    """
    world = world_of("a", "b", "c")
    follower = followers_of(world)[0]
    hard = follower.disk.platter.hard
    world.crash(follower.name)
    follower.disk.platter.hard = type(hard)(hard.generation, hard.term + 5, follower.store)
    world.restart(follower.name)
    demand(world.run_until(world.is_settled, within_s=60) is not None, "one state everywhere")
    write(world, 3)
    demand(world.run_until(world.is_settled, within_s=60) is not None, "progress")


def two_of_five_elect_nobody() -> None:
    """All frames arrive twice, and each vote counts once."""
    world = world_of("a", "b", "c", "d", "e", voters=5, ordered=False)
    world.weather(Conditions(duplicate=1.0))
    leader = leader_of(world)
    few = [leader.name, followers_of(world)[0].name]
    world.crash(leader.name)
    world.partition(few)
    world.restart(leader.name)
    world.run(90)
    leading = [name for name in few if world.hosts[name].raft.role is Role.LEADER]
    demand(not leading, f"a minority without a leader; {leading} led")


def who_has_voted_remembers_it_over_a_restart() -> None:
    """Two candidates of one term ask the same voter, which restarts in between."""
    world = world_of("a", "b", "c")
    voter, *candidates = world.hosts.values()
    world.partition([voter.name])
    world.run(30)
    term = voter.raft.term + 1
    for candidate in candidates:
        request = VoteRequest(
            voter.raft.generation,
            candidate.store,
            voter.store,
            boot=1,
            term=term,
            last_index=voter.raft.last_index,
            last_term=term - 1,
            transfer=False,
        )
        world.call(voter, partial(_receive, CODEC.encode(request), candidate))
        world.run(1)
        demand(voter.disk.platter.hard.vote == candidates[0].store, "one vote, for the first")
        world.crash(voter.name)
        world.restart(voter.name)
        # Who has just started votes for nobody.
        world.run(world.tuning.election_min_s)


def _receive(data: bytes, sender: ConsensusHost, raft: Raft, now: float) -> None:
    raft.receive(data, sender.id, now)


def an_answer_to_the_former_life_is_void() -> None:
    """A follower restarts while the answer to its read is under way, and reads again."""
    world = world_of("a", "b", "c", ordered=False)
    leader, (far, _) = leader_of(world), followers_of(world)
    world.network.lengthen(leader.name, far.name, 2.0)
    world.run(10)
    _read(world, far)
    world.run(2.5)
    world.crash(far.name)
    write(world, 3)
    world.restart(far.name)
    world.run_until(lambda: far.raft.leader is not None, within_s=5)
    _read(world, far)
    world.run(10)


def who_is_lied_to_does_not_depose() -> None:
    """A failure detector says every second that the leader is gone; it leads on (rule 12)."""
    world = world_of("a", "b", "c")
    leader = leader_of(world)
    term = leader.raft.term
    for second in range(60):
        liar = followers_of(world)[second % 2]
        world.lie(liar.name, leader.name)
        world.run(1)
        demand(world.leader() is leader, "the leader of before")
    demand(leader.raft.term == term, f"term {term}, but {leader.raft.term}")


def heartbeats_write_nothing() -> None:
    """A group that has nothing to do leaves its disks alone."""
    world = world_of("a", "b", "c")
    world.run(5)
    batches = world.counts["batches"]
    world.run(300)
    demand(world.counts["batches"] == batches, "rest for the disks")


def who_was_away_for_long_gets_a_snapshot() -> None:
    """The log that a follower lacks was compacted meanwhile."""
    world = world_of("a", "b", "c", compact_every=5)
    away = followers_of(world)[0]
    world.crash(away.name)
    write(world, 40)
    world.run(5)
    world.restart(away.name)
    demand(world.run_until(world.is_settled, within_s=60) is not None, "one state everywhere")
    demand(world.counts["snapshots_installed"] > 0, "a snapshot for who was away")


def who_was_away_for_a_moment_gets_entries() -> None:
    """Entries behind the snapshot are kept for those who come back soon."""
    world = world_of("a", "b", "c", compact_every=5)
    away = followers_of(world)[0]
    write(world, 11)
    world.run(5)
    world.crash(away.name)
    write(world, 2, first=12)
    world.run(5)
    world.restart(away.name)
    demand(world.run_until(world.is_settled, within_s=60) is not None, "one state everywhere")
    demand(world.counts["snapshots_installed"] == 0, "peace without a snapshot")


def a_snapshot_goes_on_where_it_was_interrupted() -> None:
    """Its receiver restarts in the midst of it, and does not begin anew."""
    world = world_of("a", "b", "c", compact_every=100)
    away = followers_of(world)[0]
    world.crash(away.name)
    for client in range(100):
        write(world, 1, client=f"client {client}")
    world.run(5)
    leader = leader_of(world)
    chunks = len(leader.disk.platter.kept)
    world.slow_disk(away.name, 0.2)
    world.restart(away.name)
    for _ in range(4):
        arrived = len(away.disk.platter.arrived)
        while len(away.disk.platter.arrived) < arrived + chunks // 8:
            world.run(0.01)
        world.crash(away.name)
        world.restart(away.name)
    demand(world.run_until(world.is_settled, within_s=60) is not None, "one state everywhere")
    sent = leader.raft.counts["consensus_snapshots/chunks_sent"]
    demand(sent < 2 * chunks, f"an economical transfer: {sent} sent for {chunks}")


def a_voter_is_replaced_while_it_is_away() -> None:
    """A device dies; another one takes its place in one change, so that never too few vote."""
    world = world_of("a", "b", "c", "d")
    leader, stranger = leader_of(world), world.hosts["d"]
    dead = next(host for host in followers_of(world) if host is not stranger)
    world.crash(dead.name)
    now = leader.raft.configuration
    _change(world, Configuration(now.voters, (), (stranger.voter,)))
    world.run(10)
    kept = tuple(each for each in now.voters if each != dead.voter)
    _change(world, Configuration((*kept, stranger.voter)))
    demand(world.run_until(world.is_settled, within_s=60) is not None, "an end of the change")
    stores = {each.store for each in leader_of(world).raft.configuration.voters}
    demand(stores == {each.store for each in (*kept, stranger.voter)}, "the voters asked for")
    write(world, 3)
    demand(world.run_until(world.is_settled, within_s=60) is not None, "progress")


def one_becomes_three() -> None:
    """From one voter to three in a single change, and the first may then go."""
    world = world_of("a", "b", "c", voters=1)
    first = leader_of(world)
    others = tuple(host.voter for host in followers_of(world))
    _change(world, Configuration((first.voter,), (), others))
    world.run(10)
    _change(world, Configuration((first.voter, *others)))
    demand(world.run_until(world.is_settled, within_s=60) is not None, "an end of the change")
    world.lose_power(first.name)
    world.run(30)
    demand(leader_of(world) is not first, "a leader after the first has gone")
    write(world, 3)


def a_snapshot_that_comes_late_removes_nothing() -> None:
    """A chunk arrives of a snapshot up to where the log has long been, and further."""
    world = world_of("a", "b", "c")
    leader, (late, _) = leader_of(world), followers_of(world)
    write(world, 2)
    agreed = late.raft.commit_index
    for number in (3, 4, 5):
        command = ClientCommand("writer", number, CommandKind.WRITE, "r0", (number,))
        world.call(leader, partial(_propose, command))
    # Then the follower has the entries, and has not heard yet that they are agreed on.
    while leader.machine.index <= agreed:
        world.run(0.001)
    demand(late.raft.commit_index == agreed, "a follower that is a little behind")
    demand(late.raft.last_index >= agreed + 3, "all entries at the follower")
    world.cut(leader.name, late.name)
    chunk = _chunk_of(world, leader, late, agreed + 1)
    world.call(late, partial(_receive, CODEC.encode(chunk), leader))
    world.run(1)
    demand(late.raft.last_index >= agreed + 3, "what was there before")


def _chunk_of(
    world: ConsensusWorld, leader: ConsensusHost, receiver: ConsensusHost, index: int
) -> SnapshotChunk:
    """Return the only chunk of a snapshot at an index, as this leader would send it."""
    machine = ConsensusStore()
    for each in range(1, index + 1):
        machine.apply(world.chosen.entries[each])
    raft, data = leader.raft, machine.snapshot()
    effective = world.shadows[leader.name].configuration
    mark = mark_of(data, index, world.chosen.entries[index].term, effective, CHUNK_BYTES_MAX)
    boot = 1
    return SnapshotChunk(
        raft.generation, leader.store, receiver.store, boot, raft.term, mark, 0, mark.crc, data
    )


def an_empty_log_gets_no_vote() -> None:
    """Who could not use a vote yet would stand in the way of every agreement."""
    world = world_of("a", "b", "c", "d")
    leader = leader_of(world)
    before = leader.raft.configuration
    target = Configuration((*before.voters[:2], world.hosts["d"].voter))
    with suppress(InvalidRequest):
        _change(world, target)
    demand(leader.raft.configuration == before, "a refusal")


def two_voters_are_not_enough() -> None:
    """With two voters both must be up, which is worse than one alone."""
    world = world_of("a", "b", voters=1)
    first, learner = leader_of(world), followers_of(world)[0].voter
    _change(world, Configuration((first.voter,), (), (learner,)))
    world.run(10)
    with suppress(InvalidRequest):
        _change(world, Configuration((first.voter, learner)))
    world.run(5)
    demand(first.raft.configuration.voters == (first.voter,), "a refusal")


def a_leader_that_is_replaced_hands_over() -> None:
    """It leads until its successors have agreed, and no election has to time out then."""
    world = world_of("a", "b", "c", "d")
    leader, stranger = leader_of(world), world.hosts["d"]
    now = leader.raft.configuration
    _change(world, Configuration(now.voters, (), (stranger.voter,)))
    world.run(10)
    kept = tuple(each for each in now.voters if each != leader.voter)
    _change(world, Configuration((*kept, stranger.voter)))
    took_s = world.run_until(lambda: world.leader() not in (None, leader), within_s=20)
    demand(took_s is not None and took_s < world.tuning.election_min_s, "a quick hand-over")


def who_does_not_know_that_it_votes_does() -> None:
    """A learner became a voter and has not heard of it; without its vote nobody could lead."""
    world = world_of("a", "b", "c", voters=1)
    first, (heir, unaware) = leader_of(world), followers_of(world)
    learners = heir.voter, unaware.voter
    _change(world, Configuration((first.voter,), (), learners))
    world.run(10)
    world.partition([unaware.name])
    _change(world, Configuration((first.voter, *learners)))
    world.run(5)
    now = heir.raft.configuration
    demand(now.is_voter(heir.store) and not now.is_joint, "an end of the change")
    demand(not unaware.raft.configuration.is_voter(unaware.store), "a voter that is unaware")
    world.crash(first.name)
    world.join_sides()
    demand(world.run_until(lambda: world.leader() is heir, within_s=60) is not None, "a leader")


def a_spoilt_snapshot_is_not_installed() -> None:
    """A disk changes a byte of a snapshot; who gets it notices, and waits for another one."""
    world = world_of("a", "b", "c", compact_every=5)
    away = followers_of(world)[0]
    world.crash(away.name)
    write(world, 20)
    world.run(5)
    kept = leader_of(world).disk.platter.kept
    at = kept[0].index(MSGPACK_UINT32) + 4
    kept[0] = kept[0][:at] + bytes([kept[0][at] ^ 1]) + kept[0][at + 1 :]
    world.restart(away.name)
    world.run(30)
    demand(away.raft.counts["consensus_dropped/snapshot_crc"] > 0, "a complaint about it")
    world.run(world.tuning.transfer_patience_s)
    write(world, 20, first=21)
    demand(world.run_until(world.is_settled, within_s=60) is not None, "one state everywhere")


def _change(world: ConsensusWorld, target: Configuration) -> None:
    world.call(leader_of(world), lambda raft, now: raft.change(target, now))


def leadership_is_handed_over_in_a_moment() -> None:
    """Nobody waits for an election when a leader goes with notice."""
    world = world_of("a", "b", "c")
    leader, (heir, _) = leader_of(world), followers_of(world)
    world.call(leader, lambda raft, now: raft.transfer(heir.store, now))
    took_s = world.run_until(lambda: world.leader() is heir, within_s=10)
    demand(took_s is not None and took_s < world.tuning.election_min_s, "a quick hand-over")


def a_leader_whose_disk_hangs_hands_over() -> None:
    """Its heartbeats need no disk. The first of the others in the configuration is off."""
    world = world_of("a", "b", "c", "d", "e", voters=5)
    leader = leader_of(world)
    others = [each for each in leader.raft.configuration.voters if each != leader.voter]
    off = next(host for host in world.hosts.values() if host.voter == others[0])
    world.crash(off.name)
    world.run(5)
    world.slow_disk(leader.name, NEVER_S)
    write(world, 3)
    took_s = world.run_until(lambda: world.leader() not in (None, leader), within_s=30)
    demand(took_s is not None, "another leader")
    write(world, 3, first=4)
    world.run(5)
    successor = leader_of(world)
    demand(successor.raft.status().applied_index == successor.raft.last_index, "an end of writes")


def a_copied_card_is_not_heard() -> None:
    """Two processes with one log: whoever leads hears neither, until somebody decides."""
    world = world_of("a", "b", "c")
    # What a store has promised is promised by two from now on, which no rule of Raft knows.
    world.checkers.clear()
    leader, (original, other) = leader_of(world), followers_of(world)
    world.clone(original.name, "copy")
    world.run(30)
    demand(world.counts["clones_seen"] > 0, "a word about the copy")
    demand(leader_of(world) is leader, "a group that goes on without them")
    world.crash(other.name)
    commit = leader.raft.commit_index
    write(world, 3)
    demand(leader.raft.commit_index == commit, "silence while the copies alone would agree")


def tokens_do_not_go_back_when_one_survivor_goes_on() -> None:
    """The majority is lost for good. The survivor goes on alone, with larger indices."""
    world = world_of("a", "b", "c", compact_every=5)
    write(world, 12)
    world.run(5)
    survivor = followers_of(world)[0]
    token = survivor.machine.index
    for name in world.hosts:
        world.lose_power(name)
    world.recover(survivor.name)
    demand(world.run_until(lambda: world.leader() is survivor, within_s=60) is not None, "a leader")
    write(world, 2, client="survivor")
    world.run(5)
    demand(survivor.machine.index > token + 2**31, "indices above all of before")
    demand(survivor.machine.read("r0") == 2, "what was written since")


def who_is_of_the_former_generation_stays_outside() -> None:
    """The lost majority comes back after one survivor went on alone, and cannot depose it."""
    world = world_of("a", "b", "c")
    write(world, 3)
    survivor, *others = followers_of(world)[0], leader_of(world), followers_of(world)[1]
    for name in world.hosts:
        world.lose_power(name)
    world.recover(survivor.name)
    demand(
        world.run_until(lambda: survivor.raft.role is Role.LEADER, within_s=60) is not None, "it"
    )
    term = survivor.raft.term
    for _ in range(3):
        # Each time they elect anew, in a term that is above the survivor's in the end.
        for host in others:
            world.restart(host.name)
        world.run(25)
        for host in others:
            world.lose_power(host.name)
    demand(others[0].disk.platter.hard.term > term, "a majority of before that elects")
    demand(survivor.raft.role is Role.LEADER, "the survivor as a leader")
    demand(survivor.raft.term == term, f"term {term} as before, but {survivor.raft.term}")


SCENARIOS = (
    who_has_voted_remembers_it_over_a_restart,
    who_is_lied_to_does_not_depose,
    a_snapshot_goes_on_where_it_was_interrupted,
    two_voters_are_not_enough,
    a_leader_that_is_replaced_hands_over,
    who_was_cut_off_does_not_depose,
    who_does_not_hear_the_leader_does_not_depose_it,
    who_leads_nobody_steps_down,
    who_is_ahead_in_terms_finds_back,
    heartbeats_write_nothing,
    who_was_away_for_long_gets_a_snapshot,
    who_was_away_for_a_moment_gets_entries,
    a_voter_is_replaced_while_it_is_away,
    one_becomes_three,
    an_empty_log_gets_no_vote,
    who_does_not_know_that_it_votes_does,
    a_spoilt_snapshot_is_not_installed,
    a_snapshot_that_comes_late_removes_nothing,
    two_of_five_elect_nobody,
    an_answer_to_the_former_life_is_void,
    leadership_is_handed_over_in_a_moment,
    a_leader_whose_disk_hangs_hands_over,
    a_copied_card_is_not_heard,
    tokens_do_not_go_back_when_one_survivor_goes_on,
    who_is_of_the_former_generation_stays_outside,
)
