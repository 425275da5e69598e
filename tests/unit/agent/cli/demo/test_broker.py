"""The demo's broker: which one it is, that PyPI alone has it, and that the uplink likes it."""

import asyncio
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from agent.cli.demo import broker as demo_broker
from agent.cli.demo.broker import KINDS, Kind, choose, start_broker
from agent.cli.demo.collector import Collector
from agent.exits import AgentError
from agent.installation.extras import install_command
from tests.support.uplink_rig import rig, run

EXTRA = tomllib.loads((Path(__file__).parents[5] / "pyproject.toml").read_text())["project"][
    "optional-dependencies"
]["demo"]


@pytest.mark.parametrize(
    ("machine", "python", "implementation", "expected"),
    [
        ("x86_64", "3.11", "cpython", "iotcore"),
        ("aarch64", "3.13", "cpython", "iotcore"),
        ("armv7l", "3.13", "cpython", "iotcore"),
        ("armv6l", "3.13", "cpython", "amqtt"),
        ("riscv64", "3.13", "cpython", "amqtt"),
        ("x86_64", "3.16", "cpython", "amqtt"),
        ("x86_64", "3.11", "pypy", "amqtt"),
    ],
)
def test_each_machine_installs_one_broker(
    machine: str, python: str, implementation: str, expected: str
) -> None:
    environment = {
        "platform_machine": machine,
        "python_version": python,
        "implementation_name": implementation,
    }
    requirements = [Requirement(text) for text in EXTRA]
    chosen = [
        each.name for each in requirements if each.marker and each.marker.evaluate(environment)
    ]
    assert chosen == [expected]
    assert {each.name for each in requirements} == {kind.package for kind in KINDS}


def test_the_first_that_is_installed_serves() -> None:
    absent, present = (Kind(name, "5", KINDS[0].serve) for name in ("no_such_package", "json"))
    assert choose([absent, present]) is present
    with pytest.raises(AgentError) as caught:
        choose([absent])
    assert "`make demo` in a clone" in caught.value.hint


@pytest.mark.parametrize("machine", [*demo_broker.WITH_WHEELS, "armv6l", "riscv64"])
def test_the_broker_that_is_missed_is_the_one_of_the_extra(
    machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    with pytest.raises(AgentError) as caught:
        choose([])
    environment = {
        "platform_machine": machine, "python_version": "3.13", "implementation_name": "cpython",
    }  # fmt: skip
    [wanted] = [
        each.name
        for each in map(Requirement, EXTRA)
        if each.marker and each.marker.evaluate(environment)
    ]
    assert install_command(wanted) in caught.value.hint


@pytest.mark.parametrize(
    ("mark", "command"),
    [
        ("pipx_metadata.json", "pipx inject covey iotcore"),
        ("uv-receipt.toml", "uv pip install --python /x/bin/python iotcore"),
        ("pyvenv.cfg", "/x/bin/python -m pip install iotcore"),
    ],
)
def test_a_package_is_installed_as_covey_was(
    tmp_path: Path, mark: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    prefix = tmp_path / "pipx" / "venvs" / "covey"
    prefix.mkdir(parents=True)
    (prefix / mark).touch()
    assert install_command("iotcore", prefix, "/x/bin/python") == command


def test_what_pipx_installed_for_all_users_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    prefix = tmp_path / "venvs" / "covey"
    prefix.mkdir(parents=True)
    (prefix / "pipx_metadata.json").touch()
    expected = f"sudo PIPX_HOME={tmp_path} pipx inject covey iotcore"
    assert install_command("iotcore", prefix) == expected


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.package)
@pytest.mark.parametrize("qos", [1, 2])
def test_the_uplink_delivers_to_it(
    kind: Kind, qos: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_broker, "KINDS", (kind,))
    monkeypatch.setenv("PATH", "/nonexistent")

    async def scenario() -> None:
        broker = await start_broker(tmp_path)
        collector = Collector(demo_broker.LOOPBACK, broker.port, kind.version)
        try:
            await asyncio.to_thread(collector.start)
            async with rig(
                tmp_path,
                broker.port,
                topic="covey/{sensor}",
                payload="",
                version=kind.version,
                qos=qos,
            ) as r:
                await r.accept(range(300))
                await r.until_empty()
                await r.until(lambda: len(collector.ids) == 300)
                assert collector.repeated == 0
                assert r.pump.status().version == kind.version
        finally:
            await asyncio.to_thread(collector.stop)
            await broker.child.stop()
        assert broker.child.log.read_text().count("ERROR") == 0

    run(scenario())
