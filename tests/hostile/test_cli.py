"""Hostile texts through every command: nobody else moves the cursor, or begins a line.

Every text that a command can show comes from a fake agent here, and each of them is hostile. A
command that is new has to say in ``CALLS`` how it is called.
"""

import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import click
import msgspec
import pytest

from agent import exits
from agent.access.access_tokens import (
    AccessTerms,
    encode_record,
    make_record,
)
from agent.access.rights import Role
from agent.cli import files, output
from agent.cli.completion import member_names, offered
from agent.cli.errors import run_to_status
from agent.cli.root import root
from agent.cli.session import Session
from agent.cluster.event_json import EventRecord, MissedEvents, QueryResponse, QuerySummary
from agent.exits import AgentError
from agent.telemetry.dead_letters import DeadLetter
from agent.telemetry.outbox import Accepted
from agent.telemetry.uplink.broker_test import ConnectStep, StepOutcome
from edge_apps.client import ApiError, Client
from edge_apps.reading import Reading
from gossip.control.commands import AcquireLock, Action, OpenSession, Transact
from gossip.control.fleet_settings import ACCESS_PREFIX, FOR_ALL, setting_key
from gossip.control.requests import ControlWrite
from gossip.control.transactions import PutKey
from gossip.events.messages import ResponseKind
from gossip.membership.model.members import MemberState
from gossip.registry import registry as registries
from gossip.registry.node import RegisteredNode
from tests.support.fake_agent import CLUSTER, GONE, ME, OTHER, FakeAgent, Served, serving
from tests.unit.house.test_docs_reference import EVERY_COMMAND

EVIL = "a\x1b[2J\x1b]0;t\x07\x9b35m\u202e\u2028\x85\x7f\x00\t\r\nFORGED"
OURS = re.compile(r"\x1b\[(?:0|1|31|32|33|36|90)m|\x1b\[\?(?:1049|25)[hl]|\x1b\[H\x1b\[2J")
"""The control sequences that the commands themselves write."""

