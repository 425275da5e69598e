"""Tokens at the API of real agents, over TLS, from another host: each opens what it is for.

What is not for it is refused, counted and written down, with who it was and from where.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from edge_apps.client import ApiError, Client
from tests.live.harness.agents import AgentProcess, environment
from tests.live.harness.fleet import VOTERS_TOML, Fleet
from tests.live.harness.network import Host
from tests.live.harness.programs import ROOT
from tests.live.harness.waiting import eventually, insist

pytestmark = [pytest.mark.live]

PORT = 7748
KNOWN_WITHIN_S = 5.0
TOML = (
    f'{VOTERS_TOML}[api]\nlisten = "0.0.0.0:{PORT}"\ntls = true\n'
    '[apps.system]\nrights = ["read", "publish", "write"]\nkeys = ["air/"]\n'
)
REFUSED = 'covey_api_refusals_total{{kind="{}"}}'


class Answer(NamedTuple):
    """What an agent answered: the status and the text."""

    status: int
    text: str

    @property
    def code(self) -> str:
        """The word for the error."""
        word: str = json.loads(self.text)["error"]["code"]
        return word


class Stranger:
    """Somebody on another host of the network, who has nothing but the covey's certificates."""

    def __init__(self, at: Host, authority: Path | None) -> None:
        """``authority``: the certificates; None for somebody who asks in the clear."""
        self.at = at
        self._settings = {"PYTHONPATH": str(ROOT)}
        if authority is not None:
            self._settings["CAFILE"] = str(authority)

    def ask(self, of: AgentProcess, token: str, method: str, path: str, body: str = "") -> Answer:
        """Ask over TLS, and check that it is this agent."""
        asked = self.run(of, token, method, path, body)
        assert asked.returncode == 0, asked.stderr
        return Answer(*json.loads(asked.stdout))

    def run(
        self,
        of: AgentProcess,
        token: str,
        method: str,
        path: str,
        body: str = "",
        *,
        name: str = "",
    ) -> "subprocess.CompletedProcess[str]":
        """Ask, whatever comes of it; ``name``: who is expected to be there."""
        program = (sys.executable, "-m", "tests.live.harness.asker")
        return subprocess.run(
            [*self.at.enter(), *program, name or of.name, of.at.ipv4, str(PORT)],
            input=json.dumps((method, path, token, body)), capture_output=True, text=True,
            check=False, cwd=ROOT, env={**environment(ROOT), **self._settings},
        )  # fmt: skip


@pytest.fixture(scope="module")
def three(networks: None) -> Iterator[Fleet]:
    """Give three agents whose API listens on TCP, and that vote; each test leaves them whole."""
    with Fleet() as fleet:
        fleet.form_admitted("ash", "birch", "cedar", toml=TOML)
        fleet.wait_voters()
        yield fleet


@pytest.fixture(scope="module")
def stranger(three: Fleet) -> Stranger:
    """Give a host that belongs to nothing, with the covey's certificates."""
    authority = three.folder / "authority.pem"
    authority.write_text(three.agents["ash"].must("access", "authority").stdout)
    return Stranger(three.network.add_host(), authority)


def made(three: Fleet, stranger: Stranger, name: str, role: str, *options: str) -> str:
    """Make a token at ash, and return it when all know it, or whose own it is."""
    token = three.agents["ash"].must("access", "create", name, "--role", role, *options)
    secret = token.stdout.strip()
    owners = [three.agents[each] for each in options if each in three.agents]
    wait_answers(owners or three.running(), stranger, secret, is_known=True)
    return secret


def wait_answers(
    agents: list[AgentProcess], stranger: Stranger, token: str, *, is_known: bool
) -> None:
    """Wait until all agents let a token in, or none does. It need not open what is asked for."""
    eventually(
        lambda: {stranger.ask(each, token, "GET", "/none").status for each in agents},
        lambda seen: seen == {404 if is_known else 401},
        KNOWN_WITHIN_S,
        "the token is known to all" if is_known else "the token is refused by all",
    )


def wait_opened(
    stranger: Stranger, agent: AgentProcess, token: str, method: str, path: str, body: str
) -> None:
    """Ask until it is done: what waits for others may be late."""
    eventually(
        lambda: stranger.ask(agent, token, method, path, body).status,
        lambda status: status in (200, 202),
        KNOWN_WITHIN_S,
        f"{method} {path} is done",
    )


