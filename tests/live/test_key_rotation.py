"""New keys for a running covey: nobody is lost, and who was away finds back."""

import json

import pytest

from agent import exits
from tests.live.harness.agents import AgentProcess
from tests.live.harness.fleet import LAN_TOML, Fleet
from tests.live.harness.traffic import buried, traffic
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live]

NAMES = ("ash", "birch", "cedar", "elm", "fir")


def _primaries(agent: AgentProcess) -> set[str]:
    return {one["primary"] for one in agent.must("keys", "list", "-o", "json").json()["members"]}


def _secrets(agent: AgentProcess) -> set[str]:
    ring = json.loads((agent.directory / "data" / "identity" / "keyring.json").read_text())
    return set(ring["secrets"].values())


def test_keys_turn_under_traffic_and_nobody_is_lost(fleet: Fleet) -> None:
    fleet.form(*NAMES)
    ash, birch = fleet.agents["ash"], fleet.agents["birch"]
    [before] = _primaries(ash)
    old = _secrets(ash)

    # Ordered by a member that cannot sign; the issuer is another.
    with traffic(birch) as outcomes:
        ash.must("members", "allow", "birch")
        done = birch.must("keys", "rotate", "-o", "json", timeout_s=90)
    assert len(outcomes) > 10, "there was traffic"
    assert set(outcomes) == {"ok"}
    steps = [line.split()[0] for line in done.stderr.splitlines()]
    assert steps[-1] == "3/3", done.stderr
    assert done.json()["generation"] == 3

    def reported() -> set[tuple[int, str]]:
        members = ash.must("keys", "list", "-o", "json").json()["members"]
        return {(one["generation"], *one["keys"]) for one in members}

    [(_, after)] = eventually(reported, lambda seen: len(seen) == 1, 5.0, "all report one ring")
    assert after != before
    fleet.wait_formed(5.0, "all alive under the new key")
    for agent in fleet.agents.values():
        assert not buried(agent), agent.name
        assert not _secrets(agent) & old, "the old key is gone from the disk"
        told = agent.log + done.stdout + done.stderr
        assert not [secret for secret in _secrets(agent) | old if secret in told]
        file = agent.directory / "data" / "identity" / "keyring.json"
        assert file.stat().st_mode & 0o777 == 0o600


def test_who_was_away_keeps_the_old_key_and_with_force_finds_back(fleet: Fleet) -> None:
    fleet.form(*NAMES[:4])
    ash, elm = fleet.agents["ash"], fleet.agents["elm"]
    elm.kill()
    away = {"ash": "alive", "birch": "alive", "cedar": "alive", "elm": "dead"}
    fleet.wait_states(away, 30.0, "elm is dead")
    waiting = eventually(
        lambda: ash.covey("keys", "rotate", "-o", "json", timeout_s=90),
        lambda seen: seen.status == exits.UNHEALTHY and seen.json()["phase"] == "used",
        30.0,
        "the others use the new key",
    )
    assert "elm" in waiting.stderr

    # The issuer is killed in the middle, and goes on where it was.
    ash.kill()
    ash.start()
    eventually(ash.states, lambda seen: seen.get("birch") == "alive", 10.0, "ash is back")
    eventually(
        lambda: ash.must("keys", "list", "-o", "json").json()["phase"],
        lambda phase: phase == "used",
        10.0,
        "it knows how far it was",
    )
    forced = ash.must("keys", "rotate", "--force", "-o", "json", timeout_s=90)
    assert forced.json()["rotating"] is False

    elm.start()
    fleet.wait_formed(30.0, "elm is a member again, under a key that it had never seen")
    eventually(
        lambda: _secrets(elm), lambda held: held == _secrets(ash), 5.0, "elm holds the new ring"
    )


def test_the_rest_is_done_when_the_absent_comes_back(fleet: Fleet) -> None:
    fleet.form(*NAMES[:3], toml=LAN_TOML)
    ash, cedar = fleet.agents["ash"], fleet.agents["cedar"]
    assert cedar.stop() == exits.YES
    assert ash.covey("keys", "rotate", timeout_s=90).status == exits.UNHEALTHY
    cedar.start()
    fleet.wait_formed(30.0, "cedar is back")
    eventually(
        lambda: ash.api.get("/api/v1/keys")["rotating"],
        lambda rotating: not rotating,
        30.0,
        "the issuer drops the old key by itself",
    )
