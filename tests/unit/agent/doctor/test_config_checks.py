"""What ``covey config check`` finds in a configuration that reads well."""

from pathlib import Path

import pytest

from agent.config.loader import Config, load
from agent.config.paths import Paths
from agent.doctor.config_checks import problems


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.find(tmp_path, {})


def written(paths: Paths, text: str) -> Config:
    paths.config_file.write_text(text)
    return load(paths, {})


def told(paths: Paths, text: str) -> list[str]:
    return [f"{message} ({hint})" for message, hint in problems(written(paths, text), {})]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[uplink]\nca_file = '/no/ca'", "covey.toml:2: uplink.ca_file: cannot read /no/ca"),
        ("[apps.attic]\npath = '/no/attic.py'", "covey.toml:2: apps.attic.path: cannot read /no"),
        ("[apps.attic]\nmodule = 'nonesuch.app'", "no module 'nonesuch' is installed"),
        ("[apps.sytem]", "covey.toml:1: apps.sytem: no app is called 'sytem' (did you mean 'sys"),
        (
            "[events.handlers]\nok = ['true']\nx = ['no-such-thing']",
            "covey.toml:3: events.handlers.x: there is no command 'no-such-thing'",
        ),
        (
            "[queries]\n\nhandlers = { x = ['no-such-thing'] }",
            "covey.toml:3: queries.handlers.x: there is no command 'no-such-thing'",
        ),
        ("[uplink]\n\ntopic = 'a/{nod}'", "covey.toml:3: the topic template 'a/{nod}'"),
        ("[uplink]\ntopic = 'a'\npayload = '{nod}'", "covey.toml:3: the payload template '{nod}'"),
    ],
)
def test_what_is_not_there_is_found(paths: Paths, text: str, problem: str) -> None:
    [found] = told(paths, text)
    assert problem in found


def test_a_variable_stands_before_all_keys_of_a_table_in_the_file(paths: Paths) -> None:
    paths.config_file.write_text("[events.handlers]\n\nx = ['true']\n")
    config = load(paths, {"COVEY_EVENTS__HANDLERS": "{ x = ['no-such-thing'] }"})
    [found] = problems(config, {})
    assert found.message.startswith("environment variable COVEY_EVENTS__HANDLERS: events.handlers")


def test_what_the_service_does_not_see_is_found(paths: Paths) -> None:
    text = "[uplink]\nca_file = '/etc/hostname'\n[apps.attic]\npath = '/home/pi/attic.py'\n"
    written_so = written(paths, text)
    found = [each.message for each in problems(written_so, {}, of_service=True)]
    hidden = "the service does not see home directories, and /home/pi/attic.py is in one"
    assert [message for message in found if hidden in message]
    assert not [message for message in found if "uplink" in message]
    assert not [each for each in problems(written_so, {}) if hidden in each.message]


def test_nothing_is_found_where_all_is_there(paths: Paths) -> None:
    app = paths.config_file.with_name("attic.py")
    app.write_text("")
    text = f"[apps.attic]\npath = '{app}'\n[apps.system]\n[events.handlers]\nx = ['/bin/sh']\n"
    assert told(paths, text) == []


def test_keys_of_values_are_those_that_the_agent_would_take(paths: Paths) -> None:
    key = paths.config_file.with_name("key")
    key.write_bytes(bytes(32))
    text = f"[storage]\nencryption = 'on'\nkey_file = '{key}'\nformer_key_files = ['{key}']\n"
    key.chmod(0o644)
    found = told(paths, text)
    assert len(found) == 2
    assert "everybody may read the key" in found[0]
    key.chmod(0o600)
    assert told(paths, text) == []
    key.write_bytes(b"short")
    assert "5 bytes, and a key has 32 to 4096" in told(paths, text)[0]
    [absent] = told(paths, "[storage]\nkey_file = '/no/key'")
    assert "covey.toml:2: storage.key_file: cannot read /no/key" in absent
