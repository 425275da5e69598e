"""Devices whose disk was set back: a founder from its backup, and a member at each of its boots."""

import shutil
import sqlite3
import time
from contextlib import closing

import pytest

from agent import exits
from tests.live.harness.agents import PASSING, AgentProcess
from tests.live.harness.fleet import LOCAL_TOML, Fleet
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live]

KEYS, BOOTS = 10, 2


def back_up(agent: AgentProcess) -> None:
    agent.stop()
    shutil.copytree(agent.directory / "data", agent.directory / "backup")
    agent.start()


def restore(agent: AgentProcess) -> None:
    """Put the backup in place of what the device has; its process is gone."""
    shutil.rmtree(agent.directory / "data")
    shutil.copytree(agent.directory / "backup", agent.directory / "data")


def store_of(agent: AgentProcess, folder: str) -> int:
    """Return as whom a log votes."""
    path = agent.directory / folder / "consensus.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT store FROM hard").fetchone()[0])


def epoch(agent: AgentProcess) -> int:
    return int(agent.api.get("/api/v1/registry")["epoch"])


def forked(agent: AgentProcess) -> bool:
    return agent.api.get("/api/v1/registry")["fork"] is not None


def test_a_member_that_is_set_back_at_each_boot_is_never_a_zombie(fleet: Fleet) -> None:
    fleet.form("ash", "birch", "cedar", toml=LOCAL_TOML)
    ash, birch = fleet.agents["ash"], fleet.agents["birch"]
    for key in ("set-back/changed", "set-back/deleted"):
        ash.must("kv", "put", key, "old", "-w", "all")
    back_up(birch)
    fleet.wait_formed(20.0)
    ash.must("kv", "put", "set-back/changed", "new")
    ash.must("kv", "delete", "set-back/deleted")
    # Another start: of two lives with one count of starts chance decides which is the later one.
    birch.stop()
    birch.start()
    fleet.wait_formed(20.0)
    for _ in range(BOOTS):
        birch.kill()
        restore(birch)
        birch.start()
        fleet.wait_formed(20.0, "it is taken for what it is")
        eventually(
            lambda: store_of(birch, "data"),
            lambda store: store != store_of(birch, "backup"),
            20.0,
            "it is another voter than the one that promised what is forgotten",
        )
        eventually(
            lambda: birch.covey("kv", "get", "set-back/changed", "-r", "one"),
            lambda seen: seen.stdout.strip() == "new" or "old" in seen.stdout,
            30.0,
            "its copy answers again",
        )
        assert birch.must("kv", "get", "set-back/changed", "-r", "one").stdout.strip() == "new"
        assert ash.covey("kv", "get", "set-back/deleted").status == exits.NOT_FOUND
        assert "shared keys are compared with their other owners" in birch.log


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


def test_a_founder_set_back_makes_no_fork_beside_the_others_and_one_alone(fleet: Fleet) -> None:
    fleet.form("ash", "birch", toml=LOCAL_TOML)
    ash, birch = fleet.agents["ash"], fleet.agents["birch"]
    back_up(ash)
    fleet.wait_formed(20.0)
    cedar, fir = (fleet.add(name, toml=LOCAL_TOML) for name in ("cedar", "fir"))
    cedar.must("join", fleet.token(ash), "--node-name", "cedar")
    cedar.start()
    fleet.wait_formed(20.0)
    known = epoch(birch)

    # With the others there it follows them, and what it signs comes after theirs.
    ash.kill()
    restore(ash)
    ash.start()
    fleet.wait_formed(30.0, "the founder is back, as a later life")
    eventually(lambda: epoch(ash), lambda seen: seen >= known, 30.0, "it follows the others")
    # Whether it is told that its log was set back hangs on the random bits of two lives (ADR 34),
    # so it may go on by it, or give it up and refuse. Neither makes a fork.
    assert ash.covey("token", "create", timeout_s=60).status in (exits.YES, *PASSING)
    assert not any(forked(agent) for agent in fleet.running())
    for n in range(KEYS):
        ash.must("kv", "put", f"k{n}", f"v{n}")

    # With nobody there it signs another future: by its own log, of before, it votes alone.
    others = (birch, cedar)
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
