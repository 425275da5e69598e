"""Full disks, read-only disks, wrong configurations, missing brokers: say what, and what to do."""

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import exits
from agent.store.ballast import BALLAST_BYTES, PLENTY_BYTES, Ballast
from tests.live.harness.agents import AgentProcess, Outcome
from tests.live.harness.fleet import Fleet
from tests.live.harness.network import can_make_networks, run
from tests.live.harness.small_disk import fill, fill_to, small_disk
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live]

DISK_MEBIBYTES = 12
NEARLY_PERCENT = 97
MEBIBYTE = 1024 * 1024
DATABASES = 3

# prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN), Linux 6.3 and newer; older ones ignore it.
CAGE = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@contextlib.contextmanager
def _disk(size_mebibytes: int) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="covey-disk-"))
    with small_disk(folder, size_mebibytes):
        yield folder
    folder.rmdir()


@pytest.fixture
def disk(networks: None) -> Iterator[Path]:
    """Give a small disk of its own."""
    with _disk(DISK_MEBIBYTES) as folder:
        yield folder


@pytest.fixture
def roomy_disk(networks: None) -> Iterator[Path]:
    """Give one with room for a ballast."""
    with _disk(2 * PLENTY_BYTES // MEBIBYTE) as folder:
        yield folder


@contextlib.contextmanager
def _alone(folder: Path, fleet: Fleet, toml: str = "") -> Iterator[AgentProcess]:
    """Give a founded agent in this folder, on a host of its own; it does not run yet."""
    agent = AgentProcess("ash", folder / "ash", fleet.network.add_host())
    agent.configure(toml)
    agent.must("init", "test", "--node-name", "ash")
    fleet.agents["ash"] = agent
    yield agent
    agent.close()


def _explains(outcome: Outcome, status: int, *words: str) -> None:
    """Check the exit status, and that stderr names the trouble in a few lines for a person."""
    assert outcome.status == status, outcome
    told = outcome.stderr.lower()
    assert "traceback" not in told
    missing = [word for word in words if word not in told]
    assert not missing, f"{missing} not in: {outcome.stderr}"


# --- the disk -----------------------------------------------------------------------------------


def test_full_disk_refuses_and_recovers(disk: Path, fleet: Fleet) -> None:
    with _alone(disk, fleet) as agent:
        agent.start()
        agent.must("publish", "bench/temperature", "21.5")
        ballast = fill(disk)
        lines = "\n".join(f"bench/temperature {number}" for number in range(5000))
        refused = agent.covey("publish", stdin=lines)
        assert refused.status != exits.YES, "an accepted reading has to be on disk"
        _explains(refused, refused.status, "full")
        assert agent.process
        assert agent.process.poll() is None, "a full disk does not end the agent"
        assert agent.must("members", "-o", "json").json()["members"]
        health = agent.api.get("/api/v1/status")
        assert not health["ready"], "nothing is written"
        assert "disk is full" in health["reasons"][0]
        for number in range(20):  # more than the log of data.db still takes
            agent.covey("kv", "put", f"key/{number}", "x" * 60_000, "--timeout", "200ms")
        assert agent.process.poll() is None, "shared keys wait for room"

        ballast.unlink()
        eventually(
            lambda: agent.api.get("/api/v1/status")["ready"],
            bool,
            30.0,
            "it is ready again, though nobody wrote anything",
        )
        agent.must("kv", "put", "key", "value")
        assert agent.log.count("Until that is over") <= DATABASES, agent.log_tail()
        eventually(
            lambda: agent.covey("publish", "bench/temperature", "22").status,
            lambda status: status == exits.YES,
            5.0,
            "readings are accepted again",
        )


def test_a_disk_that_is_nearly_full_takes_no_puts_and_all_else(disk: Path, fleet: Fleet) -> None:
    with _alone(disk, fleet) as agent:
        agent.start()
        agent.must("kv", "put", "kept", "value")
        agent.must("kv", "put", "given", "up")
        filling = fill_to(disk, NEARLY_PERCENT)
        refused = eventually(
            lambda: agent.covey("kv", "put", "new", "value"),
            lambda outcome: outcome.status != exits.YES,
            30.0,
            "it refuses",
        )
        _explains(refused, exits.UNREACHABLE, "nothing was written", "disk_percent_max")
        assert agent.must("kv", "get", "kept").stdout == "value"
        agent.must("kv", "delete", "given")
        assert agent.api.get("/api/v1/status")["ready"], "all but puts goes on"
        assert agent.counters()["covey_kv_puts_limited"] == 1.0
        assert agent.counters()["covey_disk_used_ratio"] > NEARLY_PERCENT / 100 - 0.01
        assert "no puts" in str(agent.must("kv", "stats"))
        filling.unlink()
        eventually(
            lambda: agent.covey("kv", "put", "new", "value").status,
            lambda status: status == exits.YES,
            30.0,
            "it takes puts again by itself",
        )
        assert agent.covey("kv", "get", "given").status == exits.NOT_FOUND


def test_start_on_a_full_disk_waits_for_room(disk: Path, fleet: Fleet) -> None:
    """There never was room for a ballast here: the agent waits, says why, and goes on by itself."""
    with _alone(disk, fleet) as agent:
        ballast = fill(disk)
        agent.start()
        status = agent.api.get("/api/v1/status")
        assert not status["ready"]
        assert "disk is full" in status["reasons"][0], status
        ballast.unlink()
        eventually(
            lambda: agent.api.get("/api/v1/status"),
            lambda status: status["ready"] and status["stage"] == "member",
            30.0,
            "it takes part, without a restart",
        )


def test_start_on_a_full_disk_takes_the_ballast(roomy_disk: Path, fleet: Fleet) -> None:
    """The device does not vanish; what others write is refused until there is room again."""
    with _alone(roomy_disk, fleet) as agent:
        agent.start()
        agent.must("kv", "put", "key", "value")
        eventually(
            lambda: Ballast(agent.directory / "data" / "ballast").size_bytes,
            lambda kept: kept == BALLAST_BYTES,
            10.0,
            "room is kept",
        )
        agent.kill()
        filling = fill(roomy_disk)
        for _ in range(2):  # the second start takes a portion of its own
            agent.start()
            status = agent.api.get("/api/v1/status")
            assert (status["stage"], status["ready"]) == ("member", False)
            assert "disk is full" in status["reasons"][0], status
            assert agent.must("kv", "get", "key").stdout == "value"
            _explains(agent.covey("publish", "a/b", "1"), exits.UNHEALTHY, "full")
            assert agent.covey("kv", "put", "key", "new", "--timeout", "500ms").status != exits.YES
            agent.stop()
            fill(roomy_disk, "more")
        agent.start()
        filling.unlink()
        eventually(
            lambda: agent.covey("kv", "put", "key", "newer").status,
            lambda status: status == exits.YES,
            30.0,
            "shared keys are written again",
        )
        eventually(
            lambda: agent.covey("publish", "a/b", "1").status,
            lambda status: status == exits.YES,
            30.0,
            "readings are accepted again",
        )


def test_read_only_directory_says_so(disk: Path, fleet: Fleet) -> None:
    with _alone(disk, fleet) as agent:
        run("mount", "-o", "remount,ro", str(disk))
        _explains(agent.covey("run"), exits.NO, "read-only")


def test_init_in_a_read_only_directory_says_so(disk: Path, fleet: Fleet) -> None:
    agent = AgentProcess("ash", disk / "ash", fleet.network.add_host())
    run("mount", "-o", "remount,ro", str(disk))
    _explains(agent.covey("init", "test"), exits.NOT_PERMITTED, "read-only")


# --- the directory ------------------------------------------------------------------------------


def test_second_agent_on_the_same_directory_says_so(fleet: Fleet) -> None:
    with _alone(fleet.folder, fleet) as agent:
        agent.start()
        _explains(agent.covey("run"), exits.NO, "already", "--dir")
        assert agent.states() == {"ash": "alive"}, "the first one is untouched"


def test_second_init_changes_nothing(fleet: Fleet) -> None:
    with _alone(fleet.folder, fleet) as agent:
        identity = agent.directory / "data" / "identity"
        before = {path: path.read_bytes() for path in identity.iterdir() if path.is_file()}
        _explains(agent.covey("init", "other"), exits.NO, "already")
        assert before == {p: p.read_bytes() for p in identity.iterdir() if p.is_file()}


def test_commands_without_an_agent_say_so(fleet: Fleet) -> None:
    with _alone(fleet.folder, fleet) as agent:
        for command in (("members",), ("kv", "get", "a"), ("publish", "a", "1"), ("outbox",)):
            _explains(agent.covey(*command), exits.UNREACHABLE, "covey run")


def test_secrets_are_private(fleet: Fleet) -> None:
    with _alone(fleet.folder, fleet) as agent:
        agent.start()
        secrets = [
            path
            for path in (agent.directory / "data" / "identity").rglob("*")
            if path.is_file() and (b"PRIVATE" in path.read_bytes() or "key" in path.name)
        ]
        assert secrets
        for path in secrets:
            assert path.stat().st_mode & 0o077 == 0, f"{path} is open to others"
        assert "PRIVATE" not in agent.log


# --- the configuration --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[network]\nprot = 7747\n", ("prot", "port")),
        ("[netwrok]\nport = 7747\n", ("netwrok", "network")),
        ("[network]\nport = 'many'\n", ("port",)),
        ("[network\nport = 7747\n", ("covey.toml", "line 1")),
        ("[uplink]\nkeepalive = 'soon'\n", ("keepalive",)),
    ],
    ids=["unknown-key", "unknown-table", "wrong-type", "no-toml", "no-duration"],
)
def test_broken_configuration_says_where(fleet: Fleet, toml: str, words: tuple[str, ...]) -> None:
    with _alone(fleet.folder, fleet) as agent:
        agent.configure(toml)
        _explains(agent.covey("run"), exits.BAD_CONFIG, *words)


