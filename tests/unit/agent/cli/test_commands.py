"""Each command against a fake agent: what it prints where, and its exit status."""

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from agent import exits
from agent.admission.token_terms import TokenTerms
from agent.cli import output
from agent.exits import UNHEALTHY, AgentError
from agent.telemetry.dead_letters import Choice
from gossip.core.ids import format_node_id
from gossip.kv.changes import Change, CounterUpdate, LimitUpdate, MapUpdate, SetUpdate
from gossip.kv.requests import ALL, Value, WatchEvent
from gossip.kv.watch_token import encode_token, watched_mark
from gossip.registry.node import ISSUER, RegisteredNode
from gossip.registry.registry import admit, remove
from tests.support.command_line import Covey, feed
from tests.support.fake_agent import GONE, ME, OTHER, STALE_CONTEXT, STAMP, TOKEN_ID, Served
from tests.support.patience import GIVE_UP_S


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COVEY_DIR"):
        monkeypatch.delenv(name, raising=False)


# ---- without an agent ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [["members"], ["kv", "get", "k"], ["publish", "t", "1"], ["readings", "-f"],
     ["token", "create"], ["app", "list"], ["ring"],
     ["outbox"], ["status"], ["leave"], ["sleep", "1h"], ["wake"], ["kv", "watch", "k"]],
)  # fmt: skip
def test_no_agent(covey: Covey, arguments: list[str]) -> None:
    outcome = covey(*arguments)
    assert (outcome.status, outcome.stdout) == (exits.UNREACHABLE, "")
    assert outcome.stderr.startswith("error: no agent listens on ")
    assert "`covey run`" in outcome.stderr.splitlines()[1]


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["kv", "put", "k"], ["kv", "put", "k", "v", "--file", "/dev/null"],
     ["members", "--state", "zombie"], ["publish", "t"], ["publish", "a b", "1"],
     ["publish", "t", "1", "--time", "noon"], ["publish", "t", "1", "--tag", "x"],
     ["token", "create", "--ttl", "5"], ["kv", "watch"], ["kv", "get", "k", "-r", "0"],
     ["completion", "tcsh"], ["-v", "-q", "members"]],
)  # fmt: skip
def test_usage_errors(covey: Covey, arguments: list[str]) -> None:
    outcome = covey(*arguments)
    assert (outcome.status, outcome.stdout) == (exits.USAGE, "")
    assert outcome.stderr.startswith("error: ")
    assert "--help` explains it" in outcome.stderr


# ---- reading ------------------------------------------------------------------------------------


def test_members_are_tab_separated_in_a_pipe(served: Served, covey: Covey) -> None:
    outcome = covey("members")
    first = outcome.stdout.splitlines()[0].split("\t")
    assert first == ["ada", "alive", "192.168.1.7:7747", "room=attic", f"{0xA:016x}"]
    assert len(outcome.stdout.splitlines()) == 3
    assert outcome.stderr == ""


def test_members_as_json_and_by_state(served: Served, covey: Covey) -> None:
    members = covey("members", "--state", "suspect", "-o", "json").json()["members"]
    assert [member["name"] for member in members] == ["bob"]


def test_who_was_let_in_and_not_heard_is_shown(served: Served, covey: Covey) -> None:
    assert "not heard" not in covey("status").stdout
    registry = admit(served.agent.registry, RegisteredNode(0xE, "eve", absent=True))
    served.agent.registry = admit(registry, RegisteredNode(GONE, "cy", absent=True))
    lines = [line.split("\t") for line in covey("members").stdout.splitlines()]
    assert [line[:2] for line in lines] == [
        ["ada", "alive"], ["bob", "suspect"], ["cy", "dead"], ["eve", "absent"],
    ]  # fmt: skip
    assert lines[3][4] == f"{0xE:016x}"
    assert covey("members", "--state", "absent").stdout.count("\n") == 2
    assert "absent" not in covey("members", "--state", "dead").stdout
    told = covey("members", "-o", "json").json()
    assert [one["name"] for one in told["absent"]] == ["eve", "cy"]
    assert len(told["members"]) == 3
    assert "let in, not heard\teve, cy\n" in covey("status").stdout
    assert "partitions\tnone before the issuer hears it\n" in covey("members", "show", "cy").stdout
    assert "partitions" not in covey("members", "show", "bob").stdout
    refused = covey("members", "show", "eve")
    assert refused.status == exits.NOT_FOUND
    assert "eve was let in, and was not heard here" in refused.stderr


