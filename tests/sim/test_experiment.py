"""Experiments: repeatable, and judged by the truth."""

import msgspec
import pytest

from gossip.core.tuning import PROFILES
from gossip.sim.experiment import (
    DetectionScorer,
    Experiment,
    ExperimentResult,
    ExperimentSettings,
    run,
)
from gossip.sim.membership_world import MembershipWorld

SMALL = ExperimentSettings(nodes=5, crash=1, seconds=60.0, seed=7)


def test_a_seed_decides_everything() -> None:
    assert run(SMALL) == run(SMALL)
    other = run(msgspec.structs.replace(SMALL, seed=8))
    assert other.knowing != run(SMALL).knowing


def test_a_crash_is_known_to_each_observer_once() -> None:
    found = run(SMALL)
    assert len(found.knowing) == 4
    shares = [share for _, share in found.knowing]
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1.0])
    [detection] = found.detections
    assert detection.first_s == found.knowing[0][0]
    assert detection.last_s == found.knowing[-1][0]
    assert found.false_deaths_per_node_hour == 0


def test_two_crashes_make_twice_the_pairs() -> None:
    found = run(msgspec.structs.replace(SMALL, crash=2))
    assert len(found.detections) == 2
    assert len(found.knowing) == 2 * 3
    assert found.knowing[-1][1] == 1.0


def test_an_agent_alone_is_missed_sooner_than_its_host() -> None:
    process = run(msgspec.structs.replace(SMALL, kind="process"))
    assert process.knowing[-1][0] < run(SMALL).knowing[-1][0]


def test_without_a_crash_there_is_nothing_to_know() -> None:
    found = run(msgspec.structs.replace(SMALL, crash=0))
    assert (found.detections, found.knowing) == ((), ())
    assert found.converged_s is not None
    assert found.packets_per_node_s > 1
    assert found.bytes_per_node_day == found.bytes_per_node_s * 86_400


@pytest.mark.parametrize("burst", [False, True])
def test_loss_is_on_the_air(burst: bool) -> None:
    trial = Experiment(msgspec.structs.replace(SMALL, crash=0, loss=0.3, burst=burst))
    done = list(trial.run())
    lost = trial.findings().lost_share
    assert lost > 0.33 if burst else lost == pytest.approx(0.3, abs=0.03)
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0.0, 1.0)


@pytest.mark.parametrize("profile", list(PROFILES))
def test_each_profile_has_links(profile: str) -> None:
    found = run(msgspec.structs.replace(SMALL, nodes=3, crash=0, profile=profile))
    assert isinstance(found, ExperimentResult)
    assert found.converged_s is not None


def test_who_is_wronged_is_counted() -> None:
    """A member behind a cut runs well, so those who declare it dead are wrong."""
    judge = DetectionScorer()
    world = MembershipWorld(1, changed=judge.changed)
    judge.truth = world.by_id
    world.add(3)
    world.run(10)
    judge.forget()
    world.network.partition([["n0"], ["n1", "n2"]])
    world.run(60)
    assert judge.falsely_dead == {sim_member.id for sim_member in world.sim_members.values()}
    assert judge.false_deaths == 4
    assert judge.false_suspicions >= 4
