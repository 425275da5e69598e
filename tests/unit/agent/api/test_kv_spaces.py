"""What is set for a space, as it is asked for and shown."""

import pytest

from agent import exits
from gossip.kv.quotas import Use
from gossip.kv.spaces import SpaceSetting
from gossip.registry.ownership import Ownership
from gossip.registry.registry import house
from gossip.registry.space_change import place_space
from tests.support.command_line import Covey
from tests.support.fake_agent import ME, Served


def test_quotas_are_set_shown_with_what_is_there_and_taken_back(
    covey: Covey, served: Served
) -> None:
    told = covey(
        "kv", "space", "set", "lamps", "--quota-keys", "2K", "--quota-bytes", "10MiB", "-o", "json"
    ).json()
    assert (told["quota_keys"], told["quota_bytes"]) == (2048, 10 << 20)
    assert (told["keys"], told["bytes"]) == (None, None)
    assert "?/2048" in covey("kv", "space", "list").stdout
    spaces, quotas = served.agent.kv_spaces._spaces, served.agent.kv_spaces._quotas
    spaces.replace({"lamps": SpaceSetting(quota_keys=2048)})
    quotas.end_round({ME: {"lamps": {0: Use(17, 400)}}}, [(0, Ownership((ME,), 1))])
    listed = covey("kv", "space", "list").stdout
    assert "17/2048" in listed
    assert f"400/{10 << 20}" in listed
    covey("kv", "space", "set", "lamps", "--quota-keys", "none")
    [left] = [e for e in covey("kv", "space", "list", "-o", "json").json()["spaces"] if e["is_set"]]
    assert (left["quota_keys"], left["quota_bytes"]) == (None, 10 << 20)


@pytest.mark.parametrize("amount", ["0", "-1", "1.5K", "10T", "many", "9" * 16])
def test_what_is_no_amount_is_refused(covey: Covey, amount: str) -> None:
    assert covey("kv", "space", "set", "lamps", "--quota-keys", amount).status == exits.USAGE


def test_spaces_with_partitions_of_their_own_are_listed(served: Served, covey: Covey) -> None:
    agent = served.agent
    agent.registry = place_space(house(agent.registry), "lamps", 5)
    [lamps] = [
        each
        for each in covey("kv", "space", "list", "-o", "json").json()["spaces"]
        if each["name"] == "lamps"
    ]
    assert (lamps["replicas"], lamps["is_set"]) == (5, False)
    assert covey("kv", "space", "list").stdout.splitlines()[-1].split("\t") == [
        "lamps", "siblings", "-", "-", "-", "5",
    ]  # fmt: skip
