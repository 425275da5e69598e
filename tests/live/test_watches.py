"""Watches of shared keys while an owner is killed under writes: every acknowledged one is told."""

import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.live.harness.agents import GIVE_UP_S, AgentProcess, environment
from tests.live.harness.fleet import Fleet
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live, pytest.mark.timeout(400)]

NAMES = ("ash", "birch", "cedar", "elm")
SETTLED_WITHIN_S = 60.0
TOLD_WITHIN_S = 90.0
KEYS = [f"lamp/{n}" for n in range(7)]
WRITES = 120


@pytest.fixture
def four(networks: None) -> Iterator[Fleet]:
    with Fleet() as fleet:
        fleet.form(*NAMES)
        fleet.wait_settled(SETTLED_WITHIN_S, "all own their share")
        yield fleet


class Watching:
    """A command that watches, and what it has said."""

    def __init__(self, agent: AgentProcess, *more: str) -> None:
        self.lines: list[dict[str, Any]] = []
        words = agent.words("kv", "watch", "--prefix", "lamp/", "-o", "json", *more)
        self.process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
            env=environment(agent.directory),
        )  # fmt: skip
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def told(self) -> set[tuple[str, str]]:
        """Return the values that were told, each with its key."""
        return {
            (line["key"], value["value"])
            for line in list(self.lines)
            if line["kind"] == "put"
            for value in line["values"]
        }

    def known(self) -> dict[str, str | None]:
        """Return what each key is, by what was told last."""
        return {
            line["key"]: line["values"][0]["value"] if line["values"] else None
            for line in list(self.lines)
            if line["kind"] in ("put", "delete")
        }

    def token(self) -> str:
        """Return the last token."""
        tokens = [line["token"] for line in list(self.lines) if line["kind"] == "mark"]
        return str(tokens[-1]) if tokens else ""

    def end(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(GIVE_UP_S)


def write(agent: AgentProcess, key: str, value: str) -> None:
    agent.must("kv", "put", key, value)


def test_a_killed_owner_costs_a_watch_nothing_and_a_token_goes_on_elsewhere(four: Fleet) -> None:
    ash, birch, cedar, elm = (four.agents[name] for name in NAMES)
    watching = Watching(ash)
    eventually(watching.token, bool, TOLD_WITHIN_S, "the watch begins")
    wanted: set[tuple[str, str]] = set()
    last: dict[str, str | None] = {}
    for n in range(WRITES):
        key, value = KEYS[n % len(KEYS)], str(n)
        if n == WRITES // 3:
            cedar.kill()
        if n == 2 * WRITES // 3:
            cedar.start()
        write((ash, birch)[n % 2], key, value)
        wanted.add((key, value))
        last[key] = value
    birch.must("kv", "delete", KEYS[0])
    last[KEYS[0]] = None
    eventually(watching.known, lambda known: known == last, TOLD_WITHIN_S, "all is told")
    missed = wanted - watching.told()
    print(f"{len(wanted)} acknowledged, {len(missed)} of them told by what replaced them alone")
    assert not [line for line in watching.lines if line["kind"] == "gap"]

    token = watching.token()
    watching.end()
    ash.kill()
    birch.must("kv", "put", KEYS[1], "while nobody watched")
    birch.must("kv", "delete", KEYS[2])
    again = Watching(elm, "--since", token)
    expected = {KEYS[1]: "while nobody watched", KEYS[2]: None}
    eventually(
        again.known,
        lambda known: known.items() >= expected.items(),
        TOLD_WITHIN_S,
        "it goes on at another node",
    )
    again.end()
