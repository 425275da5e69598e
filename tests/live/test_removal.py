"""A device that is removed stays out: told if it is there, refused if it comes back, not missed."""

import shutil
import subprocess
import time
from collections.abc import Sequence

import pytest

from agent import exits
from edge_apps.client import ClientError
from tests.live.harness.agents import AgentProcess
from tests.live.harness.fleet import LOCAL_TOML, Fleet
from tests.live.harness.programs import PORT, run_on
from tests.live.harness.waiting import eventually
from tests.support.patience import GIVE_UP_S

pytestmark = [pytest.mark.live]

KEYS = 10


def knows(agent: AgentProcess, name: str) -> bool:
    """Say whether an agent lists a member of this name, in any state."""
    return name in agent.states()


def streams_to(agent: AgentProcess, other: AgentProcess) -> int:
    """Return how many connections an agent has open with another's host."""
    assert agent.host is not None
    assert other.host is not None
    asked = [*agent.host.enter(), "ss", "--no-header", "--tcp", "--numeric", "state", "established"]
    told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    return sum(other.host.ipv4 in line or other.host.ipv6 in line for line in told.splitlines())


def why_waiting(agent: AgentProcess) -> str:
    try:
        status = agent.api.get("/api/v1/status")
    except ClientError:  # it is just closing its socket, to open it again outside of the covey
        return ""
    return "; ".join(status["reasons"]) if status["stage"] == "waiting" else ""


def await_removed(agent: AgentProcess) -> None:
    eventually(
        lambda: why_waiting(agent), lambda said: "was removed" in said, 20.0,
        f"{agent.name} hears that it was removed",
    )  # fmt: skip


def remove_frozen(issuer: AgentProcess, gone: AgentProcess, others: Sequence[AgentProcess]) -> None:
    """Remove a device that stands still: whoever ends the streams to it, it is not itself."""
    eventually(
        lambda: [streams_to(agent, gone) for agent in others], any, 30.0, "streams are open to it",
    )  # fmt: skip
    gone.pause()
    began = time.monotonic()
    issuer.must("members", "remove", gone.name, "--yes")
    answered_s = time.monotonic() - began
    while any(knows(agent, gone.name) for agent in others):
        assert time.monotonic() - began < GIVE_UP_S, "everybody drops it"
    dropped_s = time.monotonic() - began
    while any(streams_to(agent, gone) for agent in others):
        assert time.monotonic() - began < GIVE_UP_S, "everybody ends its streams"
    ended_s = time.monotonic() - began
    print(
        f"`members remove` answered after {answered_s * 1000:.0f} ms; every member refused the "
        f"device after {dropped_s * 1000:.0f} ms, and no stream to it was open after "
        f"{ended_s * 1000:.0f} ms"
    )
    gone.resume()


def check_wiped(gone: AgentProcess) -> None:
    left = eventually(
        lambda: {file.name for file in (gone.directory / "data").iterdir()},
        lambda seen: not [name for name in seen if name.startswith(("data.db", "consensus.db"))],
        20.0, "what it held for others is deleted",
    )  # fmt: skip
    assert left >= {"identity", "telemetry.db"}, "its own is kept"


def test_a_removed_device_is_out_for_good(fleet: Fleet) -> None:
    fleet.form("ash", "birch", "cedar", "elm", toml=LOCAL_TOML)
    ash, birch, cedar, elm = fleet.agents.values()
    for n in range(KEYS):
        ash.must("kv", "put", f"k{n}", f"v{n}")
    # Whoever stole it has a copy of its disk, from before anybody knew.
    elm.stop()
    stolen = fleet.add("stolen", toml=LOCAL_TOML)
    shutil.copytree(elm.directory / "data", stolen.directory / "data")
    elm.start()
    fleet.wait_formed(10.0)
    others = (ash, birch, cedar)

    refused = birch.covey("members", "remove", "elm", "--yes")
    assert refused.status == exits.NOT_PERMITTED
    assert "ash" in refused.stderr, "it says where"

    remove_frozen(ash, elm, others)

    await_removed(elm)
    assert "was removed from the covey" in elm.log
    assert "covey join TOKEN" in elm.covey("status").stdout
    assert elm.covey("join").status == exits.NOT_PERMITTED, "as it was, it does not come back"
    check_wiped(elm)
    for n in range(KEYS):
        assert cedar.must("kv", "get", f"k{n}").stdout.strip() == f"v{n}"

    def generations() -> set[int]:
        members = ash.must("keys", "list", "-o", "json").json()["members"]
        return {one["generation"] for one in members}

    eventually(generations, lambda seen: seen == {3}, 30.0, "new keys for all but elm")

    # All others start anew, from their disks; then the thief tries.
    for agent in others:
        agent.kill()
    for agent in others:
        agent.launch()
    eventually(
        lambda: [agent.states() for agent in others],
        lambda seen: all(s == {a.name: "alive" for a in others} for s in seen),
        20.0, "the others form again",
    )  # fmt: skip
    stolen.start()
    await_removed(stolen)
    assert not any(knows(agent, "elm") for agent in others)
    eventually(
        lambda: noted(others, stolen), lambda seen: "removed_node" in seen, 20.0,
        "the audit log says from where it came",
    )  # fmt: skip

    # The name is free, and the device may come again, as another node.
    token = fleet.token(ash)
    elm.must("join", token, "--node-name", "elm")
    eventually(
        lambda: [agent.states().get("elm") for agent in others],
        lambda seen: seen == ["alive"] * 3, 20.0, "elm is back as a new node",
    )  # fmt: skip
    assert list((elm.directory / "data" / "former").iterdir()), "what it had is set aside"


