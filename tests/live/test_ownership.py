"""Owners of keys change while one of them is dead: what was acknowledged stays readable."""

import threading

import pytest

from tests.live.harness.agents import AgentProcess
from tests.live.harness.fleet import LAN_TOML, Fleet
from tests.live.harness.waiting import eventually
from tests.support.patience import GIVE_UP_S

pytestmark = [pytest.mark.live]

KEYS = 100
SETTLED_WITHIN_S = 15.0


def _unreadable(agent: AgentProcess) -> list[str]:
    """Return the keys that cannot be read at an agent now, with what it says instead."""
    wrong = []
    for number in range(KEYS):
        try:
            path, within = f"/api/v1/kv/key-{number}", {"timeout": GIVE_UP_S}
            body = agent.api.request("GET", path, query=within).body
        except Exception as error:  # noqa: BLE001 - whatever it is, the key is not readable
            wrong.append(f"key-{number}: {error}")
        else:
            if body != b"%d" % number:
                wrong.append(f"key-{number}: {body!r}")
    return wrong


def _join_at_once(fleet: Fleet, *agents: AgentProcess) -> None:
    """Have devices join within a tenth of a second or so, and start them."""
    token = fleet.token(fleet.agents["ash"], "--uses", str(len(agents)))
    joining = [
        threading.Thread(target=agent.must, args=("join", token, "--node-name", agent.name))
        for agent in agents
    ]
    for thread in joining:
        thread.start()
    for thread in joining:
        thread.join()
    for agent in agents:
        agent.launch()


def test_two_that_join_at_once_while_one_is_dead_make_no_key_unreadable(fleet: Fleet) -> None:
    fleet.form("ash", "birch", "cedar", toml=LAN_TOML)
    ash, birch, cedar = (fleet.agents[name] for name in ("ash", "birch", "cedar"))
    for number in range(KEYS):
        body = b"%d" % number
        path, within = f"/api/v1/kv/key-{number}", {"timeout": GIVE_UP_S}
        answer = ash.api.request("PUT", path, query=within, body=body).json()
        assert answer["outcome"] == "ok"
    fleet.wait_settled(SETTLED_WITHIN_S, "three own every key")
    cedar.kill()

    elm, fir = fleet.add("elm"), fleet.add("fir")
    _join_at_once(fleet, elm, fir)
    assert not _unreadable(birch), "at once"

    def owned() -> set[str]:
        nodes = ash.api.get("/api/v1/ring")["nodes"]
        return {node["name"] for node in nodes if node["partitions"]}

    eventually(
        lambda: any(ash.api.get("/api/v1/ring")["moving"].values()) or {"elm", "fir"} <= owned(),
        bool, SETTLED_WITHIN_S, "they are heard, and are to own keys, or do by now",
    )  # fmt: skip
    assert not _unreadable(birch), "while they take over"
    eventually(owned, lambda seen: {"elm", "fir"} <= seen, SETTLED_WITHIN_S, "both own keys")
    fleet.wait_settled(SETTLED_WITHIN_S, "every key is with its owners, cedar dead or not")
    for agent in (ash, birch, elm, fir):
        assert not _unreadable(agent), agent.name
    cedar.start()
    assert not _unreadable(cedar), "it was away all the time"
