"""What a command may import: `covey` is typed often, on slow devices, and starts in milliseconds.

A list of what is allowed, not of what is forbidden: the next heavy module has a name that
nobody has thought of yet. Each command runs in a fresh interpreter.
"""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agent.api.routes import ROOMS
from tests.support.patience import GIVE_UP_S

REPORT = """
import sys
sys.argv = ["covey", *{arguments!r}]
status = 0
try:
    {action}
except SystemExit as ended:
    status = ended.code
loaded = sorted(name for name in sys.modules if name not in sys.stdlib_module_names
                and name.partition(".")[0] not in sys.stdlib_module_names)
heavy = sorted(name for name in {heavy!r} if name in sys.modules)
print(*(str(part) for part in ([status], loaded, heavy)), sep="\\n", file=sys.stderr)
"""

# What site-packages may add when the interpreter starts.
STARTUP = {"_distutils_hack", "_virtualenv", "sitecustomize", "usercustomize", "__editables_finder"}
HEAVY_STANDARD = {
    "asyncio", "email", "http.client", "logging", "multiprocessing", "sqlite3", "ssl",
    "tomllib", "unittest", "urllib.request", "xml",
}  # fmt: skip
LIGHT_PARTS = {
    "agent", "agent.cli", "agent.cli.errors", "agent.cli.copyable", "agent.cli.plain_run",
    "agent.cli.root", "agent.cli.session", "agent.text.escaping", "agent.exits", "agent.text",
    "agent.config", "agent.config.paths", "edge_apps", "edge_apps.client", "gossip", "gossip.core",
    "gossip.core.errors",
}  # fmt: skip


def loaded_by(action: str, *arguments: str) -> tuple[int, set[str], set[str]]:
    """Return the status, our and foreign modules, and the heavy standard ones."""
    program = REPORT.format(arguments=list(arguments), action=action, heavy=HEAVY_STANDARD)
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=GIVE_UP_S,
    )
    status, loaded, heavy = map(eval, done.stderr.splitlines()[-3:])
    known = {name for name in loaded if name.partition(".")[0] not in STARTUP}
    return status[0], known - {"__main__"}, set(heavy)


def foreign(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules} - {"agent", "edge_apps", "gossip"}


@pytest.mark.parametrize("arguments", [["--help"], ["nonsense"], []])
def test_the_root_loads_no_command(arguments: list[str]) -> None:
    _, loaded, heavy = loaded_by("from agent.cli import main; main()", *arguments)
    assert foreign(loaded) == {"click"}
    parts = {name for name in loaded if not name.startswith("click")}
    assert parts - {"agent.text.suggestions"} == LIGHT_PARTS  # a few lines, for a mistyped name
    assert heavy == set()


def test_importing_the_command_line_loads_nothing() -> None:
    _, loaded, heavy = loaded_by("import agent.cli")
    assert loaded == {"agent", "agent.cli"}
    assert heavy == set()


@pytest.mark.parametrize(
    "arguments",
    [["members", "--help"], ["kv", "--help"], ["kv", "put", "--help"], ["ring", "--help"],
     ["publish", "--help"], ["readings", "--help"], ["outbox", "--help"], ["status", "--help"],
     ["app", "--help"], ["config", "--help"], ["run", "--help"], ["init", "--help"],
     ["token", "create", "--help"], ["join", "--help"], ["completion", "--help"]],
)  # fmt: skip
def test_help_of_a_command_needs_click_alone(arguments: list[str]) -> None:
    status, loaded, heavy = loaded_by("from agent.cli import main; main()", *arguments)
    assert status == 0
    assert foreign(loaded) == {"click"}
    assert heavy == set()


