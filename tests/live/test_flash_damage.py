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
from tests.live.harness.kv_load import KvLoad
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live]

PAGE_BYTES = 4096
READINGS, KEYS = 3000, 12
WITHIN_S = 30.0
WRITES, WORN = 30, 3


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


def _flip_bits(path: Path, middles: list[bytes]) -> None:
    """Flip a bit of each of these, wherever the file has it."""
    data = path.read_bytes()
    with path.open("r+b") as file:
        for middle in middles:
            at = data.find(middle)
            assert at >= 0, f"{middle!r} is in the file"
            while at >= 0:
                file.seek(at)
                file.write(bytes([middle[0] ^ 1]))
                at = data.find(middle, at + 1)


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
    _check_flipped_under_load(fleet)


def _check_flipped_under_load(fleet: Fleet) -> None:
    """One replica's values are changed while clients write: no other believes it, nobody fails."""
    ash, birch, cedar = (fleet.agents[name] for name in ("ash", "birch", "cedar"))
    middles = [f"middle of {number}" for number in range(WORN)]
    values = [f"{'.' * 9000}{middle}{'.' * 9000}" for middle in middles]  # on pages of their own
    for number, value in enumerate(values):
        birch.must("kv", "put", "-w", "all", f"worn/{number}", value)
    ash.stop()  # all of it is in the file then, and not in the log
    ash.start()
    with KvLoad((birch, cedar), clients_each=1) as load:
        load.wait_progress(WRITES, "while all is well")
        _flip_bits(ash.directory / "data" / "data.db", [each.encode() for each in middles])
        load.wait_progress(WRITES, "while a replica is not what it was")
        ash.kill()
        ash.launch()
        _check_told(ash, "data.db")
        assert "rows of records are not as they were written" in ash.log
        load.wait_progress(WRITES, "while it is repaired")
    fleet.wait_formed(WITHIN_S, "one covey again")
    eventually(
        lambda: ash.api.get("/api/v1/kv-stats")["nodes"],
        lambda nodes: all(n["answered"] and n["damaged"] == n["incomplete"] == 0 for n in nodes),
        WITHIN_S,
        "every copy is whole again",
    )
    for number, value in enumerate(values):
        for agent in (ash, birch, cedar):
            assert agent.must("kv", "get", f"worn/{number}").stdout.rstrip("\n") == value
    load.check(ash, birch)


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
