"""``covey init``, ``join`` and ``leave`` with an agent: what is said is so when they return."""

import io
from pathlib import Path

import msgspec
import pytest

from agent import exits
from agent.admission.former_membership import FormerMembership
from agent.cli.errors import run_to_status
from agent.cli.root import root
from agent.exits import AgentError
from agent.readiness import Stage
from gossip.registry.node import ISSUER
from tests.support.command_line import Covey
from tests.support.fake_agent import Served


class Terminal(io.StringIO):
    """A person who has typed this."""

    def isatty(self) -> bool:
        return True


def test_leave(served: Served, covey: Covey) -> None:
    outcome = covey("leave")
    assert outcome.status == exits.YES
    assert outcome.stdout == "The agent said goodbye, and waits outside of the covey.\n"
    assert "`covey join` without a token brings it back" in outcome.stderr
    assert served.agent.stage is Stage.WAITING, "it has left when the command returns"
    served.agent.stage = Stage.MEMBER
    assert covey("leave", "--forget", "--yes").status == exits.YES
    assert served.agent.partings == [FormerMembership.STAYS_AWAY, FormerMembership.FORGETS]


@pytest.mark.parametrize(
    ("arguments", "until"),
    [
        (["leave"], "until it is back"),
        (["leave", "--forget", "--yes"], "until its identity is back from"),
    ],
)
def test_who_alone_lets_others_in_is_told_what_its_leaving_means(
    served: Served, covey: Covey, arguments: list[str], until: str
) -> None:
    said = "It is the one that lets others in: "
    assert served.agent.registry.epoch > 1, "somebody was let in"
    served.agent.identity.is_issuer = True
    told = covey(*arguments).stderr
    assert said + until in told
    assert f"no device joins {served.agent.identity.cluster_name}." in told
    served.agent.stage, served.agent.identity.is_issuer = Stage.MEMBER, False
    assert said not in covey(*arguments).stderr


