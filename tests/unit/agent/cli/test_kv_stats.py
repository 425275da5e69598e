"""``covey kv stats`` against a fake agent: sums, troubles, and who is silent."""

from agent import exits
from tests.support.command_line import Covey
from tests.support.fake_agent import OTHER, Served


def test_each_node_has_its_line_and_the_covey_its_sums(covey: Covey, served: Served) -> None:
    outcome = covey("kv", "stats")
    assert outcome.status == exits.YES
    ada, bob = (line.split("\t") for line in outcome.stdout.splitlines())
    assert ada[3:10] == ["5", "8", "4", "1", "2", "2.5s ago", "1m30s"]
    assert bob[3:10] == ["4", "4", "0", "0", "0", "never", "5s"]
    told = outcome.stderr
    assert "5 keys, 9 copies, 12 KiB on disks." in told
    assert "bob: its disk lost some of 1 partition." in told
    assert "bob: 2 partitions not complete yet." in told
    assert "bob: its disk takes nothing" in told
    assert "bob: 6 comparisons not ended" in told
    assert "ada:" not in told


def test_who_is_silent_is_named_and_the_rest_is_shown(covey: Covey, served: Served) -> None:
    del served.agent.kv_reports.survey.told[OTHER]
    outcome = covey("kv", "stats")
    assert outcome.status == exits.UNHEALTHY
    assert "no answer from bob" in outcome.stderr
    assert len(outcome.stdout.splitlines()) == 2
    answer = covey("kv", "stats", "-o", "json").json()
    assert (answer["silent"], answer["outcome"], answer["keys"]) == (["bob"], "partial", 5)
    assert [node["answered"] for node in answer["nodes"]] == [True, False]


def test_json_has_comparisons_by_name(covey: Covey, served: Served) -> None:
    answer = covey("kv", "stats", "-o", "json").json()
    ada = answer["nodes"][0]
    assert ada["comparisons"] == [
        {"id": f"{OTHER:016x}", "name": "bob", "age_s": 2.5, "hints": 4},
    ]
    assert (ada["compared_s"], answer["hints"], answer["differing"]) == (2.5, 4, 1)
    assert answer["short"] == answer["without_majority"] == answer["uncounted"] == 0