CALLS: dict[str, list[list[str]]] = {
    "access authority": [[]],
    "access create": [["x", "--role", "reader", "--prefix", EVIL], [EVIL, "--role", "node"]],
    "access list": [[]],
    "access revoke": [[EVIL], ["\x1b[2J"]],
    "app list": [[]],
    "backup create": [[EVIL]],
    "backup restore": [[EVIL, "--yes"]],
    "backup verify": [[EVIL]],
    "barrier enter": [["\x1b[2J", "--count", "1", "--wait", "1s"], [EVIL, "--count", EVIL]],
    "barrier leave": [["start", "--session", EVIL], [EVIL, "--session", "1"]],
    "barrier list": [[]],
    "app log": [[EVIL], [EVIL, "--follow"]],
    "app start": [[EVIL], ["\x1b[2J"]],
    "app stop": [[EVIL], ["\x1b[2J"]],
    "config check": [[]],
    "config get": [["log.level"], [EVIL]],
    "config list": [[]],
    "config set": [[EVIL, "x"], ["log.level", EVIL], ["log.level", "info", "--for", EVIL]],
    "config show": [[], ["--origin"]],
    "config unset": [[EVIL], ["log.level", "--for", EVIL]],
    "doctor": [[]],
    "elect": [["\x1b[2J", "--value", EVIL, "--no-wait"]],
    "event send": [[EVIL, EVIL]],
    "events": [[], ["--follow"], ["--name", EVIL]],
    "facts list": [[], ["\x1b[2J"]],
    "facts set": [[f"{EVIL}=x"], ["a=b"]],
    "facts unset": [[EVIL]],
    "file get": [["nothing\x1b[2J", "-"], ["\x1b[2J", EVIL]],
    "file ls": [[], [EVIL], ["-o", "json"]],
    "file mv": [[EVIL, "plain"], ["\x1b[2J", EVIL]],
    "file put": [["\x1b[2J", EVIL]],
    "file rm": [[EVIL, "--yes"], ["\x1b[2J", "--yes"]],
    "file stat": [[EVIL], ["\x1b[2J", "-o", "json"]],
    "keys list": [[]],
    "keys rotate": [["--force"]],
    "db query": [[EVIL], ["SELECT 1", "--db", "audit"]],
    "kv counter": [["\x1b[2J", "1"], ["\x1b[2J", EVIL]],
    "kv delete": [[EVIL]],
    "kv export": [[]],
    "kv get": [["nothing\x1b[2J"]],
    "kv list": [[]],
    "kv map": [["\x1b[2J", EVIL, EVIL]],
    "kv max": [["\x1b[2J", EVIL], ["\x1b[2J", "1"]],
    "kv min": [["\x1b[2J", EVIL], ["\x1b[2J", "1"]],
    "kv put": [["\x1b[2J", EVIL]],
    "kv set": [["\x1b[2J", "--add", EVIL]],
    "kv space create": [[EVIL, "--replicas", "2"], ["x", "--replicas", "3"]],
    "kv space list": [[], ["-o", "json"]],
    "kv space set": [
        [EVIL, "--policy", "lww"],
        ["x", "--policy", EVIL],
        ["x", "--quota-keys", EVIL],
    ],
    "kv space unset": [[EVIL], ["\x1b[2J"]],
    "kv stats": [[], ["-o", "json"]],
    "kv why": [["\x1b[2J"], [EVIL, "-o", "json"]],
    "leave": [[]],
    "lock": [["\x1b[2J", "--no-wait", "true"], [EVIL, "--ttl", EVIL, "true"]],
    "members": [[], ["--state", EVIL]],
    "members allow": [[EVIL]],
    "members forbid": [[EVIL]],
    "members remove": [[EVIL, "--yes"], ["\x1b[2J", "--yes"]],
    "members show": [["ada"], ["\x1b[2J"]],
    "node drain": [[EVIL], ["\x1b[2J"]],
    "node set": [[EVIL, f"zone={EVIL}"], ["\x1b[2J", "capacity=2"], ["x", EVIL]],
    "node show": [["ada"], ["\x1b[2J"]],
    "node undrain": [[EVIL], ["\x1b[2J"]],
    "outbox": [[]],
    "outbox dead list": [[], ["--sensor", EVIL, "--reason", EVIL, EVIL]],
    "outbox dead replay": [["--all"], ["--sensor", EVIL]],
    "outbox dead drop": [["--yes", EVIL]],
    "publish": [[EVIL, "1"], ["t", EVIL], ["t", "1", "--tag", EVIL], ["t", "1", "--time", EVIL]],
    "query": [[EVIL], ["ping", "--filter", EVIL]],
    "readings": [[], ["--sensor", EVIL]],
    "recover": [
        [],
        ["--from-this-node", "--yes"],
        ["--from-set-aside", "--yes"],
        ["--follow", EVIL, "--yes"],
        ["--without", EVIL],
    ],
    "registry": [[]],
    "registry mend": [["--yes"]],
    "ring": [[], [EVIL]],
    "ring key": [[EVIL]],
    "ring plan": [["drain", EVIL], ["add", EVIL, f"zone={EVIL}"], ["add", "eve"], [EVIL, "x"]],
    "ring status": [[], ["-o", "json"]],
    "rtt": [["ada"], ["\x1b[2J"]],
    "salvage": [[EVIL]],
    "service status": [[]],
    "session close": [[EVIL], ["1"]],
    "session list": [[]],
    "sleep": [["1h"], [EVIL]],
    "snapshot restore": [[EVIL, "--yes"]],
    "snapshot show": [[EVIL]],
    "status": [[]],
    "token create": [[], ["--ttl", EVIL]],
    "token list": [["--all"]],
    "token revoke": [[EVIL]],
    "txn": [["--then", "get evil"], ["--if", EVIL, "--then", EVIL]],
    "uplink status": [[]],
    "uplink test": [[]],
    "voters": [[]],
    "voters replace": [["ada", EVIL], [EVIL, "\x1b[2J"]],
    "wake": [[]],
    "audit": [[]],
    "completion": [[EVIL]],
    "simulate": [["--profile", EVIL]],
}
ELSEWHERE = {
    "demo": "its screen is tests/unit/agent/cli/demo/test_render.py",
    "run": "its log is tests/unit/agent/config/test_logs.py",
    "init": "shows what its caller typed",
    "app new": "shows what its caller typed",
    "app try": "what an app prints is in tests/unit/agent/cli/test_app_authoring.py",
    "join": "shows what its caller typed",
    "service install": "changes this machine; tests/devices has it",
    "service uninstall": "changes this machine; tests/devices has it",
    "kv import": "reads a file; tests/unit/agent/cli/test_kv_transfer.py has hostile ones",
    "kv watch": "follows for ever, like `events --follow`",
    "snapshot save": "shows what `snapshot show` does of a file that was just made",
    "watch": "follows for ever, and shows what `txn` does",
    "config watch": "follows for ever, and shows what `config list` does",
}


