"""Data directories of a version before start today's code: nothing is lost, and all moves over.

``former/make.py`` says how they were made, by real agents of that version: three nodes whose
founder alone let others in, and whose power failed while keys were on their way to the third.
"""

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from gossip.registry.registry import Registry, SignedRegistry
from tests.live.harness.admitted import registry_on_disk
from tests.live.harness.agents import AgentProcess
from tests.live.harness.fleet import VOTERS_TOML, Fleet
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live]

FORMER = Path(__file__).parent / "former" / "before_the_log.tar.xz"
NAMES = ("ash", "birch", "cedar")
FORMED_WITHIN_S = 20.0
MOVED_WITHIN_S = 60.0


def unpacked(fleet: Fleet) -> dict[str, Any]:
    """Give three devices the data directories of before; return what is known of these."""
    with tarfile.open(FORMER) as packed:
        packed.extractall(fleet.folder, filter="fully_trusted")
    for name in NAMES:
        fleet.add(name, toml=VOTERS_TOML)
    told: dict[str, Any] = json.loads((fleet.folder / "told.json").read_text())
    return told


def issuers(agent: AgentProcess) -> set[str]:
    return {one["name"] for one in agent.api.get("/api/v1/registry")["issuers"]}


def tokens(agent: AgentProcess) -> set[tuple[str, int]]:
    found = agent.must("token", "list", "--all", "-o", "json", timeout_s=60).json()["tokens"]
    return {(one["state"], one["uses_left"]) for one in found}


def test_a_covey_of_before_moves_over_by_itself(fleet: Fleet) -> None:
    told = unpacked(fleet)
    ash, birch, cedar = (fleet.agents[name] for name in NAMES)
    for agent in (ash, birch, cedar):
        signed = SignedRegistry.decode(registry_on_disk(agent.directory))
        assert any(Registry.decode(signed.payload).count_moving().values()), "amid a hand-over"
        agent.launch()
    fleet.wait_formed(FORMED_WITHIN_S)
    fleet.wait_settled(MOVED_WITHIN_S, "what was on its way when the power failed has arrived")
    eventually(
        lambda: cedar.api.get("/api/v1/ring")["homes"], lambda homes: homes == len(NAMES),
        MOVED_WITHIN_S, "each device has a home",
    )  # fmt: skip
    cedar.must("kv", "put", "device/cedar/mode", "eco")
    assert birch.must("kv", "get", "device/cedar/mode").stdout == "eco"
    for number in range(told["keys"]):
        assert cedar.must("kv", "get", f"key-{number}").stdout == str(number)
    eventually(
        lambda: ash.log,
        lambda log: "stand in the log that the voters agree on from now on" in log, MOVED_WITHIN_S,
        "what stood on the founder's disk stands in the log",
    )  # fmt: skip
    assert birch.must("txn", "--then", "get tank").stdout.split("\t")[:3] == ["get", "tank", "full"]

    def level() -> set[str]:
        shown = birch.must("config", "show", "-o", "json").json()["settings"]
        return {each["value"] for each in shown if each["setting"] == "log.level"}

    eventually(level, lambda seen: seen == {"debug"}, MOVED_WITHIN_S, "settings moved as well")

    # The founder's special place is gone: it dies, and the token that it made lets somebody in.
    fleet.wait_voters()
    eventually(
        lambda: [issuers(agent) for agent in (ash, birch, cedar)],
        lambda seen: all(each == set(NAMES) for each in seen), MOVED_WITHIN_S,
        "who votes holds the authority's key",
    )  # fmt: skip
    ash.kill()
    shutil.rmtree(ash.directory / "data")
    assert {("valid", 1), ("revoked", 1)} == tokens(cedar)
    dogwood = fleet.add("dogwood", toml=VOTERS_TOML)
    dogwood.must("join", told["token"], "--node-name", "dogwood", timeout_s=60)
    dogwood.start()
    assert {("used up", 0), ("revoked", 1)} == tokens(birch)
    assert dogwood.must("kv", "get", "key-0").stdout == "0"
