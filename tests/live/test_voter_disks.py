"""The disks of voters fill up: of one, and of two, which is most of them. And one hangs."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_apps.client import ApiError
from tests.live.harness.agents import AgentProcess
from tests.live.harness.agreement_load import AgreementLoad
from tests.live.harness.fleet import VOTERS_TOML, Fleet
from tests.live.harness.small_disk import fill, small_disk
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live]

NAMES = ("ash", "birch", "cedar")
DISK_MEBIBYTES = 16
GOES_ON_WITHIN_S = 40.0
FULL_WITHIN_S = 20.0
VALUE = "x" * 20_000
UNAVAILABLE = 503
PLANTED = Path(__file__).with_name("planted")
ANOTHER_LEADS_WITHIN_S = 15.0
HELD_FOR = ("--ttl", "60s", "--", "sh", "-c", "echo held; exec sleep 600")


@pytest.fixture
def three(networks: None) -> Iterator[Fleet]:
    """Give three voters, each on a small disk of its own."""
    with contextlib.ExitStack() as stack:
        fleet = stack.enter_context(Fleet())
        for name in NAMES:
            stack.enter_context(small_disk(fleet.folder / name, DISK_MEBIBYTES))
        stack.callback(fleet.end_agents)
        fleet.form_admitted(*NAMES, toml=VOTERS_TOML)
        fleet.wait_voters()
        yield fleet


def _decide(agent: AgentProcess, key: str) -> str:
    """Have something decided; return "ok", or how it was refused."""
    body = {"then": [{"put": key, "value": VALUE}]}
    try:
        agent.api.request("POST", "/api/v1/txn", query={"timeout": 3.0}, json=body)
    except ApiError as error:
        if error.status != UNAVAILABLE:
            raise
        return error.message.split(":")[0]
    return "ok"


def _fill(agent: AgentProcess) -> Path:
    """Fill the disk of a voter, and write until it has noticed."""
    filling = fill(agent.directory)

    def full() -> str:
        _decide(agent, "filling")
        return " ".join(agent.api.get("/api/v1/status")["reasons"])

    eventually(full, lambda told: "full" in told, FULL_WITHIN_S, f"{agent.name} says that it is")
    return filling


def test_disks_of_voters_fill_up_and_are_emptied(three: Fleet) -> None:
    """One costs nothing that a majority decides; two cost decisions, which are refused as such."""
    lives = {agent.name: agent.pid for agent in three.running()}
    leader = three.leader()
    others = [agent for agent in three.running() if agent is not leader]
    first, last = leader, others[0]
    roomy = others[1]
    fillings = [_fill(first)]
    eventually(
        lambda: _decide(roomy, "one/full"),
        lambda told: told == "ok",
        GOES_ON_WITHIN_S,
        "two of three have room, and decide",
    )
    fillings.append(_fill(last))
    refused = eventually(
        lambda: [_decide(agent, "two/full") for agent in three.running()],
        lambda seen: "ok" not in seen,
        GOES_ON_WITHIN_S,
        "one alone decides nothing",
    )
    assert set(refused) <= {"unavailable", "indeterminate"}, refused
    for filling in fillings:
        filling.unlink()
    with AgreementLoad(three.running()) as load:
        for agent in three.running():
            began = time.monotonic()
            eventually(
                lambda: load.answered_since(began, by=agent.name),  # noqa: B023
                bool,
                GOES_ON_WITHIN_S,
                f"{agent.name} has things decided again",
            )
    load.check()
    assert lives == {agent.name: agent.pid for agent in three.running()}, "without a restart"


@pytest.fixture
def hangable(networks: None) -> Iterator[Fleet]:
    """Give three voters whose saves do not end while a file ``hanging`` lies beside the log."""
    path = os.pathsep.join(filter(None, [str(PLANTED), os.environ.get("PYTHONPATH")]))
    with Fleet() as fleet:
        fleet.admit(*NAMES, toml=VOTERS_TOML)
        for agent in fleet.agents.values():
            agent.prefix = ["env", f"PYTHONPATH={path}"]
            agent.launch()
        fleet.wait_voters()
        yield fleet


@contextlib.contextmanager
def _holding(agent: AgentProcess, lock: str) -> "Iterator[subprocess.Popen[str]]":
    """Hold a lock as long as that."""
    words = agent.words("lock", lock, *HELD_FOR)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None, "it was asked for"
        assert process.stdout.readline() == "held\n"
        yield process
        process.terminate()


def _voters(agent: AgentProcess) -> dict[str, bool | None]:
    """Return whether each voter takes writes, the leader first, as the leader tells."""
    answer = agent.api.get("/api/v1/voters")
    rows = sorted(answer["voters"], key=lambda each: str(each["role"] != "leader"))
    return {each["name"]: each["takes_writes"] for each in rows}


def _reasons(agent: AgentProcess) -> str:
    return " ".join(agent.api.get("/api/v1/status")["reasons"])


def test_a_leader_whose_disk_hangs_loses_no_lock_and_another_leads(hangable: Fleet) -> None:
    leader = hangable.leader()
    healthy = [agent for agent in hangable.running() if agent is not leader]
    hanging = next(leader.directory.rglob("consensus.db")).with_name("hanging")
    with _holding(healthy[0], "door") as holder, AgreementLoad(hangable.running()) as load:
        hanging.touch()
        eventually(
            lambda: next(iter(_voters(healthy[1]))),
            lambda leads: leads != leader.name,
            ANOTHER_LEADS_WITHIN_S,
            "another one leads",
        )
        began = time.monotonic()
        eventually(
            lambda: [load.answered_since(began, by=agent.name) for agent in healthy],
            all,
            GOES_ON_WITHIN_S,
            "things are decided",
        )
        eventually(
            lambda: _voters(healthy[1])[leader.name],
            lambda takes_writes: takes_writes is False,
            GOES_ON_WITHIN_S,
            "the leader knows who cannot write",
        )
        eventually(
            lambda: _reasons(leader),
            lambda told: "hangs" in told,
            GOES_ON_WITHIN_S,
            "it says so itself",
        )
        hanging.unlink()
        eventually(
            lambda: (_voters(healthy[1])[leader.name], _reasons(leader)),
            lambda seen: seen == (True, ""),
            GOES_ON_WITHIN_S,
            "its disk goes on, and so does it",
        )
        assert holder.poll() is None, "the lock was not lost"
    load.check()
