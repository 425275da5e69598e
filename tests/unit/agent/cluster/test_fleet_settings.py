"""A device follows what the covey sets for it, and keeps it for its next start."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from agent.cluster.agreement import Agreement
from agent.cluster.fleet_settings import FleetSettings
from agent.config.fleet_layer import KeptSettings, SetForFleet, read_layer, write_layer
from gossip.core.errors import InvalidRequest
from tests.support.control_solo import SoloDriver
from tests.support.patience import GIVE_UP_S

ME = 5


def asynchronous(test: Callable[[Path], Coroutine[Any, Any, None]]) -> Callable[[Path], None]:
    def run(tmp_path: Path) -> None:
        asyncio.run(test(tmp_path))

    return run


class Device:
    """One device with its settings, and how often they were applied."""

    def __init__(self, path: Path) -> None:
        self.path, self.applied = path, 0
        self.settings = FleetSettings(
            Agreement(SoloDriver(ME).driver()), path, "ada", {"site": "barn"}, self._apply
        )

    def _apply(self) -> None:
        self.applied += 1

    async def kept(self, **expected: str) -> None:
        """Wait until these settings are on the disk, by their names with _ for a dot."""
        wanted = {name.replace("_", ".", 1): text for name, text in expected.items()}
        async with asyncio.timeout(GIVE_UP_S):
            while {n: e.text for n, e in read_layer(self.path).settings.items()} != wanted:  # noqa: ASYNC110  a file
                await asyncio.sleep(0.005)


@asynchronous
async def test_what_is_set_for_it_is_kept_and_the_narrower_scope_wins(tmp_path: Path) -> None:
    device = Device(tmp_path / "fleet.json")
    following = asyncio.create_task(device.settings.follow())
    await device.settings.set("all", "log.level", "error")
    await device.settings.set("node:bob", "uplink.window", "9")
    await device.kept(log_level="error")
    await device.settings.set("tag:site=barn", "log.level", "debug")
    await device.settings.set("node:ada", "uplink.window", "3")
    await device.kept(log_level="debug", uplink_window="3")
    assert read_layer(device.path).settings["log.level"].scope == "tag:site=barn"
    assert await device.settings.unset("tag:site=barn", "log.level")
    assert not await device.settings.unset("tag:site=barn", "log.level")
    await device.kept(log_level="error", uplink_window="3")
    assert device.applied >= 2, "the last may be about to be"
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


@asynchronous
async def test_a_copy_that_is_behind_takes_nothing_back(tmp_path: Path) -> None:
    """After a restart the copy begins with less than this device has been told before."""
    device = Device(tmp_path / "fleet.json")
    later = KeptSettings(10**6, {"log.level": SetForFleet("debug", "all")})
    write_layer(device.path, later)
    following = asyncio.create_task(device.settings.follow())
    await device.settings.set("all", "uplink.window", "9")
    for _ in range(20):
        await asyncio.sleep(0.005)
    assert (read_layer(device.path), device.applied) == (later, 0)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


@asynchronous
async def test_what_no_device_would_take_is_not_set(tmp_path: Path) -> None:
    device = Device(tmp_path / "fleet.json")
    for scope, name, text in (
        ("all", "log.level", "loud"),
        ("all", "network.port", "1"),
        ("tag:site", "log.level", "debug"),
    ):
        with pytest.raises(InvalidRequest):
            await device.settings.set(scope, name, text)
    assert (await device.settings.all())[1] == []
