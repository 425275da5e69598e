"""Two of three voters are lost for good: what is left says so, goes on, and keeps its promises."""

from typing import Any

import pytest

from agent import exits
from tests.live.harness.agents import AgentProcess
from tests.live.harness.agreement_load import AgreementLoad
from tests.live.harness.fleet import VOTERS_TOML, Fleet
from tests.live.harness.lock_load import LockLoad
from tests.live.harness.waiting import eventually, insist

pytestmark = [pytest.mark.live]

NOTICED_WITHIN_S = 20.0
FOLLOWED_WITHIN_S = 30.0
SESSION_S = 600.0


def voters(agent: AgentProcess) -> dict[str, Any]:
    told: dict[str, Any] = agent.api.get("/api/v1/voters")
    return told


def issuers(agent: AgentProcess) -> set[str]:
    return {one["name"] for one in agent.api.get("/api/v1/registry")["issuers"]}


def locked(agent: AgentProcess) -> int:
    """Hold a lock from now on, for longer than the test; return its fencing token."""
    terms = {"ttl_s": SESSION_S, "lock_delay_s": 0.0, "label": agent.name}
    session = insist(
        lambda: agent.api.post("/api/v1/sessions", terms)["session"], "a session is opened"
    )
    asked = {"session": session, "permits": 1, "value": "", "wait_s": 0}
    answer = insist(
        lambda: agent.api.request("PUT", "/api/v1/locks/valve", json=asked).json(), "it is locked"
    )
    return int(answer["token"])


def opened(agent: AgentProcess, token: int) -> bool:
    """Write to what the lock guards: done only under the token that counts now."""
    compare = [{"key": "valve", "field": "token", "operand": token}]
    body = {"compare": compare, "then": [{"put": "valve/position", "value": agent.name}]}
    done = insist(lambda: agent.api.post("/api/v1/txn", body), "it is decided")
    return bool(done["succeeded"])


def lose_two_voters(fleet: Fleet) -> tuple[AgentProcess, AgentProcess, list[AgentProcess]]:
    """Kill two of three voters; return the third, one that does not vote, and those two."""
    names = {each["name"] for each in voters(fleet.agents["ash"])["voters"] if votes(each)}
    eventually(
        lambda: [issuers(each) for each in fleet.running()],
        lambda seen: all(each == names for each in seen), NOTICED_WITHIN_S,
        "who votes lets others in",
    )  # fmt: skip
    voting = [each for each in fleet.running() if each.name in names]
    (other,) = [each for each in fleet.running() if each.name not in names]
    eventually(
        lambda: {voters(each)["applied"] for each in fleet.running()},
        lambda seen: len(seen) == 1, NOTICED_WITHIN_S, "all have all that was decided",
    )  # fmt: skip
    leader = voters(other)["leader"]
    survivor = next(each for each in voting if each.name != leader)
    lost = [each for each in voting if each is not survivor]
    for each in lost:
        each.kill()
    return survivor, other, lost


def votes(told: dict[str, Any]) -> bool:
    return told["role"] in ("leader", "voter")


def shown_as_lost(survivor: AgentProcess, other: AgentProcess) -> None:
    """See what is said everywhere as long as nothing can be decided."""
    eventually(
        lambda: voters(survivor)["has_majority"], lambda seen: not seen, NOTICED_WITHIN_S,
        "the voter that is left knows that it is alone",
    )  # fmt: skip
    status = survivor.covey("status").stdout
    assert "no majority of 3 voters" in status
    assert "locks, transactions, barriers and settings wait" in status
    assert "`covey recover`" in status
    assert survivor.covey("voters").status == exits.UNHEALTHY
    for agent in (survivor, other):
        refused = agent.covey("txn", "--then", "put count 2", "--timeout", "1s")
        assert refused.status == exits.UNHEALTHY, refused
        assert "covey recover" in refused.stderr, refused
        stale = agent.api.get("/api/v1/control/count", stale=True)
        assert stale["value"] == "1", "copies are read, as such"
        agent.must("publish", "temperature", "21.5")


def test_what_is_left_goes_on_and_who_comes_back_does_no_harm(fleet: Fleet) -> None:
    fleet.form_admitted("ash", "birch", "cedar", "elm", toml=VOTERS_TOML)
    fleet.wait_voters()
    ash = fleet.agents["ash"]
    ash.must("txn", "--then", "put count 1")
    before = locked(ash)
    assert opened(ash, before)
    generation = voters(ash)["generation"]
    fleet.leader()
    early = ash.covey("recover", "--from-this-node", "--yes")
    assert early.status == exits.NO, early
    assert "majority" in early.stderr

    survivor, other, lost = lose_two_voters(fleet)
    shown_as_lost(survivor, other)
    told = survivor.must("recover").stderr
    for each in lost:
        assert each.name in told
    begun = survivor.must("recover", "--from-this-node", "--yes", "-o", "json", timeout_s=120)
    assert begun.json()["generation"] == generation + 1
    eventually(
        lambda: voters(other)["generation"], lambda seen: seen == generation + 1, FOLLOWED_WITHIN_S,
        "who only had a copy follows",
    )  # fmt: skip
    count = insist(lambda: other.api.get("/api/v1/control/count")["value"], "it is read")
    assert count == "1", "nothing is lost"
    assert not opened(other, before), "who held the lock asks again"
    after = locked(other)
    assert after > before, "a token never goes back"
    assert not opened(survivor, before)
    assert opened(survivor, after)
    survivor.must("token", "create", timeout_s=60)

    with AgreementLoad((survivor, other)) as load, LockLoad((survivor, other)) as locks:
        for each in lost:  # both: by their own disks they are a majority
            each.launch()
        eventually(
            lambda: {voters(each)["generation"] for each in fleet.running()},
            lambda seen: seen == {generation + 1}, FOLLOWED_WITHIN_S,
            "who comes back follows",
        )  # fmt: skip
        fleet.wait_voters()
        with AgreementLoad(lost) as returned:
            eventually(
                lambda: [returned.answered_since(0.0, by=each.name) for each in lost], all,
                FOLLOWED_WITHIN_S, "those who came back answer",
            )  # fmt: skip
    for history in (load, locks, returned):
        history.check()
    assert all(opened(each, after) and not opened(each, before) for each in fleet.running())
    for each in lost:
        assert list((each.directory / "data").glob("consensus.db.*")), "its log of before is kept"
