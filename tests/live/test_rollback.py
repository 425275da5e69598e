"""Devices whose disk was set back: a founder from its backup, and a member at each of its boots."""

import shutil
import time

import pytest

from agent import exits
from tests.live.harness.agents import AgentProcess
from tests.live.harness.fleet import LOCAL_TOML, Fleet
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live, pytest.mark.timeout(300)]

KEYS, BOOTS = 10, 2


def back_up(agent: AgentProcess) -> None:
    agent.stop()
    shutil.copytree(agent.directory / "data", agent.directory / "backup")
    agent.start()


def restore(agent: AgentProcess) -> None:
    """Put the backup in place of what the device has; its process is gone."""
    shutil.rmtree(agent.directory / "data")
    shutil.copytree(agent.directory / "backup", agent.directory / "data")


def epoch(agent: AgentProcess) -> int:
    return int(agent.api.get("/api/v1/registry")["epoch"])


def forked(agent: AgentProcess) -> bool:
    return agent.api.get("/api/v1/registry")["fork"] is not None


def test_a_member_that_is_set_back_at_each_boot_is_never_a_zombie(fleet: Fleet) -> None:
    fleet.form("ash", "birch", "cedar", toml=LOCAL_TOML)
    birch = fleet.agents["birch"]
    back_up(birch)
    fleet.wait_formed(20.0)
    for _ in range(BOOTS):
        birch.kill()
        restore(birch)
        birch.start()
        fleet.wait_formed(20.0, "it is taken for what it is")


def check_fork_is_remembered(fleet: Fleet, agent: AgentProcess) -> None:
    """Who starts anew and hears nobody knows of the fork all the same; then the others start."""
    running = fleet.running()
    for each in running:
        each.kill()
    agent.start()
    assert forked(agent)
    for each in running:
        if each is not agent:
            each.start()


def test_a_founder_set_back_follows_the_others_and_a_fork_is_mended(fleet: Fleet) -> None:
    fleet.form("ash", "birch", toml=LOCAL_TOML)
    ash, birch = fleet.agents["ash"], fleet.agents["birch"]
    back_up(ash)
    fleet.wait_formed(20.0)
    cedar, elm, fir = (fleet.add(name, toml=LOCAL_TOML) for name in ("cedar", "elm", "fir"))
    cedar.must("join", fleet.token(ash), "--node-name", "cedar")
    cedar.start()
    fleet.wait_formed(20.0)
    known = epoch(birch)

    # With the others there it asks them, and signs what follows.
    ash.kill()
    restore(ash)
    ash.start()
    fleet.wait_formed(30.0, "the founder is back, as a later life")
    elm.must("join", fleet.token(ash), "--node-name", "elm")
    elm.start()
    fleet.wait_formed(20.0)
    assert epoch(ash) > known
    assert not any(forked(agent) for agent in fleet.running())
    for n in range(KEYS):
        ash.must("kv", "put", f"k{n}", f"v{n}")

    # With nobody there it signs another future.
    others = (birch, cedar, elm)
    for agent in (ash, *others):
        agent.kill()
    restore(ash)
    ash.start()
    began = time.monotonic()
    fir.must("join", fleet.token(ash), "--node-name", "fir")
    print(f"a join at a founder that finds nobody: {time.monotonic() - began:.1f} s")
    fir.start()
    for agent in others:
        agent.start()
    eventually(
        lambda: [forked(agent) for agent in fleet.running()], all, 60.0, "all know of the fork"
    )
    refused = cedar.covey("kv", "get", "k1")
    assert refused.status == exits.UNREACHABLE
    assert "covey registry mend" in refused.stderr
    assert cedar.covey("status").status == exits.UNHEALTHY
    assert "forked" in cedar.covey("doctor").stdout

    check_fork_is_remembered(fleet, cedar)
    ash.must("registry", "mend", "--yes")
    eventually(
        lambda: [forked(agent) for agent in fleet.running()],
        lambda seen: not any(seen), 60.0, "the fork is over",
    )  # fmt: skip
    fleet.wait_formed(30.0, "one covey of both halves")
    wanted = {f"k{n}": f"v{n}" for n in range(KEYS)}
    eventually(
        lambda: {key: fir.covey("kv", "get", key).stdout.strip() for key in wanted},
        lambda seen: seen == wanted, 90.0, "what was written before is readable",
    )  # fmt: skip
