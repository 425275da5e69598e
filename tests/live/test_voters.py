"""Three voters, real ones, that are killed, frozen, moved and cloned while clients ask them.

What clients were told is judged as a whole: there must be one order that explains it, in which each
call had its moment between question and answer.
"""

import shutil
import time
from collections.abc import Iterator

import pytest

from agent import exits
from edge_apps.client import ApiError
from tests.live.harness.agents import AgentProcess
from tests.live.harness.agreement_load import AgreementLoad
from tests.live.harness.fleet import VOTERS_TOML, Fleet
from tests.live.harness.lock_load import LockLoad
from tests.live.harness.waiting import eventually, insist

pytestmark = [pytest.mark.live]

NAMES = ("ash", "birch", "cedar")
GOES_ON_WITHIN_S = 20.0
"""An election takes 5 to 10 s, and may fail once."""
FROZEN_S = 30.0
TTL_S = 10.0
"""Longer than a busy machine takes for two requests: nobody renews what is to be lost."""
HELD_S = 600.0
CLONED_S = 5.0
FREE_WITHIN_S = 15.0


@pytest.fixture(scope="module")
def three(networks: None) -> Iterator[Fleet]:
    """Give three agents that vote; each test leaves them whole."""
    with Fleet() as fleet:
        fleet.form_admitted(*NAMES, toml=VOTERS_TOML)
        fleet.wait_voters()
        yield fleet


def _goes_on(load: AgreementLoad, moment: float, what: str, *, by: str = "") -> None:
    eventually(lambda: load.answered_since(moment, by=by), bool, GOES_ON_WITHIN_S, what)


def test_voters_that_are_killed_under_load_lose_nothing(three: Fleet) -> None:
    """Twice the one that leads, and once another."""
    with AgreementLoad(three.running()) as load, LockLoad(three.running()) as locks:
        for leads in (True, False, True):
            leader = three.leader()
            others = [agent for agent in three.agents.values() if agent is not leader]
            victim = leader if leads else others[0]
            victim.kill()
            killed_at = time.monotonic()
            _goes_on(load, killed_at, f"writes go on without {victim.name}")
            victim.start()
            _goes_on(load, time.monotonic(), f"{victim.name} answers again", by=victim.name)
    load.check()
    locks.check()


def test_a_leader_that_stands_still_answers_no_read_from_before(three: Fleet) -> None:
    """Who asks it meanwhile gets an answer when it wakes, from behind what the others agreed on."""
    with AgreementLoad(three.running()) as load:
        leader = three.leader()
        leader.pause()
        paused_at = time.monotonic()
        load.ask_more(leader)  # those that it was busy with may get no answer but that it is late
        other = next(name for name in NAMES if name != leader.name)
        _goes_on(load, paused_at, "the others go on", by=other)
        time.sleep(max(0.0, FROZEN_S - (time.monotonic() - paused_at)))
        leader.resume()
        woken_at = time.monotonic()
        _goes_on(load, woken_at, "it follows", by=leader.name)
    load.check()
    through = [
        call for call in load.history
        if call.client.startswith(leader.name) and call.called_at < woken_at < call.answered_at
    ]  # fmt: skip
    assert through, "somebody asked the frozen one, or this shows nothing"


def test_the_token_of_a_lock_keeps_out_who_has_lost_it(three: Fleet) -> None:
    """Its agent froze, so its holder does not know yet that another one holds it."""
    first, second = three.agents["birch"], three.agents["cedar"]
    own, others = _session(first, TTL_S), _session(second, HELD_S)
    token = _locked(first, own)
    assert _write(second, token), "who holds it writes, through whichever agent"
    first.pause()
    try:
        later = eventually(
            lambda: _locked(second, others), lambda seen: seen > 0, FREE_WITHIN_S, "it is another's"
        )
    finally:
        first.resume()
    assert later > token
    assert _write(second, later)
    assert not _write(first, token), "the token of before opens nothing"
    assert _write(first, later), "the right one does"