# --- the broker ---------------------------------------------------------------------------------


def test_unreachable_broker_is_named_and_readings_wait(fleet: Fleet) -> None:
    nobody = "10.77.0.200"
    with _alone(fleet.folder, fleet, f'[uplink]\nhost = "{nobody}"\n') as agent:
        agent.start()
        agent.must("publish", "bench/temperature", "21.5", "--unit", "C")
        outbox = eventually(
            lambda: agent.must("outbox").stdout + agent.must("outbox").stderr,
            lambda seen: nobody in seen,
            10.0,
            "the outbox says which broker is missing",
        )
        assert "1" in outbox
        assert agent.must("outbox", "-o", "json").json()["waiting"] == 1
        eventually(lambda: agent.log, lambda log: nobody in log, 10.0, "the log names the broker")


# --- the cage -----------------------------------------------------------------------------------


def test_agent_runs_without_writable_code(fleet: Fleet) -> None:
    """The unit sets MemoryDenyWriteExecute; the kernel's own switch for it shows that we can."""
    with _alone(fleet.folder, fleet) as agent:
        agent.prefix = [sys.executable, "-c", CAGE]
        agent.start()
        agent.must("kv", "put", "a", "1")
        assert agent.stop() == exits.YES


def test_clean_up_leaves_no_mounts() -> None:
    """The tests themselves leave nothing behind: a disk of an earlier run would show here."""
    if not can_make_networks:
        pytest.skip("needs root")
    mounts = subprocess.run(["findmnt", "-n", "-o", "TARGET"], capture_output=True, text=True,
                            check=True).stdout  # fmt: skip
    assert "covey-disk-" not in mounts
