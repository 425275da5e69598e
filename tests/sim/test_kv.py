"""What was acknowledged stays, whatever happens to one node; replicas come to agree."""

from gossip.kv.requests import ListResult
from gossip.sim.consistency import NoLostWrites, QuorumReads
from gossip.sim.operations import Operation, Outcome
from gossip.sim.world import World

AGREE_S = 120


def world_of(*names: str, seed: int = 1) -> World:
    world = World(seed, checkers=[NoLostWrites(), QuorumReads()])
    world.add(*names)
    assert world.run_until(world.is_settled, within_s=30) is not None
    return world


def done(world: World, operation: Operation) -> Operation:
    assert world.run_until(lambda: operation.is_done, within_s=30) is not None
    return operation


def test_what_one_node_took_another_gives() -> None:
    world = world_of("a", "b", "c", "d")
    assert done(world, world.put("a", "greeting", b"hello")).outcome == "ok"
    world.crash("a")
    read = done(world, world.get("d", "greeting"))
    assert read.outcome == "ok"
    assert read.values == [b"hello"]


def test_a_minority_answers_indeterminate_and_the_write_is_kept() -> None:
    world = world_of("a", "b", "c")
    world.partition(["a"], ["b", "c"])
    write = done(world, world.put("a", "greeting", b"hello"))
    assert write.outcome == "indeterminate"
    world.heal()
    assert world.run_until(world.replicas_agree, within_s=AGREE_S) is not None
    assert done(world, world.get("b", "greeting")).values == [b"hello"]


def test_deleted_data_does_not_come_back_with_who_missed_the_delete() -> None:
    world = world_of("a", "b", "c")
    done(world, world.put("a", "greeting", b"hello"))
    assert world.run_until(world.replicas_agree, within_s=AGREE_S) is not None
    world.crash("c")
    read = done(world, world.get("a", "greeting"))
    assert done(world, world.delete("b", "greeting", after=read)).outcome == "ok"
    world.run(30)
    world.restart("c")
    assert world.run_until(world.replicas_agree, within_s=AGREE_S) is not None
    for name in "abc":
        assert done(world, world.get(name, "greeting")).values == []


def test_concurrent_writes_are_both_kept_until_one_replaces_them() -> None:
    world = world_of("a", "b", "c")
    base = done(world, world.get("a", "greeting"))
    one = world.put("a", "greeting", b"one", after=base)
    other = world.put("b", "greeting", b"other", after=base)
    done(world, one)
    done(world, other)
    read = done(world, world.get("c", "greeting"))
    assert sorted(read.values) == [b"one", b"other"]
    done(world, world.put("c", "greeting", b"both", after=read))
    assert done(world, world.get("a", "greeting")).values == [b"both"]


def test_an_acknowledged_write_survives_the_crash_of_all() -> None:
    world = world_of("a", "b", "c")
    assert done(world, world.put("a", "greeting", b"hello")).outcome == "ok"
    world.crash("a", "b", "c")
    world.restart("a", "b", "c")
    world.run(10)
    assert done(world, world.get("b", "greeting")).values == [b"hello"]


def test_a_clock_far_in_the_future_poisons_no_key() -> None:
    world = world_of("a", "b", "c")
    world.skew("a", 2.3e9)
    done(world, world.put("a", "greeting", b"from the future"))
    read = done(world, world.get("b", "greeting"))
    done(world, world.put("b", "greeting", b"from today", after=read))
    assert done(world, world.get("c", "greeting")).values == [b"from today"]


def test_a_write_dies_with_its_client_or_is_kept_whole() -> None:
    world = world_of("a", "b", "c")
    write = world.put("a", "greeting", b"hello")
    world.run(0.001)
    world.crash("a")
    assert write.fate is Outcome.LOST
    world.restart("a")
    world.run(10)
    assert world.run_until(world.replicas_agree, within_s=AGREE_S) is not None
    for checker in world.checkers:
        checker.settled(world)


def test_data_follows_the_placement_when_nodes_come_and_go() -> None:
    world = world_of("a", "b", "c")
    for number in range(40):
        assert done(world, world.put("a", f"key/{number}", b"%d" % number)).outcome == "ok"
    world.add("d", "e")
    assert world.run_until(world.is_whole, within_s=10) is not None
    assert world.run_until(world.replicas_agree, within_s=AGREE_S) is not None
    world.remove("b")
    world.run(5)
    world.crash("b")
    assert world.run_until(world.replicas_agree, within_s=AGREE_S) is not None
    for number in range(40):
        read = done(world, world.get("e", f"key/{number}"))
        assert read.outcome == "ok"
        assert read.values == [b"%d" % number]


def test_keys_are_listed_from_any_node() -> None:
    world = world_of("a", "b", "c", "d")
    for number in range(5):
        done(world, world.put("b", f"room/{number}", b"x"))
    listed = done(world, world.list_keys("d", "room/"))
    assert isinstance(listed.result, ListResult)
    assert [entry.key for entry in listed.result.entries] == [f"room/{n}" for n in range(5)]


def test_a_watch_sees_what_others_write() -> None:
    world = world_of("a", "b", "c", "d")
    seen = world.watch("d", "room/")
    world.run(1)
    done(world, world.put("a", "room/1", b"warm"))
    done(world, world.put("a", "hall/1", b"cold"))
    world.run(2)
    told = [(event.key, event.kind) for event in seen if event.kind != "mark"]
    assert told == [("room/1", "put")]