async def _hostile_steps() -> AsyncIterator[ConnectStep]:
    yield ConnectStep(EVIL, StepOutcome.FAILED, 0.1, EVIL, EVIL)


def spoiled(agent: FakeAgent) -> None:
    """Put a hostile text wherever the agent has one."""
    agent.identity.node_name = agent.identity.cluster_name = EVIL
    for node in (ME, OTHER, GONE):
        name = "ada" if node == ME else EVIL
        agent.members.put(
            msgspec.structs.replace(agent.members[node], name=name, tags={EVIL: EVIL})
        )
    agent.reasons = [EVIL]
    agent.reason_of = lambda _node: EVIL  # type: ignore[method-assign, assignment]
    agent.facts_of = lambda _node: {EVIL: EVIL}  # type: ignore[method-assign, assignment]
    agent.kv.values = {EVIL: [EVIL.encode()], "text": [EVIL.encode()]}
    agent.blocks.files.add(EVIL, EVIL.encode())
    reading = Reading(EVIL, EVIL, EVIL, 1, {EVIL: EVIL})
    agent.telemetry.accepted = [Accepted(1, EVIL, reading)]
    agent.telemetry.dead_letters = lambda _limit: [DeadLetter(EVIL, reading, EVIL, 1)]  # type: ignore[method-assign, assignment]
    status = agent.uplink.status()
    texts = [name for name in status.__struct_fields__ if isinstance(getattr(status, name), str)]
    uplink = msgspec.structs.replace(status, **dict.fromkeys(texts, EVIL))
    agent.uplink.status = lambda: uplink  # type: ignore[method-assign]
    agent.uplink.test = _hostile_steps  # type: ignore[method-assign]
    agent.event_service.told = [EventRecord(EVIL, EVIL, EVIL.encode(), OTHER, EVIL, 1, False, 1.0)]
    agent.event_service.recent = lambda _patterns, _limit: agent.event_service.told  # type: ignore[method-assign, assignment]
    agent.event_service.followed = [*agent.event_service.told, MissedEvents(3)]
    agent.event_service.answers = [
        QueryResponse(ME, EVIL, ResponseKind.ANSWERED, EVIL.encode(), 0.001),
        QueryResponse(OTHER, EVIL, ResponseKind.FAILED, EVIL.encode(), 0.001),
        QuerySummary(2, 3, (EVIL,)),
    ]
    agent.apps.state = {EVIL: "running", "system": EVIL}
    agent.doctor.checks = [{"id": EVIL, "status": "warn", "message": EVIL, "hint": EVIL}]
    registry = registries.found(CLUSTER, RegisteredNode(ME, EVIL))
    agent.registry = registries.admit(registry, RegisteredNode(OTHER, f"b{EVIL}"))


