"""Events and queries among real agents: handlers, an app, a restart, an agent that is gone."""

import json
import subprocess

import pytest

from tests.live.harness.agents import AgentProcess, environment
from tests.live.harness.fleet import LAN_TOML, Fleet
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(200)]

NAMES = ("ash", "birch", "cedar")
TOLD_WITHIN_S = 10.0
APP = """
from edge_apps import App

app = App("scale")


@app.on_event("tare")
def tare(context, event):
    context.kv.put("tared/by", event.sender)


@app.on_query("weigh")
def weigh(context, query):
    return b"7 kg " + query.payload + b" " + bytes(40_000 * (query.payload == b"long"))
"""


def configured(fleet: Fleet) -> str:
    (fleet.folder / "scale.py").write_text(APP)
    return (
        f"{LAN_TOML}[events.handlers]\n"
        f'door = ["/bin/sh", "-c", "cat >> {fleet.folder}/doors"]\n'
        "[queries.handlers]\n"
        'say = ["/bin/sh", "-c", "echo $COVEY_ASKER asks; cat"]\n'
        'slow = ["/bin/sleep", "60"]\n'
        "[queries]\n"
        'timeout = "1s"\n'
        "[apps.scale]\n"
        f'path = "{fleet.folder}/scale.py"\n'
    )


def names(agent: AgentProcess) -> list[str]:
    return [one["name"] for one in agent.api.get("/api/v1/events")["events"]]


def answers(agent: AgentProcess, *arguments: str, status: int = 0) -> list[str]:
    outcome = agent.covey("query", *arguments, timeout_s=30)
    assert outcome.status == status, outcome
    return sorted(line.split("\t")[2] for line in outcome.stdout.splitlines())


def test_a_covey_tells_and_asks(fleet: Fleet) -> None:
    fleet.form(*NAMES, toml=configured(fleet))
    ash, birch, cedar = (fleet.agents[name] for name in NAMES)
    tell(fleet, ash, cedar)
    ask(birch)
    assert "tared/by" in ash.must("kv", "list").stdout

    # A restart brings nothing back; what is sent afterwards comes.
    birch.kill()
    birch.start()
    fleet.wait_formed(30.0)
    ash.must("event", "send", "again")
    eventually(
        lambda: names(birch), lambda seen: seen == ["again"], TOLD_WITHIN_S, "the new event alone"
    )

    # Who is gone does not answer, and is named as long as it is held for alive.
    cedar.pause()
    outcome = ash.covey("query", "ping", "--timeout", "1s")
    cedar.resume()
    assert outcome.status == 6
    assert "2 of 3 answered" in outcome.stderr
    assert "cedar" in outcome.stderr


def tell(fleet: Fleet, ash: AgentProcess, cedar: AgentProcess) -> None:
    """Events reach all, once; they are followed, and their handlers run on each."""
    doors = fleet.folder / "doors"
    command = cedar._words("events", "--follow", "-o", "json")
    follower = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment(fleet.folder)
    )
    try:
        ash.must("event", "send", "door", "open\n")
        eventually(
            lambda: [names(agent) for agent in fleet.agents.values()],
            lambda seen: seen == [["door"]] * 3,
            TOLD_WITHIN_S,
            "one event everywhere",
        )
        ash.must("event", "send", "tare")
        assert follower.stdout is not None
        assert json.loads(follower.stdout.readline())["name"] in ("door", "tare")
    finally:
        follower.terminate()
        follower.wait(10)
    eventually(
        doors.read_text,
        lambda text: text == "open\n" * 3,
        TOLD_WITHIN_S,
        "the handlers of all three",
    )


def ask(birch: AgentProcess) -> None:
    """Queries: built in, by a handler, by an app, by nobody, by one that is too slow."""
    assert answers(birch, "ping") == ["pong"] * 3
    said = birch.must("query", "say", "hello", "-o", "json").stdout.splitlines()
    assert [json.loads(line)["payload"] for line in said[:3]] == ["birch asks\nhello"] * 3
    eventually(
        lambda: answers(birch, "weigh", "now"),
        lambda said: said == ["7 kg now "] * 3,
        TOLD_WITHIN_S,
        "the apps' answers",
    )
    long = birch.must("query", "weigh", "long", "-o", "json").stdout.splitlines()
    assert [len(json.loads(line)["payload"]) for line in long[:3]] == [40_010] * 3
    assert len(answers(birch, "unheard", status=6)) == 3
    assert all("took more than 1 s" in said for said in answers(birch, "slow", status=6))