def refusals(agent: AgentProcess, reason: str) -> float:
    return agent.counters().get(REFUSED.format(reason), 0.0)


def written(agent: AgentProcess, **wanted: str) -> list[dict[str, Any]]:
    """Return the entries of the audit log with these fields: who, from, outcome."""
    told = agent.must("audit", "-o", "json").json()["entries"]
    return [each for each in told if wanted.items() <= each.items()]


def test_a_reader_writes_nothing(three: Fleet, stranger: Stranger) -> None:
    token = made(three, stranger, "panel", "reader")
    cedar = three.agents["cedar"]
    assert stranger.ask(cedar, token, "GET", "/api/v1/kv").status == 200
    before = refusals(cedar, "right")
    for method, path, body in (
        ("PUT", "/api/v1/kv/lights/north", "on"),
        ("DELETE", "/api/v1/kv/lights/north", ""),
        ("POST", "/api/v1/txn", '{"then": [{"put": "pump", "value": "on"}]}'),
        ("POST", "/api/v1/settings", '{"set": {"log.level": "debug"}}'),
        ("DELETE", "/api/v1/members/birch", ""),
        ("POST", "/api/v1/access", '{"name": "more", "role": "admin"}'),
        ("GET", "/api/v1/audit", ""),
        ("GET", "/api/v1/snapshot", ""),
    ):
        answer = stranger.ask(cedar, token, method, path, body)
        assert (answer.status, answer.code) == (403, "not-permitted"), (path, answer)
    assert refusals(cedar, "right") - before >= 8, "and what the agent's own app may not do"
    assert cedar.must("kv", "list").stdout == ""
    (first, *more) = eventually(
        lambda: written(cedar, outcome="right", **{"from": stranger.at.ipv4}),
        lambda seen: sum(each["times"] for each in seen) == 8,
        KNOWN_WITHIN_S,
        "all are written down",
    )
    assert re.fullmatch("token panel [(][0-9a-f]{8}[)]", first["who"])
    assert first["action"] == "PUT /api/v1/kv/lights/north"
    assert len({each["who"] for each in (first, *more)}) == 1
    shown = cedar.must("audit").stdout
    assert token not in shown + cedar.log
    assert f"token panel ({first['who'][-9:-1]})" in cedar.log


def test_whoever_has_a_prefix_stays_behind_it(three: Fleet, stranger: Stranger) -> None:
    token = made(three, stranger, "barn", "operator", "--prefix", "barn/")
    birch = three.agents["birch"]
    wait_opened(stranger, birch, token, "PUT", "/api/v1/kv/barn/door", "open")
    before = refusals(birch, "name")
    for method, path, body in (
        ("PUT", "/api/v1/kv/house/door", "open"),
        ("GET", "/api/v1/kv/house/door", ""),
        ("GET", "/api/v1/kv", ""),
        ("POST", "/api/v1/txn", '{"then": [{"put": "house/door", "value": "open"}]}'),
        ("POST", "/api/v1/txn", '{"then": [{"put": "covey/access/me", "value": "admin"}]}'),
    ):
        answer = stranger.ask(birch, token, method, path, body)
        assert (answer.status, answer.code) == (403, "not-permitted"), (path, answer)
    assert "barn/door" in stranger.ask(birch, token, "GET", "/api/v1/kv?prefix=barn/").text
    assert refusals(birch, "name") - before == 5
    found = written(birch, outcome="name", **{"from": stranger.at.ipv4})
    assert sum(each["times"] for each in found) == 5
    # Who only publishes has no keys at all, so a prefix would promise what it does not keep.
    told = three.agents["ash"].covey(
        "access", "create", "meter", "--role", "publisher", "--prefix", "barn/"
    )
    assert told.status == 2
    assert "prefix" in told.stderr
    publisher = made(three, stranger, "meter", "publisher")
    line = '{"sensor": "meter", "value": 1.5}'
    wait_opened(stranger, birch, publisher, "POST", "/api/v1/readings", line)
    assert stranger.ask(birch, publisher, "PUT", "/api/v1/kv/barn/door", "shut").status == 403
    assert birch.must("kv", "get", "barn/door").stdout == "open"


