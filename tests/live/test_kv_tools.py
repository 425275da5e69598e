"""What operators ask of the shared keys, of real agents: why, export, import, backups, counts."""

import json
from collections.abc import Iterator
from contextlib import suppress
from threading import Event, Thread
from typing import Any

import pytest

from agent import exits
from edge_apps.client import ClientError
from tests.live.harness.fleet import LOCAL_TOML, VOTERS_TOML, Fleet
from tests.live.harness.waiting import eventually, insist

pytestmark = [pytest.mark.live]

NAMES = ("ash", "birch", "cedar")
SETTLED_WITHIN_S = 30.0
WITHIN_S = 20.0


@pytest.fixture(scope="module")
def three(networks: None) -> Iterator[Fleet]:
    """Give three agents, each of which owns every key."""
    with Fleet() as fleet:
        fleet.form_admitted(*NAMES, toml=LOCAL_TOML)
        fleet.wait_settled(SETTLED_WITHIN_S, "three own every key")
        yield fleet


def _nodes(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {node["name"]: node for node in answer["nodes"]}


def test_why_shows_who_missed_a_write_and_of_whom_nothing_is_known(three: Fleet) -> None:
    ash, cedar = three.agents["ash"], three.agents["cedar"]
    ash.must("kv", "put", "why/k", "first", "-w", "3")
    whole = ash.must("kv", "why", "why/k", "-o", "json").json()
    assert [node["behind"] for node in whole["nodes"]] == [False] * 3
    digests = {v["digest"] for node in whole["nodes"] for v in node["versions"]}
    assert len(digests) == 1
    cedar.kill()
    ash.must("kv", "put", "why/k", "second", "-w", "2")
    told = ash.covey("kv", "why", "why/k", "-o", "json")
    assert told.status == exits.YES, "two of three are a quorum"
    nodes = _nodes(told.json())
    assert not nodes["cedar"]["answered"]
    assert nodes["cedar"]["reason"]
    assert nodes["birch"]["versions"] == nodes["ash"]["versions"] != whole["versions"]
    cedar.start()
    three.wait_formed(WITHIN_S)
    eventually(
        lambda: _nodes(cedar.must("kv", "why", "why/k", "-o", "json").json()),
        lambda seen: not any(node.get("behind", True) for node in seen.values()),
        WITHIN_S,
        "who came back has the second value",
    )


def test_keys_go_to_a_file_and_come_back_byte_for_byte(three: Fleet) -> None:
    """With versions that knew nothing of each other, and while one owner is away."""
    ash, birch, cedar = (three.agents[name] for name in NAMES)
    data = bytes(range(256))
    for n in range(300):
        ash.api.request("PUT", f"/api/v1/kv/t/{n:04}", body=f"value {n}".encode())
    ash.api.request("PUT", "/api/v1/kv/t/bytes", body=data)
    seen = ash.must("kv", "put", "t/two", "one", "-o", "json").json()["context"]
    ash.must("kv", "delete", "t/two")
    for value in ("one", "other"):
        ash.must("kv", "put", "t/two", value, "--context", seen)
    exported = birch.must("kv", "export", "--prefix", "t/").stdout
    assert len(exported.splitlines()) == 302
    file = three.folder / "keys.jsonl"
    file.write_text(exported)
    for line in exported.splitlines():
        ash.api.request("DELETE", f"/api/v1/kv/{json.loads(line)['key']}")
    assert birch.must("kv", "export", "--prefix", "t/").stdout == ""
    cedar.kill()
    first = birch.must("kv", "import", str(file), "-o", "json").json()
    assert (first["written"], first["unchanged"]) == (302, 0)
    cedar.start()
    three.wait_formed(WITHIN_S)
    again = cedar.must("kv", "import", str(file), "-o", "json").json()
    assert (again["written"], again["unchanged"]) == (0, 302)
    assert cedar.api.request("GET", "/api/v1/kv/t/bytes").body == data
    two = cedar.must("kv", "get", "t/two", "-o", "json").json()["values"]
    assert [each["value"] for each in two] == ["other", "one"]


def test_stats_count_keys_once_and_name_who_is_silent(three: Fleet) -> None:
    ash, cedar = three.agents["ash"], three.agents["cedar"]
    before = ash.must("kv", "stats", "-o", "json").json()
    for n in range(20):
        ash.must("kv", "put", f"stats/{n}", "v", "-w", "all")
    told = eventually(
        lambda: ash.must("kv", "stats", "-o", "json").json(),
        lambda seen: seen["keys"] == before["keys"] + 20,
        WITHIN_S,
        "the keys are counted",
    )
    assert told["copies"] == 3 * told["keys"]
    assert (told["short"], told["silent"]) == (0, [])
    eventually(
        lambda: _nodes(ash.must("kv", "stats", "-o", "json").json()),
        lambda seen: all(node["compared_s"] is not None for node in seen.values()),
        120.0,
        "everybody has compared with somebody",
    )
    metrics = ash.api.request("GET", "/metrics").body.decode()
    assert "covey_kv_partitions_owned 256.0" in metrics
    assert 'covey_kv_comparison_age_seconds{node="birch"}' in metrics
    cedar.kill()
    three.wait_states({"ash": "alive", "birch": "alive", "cedar": "dead"}, WITHIN_S, "it is dead")
    outcome = ash.covey("kv", "stats", "-o", "json")
    assert outcome.status == exits.UNHEALTHY
    told = outcome.json()
    assert (told["silent"], told["without_majority"]) == (["cedar"], 0)
    assert told["short"] == 256 + len(three.agents), "each has a home beside the partitions of all"
    cedar.start()
    three.wait_formed(WITHIN_S)


def test_the_databases_of_an_agent_that_runs_are_read_and_it_writes_on(three: Fleet) -> None:
    ash = three.agents["ash"]
    ash.must("kv", "put", "db/k", "on", "-w", "all")
    found = ash.must("db", "query", "SELECT key FROM records WHERE key = 'db/k'").stdout
    assert found == "db/k\n"
    packed = ash.must("db", "query", "SELECT unpacked(record) FROM records", "-o", "json").json()
    assert len(packed) > 0
    for name in ("control", "telemetry", "consensus", "audit"):
        ash.must("db", "query", "SELECT count(*) FROM sqlite_schema", "--db", name)
    assert ash.covey("db", "query", "DELETE FROM records").status == exits.NOT_PERMITTED
    ash.must("kv", "put", "db/k", "off")
    ash.stop()
    assert ash.must("db", "query", "SELECT count(*) FROM records").stdout.strip() != "0"
    ash.start()
    three.wait_formed(WITHIN_S)
    assert ash.must("kv", "get", "db/k").stdout.strip() == "off"
    assert ash.must("status", "-o", "json").json()["losses"] == [], "a look leaves nothing behind"


def test_a_backup_of_a_covey_that_writes_and_dies_is_the_same_in_a_new_one(three: Fleet) -> None:
    """All keys, values, versions and times; what is agreed on, too."""
    ash, birch, cedar = (three.agents[name] for name in NAMES)
    for n in range(100):
        ash.api.request("PUT", f"/api/v1/kv/b/{n:04}", body=bytes(range(n, 256)))
    seen = ash.must("kv", "put", "b/two", "one", "-o", "json").json()["context"]
    ash.must("kv", "delete", "b/two")
    for value in ("one", "other"):
        ash.must("kv", "put", "b/two", value, "--context", seen)
    for agent in (ash, birch, cedar):
        agent.must("kv", "counter", "b/visits", "3")
        agent.must("kv", "set", "b/tags", "--add", agent.name)
    ash.must("config", "set", "log.level", "warning")
    file, secret = three.folder / "farm.backup", three.folder / "secret"
    secret.write_bytes(bytes(range(32)))
    stops = Event()

    def write() -> None:
        while not stops.wait(0.02):
            with suppress(ClientError):
                birch.api.request("PUT", "/api/v1/kv/busy", body=b"x")

    writer = Thread(target=write)
    writer.start()
    try:
        cedar.kill()
        made = birch.must("backup", "create", str(file), "--key-file", str(secret), "-o", "json")
    finally:
        stops.set()
        writer.join()
    cedar.start()
    three.wait_formed(WITHIN_S)
    assert made.json()["whole"]
    looked = ash.must("backup", "verify", str(file), "--key-file", str(secret), "-o", "json")
    assert looked.json()["keys"] == made.json()["keys"]
    before = ash.must("kv", "export", "--prefix", "b/").stdout
    with Fleet(three.network) as fresh:
        lone = fresh.add("lone", toml=VOTERS_TOML)
        fresh.found(lone, "fresh")
        insist(lambda: lone.must("voters"), "it votes alone")
        lone.must("backup", "restore", str(file), "--key-file", str(secret), "--yes")
        assert lone.must("kv", "export", "--prefix", "b/").stdout == before
        assert "log.level" in str(lone.api.get("/api/v1/settings"))
        lone.must("kv", "counter", "b/visits", "1")
        assert lone.must("kv", "get", "b/visits").stdout.strip() == "10"
    ash.must("kv", "delete", "b/0007")
    ash.must("kv", "put", "b/0008", "newer")
    sealed = "--key-file", str(secret), "--prefix", "b/", "--yes", "-o", "json"
    merged = cedar.covey("backup", "restore", str(file), "--merge", *sealed)
    assert merged.status == exits.NO, merged
    told = merged.json()
    assert (told["written"], told["different"], told["indeterminate"]) == (1, 1, 0), told
    assert birch.must("kv", "get", "b/0008").stdout.strip() == "newer"
    assert birch.api.request("GET", "/api/v1/kv/b/0007").body == bytes(range(7, 256))


def test_values_are_sealed_on_one_disk_and_without_its_key_nothing_is_touched(three: Fleet) -> None:
    ash, cedar = three.agents["ash"], three.agents["cedar"]
    ash.must("kv", "put", "sealed/k", "a-word-that-is-nowhere-else", "-w", "all")
    key = cedar.directory / "values.key"
    key.write_bytes(bytes(range(64)))
    key.chmod(0o600)
    cedar.stop()
    cedar.configure(f'{LOCAL_TOML}\n[storage]\nencryption = "on"\nkey_file = "{key}"\n')
    cedar.start()
    three.wait_formed(WITHIN_S)
    eventually(
        lambda: cedar.covey("doctor", "-o", "json").stdout,
        lambda seen: "all values of shared keys are sealed" in seen,
        WITHIN_S,
        "what was there is sealed",
    )
    cedar.must("kv", "put", "sealed/k2", "another-word", "-w", "all")
    assert cedar.must("kv", "get", "sealed/k", "-r", "one").stdout.strip().endswith("else")
    cedar.stop()
    ash.must("kv", "put", "sealed/k3", "missed")
    held = (cedar.directory / "data" / "data.db").read_bytes()
    assert b"sealed/k2" in held
    assert b"another-word" not in held
    kept = key.rename(key.with_suffix(".kept"))
    refused = cedar.covey("run")
    assert refused.status == exits.BAD_CONFIG, refused
    assert "nothing was done" in refused.stderr
    assert (cedar.directory / "data" / "data.db").read_bytes() == held
    kept.rename(key)
    cedar.start()
    three.wait_formed(WITHIN_S)
    eventually(
        lambda: cedar.covey("kv", "get", "sealed/k3", "-r", "one").stdout.strip(),
        lambda seen: seen == "missed",
        WITHIN_S,
        "what it missed comes to it as to every owner",
    )


def test_what_expires_goes_at_every_owner_and_a_space_is_followed(three: Fleet) -> None:
    """The clocks of real agents are compared, and one owner's delete reaches all."""
    ash, birch, cedar = (three.agents[name] for name in NAMES)
    ash.must("kv", "space", "set", "seen", "--policy", "lww", "--ttl-default", "5s")

    def put_and_look() -> dict[str, Any]:
        birch.must("kv", "put", "seen/ada", "here")
        answer: dict[str, Any] = birch.must("kv", "get", "seen/ada", "-o", "json").json()
        return answer

    eventually(
        put_and_look,
        lambda found: "expires_ms" in found["values"][0],
        SETTLED_WITHIN_S,
        "birch goes by what is set for the space",
    )
    ash.must("kv", "put", "stays/ada", "here")
    eventually(
        lambda: cedar.must("kv", "why", "seen/ada", "-o", "json").json(),
        lambda told: not any(node.get("versions", True) for node in told["nodes"]),
        SETTLED_WITHIN_S,
        "an owner has deleted it, and all have that",
    )
    assert cedar.covey("kv", "get", "seen/ada").status == exits.NOT_FOUND
    assert cedar.must("kv", "get", "stays/ada").stdout == "here"
    ash.must("kv", "space", "unset", "seen")