@pytest.mark.parametrize("arguments", [["members"], ["kv", "get", "k"], ["status"]])
def test_asking_the_agent_needs_no_runtime(arguments: list[str], tmp_path: Path) -> None:
    """Nobody answers here; what is loaded on the way to the socket shows all the same."""
    status, loaded, heavy = loaded_by(
        "from agent.cli import main; main()", "--dir", str(tmp_path), *arguments
    )
    assert status == 5
    assert foreign(loaded) == {"click"}
    assert heavy <= {"email", "http.client", "logging", "ssl"}, "http.client brings these along"


UNRUN = "import agent.process as p; p.run_agent = lambda *_: None; "


@pytest.mark.parametrize("arguments", [["run"], ["--dir", "{}", "run"]])
def test_an_agent_runs_without_the_command_line(arguments: list[str], tmp_path: Path) -> None:
    """What reads its call would stay as long as it runs; SQLite is told to be small first."""
    called = [each.format(tmp_path) for each in arguments]
    status, loaded, heavy = loaded_by(f"{UNRUN}from agent.cli import main; main()", *called)
    assert status == 0
    assert "click" not in loaded
    assert {each for each in loaded if each.startswith("agent.cli")} == {
        "agent.cli", "agent.cli.plain_run"
    }  # fmt: skip
    assert "sqlite3" not in heavy


def test_a_call_with_more_to_say_goes_by_click(tmp_path: Path) -> None:
    status, loaded, _ = loaded_by(
        f"{UNRUN}from agent.cli import main; main()", "--dir", str(tmp_path), "--quiet", "run"
    )
    assert status == 0
    assert "click" in loaded


PREPARED = r"""
import asyncio, sys
from pathlib import Path
from agent.config.paths import Paths

async def prepared():
    from agent.identity.identity import found
    from agent.admission.prepare_databases import prepare
    paths.create()
    found(paths.identity, "barn", "pi1")
    assert await prepare(paths)

async def started():
    await lived(is_asked=False)

async def asked():
    await lived(is_asked=True)

async def lived(is_asked):
    from agent.agent import Agent
    from agent.config.loader import load
    from agent.readiness import Stage
    agent = Agent(load(paths), paths)
    running = asyncio.create_task(agent.run())
    while not (agent.stage is Stage.MEMBER or running.done()):
        await asyncio.sleep(0.01)
    if is_asked:
        reader, writer = await asyncio.open_unix_connection(paths.socket)
        writer.write(b"GET /api/v1/members HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
    await agent.leave()
    await running

paths = Paths.find(Path(sys.argv[1]))
asyncio.run({step}())
print(*({late!r} & sys.modules.keys()))
"""


FOREIGN_KEYS = {"cryptography.x509", "cryptography.hazmat.primitives.serialization"}
"""What signs certificates, and reads keys of all kinds: some 4 MiB."""


def test_a_prepared_agent_starts_without_what_it_may_never_need(tmp_path: Path) -> None:
    """The API's server, the schema's tool and the broker's client are loaded when asked for.

    Nor does an agent that is asked for its members need more than the API's server, and the files
    that answer that.
    """
    never = {"sqlite_utils", "paho", "edge_apps.app"} | FOREIGN_KEYS
    late = never | {"agent.http.connection", "h11", "prometheus_client"}
    late |= {room.module for room in ROOMS}
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    (tmp_path / "covey.toml").write_text(
        f'[network]\nbind = ["127.0.0.1"]\nport = {port}\nmdns = false\n'
        "[apps.system]\nenabled = false\n"
    )

    def loaded(step: str) -> set[str]:
        program = PREPARED.format(step=step, late=late)
        command = [sys.executable, "-c", program, str(tmp_path)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=GIVE_UP_S
        )
        assert done.returncode == 0, done.stderr
        return set(done.stdout.split())

    assert loaded("prepared") == {"sqlite_utils"} | FOREIGN_KEYS
    assert loaded("started") == set()
    # The status names who signs the registry.
    answering = {f"agent.api.{file}" for file in ("status", "members", "registry")}
    assert loaded("asked") == {"agent.http.connection", "h11"} | answering
