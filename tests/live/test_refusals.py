"""Tokens that are wrong, old, spent or foreign, names that are taken, clocks that are off.

Each has its own message and exit status, and leaves nothing half-made behind.
"""

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from agent import exits
from agent.admission.tokens import parse_token
from tests.live.harness.agents import AgentProcess, Outcome
from tests.live.harness.fleet import FORMED_WITHIN_S, Fleet
from tests.live.harness.network import Network
from tests.support.patience import GIVE_UP_S

pytestmark = [pytest.mark.live]

TEN_YEARS = "3650d"


@pytest.fixture(scope="module")
def covey(networks: None) -> Iterator[Fleet]:
    """Give a covey of one agent, the issuer."""
    with Fleet() as fleet:
        fleet.found(fleet.add("ash"))
        yield fleet


@pytest.fixture
def newcomer(covey: Fleet, request: pytest.FixtureRequest) -> Iterator[AgentProcess]:
    """Give a device that belongs to nothing yet."""
    name = f"new-{len(covey.network.hosts)}"
    agent = covey.add(name)
    yield agent
    agent.close()
    del covey.agents[name]
    shutil.rmtree(agent.directory)


class InVain(NamedTuple):
    """Two that look for their covey as long as anybody does: half a minute."""

    foreign: Future[Outcome]
    lonely: Future[Outcome]


@pytest.fixture(scope="module", autouse=True)
def in_vain(covey: Fleet) -> Iterator[InVain]:
    """Let these look while the other tests run; theirs come last."""
    ash, astray = covey.agents["ash"], covey.add("astray")
    with Network() as network, Fleet(network) as others:
        stranger = others.add("stranger")
        others.found(stranger, "other")
        foreign = others.token(stranger)
    pool = ThreadPoolExecutor()
    with Network() as nowhere, Fleet(nowhere) as lost:
        lonely = lost.add("lonely")
        named, seed = ("--node-name", "vain"), ("--seed", ash.at.ipv4)
        yield InVain(
            pool.submit(_refused, astray, exits.TOKEN_FOREIGN, foreign, *named, *seed),
            pool.submit(_refused, lonely, exits.UNREACHABLE, covey.token(ash), *named),
        )
    pool.shutdown(wait=False)


def _files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def _refused(agent: AgentProcess, status: int, *arguments: str) -> Outcome:
    """Join, and check that it was refused with this status and left nothing behind."""
    before = _files(agent.directory)
    outcome = agent.covey("join", *arguments)
    assert outcome.status == status, outcome
    assert "Traceback" not in outcome.stderr
    assert len(outcome.stderr.strip()) > 20, "a refusal says why"
    # The lock stays: removed by one who leaves, it would be another file for one who waits for it.
    made = {path for path in _files(agent.directory) - before if path.is_file()}
    left = {path for path in made if path.name != "lock"}
    assert not left, f"half-made: {left}"
    return outcome


def test_wrong_token(covey: Fleet, newcomer: AgentProcess) -> None:
    """A well-formed token with another secret is for the issuer to refuse."""
    token = parse_token(covey.token(covey.agents["ash"]))
    wrong = msgspec.structs.replace(token, secret=bytes(len(token.secret))).encode()
    outcome = _refused(newcomer, exits.TOKEN_UNKNOWN, wrong, "--node-name", newcomer.name)
    assert "does not know" in outcome.stderr, outcome


def test_mistyped_token(covey: Fleet, newcomer: AgentProcess) -> None:
    """A slip of the hand is recognised before anybody is asked."""
    token = covey.token(covey.agents["ash"])
    altered = token[:-1] + ("A" if token[-1] != "A" else "B")
    outcome = _refused(newcomer, exits.TOKEN_UNKNOWN, altered)
    assert "a character of it is wrong" in outcome.stderr, outcome


def test_nonsense_instead_of_a_token(newcomer: AgentProcess) -> None:
    outcome = newcomer.covey("join", "please")
    assert outcome.status in (exits.TOKEN_UNKNOWN, exits.USAGE), outcome
    assert "token" in outcome.stderr


def test_expired_token(covey: Fleet, newcomer: AgentProcess) -> None:
    token = covey.token(covey.agents["ash"], "--ttl", "1s")
    time.sleep(2.5)
    outcome = _refused(newcomer, exits.TOKEN_EXPIRED, token, "--node-name", newcomer.name)
    assert "expired" in outcome.stderr


def test_used_up_token(covey: Fleet, newcomer: AgentProcess) -> None:
    token = covey.token(covey.agents["ash"], "--uses", "1")
    first = covey.add("first")
    first.must("join", token, "--node-name", "first")
    outcome = _refused(newcomer, exits.TOKEN_USED_UP, token, "--node-name", newcomer.name)
    assert "used" in outcome.stderr
    # The refusal cost nobody anything: who was admitted before can come in.
    first.start()
    covey.wait_formed(2 * FORMED_WITHIN_S)
    first.stop()


def test_taken_name(covey: Fleet, newcomer: AgentProcess) -> None:
    token = covey.token(covey.agents["ash"])
    outcome = _refused(newcomer, exits.NAME_TAKEN, token, "--node-name", "ash")
    assert "ash" in outcome.stderr
    # The token is still good: a refusal does not use it up.
    newcomer.must("join", token, "--node-name", newcomer.name)


@pytest.mark.skipif(shutil.which("faketime") is None, reason="needs Debian's faketime")
@pytest.mark.parametrize("offset", [f"-{TEN_YEARS}", f"+{2 * 3650}d"], ids=["past", "future"])
def test_clock_that_is_off(covey: Fleet, newcomer: AgentProcess, offset: str) -> None:
    token = covey.token(covey.agents["ash"])
    newcomer.prefix = ["env", "DONT_FAKE_MONOTONIC=1", "faketime", "-f", offset]
    outcome = _refused(newcomer, exits.CLOCK_OFF, token, "--node-name", newcomer.name)
    assert "clock" in outcome.stderr
    newcomer.prefix = []
    newcomer.must("join", token, "--node-name", newcomer.name)


def test_foreign_token(in_vain: InVain) -> None:
    """A token of another covey, sent to ours by its address."""
    in_vain.foreign.result(GIVE_UP_S)


def test_nobody_there(in_vain: InVain) -> None:
    """A token, but no member that could be found: say how to name one."""
    assert "--seed" in in_vain.lonely.result(GIVE_UP_S).stderr


def test_refusals_are_remembered(covey: Fleet) -> None:
    """The issuer is none the worse for it, and no secret of a token is in its log."""
    ash = covey.agents["ash"]
    token = covey.token(ash)
    assert ash.states()["ash"] == "alive"
    assert token not in ash.log
    assert token[-16:] not in ash.log