def test_who_is_alive_here_is_not_shown_as_unheard(served: Served, covey: Covey) -> None:
    nodes = [msgspec.structs.replace(one, absent=True) for one in served.agent.registry.nodes]
    served.agent.registry = msgspec.structs.replace(served.agent.registry, nodes=tuple(nodes))
    assert "not heard" not in covey("status").stdout


def test_one_member(served: Served, covey: Covey) -> None:
    shown = covey("members", "show", "bob").stdout
    assert "since\t1m\n" in shown
    assert shown.endswith("fact covey\t1.2.3\nfact memory_bytes\t1024\n")
    assert covey("members", "show", "eve").status == exits.NOT_FOUND


def test_names_from_elsewhere_cannot_write_to_the_terminal(served: Served, covey: Covey) -> None:
    outcome = covey("app", "log", "system", "-n", "1")
    assert outcome.stdout == "line 0\\x1b[31m\n"


def test_colour_on_demand(served: Served, covey: Covey, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" not in covey("members", "show", "eve").stderr
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[31merror: " in covey("members", "show", "eve").stderr
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in covey("members", "show", "eve").stderr


def test_status(served: Served, covey: Covey) -> None:
    outcome = covey("status")
    assert outcome.status == exits.YES
    assert "covey\tattic (000102030405060708090a0b0c0d0e0f)\n" in outcome.stdout
    served.agent.reasons = ["the disk is full"]
    outcome = covey("status", "-o", "json")
    assert (outcome.status, outcome.json()["reasons"]) == (exits.UNHEALTHY, ["the disk is full"])


def test_ring(served: Served, covey: Covey) -> None:
    outcome = covey("ring")
    assert [line.split("\t")[0] for line in outcome.stdout.splitlines()] == ["ada", "bob"]
    assert "256 partitions" in outcome.stderr
    assert "256 partitions" not in covey("-q", "ring").stderr
    assert "On their way to other owners: 256 copying." in outcome.stderr
    assert "owners of each: 2" in outcome.stderr
    assert "owner\tada (alive)\n" in covey("ring", "k").stdout
    assert "pending\tbob (suspect, copying)\n" in covey("ring", "k").stdout


def test_who_is_absent_owns_nothing_of_the_ring(served: Served, covey: Covey) -> None:
    served.agent.registry = admit(served.agent.registry, RegisteredNode(0xE, "eve", absent=True))
    outcome = covey("ring")
    assert [line.split("\t")[4] for line in outcome.stdout.splitlines()][-1] == "absent"
    assert "owners of each: 2" in outcome.stderr


def test_pairs_of_one_name_stand_in_one_column(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("agent.cli.output.is_terminal", lambda: True)
    output.write_pairs([("partition", 7), ("owner", "ada"), ("owner", "bob")])
    lines = click.unstyle(capsys.readouterr().out).splitlines()
    assert [line.split() for line in lines[1:]] == [["owner", "ada"], ["owner", "bob"]]
    assert len({len(line.rstrip()) - len(line.split()[-1]) for line in lines}) == 1


def test_outbox(served: Served, covey: Covey) -> None:
    outcome = covey("outbox")
    assert "broker\tbroker.lan:1883\n" in outcome.stdout
    assert "dead letter\tattic/gas: refused: 0x99 (a-1-9)\n" in outcome.stdout


def test_outbox_says_what_became_of_dead_letters(served: Served, covey: Covey) -> None:
    assert "dead letters\t1 (1 KiB), 2 replayed, 1 dropped\n" in covey("outbox").stdout
    assert "dropped\t5 bulk (full), 1 normal (age)\n" in covey("outbox").stdout
    assert "bytes waiting\t99 of at most 1000\n" in covey("outbox").stdout
    assert "dead letters\t1; `covey" in covey("status").stdout
    assert served.agent.telemetry.chosen == [], "that was a look"


def test_dead_letters(served: Served, covey: Covey) -> None:
    chosen = served.agent.telemetry.chosen
    listed = covey("outbox", "dead", "list", "--sensor", "attic/*", "--limit", "5")
    told = listed.stdout.splitlines()[0].split("\t")
    assert told == ["2023-11-14T22:13:20.000Z", "a-1-9", "attic/gas", "1", "refused: 0x99"]
    replayed = covey("outbox", "dead", "replay", "a-1-9", "a-1-8")
    assert replayed.stderr == (
        "3 readings wait for the broker again.\n1 were damaged on the disk, and are gone.\n"
    )
    dropped = covey("outbox", "dead", "drop", "--reason", "*99", "--yes", "-o", "json")
    assert json.loads(dropped.stdout) == {"dropped": 1}
    assert chosen == [
        Choice(sensor="attic/*"), Choice(frozenset({"a-1-9", "a-1-8"})), Choice(reason="*99"),
    ]  # fmt: skip


def test_dead_letters_that_have_no_room_are_told(served: Served, covey: Covey) -> None:
    served.agent.telemetry.left = 5
    replayed = covey("outbox", "dead", "replay", "--all")
    assert replayed.status == exits.UNHEALTHY
    assert "5 stay dead letters: the outbox is full." in replayed.stderr


def test_dead_letters_are_chosen_before_they_are_touched(served: Served, covey: Covey) -> None:
    for words in (["replay"], ["drop", "--yes"], ["replay", "--all", "a-1-9"]):
        assert covey("outbox", "dead", *words).status == exits.USAGE
    assert covey("outbox", "dead", "drop", "--all").status == exits.USAGE, "nobody was asked"
    assert served.agent.telemetry.chosen == []


# ---- keys ---------------------------------------------------------------------------------------


def test_values_come_from_three_places(
    served: Served, covey: Covey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = served.agent.kv.values
    assert covey("kv", "put", "a", "text") == (0, "", "")
    (tmp_path / "file").write_bytes(b"\x00file\n")
    assert covey("kv", "put", "b", "--file", str(tmp_path / "file")).status == 0
    feed(monkeypatch, tmp_path, b"\xffstdin\n")
    assert covey("kv", "put", "c", "-").status == 0
    assert values == {"a": [b"text"], "b": [b"\x00file\n"], "c": [b"\xffstdin\n"]}


def test_get_writes_the_bytes_as_they_are(served: Served, covey: Covey) -> None:
    served.agent.kv.values["k"] = [bytes(range(256))]
    outcome = covey("kv", "get", "k")
    assert outcome.stdout.encode(errors="surrogateescape") == bytes(range(256))
    assert outcome.stderr == ""


def test_concurrent_versions_are_mentioned(served: Served, covey: Covey) -> None:
    served.agent.kv.values["k"] = [b"new", b"old"]
    outcome = covey("kv", "get", "k")
    assert outcome.stdout == "new"
    assert "2 versions" in outcome.stderr
    assert len(covey("kv", "get", "k", "-o", "json").json()["values"]) == 2


def test_a_stale_context_says_what_it_left(served: Served, covey: Covey) -> None:
    served.agent.kv.values["k"] = [b"old"]
    stale = base64.urlsafe_b64encode(STALE_CONTEXT).decode()
    outcome = covey("kv", "put", "k", "new", "--context", stale)
    assert outcome.status == exits.YES
    assert "kept as well: 1 version that this context had not seen" in outcome.stderr
    assert covey("kv", "put", "k", "new", "--context", stale, "-o", "json").json()["versions"] == 3
    outcome = covey("kv", "delete", "k", "--context", stale)
    assert "kept as well: 3 versions" in outcome.stderr
    assert covey("kv", "delete", "k") == (0, "", "")


def test_statuses_of_keys(served: Served, covey: Covey) -> None:
    assert covey("kv", "get", "missing").status == exits.NOT_FOUND
    assert covey("kv", "delete", "missing").status == exits.YES
    assert covey("kv", "put", "k", "v", "-w", "4").status == exits.USAGE
    served.agent.kv.outcome = "unavailable"
    assert covey("kv", "get", "k").status == exits.UNHEALTHY


def test_indeterminate_is_never_called_failed(served: Served, covey: Covey) -> None:
    served.agent.kv.outcome = "indeterminate"
    outcome = covey("kv", "put", "k", "v", "-w", "2")
    assert outcome.status == exits.UNHEALTHY
    assert outcome.stderr.startswith("error: indeterminate: 1 of 2 owners")
    assert "fail" not in outcome.stderr
    json_outcome = covey("kv", "put", "k", "v", "-o", "json")
    assert (json_outcome.status, json_outcome.json()["outcome"]) == (6, "indeterminate")


def test_options_reach_the_agent(served: Served, covey: Covey) -> None:
    covey("kv", "put", "k", "v", "-w", "1", "--timeout", "500ms")
    covey("kv", "get", "k", "-r", "2")
    assert served.agent.kv.asked[0] == {"w": 1, "context": None, "timeout_s": 0.5}
    assert served.agent.kv.asked[1] == {"r": 2, "timeout_s": 5.0}


def test_list_goes_on_page_after_page(served: Served, covey: Covey) -> None:
    served.agent.kv.values = {f"k{n:04}": [b"v"] for n in range(1200)}
    assert len(covey("kv", "list", "k").stdout.splitlines()) == 1200
    assert len(covey("kv", "list", "k", "--limit", "700").stdout.splitlines()) == 700
    served.agent.kv.values = {"k": [b"\xff" * 9]}
    assert covey("kv", "list").stdout == "k\t(9 bytes)\t1\n"
    served.agent.kv.outcome = "unavailable"
    assert covey("kv", "list").status == exits.UNHEALTHY


def test_watch_until_the_stream_fails(served: Served, covey: Covey) -> None:
    queue = served.agent.kv.events
    event = WatchEvent(1, "k", "put", (Value(b"v", STAMP, (1, 1)),))
    for item in (event, AgentError("the agent is stopping", "", UNHEALTHY)):
        served.loop.call_soon_threadsafe(queue.put_nowait, item)
    outcome = covey("kv", "watch", "--prefix", "")
    assert outcome == (exits.UNHEALTHY, "put\tk\tv\n", "error: the agent is stopping\n")


def test_watch_goes_on_from_a_token_and_says_the_next_one(served: Served, covey: Covey) -> None:
    token = encode_token(watched_mark("", is_prefix=True), {0: ((1, ((1, 2),)),)})
    text = base64.urlsafe_b64encode(token).decode()
    for item in (
        WatchEvent(1, "", "mark", token=token),
        WatchEvent(1, "k", "delete"),
        WatchEvent(1, "", "gap", reason="nobody knows"),
        AgentError("the agent is stopping", "", UNHEALTHY),
    ):
        served.loop.call_soon_threadsafe(served.agent.kv.events.put_nowait, item)
    outcome = covey("kv", "watch", "--prefix", "", "--since", text)
    assert outcome.stdout == "delete\tk\t-\n"
    assert outcome.stderr.splitlines() == [
        "a gap: nobody knows; see `covey kv list` for what there is",
        f"to go on from here: --since {text}",
        "error: the agent is stopping",
    ]
    assert served.agent.kv.asked[-1]["since"] == token


# ---- readings -----------------------------------------------------------------------------------


def test_publish_one(served: Served, covey: Covey) -> None:
    outcome = covey("publish", "attic/t", "21.5", "--unit", "C", "--tag", "a=b", "--time", "1")
    assert outcome == (0, "accepted 1\n", "")
    reading = served.agent.telemetry.accepted[0].reading
    assert (reading.sensor, reading.value, reading.unit) == ("attic/t", 21.5, "C")
    assert (reading.tags, reading.time_ns) == ({"a": "b"}, 10**9)


@pytest.mark.parametrize("how", [["-"], ["--stdin"], ["-", "--format", "plain"], []])
def test_publish_lines(
    served: Served, covey: Covey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: list[str]
) -> None:
    feed(monkeypatch, tmp_path, b"".join(b"t %d\n" % n for n in range(2500)) + b"t 2500")
    outcome = covey("publish", *how, "-o", "json")
    assert outcome.json() == {"accepted": 2501, "first": "a-1-1", "last": "a-1-2501"}
    values = [one.reading.value for one in served.agent.telemetry.accepted]
    assert values == list(range(2501))


def test_bad_lines_are_named_and_the_others_go(
    served: Served, covey: Covey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"t {n}" for n in range(1500)]
    lines[1200] = "one two three four"
    feed(monkeypatch, tmp_path, "\n".join(lines).encode())
    outcome = covey("publish", "-")
    assert (outcome.status, outcome.stdout) == (exits.NO, "accepted 1499\n")
    assert outcome.stderr.startswith("line 1201: ")


@pytest.mark.parametrize(
    "text", ['{"sensor":"t","value":1}\n', "m,room=a t=1 1700000000000000000\n", "# hi\n\nt 1\n"]
)
def test_formats_are_told_apart(
    served: Served, covey: Covey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    feed(monkeypatch, tmp_path, text.encode())
    assert covey("publish", "-").stdout == "accepted 1\n"


def test_refusal_in_the_middle_says_what_was_accepted(
    served: Served, covey: Covey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    telemetry, accept = served.agent.telemetry, served.agent.telemetry.accept

    async def until_full(readings: Any) -> Any:
        if telemetry.accepted:
            raise AgentError("the outbox is full", "wait", UNHEALTHY)
        return await accept(readings)

    monkeypatch.setattr(telemetry, "accept", until_full)
    feed(monkeypatch, tmp_path, b"t 1\n" * 1500)
    outcome = covey("publish", "-")
    assert outcome.status == exits.UNHEALTHY
    assert "the 1000 readings before were accepted, up to a-1-1000. wait" in outcome.stderr


def test_readings(served: Served, covey: Covey) -> None:
    covey("publish", "t", "1.5", "--time", "1")
    assert covey("readings").stdout == "1970-01-01T00:00:01.000Z\tt\t1.5\t-\t-\n"
    assert covey("readings", "-o", "json").json()["readings"][0]["id"] == "a-1-1"


# ---- the rest -----------------------------------------------------------------------------------


def test_token(served: Served, covey: Covey) -> None:
    outcome = covey("token", "create", "--ttl", "2h", "--uses", "3")
    assert outcome.stdout == "covey-token-abc\n"
    assert "3 nodes within 2h" in outcome.stderr
    assert served.agent.admission.asked == TokenTerms(7200.0, 3)
    covey("token", "create", "--node-name", "shed-1", "--zone", "shed", "--weight", "2")
    assert served.agent.admission.asked == TokenTerms(3600.0, 1, "shed-1", "shed", 2.0)
    outcome = covey("token", "create", "--node-name", "bob")
    assert "`covey join --replace bob TOKEN`" in outcome.stderr, "another way it is refused"
    assert "bob is a node of this covey already, suspect" in outcome.stderr
    assert covey("token", "create", "--ttl", "8d").status == exits.USAGE
    assert covey("token", "create", "--uses", "101").status == exits.USAGE


def test_tokens_are_listed_and_revoked(served: Served, covey: Covey) -> None:
    covey("token", "create")
    shown = covey("token", "list").stdout.split("\t")
    assert shown[:3] == [TOKEN_ID.hex(), "valid", "1 of 2"]
    assert "covey1-" not in covey("token", "list", "-o", "json").stdout, "no secret"
    assert "is revoked" in covey("token", "revoke", TOKEN_ID.hex()).stderr
    listed = covey("token", "list")
    assert listed.stdout == ""
    assert "`covey token list --all` shows 1 that did" in listed.stderr
    assert "revoked" in covey("token", "list", "--all").stdout
    served.agent.admission.made[b"tokenof8"] = "outdated"
    assert "kept a hash of it" in covey("token", "list", "--all").stderr, "why it ended"
    assert "was revoked already" in covey("token", "revoke", TOKEN_ID.hex()).stderr
    assert covey("token", "revoke", "covey1-abc").status == exits.NOT_FOUND


def test_who_joined_with_a_token_is_told_by_name(served: Served, covey: Covey) -> None:
    covey("token", "create")
    made = served.agent.admission
    made.admitted = tuple(format_node_id(node) for node in (OTHER, ME, 77))
    served.agent.registry = remove(served.agent.registry, OTHER, accept_loss=True)
    told = covey("token", "list").stdout.rstrip("\n").split("\t")
    assert told[-1] == "bob (removed),ada,000000000000004d"
    [shown] = covey("token", "list", "-o", "json").json()["tokens"]
    assert shown["admitted"][0] == {"id": format_node_id(OTHER), "name": "bob", "removed": True}


def test_a_member_is_allowed_to_invite(served: Served, covey: Covey) -> None:
    assert covey("members", "allow", "bob").status == exits.YES
    assert covey("members", "forbid", "bob").status == exits.YES
    assert list(served.agent.admission.may_invite.values()) == [False]
    assert covey("members", "allow", "nobody").status == exits.NOT_FOUND


def test_a_fork_is_shown_and_mended(served: Served, covey: Covey) -> None:
    assert "signed by" in covey("registry").stdout
    assert "forked" not in covey("registry").stdout
    served.agent.rival = served.agent.registry
    assert "covey registry mend" in covey("registry").stdout
    assert covey("registry", "-o", "json").json()["fork"] == {
        "epoch": served.agent.registry.epoch,
        "nodes": len(served.agent.registry.nodes),
    }
    assert covey("registry", "mend").status == exits.USAGE
    assert "registry epoch 9" in covey("registry", "mend", "--yes").stderr
    assert served.agent.admission.mended == 1


def test_who_removes_an_issuer_is_told_of_the_key_that_it_held(
    served: Served, covey: Covey
) -> None:
    nodes = (msgspec.structs.replace(each, roles=(ISSUER,)) for each in served.agent.registry.nodes)
    served.agent.registry = msgspec.structs.replace(served.agent.registry, nodes=tuple(nodes))
    done = covey("members", "remove", "bob", "--yes")
    assert "It held the authority's key as well" in done.stdout + done.stderr
    assert "`covey keys rotate --authority`" in done.stdout + done.stderr


def test_a_device_is_removed_for_good(served: Served, covey: Covey) -> None:
    asked = covey("members", "remove", "bob")
    assert asked.status == exits.USAGE, "nobody is there to be asked"
    assert "--yes" in asked.stderr
    assert served.agent.admission.removed == []
    done = covey("members", "remove", "bob", "--yes")
    assert done.status == exits.YES
    assert "bob is out of the covey since registry epoch 7" in done.stderr
    assert served.agent.admission.removed == [OTHER]
    assert "authority" not in done.stdout + done.stderr
    assert covey("members", "remove", "nobody", "--yes").status == exits.NOT_FOUND


def test_who_may_remove_nobody_is_told_so_before_it_is_asked(served: Served, covey: Covey) -> None:
    served.agent.identity.is_issuer = False
    refused = covey("members", "remove", "bob")
    assert refused.status == exits.NOT_PERMITTED
    assert "ada may not remove others" in refused.stderr
    assert "--yes" not in refused.stderr
    assert covey("members", "remove", "ada").status == exits.USAGE, "its own place it may give up"


def test_apps(served: Served, covey: Covey) -> None:
    assert covey("app", "start", "sensor_sim").stdout == "sensor_sim is running\n"
    assert covey("app", "stop", "system").stdout == "system is stopped\n"
    assert covey("app", "list").stdout.startswith("system\tstopped\tstarted\t4711\t2\t")
    assert covey("app", "start", "nobody").status == exits.NOT_FOUND
    assert covey("app", "log", "system", "-n", "1", "-f").stdout.endswith("one more\n")


def test_sleep_and_wake(served: Served, covey: Covey) -> None:
    slept = covey("sleep", "2h")
    assert slept.stdout == "The others know that this node sleeps for 2h.\n"
    assert "If it is not back 2m after that, they take it for dead." in slept.stderr
    assert covey("members", "--state", "asleep").stdout.startswith("ada\tasleep\t")
    assert "asleep (2h)" in covey("members", "show", "ada").stdout
    assert covey("wake").stdout == "This node is awake.\n"
    assert covey("wake").stdout == "This node was not asleep.\n"
    assert covey("sleep", "30s", "-o", "json").json()["grace_s"] == 120.0
    assert covey("sleep", "soon").status == exits.USAGE
    assert "hint: who is away for longer leaves" in covey("sleep", "40d").stderr


def test_what_looks_wrong_with_a_member_is_shown_in_words(served: Served, covey: Covey) -> None:
    shown = covey("members", "show", "cy").stdout
    assert "comes and goes" in shown
    assert "two devices have this identity: 192.168.1.7:7747, 192.168.1.8:7747" in shown
    assert "flapping" not in covey("members", "show", "bob").stdout


def test_config_show_and_check(covey: Covey, tmp_path: Path) -> None:
    assert "does not exist" in covey("config", "check").stdout
    (tmp_path / "covey.toml").write_text("[network]\nport = 7000\n[uplink]\nca_file = '/no/ca'\n")
    shown = covey("config", "show", "--origin").stdout
    assert f"network.port\t7000\t{tmp_path}/covey.toml:2\n" in shown
    settings = covey("config", "show", "-o", "json").json()["settings"]
    assert {"setting": "network.mdns", "value": True, "origin": "default"} in settings
    missing = covey("config", "check")
    assert missing.status == exits.BAD_CONFIG
    assert "uplink.ca_file: cannot read /no/ca" in missing.stderr
    (tmp_path / "covey.toml").write_text("[network]\nprot = 7000\n")
    assert covey("config", "check").status == exits.BAD_CONFIG
    assert covey("run").status == exits.BAD_CONFIG


def test_version_names_four_things(covey: Covey) -> None:
    outcome = covey("--version")
    assert outcome.status == exits.YES
    for word in ("covey ", "Python 3", "SQLite 3", "wire protocol "):
        assert word in outcome.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(covey: Covey, shell: str) -> None:
    assert "_COVEY_COMPLETE" in covey("completion", shell).stdout


@pytest.mark.parametrize(
    ("words", "expected"), [("covey mem", "members"), ("covey members show b", "bob")]
)
def test_completion_offers_commands_and_names(
    served: Served, tmp_path: Path, words: str, expected: str
) -> None:
    asked = {
        "_COVEY_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
        "COVEY_DIR": str(tmp_path),
    }
    command = [sys.executable, "-m", "agent"]
    offered, give_up = "", time.monotonic() + GIVE_UP_S
    while (
        expected not in offered
    ):  # an agent that is busy for a tenth of a second completes nothing
        assert time.monotonic() < give_up
        done = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, check=True)
        offered = done.stdout.decode()
    assert offered == f"plain,{expected}\n"


def test_changed_settings_wait_for_a_restart(served: Served, covey: Covey) -> None:
    for command in (["status"], ["config", "show"], ["doctor"]):
        outcome = covey(*command)
        assert "restart" not in outcome.stdout + outcome.stderr
    served.agent.changed_settings = ["uplink.host", "apps.attic.path"]
    told = "changed since the agent started: uplink.host, apps.attic.path; restart the agent to"
    assert f"configuration\t{told}" in covey("status").stdout
    assert covey("status", "-o", "json").json()["configuration"]["problem"] == ""
    assert told in covey("config", "show").stderr
    assert told in covey("doctor").stdout
    served.agent.configuration_problem = "covey.toml:2: port"
    assert "would not start again: covey.toml:2: port" in covey("status").stdout


def test_everything_that_is_wrong_is_told(covey: Covey, tmp_path: Path) -> None:
    (tmp_path / "covey.toml").write_text(
        "[uplink]\nca_file = '/no/ca'\n[apps.attic]\npath = '/no/attic.py'\n"
    )
    outcome = covey("config", "check")
    assert outcome.status == exits.BAD_CONFIG
    assert "cannot read /no/ca" in outcome.stderr
    assert "2 things are wrong" in outcome.stderr
    assert "cannot read /no/attic.py" in outcome.stderr


def test_kv_put_on_a_condition(served: Served, covey: Covey) -> None:
    assert covey("kv", "put", "k", "v", "--if-absent", "-w", "all").status == exits.YES
    assert served.agent.kv.asked[-1]["w"] == ALL
    assert covey("kv", "put", "k", "v", "--if-absent").status == exits.NO
    seen = covey("kv", "get", "k", "-o", "json", "-r", "one").json()["context"]
    assert covey("kv", "put", "k", "w", "--if-context", seen).status == exits.YES
    assert served.agent.kv.asked[-1]["if_unchanged"]
    both = covey("kv", "put", "k", "w", "--if-context", seen, "--if-absent")
    assert both.status == exits.USAGE
    assert covey("kv", "get", "k", "-r", "most").status == exits.USAGE


@pytest.mark.parametrize(
    ("arguments", "change"),
    [
        (("counter", "k"), CounterUpdate(1)),
        (("counter", "k", "-5"), CounterUpdate(-5)),
        (("set", "k", "--add", "-ada"), SetUpdate("-ada")),
        (("set", "k", "--remove", "ada"), SetUpdate("ada", removes=True)),
        (("map", "k", "level", "-5"), MapUpdate("level", "-5")),
        (("map", "k", "level", "--remove"), MapUpdate("level", None)),
        (("max", "k", "3"), LimitUpdate(3, "max")),
        (("min", "k", "-2.5"), LimitUpdate(-2.5, "min")),
    ],
)
def test_kv_types(served: Served, covey: Covey, arguments: tuple[str, ...], change: Change) -> None:
    assert covey("kv", *arguments, "-w", "one") == (0, "", "")
    assert served.agent.kv.asked == [{"change": change, "w": 1, "timeout_s": 5.0}]
    served.agent.kv.outcome = "indeterminate"
    outcome = covey("kv", *arguments)
    assert outcome.status == exits.UNHEALTHY
    assert ("does no harm" in outcome.stderr) is (arguments[0] != "counter")


@pytest.mark.parametrize(
    "arguments",
    [
        ("set", "k"), ("set", "k", "--add", "a", "--remove", "b"), ("map", "k", "f"),
        ("map", "k", "f", "v", "--remove"), ("max", "k", "nan"), ("counter", "k", "1.5"),
    ],
)  # fmt: skip
def test_kv_types_that_are_none(covey: Covey, arguments: tuple[str, ...]) -> None:
    assert covey("kv", *arguments).status == exits.USAGE


def test_kv_shows_what_a_type_comes_to(served: Served, covey: Covey) -> None:
    served.agent.kv.values["k"] = [b'["ada"]']
    served.agent.kv.types["k"] = "set"
    assert covey("kv", "get", "k").stdout == '["ada"]'
    assert '["ada"]' in covey("kv", "list").stdout
