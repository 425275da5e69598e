"""What a fake agent tells of its shared keys, for tests of the HTTP API and of commands."""

from agent.cluster.kv_messages import ComparisonView, KeyView, KvStats, VersionView
from agent.cluster.kv_stats import KvStatsReport
from agent.cluster.kv_why import KeyReport
from agent.cluster.ring_moves import RingMoves
from gossip.kv.takeover import Copy
from gossip.registry import registry as registries
from gossip.registry.node import RegisteredNode
from gossip.registry.ownership import Ownership

ME, OTHER, GONE = 0xA, 0xB, 0xC
CLUSTER, STAMP = bytes(range(16)), 1_700_000_000_000 << 16


class FakeKeyViews:
    """What ada, bob and cy say that they have: bob is behind, and cy does not answer."""

    def __init__(self) -> None:
        self.silent = {GONE}

    async def report(self, key: str) -> KeyReport:
        sound, digest = Copy(is_sound=True, complete_for=4), bytes(range(8))
        new, old = VersionView(7, 2, STAMP, 300, digest), VersionView(7, 1, STAMP - 1, 2, digest)
        views = {
            ME: KeyView(1, 4, sound, True, False, (new,), ((7, 2),), ((7, 1), (7, 2))),
            OTHER: KeyView(1, 3, sound, True, True, (old,), ((7, 1),), ((7, 1),)),
        }
        told = {node: view for node, view in views.items() if node not in self.silent}
        ownership = Ownership((ME, OTHER, GONE), 4, 4)
        return KeyReport(key, 5, 4, ownership, frozenset({ME, OTHER, GONE}), told)


class FakeKvSurvey:
    """What ada tells of its keys, and bob of his; bob may be silent."""

    def __init__(self) -> None:
        self.told = {
            ME: KvStats(
                1, 2, 90.0, 8192, ((0, 3), (7, 2)), 0, 0, False, 0, 1, 0, 0, 2,
                (ComparisonView(OTHER, 2.5, 4),),
            ),
            OTHER: KvStats(
                1, 2, 5.0, 4096, ((0, 3), (7, 1)), 2, 1, True, 1, 0, 6, 0, 0,
                (ComparisonView(ME, None, 0),),
            ),
        }  # fmt: skip

    async def report(self) -> KvStatsReport:
        return KvStatsReport((ME, OTHER), self.told)


class FakeKvReports:
    """Both kinds of reports."""

    def __init__(self) -> None:
        self.views, self.survey = FakeKeyViews(), FakeKvSurvey()
        self.moves = RingMoves(registries.found(CLUSTER, RegisteredNode(ME, "ada")))
