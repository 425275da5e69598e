"""What comes in by the doors of an agent: strangers who hold them, and a value that kills.

The agents are real, and so is what is held against them. Other doors: a flood of datagrams in
``test_floods.py``, garbage in ``test_attacks.py``.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.live.harness.agents import AgentProcess
from tests.live.harness.fleet import FORMED_WITHIN_S, Fleet
from tests.live.harness.programs import PORT, run_on
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live]

API_PORT = 7780
TOML = f"""
[api]
listen = "0.0.0.0:{API_PORT}"
"""
DESCRIPTORS = 256
"""As few as an agent may ever have: then a few hundred connections are a flood."""
HELD = 300
PLANTED = Path(__file__).with_name("planted")
NAMES = ("ash", "birch", "cedar")


def few_descriptors(agent: AgentProcess) -> None:
    agent.prefix = ["sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "sh"]


def start_all(fleet: Fleet) -> None:
    for agent in fleet.agents.values():
        agent.launch()
    fleet.wait_formed(FORMED_WITHIN_S)


def test_members_dial_in_and_commands_work_while_strangers_hold_every_door(fleet: Fleet) -> None:
    fleet.admit("ash", "birch", toml=TOML)
    ash, birch = fleet.agents["ash"], fleet.agents["birch"]
    few_descriptors(ash)
    start_all(fleet)
    fleet.wait_settled(60.0, "both own keys")
    stranger = fleet.network.add_host()
    doors = [(ash.at.ipv4, PORT), (ash.at.ipv6, PORT), (ash.at.ipv4, API_PORT)]
    words = [str(word) for door in doors for word in door]
    holder = run_on(stranger, "holder", str(HELD), *words)
    eventually(ash.counters, _all_doors_are_held, 30.0, "every door is held")
    assert birch.stop() == 0  # and comes back in the middle of it
    birch.start()
    fleet.wait_formed(FORMED_WITHIN_S, "who comes back is let in")
    for number in range(5):
        birch.must("kv", "put", f"key-{number}", "on", "-w", "2")
        # Whoever has just come back first learns what it missed; that is not what is tested.
        eventually(
            partial(ash.covey, "kv", "get", f"key-{number}"),
            lambda got: got.stdout.strip() == "on",
            5,
            "what was written is read",
        )
    ash.must("publish", "porch/temperature", "21.5")
    assert holder.poll() is None, "all of this was beside the held doors"
    holder.kill()
    holder.communicate()
    counted = ash.counters()
    print(f"{ash.refused():.0f} connections were refused")
    failed = birch.counters().get('covey_streams_total{kind="dial_failed"}', 0)
    print(f"{failed:.0f} dials of birch failed")  # none, unless the machine was too busy to answer
    assert counted['covey_streams_refused_total{kind="no_place"}'] > HELD
    eventually(lambda: ash.api.get("/healthz")["ready"], bool, 15, "all is well")
    assert "Traceback" not in ash.log
    assert "cannot be opened" not in ash.log


def _all_doors_are_held(counters: dict[str, float]) -> bool:
    kinds = ('covey_streams_refused_total{kind="no_place"}', "covey_api_connections_total")
    return all(any(name.startswith(kind) for name in counters) for kind in kinds)


@pytest.fixture(scope="module")
def three(networks: None) -> Iterator[Fleet]:
    """Give three agents with a fault that they share."""
    with Fleet() as fleet:
        fleet.admit(*NAMES)
        for agent in fleet.agents.values():
            agent.prefix = ["env", f"PYTHONPATH={PLANTED}"]
        start_all(fleet)
        yield fleet


@pytest.mark.parametrize("value", ["poison", "quicksand"])
def test_a_value_that_ends_every_agent_ends_each_twice_and_no_more(
    three: Fleet, value: str
) -> None:
    """Two of the three merge what the third coordinates; whoever watches over them starts them."""
    ash = three.agents["ash"]
    ends = dict.fromkeys(NAMES, 0)
    ash.covey("kv", "put", f"trap-{value}", value)  # what it says is not the point

    def revive_and_look() -> dict[str, str]:
        for agent in three.agents.values():
            if agent.process and agent.process.poll() is not None:
                ends[agent.name] += 1
                agent.close()
                agent.launch()
        return {name: _blamed(agent) for name, agent in three.agents.items()}

    def two_pass_it_over(seen: dict[str, str]) -> bool:
        return sum(f'trap-{value}":2' in told for told in seen.values()) == len(NAMES) - 1

    eventually(revive_and_look, two_pass_it_over, 60, f"{value} is set aside")
    three.wait_formed(FORMED_WITHIN_S, "all are back")
    checks = [_set_aside(agent) for agent in three.agents.values()]
    assert sum(f"trap-{value}" in told for told in checks) == len(NAMES) - 1, "the doctor says so"
    ash.must("kv", "put", "lamp", value[:2])
    for agent in three.agents.values():
        assert agent.must("kv", "get", "lamp").stdout.strip() == value[:2]
    assert sorted(ends.values()) == [0, 2, 2], "twice each, and never again"
    assert {agent.process.poll() for agent in three.agents.values() if agent.process} == {None}


def _blamed(agent: AgentProcess) -> str:
    file = agent.directory / "data" / "set-aside.json"
    return file.read_text() if file.exists() else ""


def _set_aside(agent: AgentProcess) -> str:
    checks = agent.covey("doctor", "-o", "json").json()["checks"]
    return " ".join(check["message"] for check in checks if check["id"] == "set-aside")
