"""One schedule of a covey whose voters are lost for good, again and again, and recovered.

The seed decides who is lost, whose copy is the newest of those that are left, on which an operator
goes on, and when the lost ones come back: one by one, or as a majority that could go on deciding.
Looked at are the tokens that anybody was given, which grow with each generation, whatever was lost;
what the survivor had, which is all there still; and the end, at which all follow one agreement, in
which nobody votes with a log of before.

Run many, and see what happened: ``python -m tests.sim.recoveries --seeds 0:500``.
"""

import argparse
import random
import traceback
from collections import Counter
from itertools import pairwise
from typing import Any

from gossip.consensus.storage import CLOCK_STEP, CLOCK_UNIT_S, GENERATION_INDEX_STEP
from gossip.control.commands import AcquireLock, OpenSession, ReleaseLock, Transact
from gossip.control.outcomes import LockResult, SessionResult
from gossip.control.recovery import origin_of, state_at_end
from gossip.control.requests import ControlWrite
from gossip.control.transactions import PutKey
from gossip.control.voters import VoterTuning
from tests.support.control_net import BEGAN_S, ControlNet

TUNING = VoterTuning(uptime_min_s=5.0, silent_s=600.0, standby_lost_s=40.0)
ROUNDS = 3
GROWTH_S = 90.0
APART_S = (GENERATION_INDEX_STEP // CLOCK_STEP + 1) * CLOCK_UNIT_S
"""By so much recoveries are apart: less, and clocks do not keep them apart that do not know of
each other."""
MUST_HAPPEN = (
    "recovered", "came_back", "came_back_as_majority", "gave_way", "tokens", "entries_uncommitted",
    "acknowledged_lost", "survivors_without_key", "trusted",
)  # fmt: skip
VACUITY_SEEDS_MIN = 20


class Recoveries:
    """The world of one seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.net = ControlNet(self.rng.choice((4, 5, 6)), seed, voter_tuning=TUNING)
        self.happened: Counter[str] = Counter()
        self.tokens: dict[int, list[int]] = {}
        """Those that were given, of all locks, by the recovery after which that was, whenever.

        Voters of before give some until they are told: each is smaller than all later ones. So are
        those of a recovery that was lost before anybody had followed it.
        """
        self._recoveries: list[tuple[int, int]] = [(1, 0)]
        """The generations with their origins, in the order of time."""
        self.acknowledged: dict[str, bytes] = {}
        self._count = 0
        self._is_known = True
        """Whether the last recovery was where voters of before believe it by themselves."""

    def run(self) -> Counter[str]:
        """Run the schedule; return what happened. Raises whatever broke."""
        for _ in range(ROUNDS):
            self._live(GROWTH_S)
            self._lose_majority()
            self._recover()
            self._let_them_come_back()
        self._settle()
        return self.happened

    def _follow_up(self) -> None:
        """Do what follows by itself, and what an operator does who knows where they went on.

        The role of an issuer goes with the vote, where one who holds the key votes.
        """
        net = self.net
        self.happened["gave_way"] += len(net.give_way())
        leading = net._leading()
        if leading and leading[-1].part.generation == self._recoveries[-1][0]:
            voters = {each.node for each in leading[-1].part.configuration.voters}
            if not net.entries or voters & set(net.entries):
                net.grant(*voters)
        latest = self._recoveries[-1]
        for node, plane in net.planes.items():
            for peer, later in tuple(plane.standings.doubted.items()):
                if later == latest[0] and origin_of(net.planes[peer].state) == latest[1]:
                    self.happened["trusted"] += 1
                    plane.trust(peer, net.now)
                    net._perform(node)

    def _live(self, seconds: float) -> None:
        """Let time pass in which everybody writes, and takes locks."""
        net = self.net
        until = net.now + seconds
        while net.now < until:
            net.run(self.rng.choice((0.5, 4.0, 12.0)))
            self._follow_up()
            self._write(self.rng.choice(list(net.planes)))
            if self.rng.random() < 0.5:
                self._lock()

    def _write(self, node: int) -> None:
        """Write a key; it counts as told only if the answer has come."""
        self._count += 1
        key, value = f"k{self._count}", bytes([self._count % 256])
        done = self._ask(node, Transact((), (PutKey(key, value),)))
        is_told = self._is_known or self._follows_latest(node)
        if getattr(done, "succeeded", False) and is_told:
            self.acknowledged[key] = value

    def _follows_latest(self, node: int) -> bool:
        """Tell whether a node follows the recovery that an operator wanted last.

        Where that was at a node without the key, a majority of before decides until it is told.
        """
        plane = self.net.planes.get(node)
        return plane is not None and plane.part.generation == self._recoveries[-1][0]

    def _lock(self) -> None:
        node = self.rng.choice(list(self.net.planes))
        opened = self._ask(node, OpenSession(node, 60_000, 0))
        if not isinstance(opened, SessionResult):
            return
        name = f"lock{self.rng.randrange(3)}"
        given = self._ask(node, AcquireLock(name, opened.session, wait=False))
        if isinstance(given, LockResult) and given.token:
            self.tokens.setdefault(self._giver(name, given.token), []).append(given.token)
            self.happened["tokens"] += 1
            self._ask(node, ReleaseLock(name, opened.session))

    def _giver(self, name: str, token: int) -> int:
        """Return which recovery, by its number, whoever knows of this token follows."""
        for plane in self.net.planes.values():
            lock = plane.state.locks.get(name)
            if lock is not None and any(each.token == token for each in lock.holders):
                return self._recoveries.index((plane.part.generation, origin_of(plane.state)))
        raise AssertionError("somebody has applied what was answered")

    def _ask(self, node: int, action: Any) -> Any:
        """Ask, and wait no longer than the request does."""
        net = self.net
        number = net.submit(node, ControlWrite(action, 8.0))
        net.until(lambda: (node, number) in net.results or node not in net.planes, 20.0)
        done = net.results.get((node, number))
        return done.result if done else None

    def _voters(self) -> list[int]:
        return [each.node for each in self.net.leader().part.configuration.voters]

    def _lose_majority(self) -> None:
        """Take so many voters away that the others decide nothing, in the midst of writes."""
        net, voters = self.net, self._voters()
        if len(voters) == 1 and len(net.planes) == 1:
            return
        gone = self.rng.sample(voters, max(1, len(voters) // 2 + 1))
        if set(net.planes) <= set(gone):
            gone = gone[:-1]
        if self.rng.random() < 0.5:
            # What some have, and could not agree on any more, counts for who has it.
            net.separate(*gone)
            for node in gone:
                net.submit(node, ControlWrite(Transact((), (PutKey(f"late{node}", b""),)), 2.0))
            net.run(1.0)
        for node in gone:
            net.crash(node)
        net.heal()
        net.run(self.rng.choice((0.0, 15.0)))
        self._lost = gone

    def _recover(self) -> None:
        """Go on where the newest copy is, as an operator is told to."""
        net = self.net
        net.give_way()
        standings = {node: plane.standing() for node, plane in net.planes.items()}
        survivor = max(standings, key=lambda n: (standings[n].newness, n in net.entries))
        before = net.planes[survivor].part.survivor()
        if not before.hard.generation:
            return
        there = {each.key: each.value for each in state_at_end(before).keys}
        self.happened["entries_uncommitted"] += before.last_index > net.planes[survivor].state.index
        voted = net.planes[survivor].part.own_configuration().voters
        self._is_known = survivor in {*net.entries, *(each.node for each in voted)}
        self.happened["survivors_without_key"] += not self._is_known
        net.recover(survivor, BEGAN_S + APART_S * len(self._recoveries))
        generation = net.planes[survivor].part.generation
        self._recoveries.append((generation, net.stores[survivor]))
        net.until(lambda: net.planes[survivor].status(net.now).role == "leader")
        after = {each.key: each.value for each in net.planes[survivor].state.keys}
        assert there.items() <= after.items() | {("covey/recovery", there.get("covey/recovery"))}, (
            "all that the survivor had is there"
        )
        lost = [key for key in self.acknowledged if key not in after]
        self.happened["acknowledged_lost"] += bool(lost)
        for key in lost:
            del self.acknowledged[key]
        assert self.acknowledged.items() <= after.items(), "and as it was"
        self.happened["recovered"] += 1

    def _let_them_come_back(self) -> None:
        """Let the lost ones come back: after a while, some, and perhaps at first among themselves.

        A majority of before that hears nobody else goes on deciding. That is said, and all of it is
        lost: so nothing of it counts as told here.
        """
        net, gone = self.net, [node for node in self._lost if node not in self.net.planes]
        if not gone:
            return
        alone = self.rng.random() < 0.5
        if alone:
            net.separate(*gone)
        else:
            self._live(self.rng.choice((1.0, 30.0)))
        for node in gone:
            net.start(node)
        self.happened["came_back"] += len(gone)
        if alone:
            net.run(25.0)
            leading = [each for each in net._leading() if each.me.node in gone]
            self.happened["came_back_as_majority"] += bool(leading)
            net.heal()
            for node in gone:
                for plane in list(net.planes.values()):
                    plane.peer_alive(node, net.now)
                    net._perform(plane.me.node)

    def _settle(self) -> None:
        """See that all come to one agreement, and that tokens only grew."""
        net = self.net
        self._live(GROWTH_S)
        if any(plane.standings.forks for plane in net.planes.values()):
            # One was lost before anybody had followed it, and is back: the operator has to decide.
            self.happened["forked"] += 1
            self._recover()
        net.until(self._is_one, 900.0)
        numbers = sorted(self.tokens)
        for before, after in pairwise(numbers):
            assert max(self.tokens[before]) < min(self.tokens[after]), "a token went back"
        for given in self.tokens.values():
            assert len(set(given)) == len(given), "a token is given once"
        configuration = net.leader().part.configuration
        assert {each.store for each in configuration.voters} <= set(net.stores.values())
        assert (
            self.acknowledged.items()
            <= {each.key: each.value for each in net.leader().state.keys}.items()
        ), "nothing more is lost"

    def _is_one(self) -> bool:
        net = self.net
        self._follow_up()
        states = {(p.part.generation, p.state.index) for p in net.planes.values()}
        return len(states) == 1 and bool(net._leading())


def main() -> int:
    """Run the seeds that the command line names; 1 if one failed, or nothing of a kind happened."""
    parser = argparse.ArgumentParser(description="schedules of voters that are lost and recovered")
    parser.add_argument("--seeds", default="0:500", help="FIRST:END")
    first, end = (int(number) for number in parser.parse_args().seeds.split(":"))
    happened: Counter[str] = Counter()
    failed = 0
    for seed in range(first, end):
        try:
            happened += Recoveries(seed).run()
        except Exception:  # noqa: BLE001 - whatever broke, the other seeds run all the same
            failed += 1
            traceback.print_exc()
            print(f"replay: python -m tests.sim.recoveries --seeds {seed}:{seed + 1}", flush=True)
    print(f"{end - first} schedules, {failed} failed; {dict(sorted(happened.items()))}")
    is_vacuous = any(not happened[each] for each in MUST_HAPPEN)
    return 1 if failed or (is_vacuous and end - first >= VACUITY_SEEDS_MIN) else 0


if __name__ == "__main__":
    raise SystemExit(main())
