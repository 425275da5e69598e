"""What the covey has set: beneath a device's own file and environment, and above the defaults."""

from pathlib import Path

import pytest

from agent.config.fleet_layer import (
    APPLIED_AT_ONCE,
    FOR_FLEETS,
    KeptSettings,
    SetForFleet,
    check_name,
    read_layer,
    write_layer,
)
from agent.config.loader import COMMAND_LINE, load, replaced, taken_over, typed_setting, unapplied
from agent.config.paths import Paths
from gossip.core.errors import InvalidRequest


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths.find(tmp_path)
    paths.create()
    return paths


def given(paths: Paths, **texts: str) -> None:
    settings = {
        name.replace("__", "."): SetForFleet(text, "tag:site=barn") for name, text in texts.items()
    }
    write_layer(paths.fleet_settings, KeptSettings(7, settings))


def test_it_fills_in_what_neither_file_nor_environment_says(paths: Paths) -> None:
    given(paths, uplink__port="1", uplink__host="of.fleet", uplink__qos="0")
    paths.config_file.write_text("[uplink]\nport = 2\n")
    config = load(paths, {"COVEY_UPLINK__QOS": "2"})
    assert (config.uplink.port, config.uplink.qos, config.uplink.host) == (2, 2, "of.fleet")
    assert config.origin("uplink.host") == "fleet, tag:site=barn"
    assert config.origin("uplink.qos") == "environment variable COVEY_UPLINK__QOS"
    assert config.origin("uplink.port").endswith("covey.toml:2")


def test_what_this_version_does_not_take_keeps_no_device_from_starting(paths: Paths) -> None:
    given(paths, log__level="loud", api__listen=":80", log__colour="red", uplink__window="5")
    config = load(paths, {})
    assert (config.log.level, config.api.listen, config.uplink.window) == ("info", "", 5)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"settings": {"a": 1}}', "\0"])
def test_a_file_that_cannot_be_read_counts_as_none(paths: Paths, text: str) -> None:
    paths.fleet_settings.write_text(text)
    assert read_layer(paths.fleet_settings) == KeptSettings()
    assert load(paths, {}).log.level == "info"


def test_what_is_applied_at_once_is_no_change_that_waits(paths: Paths) -> None:
    running = load(paths, {})
    given(paths, log__level="debug", uplink__window="5")
    assert unapplied(running, paths)[0] == ["log.level", "uplink.window"]
    now = taken_over(running, load(paths, {}))
    assert now.log.level == "debug"
    assert now.origin("log.level") == "fleet, tag:site=barn"
    assert unapplied(now, paths)[0] == ["uplink.window"]


def test_what_the_command_line_said_stays(paths: Paths) -> None:
    running = replaced(load(paths, {}), "log.level", "warning")
    given(paths, log__level="debug")
    now = taken_over(running, load(paths, {}))
    assert (now.log.level, now.origin("log.level")) == ("warning", COMMAND_LINE)


def test_no_setting_for_fleets_names_a_file_a_command_or_who_a_device_is() -> None:
    assert set(FOR_FLEETS) >= APPLIED_AT_ONCE
    assert not [name for name in FOR_FLEETS if name.endswith("_file") or "handlers" in name]
    assert not [name for name in FOR_FLEETS if name.split(".")[0] in ("node", "network", "api")]
    for name in FOR_FLEETS:
        check_name(name)
    with pytest.raises(InvalidRequest, match=r"log\.level"):
        check_name("log.levle")
    assert typed_setting("uplink.tls", "true") is True