def agreed_on(agent: FakeAgent) -> None:
    """Agree on what a member puts into the log that has no manners: keys, settings, a holder."""
    plane, now = agent.solo.plane, agent.solo.time
    setting = setting_key(FOR_ALL, "log.level")
    keys = tuple(PutKey(key, EVIL.encode()) for key in ("evil", f"e{EVIL}", setting))
    terms = AccessTerms("evil", Role.NODE, (EVIL,), EVIL)
    token = PutKey(f"{ACCESS_PREFIX}evil", encode_record(make_record("x", terms, EVIL, 1.0)))

    def agree(action: Action) -> None:
        agent.solo.act(lambda _: plane.submit(ControlWrite(action), now))

    agree(Transact((), (*keys, token)))
    agree(OpenSession(OTHER, 60_000, label=EVIL))
    (session,) = (each.number for each in plane.state.sessions)
    agree(AcquireLock("\x1b[2J", session, value=EVIL.encode()))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as running:
        spoiled(running.agent)
        agreed_on(running.agent)
        yield running


Show = Callable[..., tuple[int, str]]


@pytest.fixture
def show(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> Show:
    """Run a command with colours on, and return its status and all that it wrote."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def run(*arguments: str) -> tuple[int, str]:
        status = run_to_status(root, ["--dir", str(tmp_path), *arguments])
        captured = capfdbinary.readouterr()
        return status, (captured.out + captured.err).decode()

    return run


def check(text: str, call: object = "") -> None:
    for line in OURS.sub("", text).split("\n"):
        assert line.replace("\t", "").isprintable(), (call, line)
        assert not line.strip().startswith("FORGED"), (call, text)


def calls() -> Iterator[list[str]]:
    for path, variants in CALLS.items():
        for arguments in variants:
            yield [*path.split(), *arguments]


@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
def test_no_text_of_others_does_anything(
    served: Served, show: Show, monkeypatch: pytest.MonkeyPatch, *, terminal: bool
) -> None:
    # Under the name that the command uses, wherever it was imported to: EVERY_COMMAND loaded all.
    for module in [module for name, module in sys.modules.items() if name.startswith("agent.cli")]:
        if hasattr(module, "is_terminal"):
            monkeypatch.setattr(module, "is_terminal", lambda: terminal)
    monkeypatch.setattr(output, "is_terminal", lambda: terminal)
    for call in calls():
        check(show(*call)[1], call)


def test_a_value_for_a_terminal(
    served: Served, show: Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own lines are lines; a pipe gets its exact bytes."""
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    served.agent.kv.values |= {"plain": [b"on"], "bytes": [b"\xff\x00"]}
    check(show("kv", "get", "text")[1].replace("\nFORGED", ""))
    assert show("kv", "get", "plain") == (exits.YES, "on\n")
    assert "2 bytes that are no text were not shown" in show("kv", "get", "bytes")[1]


def test_a_file_for_a_terminal(served: Served, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes go where nothing obeys them; a pipe gets them as they are."""
    served.agent.blocks.files.add("plain", b"\x1b[2J")
    assert show("file", "get", "plain", "-") == (exits.YES, "\x1b[2J")
    monkeypatch.setattr(files, "is_terminal", lambda: True)
    status, told = show("file", "get", "plain", "-")
    check(told)
    assert status == exits.USAGE
    assert "nothing was read" in told


def test_json_is_safe_to_look_at(served: Served, show: Show) -> None:
    for call in calls():
        check(show(*call, "-o", "json")[1], call)


def test_an_error_is_one_line_and_its_hint_another(
    served: Served, show: Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ApiError(500, "failed", EVIL, EVIL)

    monkeypatch.setattr(Client, "request", fail)
    monkeypatch.setattr(Client, "stream", fail)
    for call in calls():
        status, told = show(*call)
        check(told, call)
        if status == exits.NO:
            assert [line[:5] for line in OURS.sub("", told).splitlines()[-2:]] == ["error", "hint:"]


def test_every_command_is_fed() -> None:
    leaves = {
        path.removeprefix("covey ")
        for path, command in EVERY_COMMAND.items()
        if not isinstance(command, click.Group) or command.invoke_without_command
    }
    assert leaves - {"covey"} == CALLS.keys() | ELSEWHERE.keys(), "say here how it is called"


def test_lines_of_stdin_are_quoted_safely(served: Served) -> None:
    words = [sys.executable, "-m", "agent", "--dir", str(served.paths.runtime), "publish"]
    done = subprocess.run(
        words, input=f"{EVIL[:12]} b c d e\n".encode(), capture_output=True, check=False
    )
    check(done.stderr.decode())
    assert done.returncode == exits.NO


def test_a_stack_trace_is_shown_safely(tmp_path: Path) -> None:
    program = (
        "import sys, agent.cli, agent.cli.errors as failures\n"
        "def fail(*_): raise RuntimeError(sys.argv[1])\n"
        "failures.run_to_status = fail\n"
        "agent.cli.main()"
    )
    evil = EVIL.replace("\0", "")
    done = subprocess.run(
        [sys.executable, "-c", program, evil], capture_output=True, text=True, check=False
    )
    assert "RuntimeError: a\\x1b[2J" in done.stderr
    check(done.stderr.replace("\nFORGED", ""))


def test_completion_offers_no_hostile_name(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = served.agent.members[OTHER]
    served.agent.members.put(msgspec.structs.replace(evil, name="$(reboot)"))
    asked = click.Context(root, info_name="covey")
    asked.obj = Session(served.paths.runtime)
    monkeypatch.setattr("agent.cli.completion.TIMEOUT_S", 30.0)
    assert member_names(asked, click.Argument(["name"]), "") == ["ada"]


@pytest.mark.parametrize(
    "name",
    [
        *(EVIL, "$(reboot)", "`id`", "a;b", "a b", "-rf", "=ls", "~root", "a'b", "!x", "{a,b}"),
        *("a*", "ash\n", "", "Küche", "a:b", "x=1", ".", "..", "a/b", "a,b", 7, None),
    ],
)
def test_what_is_no_name_is_not_offered(name: object) -> None:
    assert offered([name, "ada"], "") == ["ada"]


@pytest.mark.parametrize("name", ["ada", "kitchen-2", "n1.lab", "sensor_sim", "7"])
def test_a_name_is_offered(name: str) -> None:
    assert offered([name, name], name[:1]) == [name]


def test_every_argument_that_completes_does_so_in_one_place() -> None:
    """Choices and paths complete what is ours, or the user's own."""
    own = {
        (path, parameter.name, custom.__module__)
        for path, command in EVERY_COMMAND.items()
        for parameter in command.params
        if (custom := parameter._custom_shell_complete) is not None
    }
    assert {module for _, _, module in own} == {"agent.cli.completion"}
    assert len(own) > 5


def test_refusals_name_what_they_refuse_safely(served: Served, show: Show) -> None:
    served.agent.event_service.refusal = AgentError(EVIL, EVIL, exits.UNHEALTHY)
    status, told = show("event", "send", "a")
    assert status == exits.UNHEALTHY
    check(told)


def test_who_is_refused_by_a_member_reads_it_safely(
    tmp_path: Path, show: Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that joins shows what a member says to it, before it knows whether to trust it."""

    def refused(_session: Session, _work: object) -> None:
        raise AgentError(EVIL, EVIL, exits.NOT_PERMITTED)

    monkeypatch.setattr("agent.cli.membership._without_agent", refused)
    status, told = show("join", "covey1-x", "--node-name", "ash")
    assert status == exits.NOT_PERMITTED
    check(told)


def test_states_are_those_of_the_member(served: Served, show: Show) -> None:
    assert served.agent.members[OTHER].state is MemberState.SUSPECT
    assert "suspect" in show("members")[1]
