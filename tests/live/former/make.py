"""Makes ``before_the_log.tar.xz``: three nodes of a version whose founder alone let others in.

``git worktree add --detach /tmp/old ef28bfe``, there ``make check``, which makes its .venv; then,
also there and as root::

    PYTHONPATH=$HERE/long_lives:/tmp/old .venv/bin/python $HERE/make.py before_the_log.tar.xz

(``HERE``: this folder.) Real agents of that version make it: they have joined by a token, hold
keys, and have agreed on something. Cedar has just come, so partitions are on their way to it when
the power fails everywhere at once. Only their certificates and the token are good for longer than
usual.
"""

import json
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.live.harness.agents import AgentProcess
from tests.live.harness.fleet import Fleet

NAMES = ("ash", "birch", "cedar")
KEYS = 20
LEFT_OUT = ("ballast", "lock")
GIVE_UP_S = 60.0


def made(fleet: Fleet) -> str:
    """Let two agents run, have a third one come, and stop all; return a token with a use left."""
    ash, birch, cedar = (fleet.add(name) for name in NAMES)
    fleet.found(ash)
    fleet.token(ash)
    (revoked,) = ash.must("token", "list", "-o", "json").json()["tokens"]
    ash.must("token", "revoke", revoked["id"])
    token = fleet.token(ash, "--uses", "3", "--ttl", "36500d")
    birch.must("join", token, "--node-name", "birch")
    birch.start()
    until(lambda: settled_with(ash, 2), "two own every key")
    for number in range(KEYS):
        birch.must("kv", "put", f"key-{number}", str(number))
    birch.must("txn", "--then", "put tank full")
    ash.must("config", "set", "log.level", "debug", "--for", "node:birch")
    cedar.must("join", token, "--node-name", "cedar")
    cedar.start()
    until(lambda: bool(moving(ash) and moving(cedar)), "keys are on their way")
    for agent in (ash, birch, cedar):
        agent.kill()
    return token


def moving(agent: AgentProcess) -> int:
    counts: dict[str, int] = agent.api.get("/api/v1/ring")["moving"]
    return sum(counts.values())


def settled_with(agent: AgentProcess, count: int) -> bool:
    nodes = agent.api.get("/api/v1/ring")["nodes"]
    return sum(bool(each["partitions"]) for each in nodes) == count and not moving(agent)


def until(condition: Callable[[], bool], what: str) -> None:
    give_up = time.monotonic() + GIVE_UP_S
    while not condition():
        assert time.monotonic() < give_up, what
        time.sleep(0.02)


def main(path: Path) -> None:
    """Make the file."""
    with Fleet() as fleet:
        token = made(fleet)
        told = {"token": token, "keys": KEYS}
        (fleet.folder / "told.json").write_text(json.dumps(told))
        with tarfile.open(path, "w:xz", preset=9) as packed:
            packed.add(fleet.folder / "told.json", "told.json")
            for name in NAMES:
                data = fleet.folder / name / "data"
                packed.add(data, f"{name}/data", filter=kept)
    print(path, path.stat().st_size)


def kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    is_kept = member.isdir() or (member.isfile() and Path(member.name).name not in LEFT_OUT)
    return member if is_kept else None


if __name__ == "__main__":
    main(Path(sys.argv[1]))
