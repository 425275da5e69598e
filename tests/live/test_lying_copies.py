"""A member that lies about its copy of what is agreed on ends nobody's, and stops no recovery."""

from pathlib import Path

import pytest

from tests.live.harness.agents import AgentProcess
from tests.live.harness.fleet import VOTERS_TOML, Fleet
from tests.live.harness.waiting import eventually, insist

pytestmark = [pytest.mark.live]

SOON_S = 30.0
LIES = """
import msgspec
from gossip.control import plane

truth = plane.ControlPlane.standing

def standing(self):
    told = truth(self)
    return msgspec.structs.replace(
        told, generation=told.generation + 3, origin=77, takes_part=True, has_majority=True
    )

plane.ControlPlane.standing = standing
"""


def begin_to_lie(agent: AgentProcess, folder: Path) -> None:
    """Start an agent again, which says that a later generation has begun, and that it is in it."""
    (folder / "sitecustomize.py").write_text(LIES)
    agent.kill()
    agent.prefix = ["sh", "-c", f'PYTHONPATH="{folder}:$PYTHONPATH" exec "$@"', "sh"]
    agent.start()


def generation(agent: AgentProcess) -> int:
    answer: int = agent.api.get("/api/v1/voters")["generation"]
    return answer


def lose_majority(agent: AgentProcess) -> None:
    """Wait until an agent has noticed that nobody leads."""
    eventually(
        lambda: agent.api.get("/api/v1/voters")["has_majority"],
        lambda has: not has,
        4 * SOON_S,
        "nobody leads",
    )


def set_aside(agent: AgentProcess) -> list[str]:
    return sorted(path.name for path in agent.directory.rglob("consensus.db.damaged-?"))


def test_a_member_that_lies_is_left_out_and_a_log_that_was_set_aside_is_used(
    fleet: Fleet, tmp_path: Path
) -> None:
    fleet.form_admitted("ash", "birch", "cedar", "elm", toml=VOTERS_TOML)
    fleet.wait_voters()
    told = fleet.agents["ash"].api.get("/api/v1/voters")["voters"]
    names = {each["name"] for each in told if each["role"] != "learner"}
    (liar,) = (agent for agent in fleet.agents.values() if agent.name not in names)
    first, second, third = (fleet.agents[name] for name in sorted(names))

    def issuers() -> set[str]:
        return {each["name"] for each in first.api.get("/api/v1/registry")["issuers"]}

    eventually(issuers, lambda seen: seen == names, SOON_S, "who votes holds the key")
    first.must("txn", "--then", "put lamp on")
    begin_to_lie(liar, tmp_path)

    # While all is well: each voter asks it, once it runs again, and nobody gives up anything.
    def examined() -> str:
        first.must("recover")
        return first.covey("doctor").stdout

    eventually(
        examined,
        lambda said: f"covey recover --follow {liar.name}" in said,
        SOON_S,
        "the doctor names it",
    )
    assert first.must("voters", "-o", "json").json()["has_majority"]
    # When most voters are lost, an operator leaves it out.
    second.kill()
    third.kill()
    lose_majority(first)
    refused = first.covey("recover", "--from-this-node", "--yes")
    assert refused.status != 0
    assert f"--without {liar.name}" in refused.stderr
    first.must("recover", "--from-this-node", "--without", liar.name, "--yes", timeout_s=120.0)
    assert generation(first) == 2
    first.must("members", "remove", liar.name, "--yes", "--accept-loss", timeout_s=120.0)
    assert set_aside(first) == []
    # Who comes back believes an issuer, and begins as another store; its log is kept.
    second.start()
    eventually(lambda: generation(second), lambda seen: seen == 2, SOON_S, "it follows")
    eventually(
        lambda: set_aside(second), lambda kept: kept == ["consensus.db.damaged-1"], SOON_S,
        "its log of before is set aside",
    )  # fmt: skip
    # Were that generation lost, or a lie, what was set aside is there still.
    first.kill()
    lose_majority(second)
    second.must("recover", "--from-set-aside", "--yes", timeout_s=120.0)
    assert generation(second) == 3
    lamp = insist(lambda: second.api.get("/api/v1/control/lamp")["value"], "it is read")
    assert lamp == "on"
