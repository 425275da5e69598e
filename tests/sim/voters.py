"""One schedule of a group of voters that grows by itself, in trouble and then in peace.

The seed decides who stands where, who crashes for how long, who is cut off, whose log is lost, who
drains, and when whoever leads dies. Raft's checkers look at every step, and at what the policy
promises: three or five vote or one does, and never fewer than before. In peace as many as there
should be vote, none of whom drains where others can, and all copies are the same.

Run many, and see what happened: ``python -m tests.sim.voters --seeds 0:500``.
"""

import argparse
import random
import traceback
from collections import Counter
from typing import Any

from gossip.consensus.configuration import Configuration
from gossip.control.commands import Transact
from gossip.control.requests import ControlOrder, ControlWrite
from gossip.control.transactions import PutKey
from gossip.control.voters import STABLE_FOR_FIVE, VoterTuning
from gossip.registry.node import INVITER
from tests.support.checked_control import CheckedNet

TUNING = VoterTuning(uptime_min_s=5.0, silent_s=60.0, replace_every_s=30.0, standby_lost_s=40.0)
TROUBLE_STEPS = 40
DRAINS_SHARE = 0.15
PEACE_S = TUNING.report_every_s + 200.0
"""Who started last tells of itself again, as one that has run for a while."""
MUST_HAPPEN = (
    "grown", "replaced_silent", "replaced_by_order", "standbys", "leaders_killed", "logs_lost",
    "five_voters", "replaced_draining", "handed_over",
)  # fmt: skip
VACUITY_SEEDS_MIN = 20


