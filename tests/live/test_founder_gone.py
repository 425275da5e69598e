"""The founder is destroyed for good: whatever a covey needs, the others do."""

import shutil

import pytest

from tests.live.harness.agents import AgentProcess
from tests.live.harness.fleet import VOTERS_TOML, Fleet
from tests.live.harness.waiting import eventually, insist

pytestmark = [pytest.mark.live]


def issuers(agent: AgentProcess) -> set[str]:
    return {one["name"] for one in agent.api.get("/api/v1/registry")["issuers"]}


def authority(agent: AgentProcess) -> tuple[int, bool, list[str]]:
    told = agent.api.get("/api/v1/keys")["authority"]
    return told["number"], told["overlaps"], told["uncertified"]


def test_all_goes_on_without_the_founder(fleet: Fleet) -> None:
    fleet.form_admitted("ash", "birch", "cedar", toml=VOTERS_TOML)
    ash, birch, cedar = fleet.agents.values()
    fleet.wait_voters()
    eventually(
        lambda: [issuers(agent) for agent in (ash, birch, cedar)],
        lambda seen: all(each == {"ash", "birch", "cedar"} for each in seen),
        30.0, "who votes holds the authority's key",
    )  # fmt: skip
    fleet.wait_settled(60.0, "all own their share")
    birch.must("kv", "put", "before", "the end")

    ash.kill()
    shutil.rmtree(ash.directory / "data")

    # A token is made, and a device is let in with it.
    token = birch.must("token", "create", timeout_s=60).stdout.strip()
    dogwood = fleet.add("dogwood", toml=VOTERS_TOML)
    dogwood.must("join", token, "--node-name", "dogwood", timeout_s=60)
    dogwood.start()
    assert "used up" in [one["state"] for one in _tokens(cedar)]

    # The founder is removed, and the keys are turned without it.
    cedar.must("members", "remove", "ash", "--yes", "--accept-loss", timeout_s=60)
    there = (birch, cedar, dogwood)
    eventually(
        lambda: [set(agent.states()) for agent in there],
        lambda seen: all(each == {"birch", "cedar", "dogwood"} for each in seen),
        30.0, "nobody knows the founder any more",
    )  # fmt: skip
    eventually(
        lambda: {one["generation"] for one in birch.api.get("/api/v1/keys")["members"]},
        lambda seen: seen == {3}, 40.0, "new keys for all but the founder",
    )  # fmt: skip

    # The newcomer votes in its place, and holds the key.
    fleet.wait_voters()
    eventually(
        lambda: issuers(birch), lambda seen: seen == {"birch", "cedar", "dogwood"}, 40.0,
        "who votes now holds the authority's key",
    )  # fmt: skip

    # Another authority takes over, and all have new certificates.
    dogwood.must("keys", "rotate", "--authority", timeout_s=120)
    eventually(
        lambda: [authority(agent) for agent in there],
        lambda seen: all(each == (1, False, []) for each in seen),
        60.0, "all have certificates of the new authority",
    )  # fmt: skip
    assert cedar.must("kv", "get", "before").stdout.strip() == "the end"


def _tokens(agent: AgentProcess) -> list[dict[str, str]]:
    tokens: list[dict[str, str]] = insist(
        lambda: agent.api.get("/api/v1/tokens")["tokens"], "tokens are listed"
    )
    return tokens
