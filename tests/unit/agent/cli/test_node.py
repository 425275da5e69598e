"""``covey node``, ``covey ring plan`` and the routes behind them, against a fake agent."""

import pytest

from agent import exits
from edge_apps.client import ApiError, Client
from gossip.registry.node import RegisteredNode
from gossip.registry.node_change import NodeChange, arrange
from gossip.registry.registry import Registry, admit, advance, remove
from tests.support.command_line import Covey
from tests.support.fake_agent import GONE, ME, OTHER, Served
from tests.unit.gossip.registry.test_registry import settled

DRAINS = NodeChange(drains=True)


@pytest.fixture
def client(served: Served) -> Client:
    return Client(served.paths.socket)


def three_of(served: Served) -> Registry:
    """Let cy in as well, who is dead, and have all at rest."""
    registry = settled(admit(settled(served.agent.registry), RegisteredNode(GONE, "cy")))
    served.agent.registry = registry
    return registry


def test_a_plan_shows_who_gets_and_gives_and_why(served: Served, covey: Covey) -> None:
    three_of(served)
    told = covey("ring", "plan", "drain", "bob")
    assert [line.split("\t")[:5] for line in told.stdout.splitlines()] == [
        ["ada", "256", "256", "0", "0"], ["bob", "256", "0", "0", "256"],
        ["cy", "256", "256", "0", "0"],
    ]  # fmt: skip
    assert "Partitions to be copied: 0. Why: for 256 an owner is to own nothing." in told.stderr
    assert "Risk: each key would have 2 instead of 3 copies" in told.stderr
    assert "node drain bob` does it." in told.stderr
    assert not served.agent.admission.placed
    added = covey("ring", "plan", "add", "dee", "zone=shed", "capacity=2", "-o", "json").json()
    assert added["copied"] == sum(node["gets"] for node in added["nodes"]) > 200
    assert added["bytes"] == added["copied"] * 1000, "as much each as lies here"
    assert added["causes"] == {"share": added["copied"]}
    assert [node["after"] for node in added["nodes"] if node["name"] == "dee"] == [256]
    assert "Nothing would move." in covey("ring", "plan", "set", "bob", "zone=shed").stderr


def test_a_plan_says_what_is_risky(served: Served, covey: Covey) -> None:
    def risks(*asked: str) -> str:
        return " | ".join(covey("ring", "plan", *asked, "-o", "json").json()["risks"])

    assert "on their way to other owners already: 256" in risks("set", "bob", "capacity=1")
    registry = three_of(served)
    served.agent.registry = remove(registry, GONE)  # of what it held, two of three are left
    assert "acknowledged writes of 256 partitions" in risks("remove", "bob")
    served.agent.registry = registry
    assert "2 instead of 3 copies" in risks("remove", "bob")
    two = settled(arrange(arrange(registry, ME, NodeChange("a")), OTHER, NodeChange("b")))
    served.agent.registry = settled(arrange(two, GONE, NodeChange("b")))
    assert "256 of 256 partitions would have several copies in one zone, for there are 2 zones" in (
        risks("set", "bob", "capacity=1")
    )
    assert "all their copies in one zone" in risks("remove", "ada")
    served.agent.registry = settled(arrange(registry, GONE, DRAINS))
    assert "cy would get partitions and is not there" in risks("undrain", "cy")
    assert risks("add", "dee") == ""


def test_orders_reach_the_issuer_and_say_what_moves(served: Served, covey: Covey) -> None:
    three_of(served)
    told = covey("node", "set", "bob", "zone=shed", "capacity=2")
    assert told.status == exits.YES
    assert "bob: zone shed, capacity 2, does not drain (registry epoch 8)." in told.stderr
    covey("node", "set", "bob", "zone=")
    drained = covey("node", "drain", "bob")
    assert "Risk: each key would have 2 instead of 3 copies" in drained.stderr
    assert "node show bob" in drained.stderr
    assert covey("node", "undrain", "bob", "-o", "json").json()["drains"] is False
    assert served.agent.admission.placed == [
        (OTHER, NodeChange("shed", 2.0)), (OTHER, NodeChange("")), (OTHER, DRAINS),
        (OTHER, NodeChange(drains=False)),
    ]  # fmt: skip


