"""Which issuer carries partitions on, when there are several."""

import msgspec

from gossip.kv.limits import REPORT_INTERVAL_S
from gossip.kv.ownership_progress import acting_issuer
from gossip.kv.requests import OwnersReady
from gossip.registry.node import ISSUER
from gossip.registry.registry import Registry, admit
from tests.support.kv_net import Net, node, registry_of


def issued_by(*issuers: int, count: int = 4) -> Registry:
    registry = registry_of(range(1, count + 1))
    nodes = tuple(
        msgspec.structs.replace(each, roles=(ISSUER,) if each.id in issuers else ())
        for each in registry.nodes
    )
    return msgspec.structs.replace(registry, nodes=nodes)


def test_the_leader_acts_if_it_is_an_issuer_else_the_first_that_votes() -> None:
    registry = issued_by(1, 3)
    assert acting_issuer(registry, 3, (1, 3)) == 3
    assert acting_issuer(registry, 2, (2, 3)) == 3
    assert acting_issuer(registry, None, (1, 2, 3)) == 1
    assert acting_issuer(registry, None, ()) == 1, "before anybody is known to vote"
    assert acting_issuer(issued_by(), 2, (2,)) is None


class Told(Net):
    """Remembers who said what is ready."""

    def __init__(self, registry: Registry) -> None:
        self.said: list[int] = []
        super().__init__(registry)

    def advance(self, number: int, ready: OwnersReady) -> None:
        self.said.append(number)


def test_one_of_several_issuers_says_what_is_ready_and_another_when_the_leader_changes() -> None:
    net = Told(issued_by(1, 2))
    for number in (1, 2):
        net.planes[number].progress.voting = lambda: (2, (1, 2))
    grown = admit(net.registry, node(5))
    net.start(5, grown)
    net.adopt(grown)
    net.run(3 * REPORT_INTERVAL_S)
    assert set(net.said) == {2}
    for number in (1, 2):
        net.planes[number].progress.voting = lambda: (1, (1, 2))
    net.said.clear()
    net.run(2 * REPORT_INTERVAL_S)
    assert set(net.said) == {1}, "it was told as well"