class Growth:
    """The world of one seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.drain_rng = random.Random(f"{seed} drains")
        self.nodes = self.rng.choice((5, 9, 10))
        self.net = CheckedNet(self.nodes, seed, voter_tuning=TUNING)
        self.net.zones = {node: self.rng.choice("abc") for node in self.net.ids}
        self.net.grant(*self.net.ids, role=INVITER)
        self.happened: Counter[str] = Counter()
        self.sizes: list[int] = [1]
        self._seen: Configuration | None = None
        self._counted: dict[int, Counter[str]] = {}

    def run(self) -> Counter[str]:
        """Run the schedule; return what happened. Raises whatever broke."""
        for _ in range(TROUBLE_STEPS):
            self._befall()
            self._drain()
            for _ in range(self.rng.randrange(1, 4)):
                self._write()
                self.net.run(self.rng.choice((0.1, 3.0, 12.0, 45.0)))
                self._look()
        self._make_peace()
        return self.happened

    def _look(self) -> None:
        """See that what is agreed on grows, and is odd, as far as this net has come."""
        for node, plane in self.net.planes.items():
            self._counted[node] = Counter(plane.voters.counts)
        agreed = max(
            self.net.planes.values(), key=lambda plane: plane.part._configuration_index
        ).part.configuration
        if agreed.voters and agreed != self._seen:
            self._seen = agreed
            assert len(agreed.voters) in (1, 3, 5), agreed
            assert len(agreed.learners) <= 2, agreed
            assert len(agreed.voters) >= self.sizes[-1], "the number never falls"
            self.sizes.append(len(agreed.voters))
            self.happened["five_voters"] += len(agreed.voters) == 5

    def _write(self) -> None:
        node = self.rng.choice(list(self.net.planes))
        key = f"k{self.rng.randrange(20)}"
        request: Any = ControlWrite(Transact((), (PutKey(key, bytes(8)),)), 10.0)
        self.net.submit(node, request)

    def _befall(self) -> None:
        net, rng = self.net, self.rng
        node = rng.choice(net.ids)
        match rng.randrange(10):
            case 0 | 1 if len(net.planes) > self.nodes // 2 + 1 and node in net.planes:
                self._crash(node)
            case 2 if len(net.planes) > self.nodes // 2 + 1:
                leading = net._leading()
                if leading:
                    self.happened["leaders_killed"] += 1
                    self._crash(leading[-1].me.node)
            case 3:
                self._start_all()
            case 4 | 5:
                net.separate(node)
            case 6:
                net.heal()
            case 7:
                net.loss = rng.choice((0.0, 0.0, 0.1))
            case 8 if node in net.planes:
                self._order(node)
            case 9:
                self._lose_log(node)

    def _drain(self) -> None:
        """Now and then empty up to two nodes, and take back whoever was to be empty before."""
        if self.drain_rng.random() < DRAINS_SHARE:
            self.net.draining = set(
                self.drain_rng.sample(self.net.ids, self.drain_rng.randrange(3))
            )

    def _order(self, node: int) -> None:
        """Order one voter to be replaced, on any node; now and then what is not allowed."""
        voters = sorted(each.node for each in (self._seen or Configuration()).voters)
        others = [each for each in self.net.ids if each not in voters]
        if voters and others:
            new = self.rng.choice(others + voters[:1])
            self.net.submit(node, ControlOrder(self.rng.choice(voters), new))

    def _crash(self, node: int) -> None:
        self._look()
        for label, count in self._counted.pop(node, Counter()).items():
            self.happened[label.partition("/")[2]] += count
        self.net.crash(node)

    def _start_all(self) -> None:
        for gone in set(self.net.ids) - self.net.planes.keys():
            self.net.start(gone)

    def _lose_log(self, node: int) -> None:
        """Lose a log if all others are there: without a majority nothing could ever go on."""
        voters = {each.store for each in (self._seen or Configuration()).voters}
        intact = {self.net.stores[other] for other in self.net.planes if other != node}
        is_safe = len(voters) >= 3 and 2 * len(voters & intact) > len(voters) + 1
        if is_safe and node in self.net.planes and not self.net.cut:
            self._crash(node)
            self.net.lose_log(node)
            self.net.start(node)
            self.happened["logs_lost"] += 1

    def _make_peace(self) -> None:
        net = self.net
        net.heal()
        net.loss = 0.0
        self._start_all()
        for _ in range(int(PEACE_S / 20.0)):
            net.run(20.0)
            self._look()
        for node in list(net.planes):
            for label, count in net.planes[node].voters.counts.items():
                self.happened[label.partition("/")[2]] += count
        put_out = net.leader().voters._put_out
        stable = {n for n in net.ids if net.stores[n] not in put_out and n not in net.draining}
        wanted = max(5 if len(stable) >= STABLE_FOR_FIVE else 3, self.sizes[-1])
        voting = {each.node for each in net.configuration().voters}
        assert len(voting) == wanted, net.configuration()
        assert len(stable) < wanted or not voting & net.draining, net.configuration()
        present = {net.stores[each] for each in net.ids}
        assert {each.store for each in net.configuration().voters} <= present, "all live"
        assert net.put(1, "last").succeeded
        net.agree()


def main() -> int:
    """Run the seeds that the command line names; 1 if one failed, or nothing of a kind happened."""
    parser = argparse.ArgumentParser(description="schedules of a group of voters that grows")
    parser.add_argument("--seeds", default="0:500", help="FIRST:END")
    first, end = (int(number) for number in parser.parse_args().seeds.split(":"))
    happened: Counter[str] = Counter()
    failed = 0
    for seed in range(first, end):
        try:
            happened += Growth(seed).run()
        except Exception:  # noqa: BLE001 - whatever broke, the other seeds run all the same
            failed += 1
            traceback.print_exc()
            print(f"replay: python -m tests.sim.voters --seeds {seed}:{seed + 1}", flush=True)
    print(f"{end - first} schedules, {failed} failed; {dict(sorted(happened.items()))}")
    is_vacuous = any(not happened[each] for each in MUST_HAPPEN)
    return 1 if failed or (is_vacuous and end - first >= VACUITY_SEEDS_MIN) else 0


if __name__ == "__main__":
    raise SystemExit(main())
