"""``covey kv why`` against a fake agent: what it shows of owners that differ, or do not answer."""

from agent import exits
from tests.support.command_line import Covey
from tests.support.fake_agent import ME, OTHER, Served


def test_each_owner_has_its_line_and_troubles_are_told(covey: Covey, served: Served) -> None:
    outcome = covey("kv", "why", "a/b")
    assert outcome.status == exits.YES
    rows = [line.split("\t") for line in outcome.stdout.splitlines()]
    assert [(row[0], row[1], row[3]) for row in rows] == [
        ("ada", "owner", "equal"), ("bob", "owner", "behind"), (rows[2][0], "owner", "not known"),
    ]  # fmt: skip
    assert rows[0][4] == "2023-11-14T22:13:20.000Z"
    assert rows[0][5:7] == ["300", "0001020304050607"]
    assert rows[1][7] == "0000000000000007.1 (outdated)"
    assert rows[1][8] == "0000000000000007.1"
    told = outcome.stderr
    assert "Partition 5, settled since epoch 4" in told
    assert "1 of 3 owners are known to have that." in told
    assert "it lacks 1 version" in told
    assert "its disk takes nothing" in told
    assert "epoch 3" in told
    assert "is not known: it is dead, as this node sees it" in told


def test_too_few_answers_are_a_partial_result(covey: Covey, served: Served) -> None:
    served.agent.kv_reports.views.silent |= {OTHER}
    outcome = covey("kv", "why", "k")
    assert outcome.status == exits.UNHEALTHY
    assert "What bob has is not known: it is there and did not answer in time" in outcome.stderr
    assert len(outcome.stdout.splitlines()) == 3, "what is known is shown all the same"
    served.agent.kv_reports.views.silent |= {ME}
    answer = covey("kv", "why", "k", "-o", "json")
    assert answer.status == exits.UNHEALTHY
    assert answer.json()["versions"] == []


def test_json_has_all_of_it(covey: Covey, served: Served) -> None:
    answer = covey("kv", "why", "k", "-o", "json").json()
    ada, bob, cy = answer["nodes"]
    assert ada["versions"] == answer["versions"]
    assert (ada["behind"], bob["behind"], cy["answered"]) == (False, True, False)
    assert bob["lacks"] == ["0000000000000007.2"]
    assert bob["outdated"] == ["0000000000000007.1"]
    assert (answer["outcome"], answer["partition"], answer["key"]) == ("ok", 5, "k")
