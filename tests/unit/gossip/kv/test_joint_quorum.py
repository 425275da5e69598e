"""Whose word counts for a read or a write, above all while other owners are to follow."""

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import pytest

from gossip.core.errors import InvalidRequest
from gossip.core.ids import NodeId
from gossip.kv.joint_quorum import JointQuorum
from gossip.kv.messages import CODEC, Store
from gossip.kv.requests import Delete, Get, GetResult, List, Put, PutResult
from gossip.registry.ownership import Ownership, Stage
from tests.support.kv_net import Net, registry_of

SETTLED = Ownership((1, 2, 3), 4, 4)
COPYING = Ownership((1, 2, 3), 5, 4, (1, 4, 5))
JOINING = Ownership((1, 2, 3), 6, 4, (1, 4, 5), 6)
LEAVING = Ownership((1, 2, 3), 7, 4, (1, 4, 5), 6)


@pytest.mark.parametrize(("ownership", "r", "answered", "is_met"), [
    (SETTLED, None, {1, 2}, True),
    (SETTLED, None, {1, 4}, False),
    (SETTLED, 3, {1, 2}, False),
    (COPYING, None, {2, 3}, True),
    (JOINING, None, {2, 3}, False),
    (JOINING, None, {1, 2}, False),
    (JOINING, None, {1, 2, 4}, True),  # a node of both counts for both
    (JOINING, None, {1, 4, 5}, False),  # what the pending lack, only the owners have
    (JOINING, 3, {1, 2, 3, 4}, True),
    (JOINING, 1, {3}, True),  # it promises nothing of the next read
    (LEAVING, None, {4, 5}, True),
    (LEAVING, None, {2, 3}, False),
])  # fmt: skip
def test_a_read_is_answered_by_most_of_each_set_whose_word_counts(
    ownership: Ownership, r: int | None, answered: set[NodeId], is_met: bool
) -> None:
    assert JointQuorum.of_read(ownership, r).is_met(answered) is is_met


@pytest.mark.parametrize(("ownership", "w", "acks", "standing"), [
    (COPYING, None, {1, 4, 5}, (1, 2)),
    (JOINING, None, {1, 2}, (1, 2)),
    (JOINING, None, {1, 4}, (1, 2)),
    (JOINING, None, {2, 3, 4, 5}, (2, 2)),
    (LEAVING, 3, {1, 2, 4, 5}, (2, 3)),
    (Ownership((1, 2, 3), 6, 4, (1, 2), 6), 3, {1, 2, 3}, (3, 3)),  # of fewer than w, all
])  # fmt: skip
def test_a_write_stands_as_in_the_set_that_is_furthest_behind(
    ownership: Ownership, w: int | None, acks: set[NodeId], standing: tuple[int, int]
) -> None:
    assert JointQuorum.of_write(ownership, w).progress(acks) == standing


def test_nobody_is_asked_who_brings_a_quorum_no_nearer() -> None:
    quorum = JointQuorum.of_read(JOINING, None)
    assert quorum.nodes == (1, 2, 3, 4, 5)
    assert quorum.chosen((1, 2, 3, 4, 5), ()) == [1, 2, 4]
    assert quorum.chosen((3, 5), {1, 2}) == [5]
    assert quorum.chosen((1, 5), {2, 3, 4}) == [1]
    assert quorum.chosen((2, 3), {1}) == [2]


def test_more_than_there_are_readers_cannot_be_asked() -> None:
    with pytest.raises(InvalidRequest, match="3 owners"):
        JointQuorum.of_read(JOINING, 4)


class Changing(Net):
    """1, 2 and 3 own the one partition that there is, and 1, 4 and 5 are to follow them."""

    def __init__(self, *, joining: bool = True) -> None:
        self.kept_from: set[NodeId] = set()
        """Who is told of no write, and mended by no read."""
        settled = registry_of((1, 2, 3, 4, 5), partitions=1)
        entry = Ownership((1, 2, 3), 1, 0, (1, 4, 5), 1 if joining else 0)
        super().__init__(msgspec.structs.replace(settled, table=(entry,)))
        assert self.ask(1, Put("old", b"o")).outcome == "ok"

    @property
    def stage(self) -> Stage:
        return self.registry.table[0].stage

    def run_until(self, is_so: Callable[[], bool]) -> None:
        for _ in range(5_000):
            if is_so():
                return
            self.run(0.001)
        raise AssertionError("it never came to that")

    def send(self, sender: NodeId, to: NodeId, data: bytes) -> None:
        if to not in self.kept_from or not isinstance(CODEC.decode(data), Store):
            super().send(sender, to, data)

    def are_complete(self) -> bool:
        """Tell whether 4 and 5 have made their passes, and are to make no more."""
        since = self.registry.table[0].pending_since
        return all(self.planes[n].replica.copy(0).has_all_before(since) for n in (4, 5))

    def those_with(self, key: str) -> set[NodeId]:
        """Return the nodes on whose disk there is a version of a key."""
        records = {number: self.storages[number].load(0, key) for number in self.planes}
        return {number for number, record in records.items() if record and record.live}

    def change(self, request: Put | Delete) -> None:
        """Have 1 tell the owners alone of a write."""
        self.kept_from = {4, 5}
        self.submit(1, request)
        self.run(0.02)
        self.kept_from = set()


class Story(NamedTuple):
    """What was answered while a partition changed hands."""

    write: PutResult
    before: GetResult
    after: GetResult


