"""What one agent tells about itself reaches the others: configured, set at runtime, of its apps."""

from collections.abc import Callable, Iterator

import pytest

from agent._version import __version__
from tests.live.harness.fleet import LAN_TOML, Fleet
from tests.live.harness.waiting import eventually, insist

pytestmark = [pytest.mark.live]

NAMES = ("ash", "birch", "cedar")
KNOWN_WITHIN_S = 60.0
"""Facts travel by exchanges: seconds among three, but never by a fixed time."""

TOML = f"""{LAN_TOML}
[node]
facts = {{ capacity_litres = "120" }}
[node.services]
broker = ":1883/mqtt"
[api]
listen = "0.0.0.0:7748"
"""


@pytest.fixture(scope="module")
def three(networks: None) -> Iterator[Fleet]:
    """Give three agents; each test leaves them whole."""
    with Fleet() as fleet:
        fleet.form(*NAMES, toml=TOML)
        yield fleet


def wait_told(fleet: Fleet, node: str, holds: Callable[[dict[str, str]], bool], what: str) -> None:
    """Wait until every agent, asked by command, knows facts of the node for which this holds."""

    def look() -> list[dict[str, str]]:
        answers = [
            agent.must("facts", "list", node, "-o", "json").json() for agent in fleet.running()
        ]
        return [answer["members"][0]["facts"] for answer in answers]

    eventually(look, lambda seen: all(map(holds, seen)), KNOWN_WITHIN_S, what)


def test_what_is_configured_is_known_to_all(three: Fleet) -> None:
    def holds(facts: dict[str, str]) -> bool:
        return (
            facts.get("capacity_litres") == "120"
            and facts.get("service/broker") == ":1883/mqtt"
            and facts.get("service/covey-api") == ":7748/http"
        )

    for name in NAMES:
        wait_told(three, name, holds, f"all know what {name} offers")


def test_what_is_set_on_one_is_seen_on_all_and_survives_until_unset(three: Fleet) -> None:
    birch = three.agents["birch"]
    birch.must("facts", "set", "rack=north", "note=zwölf Töpfe")
    wait_told(three, "birch", lambda f: f.get("note") == "zwölf Töpfe", "all know what was set")
    refused = birch.covey("facts", "set", "capacity_litres=1")
    assert refused.status == 7, refused
    assert three.agents["ash"].covey("facts", "unset", "rack").status == 3, "it is birch's"

    birch.kill()
    birch.start()
    began = insist(
        lambda: birch.api.get("/api/v1/facts", node="birch")["members"][0]["facts"]["started_at"],
        "it says when it started",
    )
    wait_told(
        three,
        "birch",
        lambda f: f.get("started_at") == began and f.get("rack") == "north",
        "all know it of the new life as well",
    )

    birch.must("facts", "unset", "rack")
    wait_told(
        three,
        "birch",
        lambda f: "rack" not in f and f.get("note") == "zwölf Töpfe",
        "what was unset is gone, and nothing else",
    )
    rows = three.agents["cedar"].must("facts", "list", "--name", "note").stdout
    assert rows == "birch\tnote\tzwölf Töpfe\n"


def test_apps_are_told_while_they_run(three: Fleet) -> None:
    cedar = three.agents["cedar"]
    cedar.must("app", "start", "system")
    wait_told(three, "cedar", lambda f: f.get("app/system") == __version__, "all know of the app")
    cedar.must("app", "stop", "system")
    wait_told(three, "cedar", lambda f: "app/system" not in f, "and that it runs no more")
