"""Events and queries among real agents: handlers, an app, a restart, an agent that is gone."""

import json
import select
import subprocess
from collections.abc import Callable

import pytest

from tests.live.harness.agents import AgentProcess, Outcome, environment
from tests.live.harness.fleet import LAN_TOML, Fleet
from tests.live.harness.waiting import eventually
from tests.support.patience import GIVE_UP_S

pytestmark = [pytest.mark.live]

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
    outcome = agent.covey("query", *arguments)
    assert outcome.status == status, outcome
    return sorted(line.split("\t")[2] for line in outcome.stdout.splitlines())


def payloads(agent: AgentProcess, *arguments: str) -> list[str]:
    """Return what each said, without the line that sums it up."""
    lines = agent.must("query", *arguments, "-o", "json").stdout.splitlines()
    return [json.loads(line)["payload"] for line in lines[:3]]


def ask_without(silent: AgentProcess, asker: AgentProcess) -> Outcome:
    silent.pause()
    try:
        outcome = asker.covey("query", "ping", "--timeout", "1s")
    finally:
        silent.resume()
    assert silent.name in outcome.stderr, outcome
    return outcome


def test_a_covey_tells_and_asks(fleet: Fleet) -> None:
    fleet.form(*NAMES, toml=configured(fleet))
    ash, birch, cedar = (fleet.agents[name] for name in NAMES)
    tell(fleet, ash, cedar)
    ask(birch)
    eventually(
        lambda: ash.must("kv", "list").stdout,
        lambda listed: "tared/by" in listed,
        TOLD_WITHIN_S,
        "the app was told",
    )

    # A restart brings nothing back; what is sent afterwards comes.
    birch.kill()
    birch.start()
    fleet.wait_formed(30.0)
    ash.must("event", "send", "again")
    eventually(
        lambda: names(birch), lambda seen: seen == ["again"], TOLD_WITHIN_S, "the new event alone"
    )

    # Who is gone does not answer, and is named as long as it is held for alive.
    eventually(
        lambda: ask_without(cedar, ash),
        lambda outcome: outcome.status == 6 and "2 of 3 answered" in outcome.stderr,
        TOLD_WITHIN_S,
        "one does not answer",
    )


def tell(fleet: Fleet, ash: AgentProcess, cedar: AgentProcess) -> None:
    """Events reach all, once; they are followed, and their handlers run on each."""
    doors = fleet.folder / "doors"
    command = cedar.words("events", "--follow", "-o", "json")
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
        assert follower.stdout is not None
        ash.must("event", "send", "tare")
        while not select.select([follower.stdout], [], [], 1.0)[0]:
            ash.must("event", "send", "tare")  # it was not there yet, and shows what comes from now
        assert json.loads(follower.stdout.readline())["name"] in ("door", "tare")
    finally:
        follower.terminate()
        follower.wait(GIVE_UP_S)
    eventually(
        doors.read_text,
        lambda text: text == "open\n" * 3,
        TOLD_WITHIN_S,
        "the handlers of all three",
    )


def ask(birch: AgentProcess) -> None:
    """Queries: built in, by a handler, by an app, by nobody, by one that is too slow.

    An answer may take a second, which beside a busy neighbour is short: so each is asked for again.
    """

    def await_answers(
        look: Callable[[], list[str]], accept: Callable[[list[str]], bool], what: str
    ) -> None:
        eventually(look, accept, TOLD_WITHIN_S, what)

    await_answers(lambda: answers(birch, "ping"), lambda said: said == ["pong"] * 3, "built in")
    await_answers(
        lambda: payloads(birch, "say", "hello"),
        lambda said: said == ["birch asks\nhello"] * 3,
        "the handlers' answers",
    )
    await_answers(
        lambda: answers(birch, "weigh", "now"),
        lambda said: said == ["7 kg now "] * 3,
        "the apps' answers",
    )
    await_answers(
        lambda: payloads(birch, "weigh", "long"),
        lambda said: [len(one) for one in said] == [40_010] * 3,
        "long answers",
    )
    await_answers(
        lambda: answers(birch, "unheard", status=6), lambda said: len(said) == 3, "nobody knows it"
    )
    await_answers(
        lambda: answers(birch, "slow", status=6),
        lambda said: ["took more than 1 s" in one for one in said] == [True] * 3,
        "too slow",
    )