def written_to_the_owners_just_before_they_are_left(request: Put | Delete) -> Story:
    """Write to 1, 2 and 3 alone; read there, and at 4 and 5 once these are the readers.

    These have made their passes already, and hear nothing of it afterwards.
    """
    net = Changing()
    net.run_until(net.are_complete)
    net.run(0.3)  # the issuer, 1, has heard that they have
    assert net.stage is Stage.JOINING
    net.cut = {frozenset((old, new)) for old in (1, 2, 3) for new in (4, 5)}
    name = (1, net.submit(1, request))
    net.run(0.02)
    before = net.ask(2, Get(request.key, timeout_s=0.3))
    net.run_until(lambda: net.stage is Stage.LEAVING and name in net.results)
    net.adopt(net.registry)
    net.crash(1)
    after = net.ask(4, Get(request.key))
    assert after.outcome == "ok"
    write = net.results[name]
    assert isinstance(write, PutResult)
    return Story(write, before, after)


def written_to_one_owner_while_others_copy() -> Story:
    """Write to 1, 4 and 5 alone; read at 2 and 3, which own it as 1 does, twice."""
    net = Changing(joining=False)
    net.cut = {frozenset((1, 2)), frozenset((1, 3))}
    write = net.ask(1, Put("new", b"n", timeout_s=0.3))
    assert net.stage is Stage.COPYING
    net.crash(1)
    return Story(write, net.ask(2, Get("new")), net.ask(3, Get("new")))


PUT = Put("new", b"n", timeout_s=0.4)


def delete_old() -> Delete:
    """Return a request that names what it deletes. Each net has the same under that key."""
    return Delete("old", context=Changing().ask(1, Get("old")).context, timeout_s=0.4)


def test_what_a_read_shows_is_not_gone_when_its_owners_are_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    story = written_to_the_owners_just_before_they_are_left(PUT)
    assert (story.before.outcome, story.before.values) == ("unavailable", ())
    assert (story.before.answered, story.before.needed) == (1, 2), "of those pending"
    assert story.after.values == ()
    reads_from_the_owners_alone(monkeypatch)
    story = written_to_the_owners_just_before_they_are_left(PUT)
    assert (len(story.before.values), len(story.after.values)) == (1, 0)


def test_what_a_read_shows_as_deleted_is_not_back_when_its_owners_are_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    story = written_to_the_owners_just_before_they_are_left(delete_old())
    assert (story.before.outcome, len(story.after.values)) == ("unavailable", 1)
    reads_from_the_owners_alone(monkeypatch)
    story = written_to_the_owners_just_before_they_are_left(delete_old())
    assert (story.before.outcome, len(story.before.values)) == ("ok", 0)
    assert len(story.after.values) == 1


def test_what_the_owners_alone_have_is_not_acknowledged_while_others_join(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    story = written_to_the_owners_just_before_they_are_left(PUT)
    assert (story.write.outcome, story.write.acks, story.write.needed) == ("indeterminate", 1, 2)
    writes_to_the_owners_alone(monkeypatch)
    story = written_to_the_owners_just_before_they_are_left(PUT)
    assert (story.write.outcome, story.after.values) == ("ok", ()), "acknowledged, and not there"


def test_what_those_that_copy_have_is_not_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    story = written_to_one_owner_while_others_copy()
    assert (story.write.outcome, story.write.acks, story.write.needed) == ("indeterminate", 1, 2)
    writes_to_those_pending_alone(monkeypatch)
    story = written_to_one_owner_while_others_copy()
    assert (story.write.outcome, story.before.values, story.after.values) == ("ok", (), ())


def reads_from_the_owners_alone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ownership, "read_sets", property(lambda self: (self.readers,)))


def writes_to_the_owners_alone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ownership, "writers", property(lambda self: (self.owners,)))


def writes_to_those_pending_alone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ownership, "writers", property(lambda self: (self.target,)))


def test_a_read_mends_those_pending_before_it_answers() -> None:
    net = Changing()
    net.change(PUT)
    assert net.those_with("new") == {1, 2, 3}
    assert net.values(net.ask(2, Get("new"))) == [b"n"]
    assert net.stage is Stage.JOINING
    assert net.those_with("new") & {4, 5}, "with 1, most of those pending"
    assert net.planes[2].counts["repairs/reads"] == 1


def test_a_read_takes_what_was_deleted_from_those_pending() -> None:
    net = Changing()
    assert net.those_with("old") == {1, 2, 3, 4, 5}
    net.change(delete_old())
    assert net.those_with("old") == {4, 5}
    assert net.ask(2, Get("old")).values == ()
    assert net.stage is Stage.JOINING
    assert len(net.those_with("old")) == 1


def test_one_of_three_pending_that_is_down_keeps_no_reader_waiting() -> None:
    net = Changing()
    net.crash(4)
    net.change(PUT)
    assert net.values(net.ask(2, Get("new"))) == [b"n"]
    assert net.stage is Stage.JOINING
    assert net.those_with("new") == {1, 2, 3, 5}


def test_a_read_of_one_owner_waits_for_nobody_else() -> None:
    net = Changing()
    net.isolate(2)
    assert net.values(net.ask(2, Get("old", r=1))) == [b"o"]


def test_a_damaged_copy_of_one_pending_counts_for_nothing() -> None:
    net = Changing()
    for number in (4, 5):
        net.planes[number].replica.damaged.add(0)
    result = net.ask(2, Get("old", timeout_s=0.2))
    assert (result.outcome, result.answered, result.needed) == ("unavailable", 1, 2)


def test_a_list_asks_those_pending_as_well() -> None:
    net = Changing()
    net.change(PUT)
    result = net.ask(2, List())
    assert result.outcome == "ok"
    assert [entry.key for entry in result.entries] == ["new", "old"]
    assert net.those_with("new") & {4, 5}
    net.cut = {frozenset((old, new)) for old in (1, 2, 3) for new in (4, 5)}
    assert net.ask(2, List(timeout_s=0.3)).outcome == "partial"
    assert net.stage is Stage.JOINING
