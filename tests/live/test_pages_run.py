"""README.md and docs/cli.md as somebody types them: on real agents, in their order.

The examples of docs/cli.md show what the commands print today; ``pytest --rewrite`` on this file
puts what they print now into the page, to be read and committed.
"""

import difflib
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.harness.agents import PASSING
from tests.live.harness.network import Network
from tests.live.harness.shell import Device
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live]

ROOT = Path(__file__).resolve().parents[2]
README, CLI = ROOT / "README.md", ROOT / "docs" / "cli.md"
FOUND_WITHIN_S = 15.0
STREAM_S = 2
TRIES, PAUSE_S = 5, 2.0
STREAM_ENDED = 124
ENDLESS = ("--follow", "--watch")
SLOW = {"covey simulate": " --seconds 10"}
TOKEN = "covey1-…"
EXAMPLE = re.compile(r"^```\n(\$ .*?)^```$", re.MULTILINE | re.DOTALL)
ASH_TOML = """
[node]
tags = { room = "attic" }
services = { broker = ":1883/mqtt" }
"""
BIRCH_TOML = """
[node]
tags = { room = "attic" }
services = { press = "10.0.0.7:502/modbus" }
"""

# What is another each time: ids, moments, durations, addresses; and how many blanks follow.
VARYING = (
    (re.compile(r"\b[0-9a-f]{16}-[0-9a-f]{16}-\d+\b"), "EVENT"),
    (re.compile(r"\b[0-9a-f]{16,32}\b"), "ID"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)"), "MOMENT"),
    (re.compile(r"\[[0-9a-f:]+(%\w+)?\]:\d+"), "ADDRESS"),
    (re.compile(r"\b\d+\.\d+\.\d+\.\d+:7747"), "ADDRESS"),
    (re.compile(r"(\bADDRESS\b|…|,?\+\d+)(,?(ADDRESS|…|\+\d+))*"), "ADDRESS"),
    (re.compile(r"\b\d+(\.\d+)?(ms|s|m|h|d)(\d+(ms|s|m|h))?\b"), "DURATION"),
    (re.compile(r"\d+\.\d+"), "NUMBER"),
    (re.compile(r"  +"), "  "),
)


@pytest.fixture
def devices(networks: None) -> Iterator[dict[str, Device]]:
    """Give three devices on one network: nothing is on them but the command."""
    folder = Path(tempfile.mkdtemp(prefix="covey-"))
    with Network() as network:
        found = {
            name: Device(name, network.add_host(), folder / name)
            for name in ("ash", "beech", "birch")
        }
        try:
            yield found
        finally:
            for device in found.values():
                print(f"--- {device.name} ---\n{device.said()}")
                device.close()
            shutil.rmtree(folder, ignore_errors=True)


def lines_of(block: str) -> list[str]:
    return [line for line in block.splitlines() if line.startswith(("covey", "COVEY"))]


def typed(device: Device, line: str) -> str:
    """Type a line of the page; return what it printed, once it did what it says."""
    command = line.partition(" #")[0].rstrip()
    if command.endswith(ENDLESS):
        status, shown = device.type(f"timeout --signal=INT {STREAM_S} {command}")
        assert status == STREAM_ENDED, f"{line}: {device.said()}"
        return shown
    more = next((more for begun, more in SLOW.items() if command.startswith(begun)), "")
    for _ in range(TRIES):
        status, shown = device.type(command + more)
        if status not in PASSING:
            break
        time.sleep(PAUSE_S)
    assert status == 0, f"{line}: status {status}: {shown}\n{device.said()}"
    return shown


def sees(device: Device, count: int) -> None:
    def look() -> str:
        return device.type("covey members --state alive | cut -f1")[1]

    eventually(look, lambda seen: len(seen.split()) == count, FOUND_WITHIN_S, "members alive")


def test_the_readme_as_it_stands(devices: dict[str, Device]) -> None:
    ash, beech = devices["ash"], devices["beech"]
    blocks = re.findall(r"^```sh\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    first, others, anywhere, trouble = (block for block in blocks if lines_of(block))
    shown = [typed(ash, line) for line in lines_of(first)]
    token = shown[-1].strip()
    for line in lines_of(others):
        assert TOKEN in line or "join" not in line
        typed(beech, line.replace(TOKEN, token))
    sees(ash, 2)
    told = {line.partition(" #")[0].rstrip(): typed(ash, line) for line in lines_of(anywhere)}
    assert told["covey kv get lights/north"] == "on"
    assert {line.split("\t")[0] for line in told["covey members"].splitlines()} == {"ash", "beech"}
    told = {line.partition(" #")[0].rstrip(): typed(ash, line) for line in lines_of(trouble)}
    assert "\tdoor-opened\tash\tnorth" in told["covey events"]
    [answer] = told["covey query uptime --filter room=lab"].splitlines()
    assert answer.startswith("beech\t")


def normal(text: str) -> str:
    for pattern, name in VARYING:
        text = pattern.sub(name, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def _same(command: str, shown: str, recorded: str) -> bool:
    if command.startswith("covey query"):  # answers come in any order
        return sorted(shown.splitlines()) == sorted(recorded.splitlines())
    return shown == recorded


def replayed(device: Device, example: str, tries: int) -> str:
    """Return an example with what its commands print now, where that is something else.

    ``tries``: what is another is asked for so often; on a busy machine an answer may come late.
    """
    parts = re.split(r"^\$ (.*)\n", example, flags=re.MULTILINE)[1:]
    result = ""
    for command, recorded in zip(parts[::2], parts[1::2], strict=True):
        for _ in range(tries):
            shown = device.see(command)
            if _same(command, normal(shown), normal(recorded)):
                break
            time.sleep(PAUSE_S)
        kept = recorded if _same(command, normal(shown), normal(recorded)) else shown
        result += f"$ {command}\n{kept.rstrip()}\n" if kept.strip() else f"$ {command}\n"
    return result


def difference(page: str, today: str) -> str:
    """Return the lines that are others now, as `diff` shows them."""
    return "\n".join(difflib.unified_diff(page.splitlines(), today.splitlines(), lineterm="", n=2))


def test_the_examples_of_the_reference(
    devices: dict[str, Device], request: pytest.FixtureRequest
) -> None:
    ash, birch = devices["ash"], devices["birch"]
    (ash.directory / "covey.toml").write_text(ASH_TOML)
    (birch.directory / "covey.toml").write_text(BIRCH_TOML)
    typed(ash, "covey init greenhouse")
    typed(ash, "covey run &")
    token = typed(ash, "covey token create").strip()
    typed(birch, f"covey join {token}")
    typed(birch, "covey run &")
    sees(ash, 2)
    eventually(
        lambda: ash.type("covey facts list birch --name 'service/*'")[1],
        lambda shown: "press" in shown, FOUND_WITHIN_S, "birch's facts arrived",
    )  # fmt: skip
    page = CLI.read_text()
    tries = 1 if request.config.getoption("--rewrite") else TRIES
    today = EXAMPLE.sub(lambda found: f"```\n{replayed(ash, found[1], tries)}```", page)
    assert len(EXAMPLE.findall(page)) > 5
    if request.config.getoption("--rewrite"):
        CLI.write_text(today)
        return
    assert page == today, f"{difference(page, today)}\n`pytest --rewrite {Path(__file__).name}`?"
