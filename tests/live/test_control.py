"""What devices agree on, on three real agents: locks, transactions, settings for the fleet."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from agent import exits
from edge_apps.locks import Lock, NotHeld
from tests.live.harness.agents import AgentProcess, environment
from tests.live.harness.fleet import VOTERS_TOML, Fleet
from tests.live.harness.waiting import eventually, insist
from tests.support.patience import GIVE_UP_S

pytestmark = [pytest.mark.live]

TOML = f'{VOTERS_TOML}[node.tags]\nsite = "barn"\n'
TTL_S = 6.0
"""Of who is killed; whoever is to stay has the usual one, for beside busy neighbours it is long."""
TOLD_WITHIN_S = 10.0


@pytest.fixture(scope="module")
def three(networks: None) -> Iterator[Fleet]:
    """Give three agents; each test leaves them whole."""
    with Fleet() as fleet:
        fleet.form_admitted("ash", "birch", "cedar", toml=TOML)
        fleet.wait_voters()  # or it depends on how long the tests take who decides
        yield fleet


def begun(agent: AgentProcess, *arguments: str) -> "subprocess.Popen[str]":
    """Start a command of this agent, and do not wait for it."""
    return subprocess.Popen(
        agent.words(*arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(agent.directory),
    )


def line_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def is_there(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


def holders(agent: AgentProcess, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = insist(
        lambda: agent.api.get(f"/api/v1/locks/{name}")["holders"], f"who holds {name} is told"
    )
    return found


def test_a_transaction_is_seen_by_all_and_compares(three: Fleet) -> None:
    birch, cedar = three.agents["birch"], three.agents["cedar"]
    once = ("--if", "version(tank) = 0", "--then", "put tank full", "--else", "get tank")
    assert birch.covey("txn", *once).status == 0
    again = cedar.covey("txn", *once)
    assert again.status == 1, again
    assert again.stdout.split("\t")[:3] == ["get", "tank", "full"]


def test_a_lock_goes_on_when_its_holder_is_killed_and_the_token_grows(three: Fleet) -> None:
    birch, cedar = three.agents["birch"], three.agents["cedar"]
    options = ("--ttl", f"{TTL_S:g}s", "--lock-delay", "500ms", "--grace", "500ms")
    stays = 'echo $COVEY_LOCK_TOKEN; trap "" TERM; sleep 300 & wait; sleep 300'
    holder = begun(birch, "lock", "pump", *options, "--", "sh", "-c", stays)
    first = int(line_of(holder))
    assert cedar.covey("lock", "pump", "--no-wait", "--", "true").status == 1
    waiter = begun(
        cedar, "lock", "pump", *options, "--", "sh", "-c", "echo $COVEY_LOCK_TOKEN; exit 7"
    )
    eventually(
        lambda: cedar.api.get("/api/v1/locks/pump")["waiters"], bool, TOLD_WITHIN_S, "cedar waits"
    )
    holder.send_signal(signal.SIGKILL)
    second = int(line_of(waiter))
    assert second > first
    assert waiter.wait(GIVE_UP_S) == 7, "the exit status is the command's"
    holder.wait(GIVE_UP_S)
    assert holder.stdout is not None
    holder.stdout.read()  # ends when nothing of the command is there any more
    eventually(lambda: holders(birch, "pump"), lambda h: not h, TOLD_WITHIN_S, "it is free")


def test_a_command_is_stopped_when_its_session_is_lost(three: Fleet) -> None:
    """The agent of the holder is stopped: nobody renews, and the holder knows by its own clock."""
    cedar = three.agents["cedar"]
    options = ("--ttl", f"{TTL_S:g}s", "--lock-delay", "0s", "--grace", "500ms")
    stays = "echo $COVEY_LOCK_TOKEN $$; sleep 300"
    holder = begun(cedar, "lock", "valve", *options, "--", "sh", "-c", stays)
    token, command = map(int, line_of(holder).split())
    assert token > 0
    cedar.pause()
    try:
        eventually(lambda: is_there(command), lambda there: not there, TTL_S + 1.0, "it is stopped")
    finally:
        cedar.resume()
    assert holder.wait(GIVE_UP_S) == 6


def test_who_leads_is_seen_by_all(three: Fleet) -> None:
    ash, birch = three.agents["ash"], three.agents["birch"]
    leader = begun(birch, "elect", "captain", "--value", "birch", "-o", "json")
    assert '"token"' in line_of(leader)
    watching = begun(ash, "elect", "captain", "--observe")
    assert line_of(watching).endswith("birch")
    leader.send_signal(signal.SIGINT)
    assert leader.wait(GIVE_UP_S) == 130
    assert line_of(watching).endswith("(nobody)")
    watching.send_signal(signal.SIGINT)
    watching.wait(GIVE_UP_S)


def inside(agent: AgentProcess, name: str) -> int:
    """Return how many are inside of a barrier."""
    told = agent.api.get("/api/v1/barriers", prefix=name)["barriers"]
    return sum(len(each["inside"]) for each in told)


def test_a_barrier_waits_for_nobody_who_was_killed(three: Fleet) -> None:
    """Neither before it opens nor before it ends; who comes in the place of a dead one counts."""
    ash, birch, cedar = three.agents.values()
    done = three.folder / "poured"
    work = ("sh", "-c", f"echo in; until [ -e {done} ]; do sleep 0.1; done")
    enter = ("barrier", "enter", "pour", "--count", "3")
    fleeting = (*enter, "--ttl", f"{TTL_S:g}s", "--", *work)
    early = begun(ash, *fleeting)
    eventually(lambda: inside(cedar, "pour"), lambda n: n == 1, TOLD_WITHIN_S, "one is inside")
    early.kill()
    early.wait()
    eventually(lambda: inside(cedar, "pour"), lambda n: n == 0, TTL_S + 5.0, "it counts no more")
    first, second = begun(birch, *enter, "--", *work), begun(cedar, *enter, "--", *work)
    eventually(lambda: inside(ash, "pour"), lambda n: n == 2, TOLD_WITHIN_S, "two wait")
    third = begun(ash, *fleeting)
    assert [line_of(each) for each in (first, second, third)] == ["in"] * 3
    third.kill()
    third.wait()
    done.touch()
    assert [each.wait(TTL_S + GIVE_UP_S) for each in (first, second)] == [0, 0]
    assert inside(birch, "pour") == 0


def test_a_semaphore_lets_the_next_one_in_when_a_holder_is_killed(three: Fleet) -> None:
    ash, birch, cedar = three.agents.values()
    holds = ("lock", "docks", "--permits", "2", "--lock-delay", "0s", "--grace", "500ms")
    work = ("--", "sh", "-c", "echo $COVEY_LOCK_TOKEN; sleep 300")
    first, second = begun(ash, *holds, "--ttl", f"{TTL_S:g}s", *work), begun(birch, *holds, *work)
    tokens = [int(line_of(each)) for each in (first, second)]
    third = Lock(cedar.api, "docks", permits=2, wait_s=0.0, lock_delay_s=0.0)
    with pytest.raises(NotHeld):
        third.acquire()
    first.kill()
    first.wait()
    third.wait_s = GIVE_UP_S
    with third:
        assert third.token > max(tokens)
        assert {each["token"] for each in holders(ash, "docks")} == {tokens[1], third.token}
    second.send_signal(signal.SIGTERM)
    second.wait(GIVE_UP_S)
    assert holders(ash, "docks") == []


def test_another_leads_when_the_leader_s_agent_is_killed(three: Fleet) -> None:
    _, birch, cedar = three.agents.values()
    options = ("--lock-delay", "0s", "-o", "json")
    fleeting = ("--ttl", f"{TTL_S:g}s")
    leads = begun(birch, "elect", "herder", "--value", "birch", *fleeting, *options)
    first = json.loads(line_of(leads))["token"]
    follows = begun(cedar, "elect", "herder", "--value", "cedar", *options)
    eventually(
        lambda: cedar.api.get("/api/v1/locks/herder")["waiters"], bool, TOLD_WITHIN_S, "it stands"
    )
    birch.kill()
    try:
        assert json.loads(line_of(follows))["token"] > first
        assert leads.wait(GIVE_UP_S) == exits.UNHEALTHY, "it knows by its own clock"
    finally:
        birch.start()
    assert [each["value"] for each in holders(birch, "herder")] == ["cedar"]
    follows.send_signal(signal.SIGINT)
    follows.wait(GIVE_UP_S)
    three.wait_formed(TOLD_WITHIN_S)


def test_a_session_ends_with_whoever_holds_it_or_by_an_operator(three: Fleet) -> None:
    ash, birch, cedar = three.agents.values()

    def shown(node: str) -> list[str]:
        told = ash.must("session", "list", "-o", "json").json()["sessions"]
        return [each["session"] for each in told if each["node"] == node]

    before = {node: set(shown(node)) for node in ("birch", "cedar")}
    hold = ("--grace", "500ms", "--", "sh", "-c", "echo in; sleep 300")
    killed = begun(birch, "lock", "hoist", "--ttl", f"{TTL_S:g}s", *hold)
    closed = begun(cedar, "lock", "crane", *hold)
    assert [line_of(each) for each in (killed, closed)] == ["in", "in"]
    (own,) = set(shown("birch")) - before["birch"]
    killed.kill()
    (number,) = set(shown("cedar")) - before["cedar"]
    ash.must("session", "close", number)
    assert closed.wait(GIVE_UP_S) == exits.UNHEALTHY, "its command is stopped"
    assert holders(cedar, "crane") == [], "free at once"
    eventually(lambda: shown("birch"), lambda seen: own not in seen, TTL_S + 5.0, "ended with it")
    assert ash.covey("session", "close", number).status == exits.NOT_FOUND
    killed.wait(GIVE_UP_S)


def test_settings_reach_the_other_devices(three: Fleet) -> None:
    ash, cedar = three.agents["ash"], three.agents["cedar"]
    ash.must("config", "set", "log.level", "warning", "--for", "tag:site=barn")
    ash.must("config", "set", "uplink.window", "7")

    def settings() -> dict[str, tuple[object, str]]:
        told = cedar.must("config", "show", "-o", "json").json()["settings"]
        return {each["setting"]: (each["value"], each["origin"]) for each in told}

    eventually(
        settings,
        lambda seen: (
            seen["log.level"] == ("warning", "fleet, tag:site=barn")
            and seen["uplink.window"] == (7, "fleet, all")
        ),
        TOLD_WITHIN_S,
        "cedar has what was set",
    )

    def running() -> tuple[object, list[str]]:
        told = cedar.api.get("/api/v1/config")
        values = {each["setting"]: each["value"] for each in told["settings"]}
        return values["log.level"], told["changed"]

    eventually(
        running,
        lambda seen: seen == ("warning", ["uplink.window"]),
        TOLD_WITHIN_S,
        "one is applied at once, the other shown as waiting for a restart",
    )
    assert ash.covey("config", "set", "log.level", "loud").status == 2
    ash.must("config", "unset", "uplink.window")
    eventually(
        lambda: cedar.api.get("/api/v1/config")["changed"],
        lambda c: not c,
        TOLD_WITHIN_S,
        "taken back",
    )


def test_who_decides_is_shown_by_all(three: Fleet) -> None:
    for agent in three.running():
        told = agent.must("voters", "-o", "json").json()
        assert told["has_majority"]
        assert told["leader"] in three.agents


def test_the_leader_is_killed_and_what_was_agreed_is_there(three: Fleet) -> None:
    """What goes on without any majority is in ``test_voters.py``."""
    ash, birch = three.agents["ash"], three.agents["birch"]
    leader = three.leader()
    other = birch if leader is not birch else ash
    written = [
        other.must("txn", "--then", f"put count {number}", "-o", "json").json()["revision"]
        for number in range(3)
    ]
    eventually(
        lambda: other.api.get("/api/v1/control", prefix="count", stale=True)["revision"],
        lambda seen: seen >= max(written),
        TOLD_WITHIN_S,
        "its own copy has it",
    )
    leader.kill()
    stale = other.api.get("/api/v1/control/count", stale=True)
    assert stale["value"] == "2", "its own copy goes on"
    done = other.must(
        "txn",
        "--then",
        "put count 4",
        "--then",
        "get count",
        "--timeout",
        "30s",
        "-o",
        "json",
        timeout_s=60,
    ).json()
    assert done["revision"] > max(written)
    leader.start()