def test_waiting_ends_when_nothing_is_left_or_somebody_takes_it_back(
    served: Served, covey: Covey, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = three_of(served)
    draining = _drained(registry)
    steps, served.agent.admission.placed_since = iter(draining), draining[0].epoch

    def go_on(_seconds: float) -> None:
        served.agent.registry = next(steps)

    monkeypatch.setattr("agent.cli.draining.time.sleep", go_on)
    done = covey("node", "drain", "bob", "--wait")
    assert done.status == exits.YES
    assert "Nothing lies on bob any more" in done.stderr
    assert next(steps, None) is None, "it waited for the last"
    steps = iter([arrange(served.agent.registry, OTHER, NodeChange(drains=False))])
    served.agent.registry = registry
    taken = covey("node", "drain", "bob", "--wait")
    assert taken.status == exits.UNHEALTHY
    assert "somebody took it back" in taken.stderr


def test_waiting_ends_when_its_time_is_over_and_says_for_what_it_waited(
    served: Served, covey: Covey
) -> None:
    served.agent.registry = arrange(three_of(served), OTHER, DRAINS)
    over = covey("node", "drain", "bob", "--wait", "--timeout", "1s")
    assert over.status == exits.TIMED_OUT
    assert "bob drains, with 256 partitions still there after 1s" in over.stderr
    assert "of the covey's partitions 256 copying" in over.stderr
    assert "Of those that share them, not there: cy\n" in over.stderr, "bob itself and ada are"
    assert "covey node undrain bob" in over.stderr
    alone = covey("node", "drain", "bob", "--timeout", "1s")
    assert alone.status == exits.USAGE, "nothing waits"
    assert "--wait" in alone.stderr


def _drained(registry: Registry) -> list[Registry]:
    draining = [arrange(registry, OTHER, DRAINS)]
    while not draining[-1].is_settled:
        done = {p: frozenset(each.holders) for p, each in enumerate(draining[-1].table)}
        draining.append(advance(draining[-1], done, draining[-1].epoch))
    return draining


def test_who_drains_is_shown_everywhere(served: Served, covey: Covey) -> None:
    assert "draining" not in covey("status").stdout
    registry = three_of(served)
    served.agent.registry = arrange(registry, OTHER, DRAINS)
    assert "draining\tbob (256 partitions left)\n" in covey("status").stdout
    shown = covey("node", "show", "bob").stdout
    assert "drains\tyes, with 256 partitions left\n" in shown
    assert covey("ring").stdout.splitlines()[1].split("\t")[3] == "-256"
    assert "owners of each: 2" in covey("ring").stderr
    assert "drains\tyes" in covey("members", "show", "bob").stdout
    assert "drains" not in covey("members", "show", "ada").stdout
    served.agent.registry = settled(served.agent.registry)
    assert "draining\tbob (done)\n" in covey("status").stdout
    assert "nothing lies there any more" in covey("node", "show", "bob").stdout
    members = covey("members", "-o", "json").json()["members"]
    assert [member["drains"] for member in members] == [False, True, False]


def test_who_drains_and_votes_still_is_shown_as_one_that_does(served: Served, covey: Covey) -> None:
    """This agent is the one voter."""
    served.agent.registry = settled(arrange(three_of(served), ME, DRAINS))
    assert "draining\tada (votes still)\n" in covey("status").stdout
    assert "nothing lies there any more; it votes still" in covey("node", "show", "ada").stdout
    assert "ada drains, and votes until" in covey("voters").stderr
    (voter,) = covey("voters", "-o", "json").json()["voters"]
    assert voter["drains"]
    assert not covey("node", "show", "bob", "-o", "json").json()["votes"]
    served.agent.registry = arrange(served.agent.registry, ME, NodeChange(drains=False))
    assert "drains" not in covey("voters").stderr


def test_a_key_that_is_called_as_a_command_is(served: Served, covey: Covey) -> None:
    for asked in (["plan"], ["k", "-o", "json"], ["-o", "json", "k"], ["--output=json", "k"]):
        if asked == ["plan"]:
            assert covey("ring", "key", "plan").stdout.startswith("key\tplan\n")
            assert covey("ring", *asked).status == exits.USAGE, "what is to be planned?"
        else:
            assert covey("ring", *asked).json()["key"] == "k"
    assert covey("ring", "--", "plan").stdout.startswith("key\tplan\n")


@pytest.mark.parametrize(
    "asked",
    [
        ["node", "set", "bob"], ["node", "set", "bob", "name=x"],
        ["node", "set", "bob", "capacity=much"], ["node", "set", "bob", "capacity=inf"],
        ["node", "set", "bob", "capacity=0"], ["node", "set", "bob", "zone=a b"],
        ["ring", "plan", "drain", "bob", "zone=a"], ["ring", "plan", "set", "bob"],
        ["ring", "plan", "set", "bob", "capacity=1e9"], ["ring", "plan", "add", "a b"],
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(served: Served, covey: Covey, asked: list[str]) -> None:
    outcome = covey(*asked)
    assert outcome.status == exits.USAGE, outcome.stderr
    assert not served.agent.admission.placed


def test_the_last_that_owns_anything_cannot_drain(served: Served, covey: Covey) -> None:
    served.agent.registry = settled(arrange(settled(served.agent.registry), OTHER, DRAINS))
    for asked in (["node", "drain", "ada"], ["ring", "plan", "drain", "ada"]):
        outcome = covey(*asked)
        assert outcome.status == exits.UNHEALTHY
        assert "nobody else is there to own what 'ada' owns" in outcome.stderr
    alone = remove(served.agent.registry, OTHER)
    served.agent.registry = alone
    assert covey("ring", "plan", "remove", "ada").status == exits.UNHEALTHY
    assert covey("ring", "plan", "add", "ada").status == exits.NAME_TAKEN
    assert covey("node", "drain", "nobody").status == exits.NOT_FOUND


@pytest.mark.parametrize(
    "body", [{}, {"zone": 1}, {"capacity": "2"}, {"capacity": True}, {"drains": 1}, {"name": "x"}]
)
def test_the_route_takes_nothing_else(served: Served, client: Client, body: object) -> None:
    with pytest.raises(ApiError) as caught:
        client.post("/api/v1/nodes/bob", body)
    assert caught.value.status == 400
    assert not served.agent.admission.placed