def test_a_revoked_token_opens_nothing_at_any_member(three: Fleet, stranger: Stranger) -> None:
    token = made(three, stranger, "lost", "operator")
    birch = three.agents["birch"]
    birch.must("access", "revoke", "lost")
    wait_answers(three.running(), stranger, token, is_known=False)
    for agent in three.running():
        answer = stranger.ask(agent, token, "PUT", "/api/v1/kv/lights", "on")
        assert (answer.status, answer.code) == (401, "unauthorized")
        assert refusals(agent, "unknown_token") > 0
        found = written(agent, outcome="unknown_token", **{"from": stranger.at.ipv4})
        assert found[0]["who"] == "nobody"
    revoked = [e for e in written(birch) if e["action"] == "DELETE /api/v1/access/lost"][-1]
    assert (revoked["who"], revoked["from"], revoked["outcome"]) == ("uid 0", "here", "ok")


def test_a_device_s_own_token_is_good_at_that_device_alone(
    three: Fleet, stranger: Stranger
) -> None:
    token = made(three, stranger, "birch-own", "node", "--node", "birch")
    birch, cedar = three.agents["birch"], three.agents["cedar"]
    assert stranger.ask(birch, token, "POST", "/api/v1/wake").status == 200
    assert stranger.ask(birch, token, "PUT", "/api/v1/kv/lights", "on").status == 403
    assert stranger.ask(cedar, token, "GET", "/api/v1/status").status == 401
    assert refusals(cedar, "other_node") > 0
    assert written(cedar, outcome="other_node", **{"from": stranger.at.ipv4})


def test_an_app_s_key_opens_what_its_table_says(three: Fleet, stranger: Stranger) -> None:
    ash = three.agents["ash"]

    def given() -> str:
        running = [each for each in ash.api.get("/api/v1/apps")["apps"] if each["name"] == "system"]
        told = Path(f"/proc/{running[0]['pid']}/environ").read_bytes().split(b"\0")
        (found,) = [each[16:].decode() for each in told if each.startswith(b"COVEY_API_TOKEN=")]
        return found

    key = insist(given, "the app runs")
    app = Client(ash.directory / "apps" / "apps.sock", token=key)
    insist(lambda: app.request("PUT", "/api/v1/kv/air/attic", body=b"21"), "it is written")
    for method, path in (
        ("PUT", "/api/v1/kv/lights"),  # not behind its prefix
        ("GET", "/api/v1/kv/lights"),
        ("POST", "/api/v1/events"),  # not its right
        ("GET", "/api/v1/config"),  # no app's
        ("DELETE", "/api/v1/members/birch"),
    ):
        with pytest.raises(ApiError) as refused:
            app.request(method, path, body=b"{}" if method != "GET" else None)
        assert refused.value.status == 403, path
    outcomes = {each["outcome"] for each in written(ash, who="app system") if each["refused"]}
    assert outcomes == {"right", "name"}
    assert stranger.ask(ash, key, "GET", "/api/v1/kv/air/attic").status == 401, "nowhere else"


def test_nobody_is_taken_for_another_nor_heard_in_the_clear(
    three: Fleet, stranger: Stranger
) -> None:
    ash, birch = three.agents["ash"], three.agents["birch"]
    assert stranger.ask(ash, "", "GET", "/api/v1/status").status == 401
    asked = stranger.run(birch, "", "GET", "/api/v1/status", name="ash")
    assert "CERTIFICATE_VERIFY_FAILED" in asked.stderr, "birch is not ash"
    asked = Stranger(stranger.at, None).run(ash, "", "GET", "/api/v1/status")
    assert asked.returncode != 0, "without TLS nobody answers"


@pytest.mark.skipif(shutil.which("faketime") is None, reason="needs Debian's faketime")
def test_a_token_ends(three: Fleet, stranger: Stranger) -> None:
    """Last, for the clock of a member is an hour ahead from then on."""
    token = made(three, stranger, "guest", "reader", "--ttl", "30m")
    cedar = three.agents["cedar"]
    assert stranger.ask(cedar, token, "GET", "/api/v1/status").status == 200
    cedar.stop()
    cedar.prefix = ["env", "DONT_FAKE_MONOTONIC=1", "faketime", "-f", "+1h"]
    cedar.start()
    answer = eventually(
        lambda: stranger.ask(cedar, token, "GET", "/api/v1/status"),
        lambda seen: "expired" in seen.text,
        KNOWN_WITHIN_S,
        "its time is over",
    )
    assert (answer.status, answer.code) == (401, "unauthorized")
    assert refusals(cedar, "expired") > 0
    assert written(cedar, outcome="expired", **{"from": stranger.at.ipv4})
