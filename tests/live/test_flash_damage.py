"""A worn card: the files of a killed agent come back damaged, and it starts all the same.

It says what is gone, delivers the rest, and fetches its shared keys again from the others, who lose
nothing because of it.
"""

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.harness.agents import AgentProcess
from tests.live.harness.fleet import LOCAL_TOML, Fleet
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live]

PAGE_BYTES = 4096
READINGS, KEYS = 3000, 12
WITHIN_S = 30.0


def _zero_pages(path: Path, first: int, count: int) -> None:
    data = bytearray(path.read_bytes())
    data[first * PAGE_BYTES : (first + count) * PAGE_BYTES] = bytes(count * PAGE_BYTES)
    path.write_bytes(data)


def _spoil_pages(path: Path) -> None:
    """Overwrite a third of all pages but the first."""
    rng, pages = random.Random(1), path.stat().st_size // PAGE_BYTES
    for page in rng.sample(range(1, pages), max(1, pages // 3)):
        _zero_pages(path, page, 1)


def _fold_log(path: Path) -> None:
    """Have SQLite put the log into the file, as it does from time to time."""
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _flip_bit_in_log(path: Path) -> None:
    log = path.with_name(f"{path.name}-wal")
    data = bytearray(log.read_bytes())
    data[len(data) // 4] ^= 1
    log.write_bytes(data)


def _cut(path: Path) -> None:
    _fold_log(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3 + 7])


def _spoil_folded(path: Path) -> None:
    _fold_log(path)
    _spoil_pages(path)


Damage = Callable[[Path], None]
ROUNDS: list[dict[str, Damage]] = [
    {"telemetry.db": _flip_bit_in_log, "data.db": _spoil_folded, "control.db": _spoil_folded},
    {"telemetry.db": _spoil_folded, "data.db": _cut, "control.db": _cut},
]


def test_an_agent_starts_from_damaged_files_and_nothing_spreads(fleet: Fleet) -> None:
    fleet.form_admitted("ash", "birch", "cedar", toml=LOCAL_TOML)
    ash, birch = fleet.agents["ash"], fleet.agents["birch"]
    for number in range(KEYS):
        birch.must("kv", "put", f"key/{number}", f"value {number}" + "." * 3000)
    lines = "\n".join(f"room/{number % 9} {number}" for number in range(READINGS))
    ash.must("publish", stdin=lines)
    for damages in ROUNDS:
        ash.kill()
        for name, spoil in damages.items():
            spoil(ash.directory / "data" / name)
        ash.launch()
        _check_told(ash, *damages)
        _check_readings(ash)
        fleet.wait_formed(WITHIN_S, "one covey again")
    for number in range(KEYS):
        _check_key(ash, number)
        _check_key(birch, number)


def _check_told(agent: AgentProcess, *names: str) -> None:
    eventually(
        lambda: agent.api.get("/api/v1/status"),
        lambda found: found["ready"],
        WITHIN_S,
        "it works in spite of damaged files",
    )
    agent.must("publish", "still", "1")
    losses = agent.api.get("/api/v1/status")["losses"]
    checks = agent.covey("doctor", "-o", "json").json()["checks"]
    (stores,) = [check for check in checks if check["id"] == "stores"]
    assert stores["status"] == "fail"
    for name in names:
        assert any(loss.startswith(f"{name} was damaged") for loss in losses), losses
        assert f"{name} was damaged" in agent.log
        assert f"{name} was damaged" in stores["message"]


def _check_readings(agent: AgentProcess) -> None:
    """All that is not there is counted. One more was published after each start."""
    outbox = agent.must("outbox", "-o", "json").json()
    status = agent.api.get("/api/v1/status")
    assert outbox["waiting"] + outbox["lost"] >= READINGS, outbox
    assert outbox["lost"] < READINGS, "only what was hit is gone"
    assert outbox["delivered"] == 0
    assert status["outbox"]["lost"] == outbox["lost"]


def _check_key(agent: AgentProcess, number: int) -> None:
    eventually(
        lambda: agent.covey("kv", "get", f"key/{number}").stdout,
        lambda value: value.startswith(f"value {number}."),
        WITHIN_S,
        f"key/{number} is what it was",
    )
