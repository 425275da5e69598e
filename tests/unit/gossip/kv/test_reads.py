"""A quorum read whose owners differ, while something arrives at one of them."""

import pytest

from gossip.core.ids import NodeId
from gossip.kv.messages import CODEC, Store
from gossip.kv.reads import Reads
from gossip.kv.requests import Delete, Get, Put
from gossip.registry.registry import Registry
from tests.support.kv_net import Net, registry_of


class Stalled(Net):
    """A net in which what 3 sends to 1 is held."""

    def __init__(self, registry: Registry) -> None:
        self.held: list[bytes] = []
        super().__init__(registry)

    def send(self, sender: NodeId, to: NodeId, data: bytes) -> None:
        if (sender, to) == (3, 1):
            self.held.append(data)
        else:
            super().send(sender, to, data)


def read_while_an_old_version_arrives() -> list[bytes]:
    """Return what a read at 1 finds, at which a replaced version arrives in the midst of it.

    3 wrote it long ago, and what it told 1 of it is still under way; 2 and 3 have deleted it since,
    and 2 has written another one, of which 1 has not heard.
    """
    net = Stalled(registry_of([1, 2, 3], partitions=1))
    net.planes[2].writes.missed = lambda _node, _write: None  # a hint would tell 1 in time
    assert net.ask(3, Put("k", b"old")).outcome == "ok"
    net.cut = {frozenset((1, 2))}
    assert net.ask(2, Delete("k")).outcome == "ok"
    assert net.ask(2, Put("k", b"new")).outcome == "ok"
    net.heal()
    store = next(data for data in net.held if isinstance(CODEC.decode(data), Store))
    name = (1, net.submit(1, Get("k", r=2)))
    net.at(net.now + 0.0015, lambda: net.planes[1].receive_frame(store, 3, net.now))
    net.run(3)
    assert net.planes[1].counts["reads/diverged"] == 1
    return net.values(net.results[name])


@pytest.mark.interpreted
def test_an_old_version_that_arrives_while_a_read_weighs_is_weighed_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert read_while_an_old_version_arrives() == [b"new"]
    monkeypatch.setattr(Reads, "_weighed", Reads._combine)
    assert read_while_an_old_version_arrives() == [b"new", b"old"], "weighing once is not enough"


def test_one_owner_answers_at_once_what_is_on_its_disk_and_nothing_else() -> None:
    net = Net(registry_of([1, 2, 3]))
    assert net.ask(1, Put("k", b"old", w=3)).outcome == "ok"
    frames = net.frames
    number = net.submit(1, Get("k", r=1))
    assert net.values(net.results[1, number]) == [b"old"], "without a turn in between"
    assert net.frames == frames
    net.submit(1, Put("k", b"new", w=1))
    number = net.submit(1, Get("k", r=1))
    assert (1, number) not in net.results, "what is here now is not on the disk"
    net.run(0.1)
    assert net.values(net.results[1, number]) == [b"new"]