def _session(agent: AgentProcess, ttl_s: float) -> str:
    """Open a session that nobody renews."""
    terms = {"ttl_s": ttl_s, "lock_delay_s": 0.0, "label": agent.name}
    opened: str = insist(
        lambda: agent.api.post("/api/v1/sessions", terms)["session"], "a session is opened"
    )
    return opened


def _locked(agent: AgentProcess, session: str) -> int:
    """Take the lock for a session; return its token, 0 if it is taken."""
    asked = {"session": session, "permits": 1, "value": "", "wait_s": 0}
    answer = agent.api.request("PUT", "/api/v1/locks/valve", json=asked).json()
    return int(answer["token"])


def _write(agent: AgentProcess, token: int) -> bool:
    """Write to what the lock guards: done only under the token that counts now."""
    compare = {"key": "valve", "field": "token", "operand": token}
    body = {"compare": [compare], "then": [{"put": "valve/position", "value": agent.name}]}
    done = insist(lambda: agent.api.post("/api/v1/txn", body), "it is decided")
    return bool(done["succeeded"])


def test_a_voter_gets_another_address_and_follows(three: Fleet) -> None:
    leader = three.leader()
    moved = next(agent for agent in three.agents.values() if agent is not leader)
    three.network.expire(moved.at)
    moved.host = three.network.lease(moved.at, 100 + len(three.network.hosts))
    three.network.announce_leases()
    with AgreementLoad(three.running()) as load:
        _goes_on(load, time.monotonic(), "it answers from its new address", by=moved.name)

    def lag() -> int | None:
        told = three.leader().api.get("/api/v1/voters")["voters"]
        found: int | None = next(each["lag"] for each in told if each["name"] == moved.name)
        return found

    eventually(lag, lambda seen: seen == 0, GOES_ON_WITHIN_S, "it has all that was agreed on")
    load.check()


def test_a_clone_of_a_voter_spoils_nothing(three: Fleet) -> None:
    """Two devices with the same card: a vote could be given twice, and an entry kept once."""
    leader = three.leader()
    twin = next(agent for agent in three.agents.values() if agent is not leader)
    twin.kill()
    clone = three.add("clone", toml=VOTERS_TOML)
    ours = shutil.ignore_patterns("*.sock", "agent.log")
    shutil.copytree(twin.directory, clone.directory, dirs_exist_ok=True, ignore=ours)
    twin.start()
    clone.launch()
    others = [agent for agent in three.running() if agent not in (twin, clone)]
    try:
        with AgreementLoad(others) as load:
            time.sleep(CLONED_S)
            _goes_on(load, time.monotonic(), "the others go on")
        load.check()
    finally:
        clone.close()
        del three.agents["clone"]
    with AgreementLoad(three.running()) as load:
        _goes_on(load, time.monotonic(), "it answers when its clone is gone", by=twin.name)
    load.check()


def test_what_an_agent_alone_cannot_decide_it_does_not(three: Fleet) -> None:
    """Last, for it takes the majority away: no write, no read; its own copy goes on."""
    ash, *others = (three.agents[name] for name in NAMES)
    written = ash.must("txn", "--then", "put alone before", "-o", "json").json()["revision"]
    eventually(
        lambda: ash.api.get("/api/v1/control", prefix="alone", stale=True)["revision"],
        lambda seen: seen >= written,
        GOES_ON_WITHIN_S,
        "its own copy has it",
    )
    for agent in others:
        agent.kill()
    body = {"then": [{"put": "alone", "value": "after"}]}
    with pytest.raises(ApiError) as refused:
        ash.api.request("POST", "/api/v1/txn", query={"timeout": 2.0}, json=body)
    assert refused.value.status == 503
    told = ash.covey("txn", "--then", "put alone after", "--timeout", "1s")
    assert told.status == exits.UNHEALTHY, told
    assert "unavailable" in told.stderr or "indeterminate" in told.stderr
    with pytest.raises(ApiError):
        ash.api.get("/api/v1/control/alone", timeout=2.0)
    assert ash.api.get("/api/v1/control/alone", stale=True)["value"] in ("before", "after")
    for agent in others:
        agent.start()
    done = ash.must("txn", "--then", "put alone together", "--timeout", "30s", timeout_s=60)
    assert done.status == 0