def test_who_alone_lets_others_in_is_not_forgotten_by_a_slip(
    served: Served, covey: Covey, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.agent.identity.is_issuer = True
    outcome = covey("leave", "--forget")
    assert outcome.status == exits.USAGE
    assert "nothing was changed" in outcome.stderr
    assert "`covey leave --forget --yes`" in outcome.stderr

    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert covey("leave", "--forget").status == exits.NO
    assert served.agent.partings == []
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert covey("leave", "--forget").status == exits.YES
    assert served.agent.partings == [FormerMembership.FORGETS]


def test_who_lets_others_in_alone_asks_nobody_for_its_place(served: Served, covey: Covey) -> None:
    registry = served.agent.registry
    founder = msgspec.structs.replace(registry.nodes[0], roles=(ISSUER,))
    served.agent.registry = msgspec.structs.replace(registry, nodes=(founder,), epoch=1)
    served.agent.identity.is_issuer, served.agent.admission.issuer_answers = True, False
    told = covey("leave", "--forget", "--yes").stderr
    assert "former/" in told
    assert "members remove" not in told


def test_leave_claims_nothing_that_is_not_so_yet(
    served: Served, covey: Covey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.cli.membership.STAGE_WITHIN_S", 0.3)
    served.agent.leaves_at_once = False
    outcome = covey("leave")
    assert "`covey status` tells when it is outside" in outcome.stdout
    assert "said goodbye" not in outcome.stdout


def test_who_waits_already_says_no_goodbye(
    served: Served, covey: Covey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It returns when the identity is aside: a join may follow at once."""
    served.agent.stage = Stage.WAITING
    outcome = covey("leave", "--forget")
    assert outcome.stdout == "The agent has set its identity and its data aside.\n"
    assert "On bob: type `covey members remove ada` there." in outcome.stderr, "it has its place"
    monkeypatch.setattr("agent.cli.membership.STAGE_WITHIN_S", 0.3)
    served.agent.leaves_at_once = False
    served.agent.uptime_s += 5.0
    assert "tells when it is outside" in covey("leave", "--forget").stdout


def test_init_is_told_as_done_when_its_agent_ends(
    served: Served, covey: Covey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its port may be taken: whoever asks how it is meets databases that close."""

    def refuse() -> None:
        raise AgentError("telemetry.db is closed: the agent is stopping.", "", exits.UNREACHABLE)

    monkeypatch.setattr("agent.cli.membership.STAGE_WITHIN_S", 0.3)
    monkeypatch.setattr(served.agent, "not_ready", refuse)
    outcome = covey("init", "barn", "--node-name", "pi1")
    assert outcome.status == exits.YES
    assert outcome.stdout == "pi1 is the first node of the covey barn.\n"
    assert "does not take part yet" in outcome.stderr


def test_init_asks_the_agent_that_waits(served: Served, covey: Covey) -> None:
    outcome = covey("init", "barn", "--node-name", "pi1")
    assert outcome.status == exits.YES
    assert outcome.stdout == "pi1 is the first node of the covey barn.\n"
    assert "takes part from now on" in outcome.stderr
    assert served.agent.newcomer.asked == [("found", "barn", "pi1")]
    assert not served.paths.identity.exists(), "the agent writes, not the command"


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("", "`udp dport { 7747, 5353 } accept` and `tcp dport 7747 accept`"),
        ("port = 7000\nmdns = false", "`udp dport 7000 accept` and `tcp dport 7000 accept`"),
    ],
)
def test_init_says_what_a_firewall_has_to_let_pass(
    served: Served, covey: Covey, tmp_path: Path, network: str, said: str
) -> None:
    (tmp_path / "covey.toml").write_text(f"[network]\n{network}\n")
    assert said in covey("init", "barn", "--node-name", "pi1").stderr


@pytest.mark.parametrize(
    ("is_installed", "said"),
    [(False, "`covey service install --now`, or `covey run`"), (True, "`systemctl start covey`")],
)
def test_root_is_told_how_to_start_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    is_installed: bool, said: str,
) -> None:  # fmt: skip
    unit = tmp_path / "covey.service"
    if is_installed:
        unit.touch()
    for name in ("COVEY_DIR", "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "CONFIGURATION_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("agent.files.ownership.ROOT", -1)  # whoever runs the tests
    monkeypatch.setattr("agent.config.paths.SYSTEM_CONFIG", tmp_path)
    monkeypatch.setattr("agent.config.paths.SYSTEM_DATA", tmp_path / "data")
    monkeypatch.setattr("agent.config.paths.SYSTEM_SOCKET", tmp_path / "covey.sock")
    monkeypatch.setattr("agent.config.paths.SYSTEM_UNITS", (unit,))
    monkeypatch.setattr("agent.installation.system.BOOTED_WITH_SYSTEMD", tmp_path)
    assert run_to_status(root, ["init", "barn", "--node-name", "pi1"]) == exits.YES
    assert f"start its agent with {said}" in capfd.readouterr().err


def test_join_asks_the_agent_and_shows_what_it_does(served: Served, covey: Covey) -> None:
    outcome = covey("join", "covey1-x", "--seed", "bob:1", "--seed", "cy", "--node-name", "ada")
    assert outcome.status == exits.YES
    assert outcome.stdout == "ada belongs to the covey attic.\n"
    assert outcome.stderr.splitlines()[:2] == [
        "... looking for a member of the covey",
        "... asking \\x1b[1m192.168.1.8:7747",
    ]
    assert served.agent.newcomer.asked == [("join", "covey1-x", "ada", ("bob:1", "cy"))]


def test_join_without_token_comes_back(served: Served, covey: Covey) -> None:
    assert covey("join").stdout == "ada belongs to the covey attic.\n"
    assert served.agent.newcomer.asked == [("come back",)]


def test_the_statuses_of_a_refused_join_stay(served: Served, covey: Covey) -> None:
    for status in range(exits.TOKEN_UNKNOWN, exits.NAME_TAKEN + 1):
        served.agent.newcomer.refusal = AgentError("no", "try another", status)
        outcome = covey("join", "covey1-x")
        assert (outcome.status, outcome.stdout) == (status, "")
        assert outcome.stderr.endswith("error: no\nhint: try another\n")


def test_a_waiting_agent_is_shown_as_such(served: Served, covey: Covey) -> None:
    served.agent.stage, served.agent.reasons = Stage.WAITING, ["no identity"]
    served.agent.advice = "covey init"
    outcome = covey("status")
    assert outcome.status == exits.UNHEALTHY
    lines = outcome.stdout.splitlines()
    assert lines[:3] == ["state\twaiting", "because\tno identity", "next\tcovey init"]
    assert not [line for line in lines if line.startswith(("covey", "members", "uplink"))]
    assert covey("kv", "get", "k").status == exits.UNHEALTHY