def noted(agents: Sequence[AgentProcess], source: AgentProcess) -> set[str]:
    """Return why members have refused what came from a host, by their audit logs."""
    told = [agent.must("audit", "-o", "json").json()["entries"] for agent in agents]
    refused = [each for entries in told for each in entries if each["refused"]]
    return {each["outcome"] for each in refused if each["from"] == source.at.ipv4}


def _owned(agent: AgentProcess) -> dict[str, int]:
    nodes = agent.must("ring", "-o", "json").json()["nodes"]
    return {one["name"]: one["partitions"] for one in nodes}


def test_a_new_device_takes_the_place_of_a_dead_one(fleet: Fleet) -> None:
    fleet.form("ash", "birch", "cedar", "elm", toml=LOCAL_TOML)
    ash, birch, _, elm = fleet.agents.values()
    fleet.wait_settled(60.0, "all own their share")
    for n in range(KEYS):
        birch.must("kv", "put", f"k{n}", f"v{n}")
    before = _owned(ash)
    told = ash.must("token", "create", "--node-name", "elm")
    token = told.stdout.strip()
    assert "`covey join --replace elm TOKEN`" in told.stderr

    fresh = fleet.add("fresh", toml=LOCAL_TOML)
    refused = fresh.covey("join", token, "--replace", "elm")
    assert refused.status == exits.NAME_TAKEN, "it is there"
    assert "elm" in refused.stderr
    elm.kill()
    eventually(ash.states, lambda seen: seen.get("elm") == "dead", 30.0, "elm is dead")
    eventually(
        lambda: fresh.covey("join", token, "--replace", "elm"),
        lambda outcome: outcome.status == exits.YES,
        60.0,
        "the same token lets it in now",
    )
    del fleet.agents["elm"]
    fresh.launch()
    formed = dict.fromkeys(("ash", "birch", "cedar", "elm"), "alive")
    fleet.wait_states(formed, 30.0, "elm is another device")
    fleet.wait_settled(60.0, "it has taken over")
    assert _owned(ash) == before, "its share, and nothing else, moved"
    assert fresh.me()["name"] == "elm"
    for n in range(KEYS):
        assert fresh.must("kv", "get", f"k{n}").stdout.strip() == f"v{n}"

    elm.launch()  # somebody finds the old one, and switches it on
    await_removed(elm)
    said = elm.covey("doctor")
    assert said.status == exits.UNHEALTHY
    assert "elm was removed from test: its certificate opens nothing" in said.stdout
    eventually(ash.states, lambda seen: seen == formed, 20.0, "nobody else is touched")
    elm.close()


def test_nobody_takes_the_place_of_a_living_member_by_lies(fleet: Fleet) -> None:
    """Whoever has a token and a member's keys says that another is dead, to the issuer alone."""
    fleet.form("ash", "birch", "cedar", "elm", toml=LOCAL_TOML)
    ash, birch, cedar, elm = fleet.agents.values()
    fleet.wait_settled(60.0, "all own their share, so that one of them may be missing")
    token = fleet.token(ash)
    fresh = fleet.add("fresh", toml=LOCAL_TOML)
    victim, life = birch.me(), f"{int(cedar.me()['boot'], 16) + 1:x}"
    cedar.stop()
    where = str(cedar.directory / "data" / "identity")
    liar = run_on(
        cedar.at, "liar", ash.at.ipv4, str(PORT), where, life, victim["id"], victim["boot"]
    )
    try:
        refused = 0
        while refused < 3:
            eventually(ash.states, lambda seen: seen.get("birch") == "dead", 30.0, "ash is lied to")
            outcome = fresh.covey("join", token, "--replace", "birch", "--seed", ash.at.ipv4)
            assert outcome.status == exits.NAME_TAKEN, outcome.stderr
            refused += 1
    finally:
        liar.kill()
        liar.wait()
    eventually(elm.states, lambda seen: seen.get("birch") == "alive", 30.0, "it is there still")
    birch.must("kv", "put", "there", "yes")
    del fleet.agents["fresh"]
    fresh.close()


def test_leaving_for_good_frees_the_place_and_the_name(fleet: Fleet) -> None:
    fleet.form("ash", "birch", "cedar", toml=LOCAL_TOML)
    ash, birch, cedar = fleet.agents.values()
    assert "was not reached" not in birch.must("leave", "--forget").stderr
    eventually(
        lambda: [knows(agent, "birch") for agent in (ash, cedar)],
        lambda seen: not any(seen), 10.0, "its place is free",
    )  # fmt: skip
    token = fleet.token(ash)
    birch.must("join", token, "--node-name", "birch")
    fleet.wait_formed(20.0, "the name is free, too")
    ash.kill()
    alone = cedar.must("leave", "--forget")
    how = "On ash: type `covey members remove cedar` there."
    assert how in alone.stderr, "the issuer was away, and it says so"
