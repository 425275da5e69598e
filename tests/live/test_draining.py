"""A device gives away all that it owns, and takes its share again; who is removed keeps nothing."""

import pytest

from agent import exits
from tests.live.harness.agents import AgentProcess, Outcome
from tests.live.harness.fleet import LOCAL_TOML, VOTERS_TOML, VOTING_WITHIN_S, Fleet
from tests.live.harness.waiting import eventually
from tests.support.patience import GIVE_UP_S

pytestmark = [pytest.mark.live]

KEYS = 60
SETTLED_WITHIN_S = 30.0
REMOVED_WITHIN_S = 20.0


def read_all(agent: AgentProcess) -> dict[str, bytes]:
    return {
        f"k{n}": agent.api.request("GET", f"/api/v1/kv/k{n}", query={"timeout": GIVE_UP_S}).body
        for n in range(KEYS)
    }


def node(agent: AgentProcess, name: str) -> dict[str, object]:
    told: dict[str, object] = agent.api.get(f"/api/v1/nodes/{name}")
    return told


def held_for_others(agent: AgentProcess) -> list[str]:
    """Return the files with what a device holds for its covey."""
    files = (agent.directory / "data").iterdir()
    return [each.name for each in files if each.name.startswith(("data.db", "consensus.db"))]


def test_what_a_device_owns_goes_to_others_and_nothing_is_lost(fleet: Fleet) -> None:
    fleet.form_admitted("ash", "birch", "cedar", "elm", toml=LOCAL_TOML)
    ash, birch, cedar, elm = fleet.agents.values()
    fleet.wait_settled(SETTLED_WITHIN_S, "all own their share")
    written = {f"k{n}": b"%d" % n for n in range(KEYS)}
    for key, value in written.items():
        birch.api.request("PUT", f"/api/v1/kv/{key}", query={"timeout": GIVE_UP_S}, body=value)

    # Too few are there to take over: it says so, and goes on when they are back.
    for agent in (birch, cedar):
        agent.kill()
    waited = ash.covey("node", "drain", "elm", "--wait", "--timeout", "2s")
    assert waited.status == exits.TIMED_OUT, waited
    assert "still there after 2s" in waited.stderr
    away = {"birch": "dead", "cedar": "dead"}
    eventually(ash.states, lambda seen: seen.items() >= away.items(), 30.0, "ash knows who is away")
    waited = ash.covey("node", "drain", "elm", "--wait", "--timeout", "1s")
    assert "not there: birch, cedar" in waited.stderr, waited
    for agent in (birch, cedar):
        agent.start()
    done = ash.must("node", "drain", "elm", "--wait", "--timeout", "150s", timeout_s=180.0)
    assert "Nothing lies on elm any more" in done.stderr
    told = node(ash, "elm")
    assert told | {"partitions": 0, "held": 0, "drains": True} == told
    elm.stop()
    assert read_all(cedar) == written, "without it"

    elm.start()
    ash.must("node", "undrain", "elm")
    eventually(
        lambda: node(ash, "elm")["partitions"], bool, SETTLED_WITHIN_S, "it has its share again"
    )
    fleet.wait_settled(SETTLED_WITHIN_S, "all own their share again")
    assert read_all(elm) == written

    assert held_for_others(elm)
    ash.must("node", "drain", "elm", "--wait", "--timeout", "150s", timeout_s=180.0)
    ash.must("members", "remove", "elm", "--yes")
    eventually(
        lambda: held_for_others(elm), lambda left: not left, REMOVED_WITHIN_S,
        "who was removed deletes what it held for others",
    )  # fmt: skip
    assert read_all(ash) == written


def voters(agent: AgentProcess) -> dict[str, str]:
    """Return who votes, with its role, as the leader says."""
    told = eventually(
        lambda: agent.api.get("/api/v1/voters")["voters"],
        lambda seen: any(each["role"] == "leader" for each in seen),
        VOTING_WITHIN_S, "somebody leads",
    )  # fmt: skip
    return {each["name"]: each["role"] for each in told if each["role"] != "learner"}


def drained(agent: AgentProcess) -> Outcome:
    """Drain a device, on itself: any may."""
    return agent.covey("node", "drain", agent.name, "--wait", "--timeout", "90s", timeout_s=120.0)


def test_two_of_three_voters_that_drained_are_not_missed(fleet: Fleet) -> None:
    names = "ash", "birch", "cedar", "dogwood", "elm"
    fleet.form_admitted(*names, toml=VOTERS_TOML)
    fleet.wait_voters()
    fleet.wait_settled(60.0, "all own their share")
    fleet.leader()
    first = voters(fleet.agents["ash"])
    leader = next(name for name, role in first.items() if role == "leader")
    gone = [leader, next(name for name in first if name != leader)]
    stays = next(fleet.agents[name] for name in names if name not in first)
    for name in gone:
        done = drained(fleet.agents[name])
        assert done.status == exits.YES, done
        assert "can be switched off" in done.stderr, done
        assert "votes still" not in done.stderr, done
        fleet.agents[name].stop()
    eventually(
        lambda: voters(stays), lambda seen: len(seen) == 3 and not seen.keys() & set(gone),
        VOTING_WITHIN_S, "others vote in their place",
    )  # fmt: skip
    stays.must("txn", "--then", "put tank full", timeout_s=30.0)


def test_where_nobody_stands_by_it_is_said_which_voter_has_to_stay_on(fleet: Fleet) -> None:
    fleet.form_admitted("ash", "birch", "cedar", toml=VOTERS_TOML)
    fleet.wait_voters()
    fleet.wait_settled(60.0, "all own their share")
    ash, birch, cedar = fleet.agents.values()
    done = drained(ash)
    assert done.status == exits.YES, done
    assert "It votes still" in done.stderr, done
    assert "without ash there are 2 of 3 voters, of which none may be off" in done.stderr, done
    refused = drained(birch)
    assert refused.status == exits.UNHEALTHY, refused
    assert "do not switch it off" in refused.stderr, refused
    assert voters(cedar).keys() == {"ash", "birch", "cedar"}, "never fewer than before"
    eventually(
        lambda: voters(cedar)["cedar"], lambda role: role == "leader",
        VOTING_WITHIN_S, "it leads, for it alone does not drain",
    )  # fmt: skip
    eventually(
        lambda: cedar.covey("doctor", timeout_s=60.0).stdout, lambda said: "leave them on" in said,
        VOTING_WITHIN_S, "the doctor warns",
    )  # fmt: skip

    # The way out that is told: who is not to come back is removed, and one votes.
    ash.stop()
    cedar.must("members", "remove", "ash", "--yes", timeout_s=60.0)
    eventually(lambda: list(voters(cedar)), lambda seen: len(seen) == 1, 60.0, "one votes")
    assert birch.must("txn", "--then", "put tank full", timeout_s=30.0)
