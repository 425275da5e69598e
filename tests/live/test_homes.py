"""A device alone: it reads and writes its own state, and what it wrote is everywhere afterwards."""

from typing import Any

import pytest

from agent import exits
from tests.live.harness.fleet import LOCAL_TOML, Fleet
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live]

SETTLED_WITHIN_S = 30.0
SPREAD_WITHIN_S = 60.0


def test_a_device_that_reaches_nobody_has_its_own_state_and_shares_it_afterwards(
    fleet: Fleet,
) -> None:
    fleet.form_admitted("ash", "birch", "cedar", "elm", toml=LOCAL_TOML)
    ash, *others = fleet.agents.values()
    birch, cedar, elm = others
    eventually(
        lambda: elm.api.get("/api/v1/ring")["homes"], lambda homes: homes == len(fleet.agents),
        SETTLED_WITHIN_S, "each device has a home",
    )  # fmt: skip
    fleet.wait_settled(SETTLED_WITHIN_S, "all own their share")
    assert birch.must("kv", "put", "device/ash/mode", "eco").stdout == ""
    ash.must("kv", "space", "create", "loose", "--replicas", "1")
    told: dict[str, Any] = cedar.must("kv", "put", "loose/1", "x", "-o", "json").json()
    assert (told["acks"], told["needed"]) == (1, 1)

    for agent in others:
        agent.kill()
    told = ash.must("kv", "put", "device/ash/mode", "off", "-o", "json").json()
    assert (told["outcome"], told["acks"], told["needed"]) == ("ok", 1, 1)
    assert ash.must("kv", "get", "device/ash/mode").stdout == "off"
    refused = ash.covey("kv", "put", "device/elm/mode", "off", "--timeout", "2s")
    assert refused.status != exits.YES, "what is another's takes a majority of its owners"
    ash.kill()
    ash.start()
    assert ash.must("kv", "get", "device/ash/mode").stdout == "off", "its own disk has it"

    for agent in others:
        agent.start()
    eventually(
        lambda: ash.covey("kv", "why", "device/ash/mode", "-o", "json").json()["copies"],
        lambda copies: copies == 3, SPREAD_WITHIN_S, "all owners of its home have what it wrote",
    )  # fmt: skip
    assert elm.must("kv", "get", "device/ash/mode").stdout == "off"
