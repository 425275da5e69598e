"""The configuration: three layers, known origins, and complaints that name the place."""

import doctest
import errno
import grp
import os
import pwd
from pathlib import Path
from typing import get_type_hints

import pytest

import agent.config.accepted_values
import agent.config.loader
import agent.text.units
from agent.config import credentials
from agent.config.accepted_values import takes
from agent.config.loader import Config, Unusable, load, read_secret, replaced, unapplied
from agent.config.paths import Paths
from agent.config.settings import SECTIONS, Section
from agent.doctor.config_checks import in_few_words, problems
from agent.exits import BAD_CONFIG, AgentError
from agent.files import permissions
from agent.text import redaction
from agent.text.units import format_duration, parse_endpoint
from edge_apps.units import read_duration


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.find(tmp_path, {})


def written(paths: Paths, text: str, **environ: str) -> Config:
    paths.config_file.write_text(text)
    return load(paths, environ)


def complaint(paths: Paths, text: str, **environ: str) -> AgentError:
    with pytest.raises(AgentError) as caught:
        written(paths, text, **environ)
    assert caught.value.status == BAD_CONFIG
    return caught.value


def test_no_file_means_defaults(paths: Paths) -> None:
    config = load(paths, {})
    assert config == Config()
    assert {config.origin(name) for name in config.values()} == {"default"}


def test_file_over_default_and_variable_over_file(paths: Paths) -> None:
    text = "[network]\nport = 7000\nmdns = false\n[log]\nlevel = 'debug'\n"
    config = written(paths, text, COVEY_NETWORK__PORT="7001")
    assert (config.network.port, config.network.mdns, config.log.level) == (7001, False, "debug")
    assert config.origin("network.port") == "environment variable COVEY_NETWORK__PORT"
    assert config.origin("network.mdns") == f"{paths.config_file}:3"
    assert config.origin("log.level") == f"{paths.config_file}:5"
    assert config.origin("log.format") == "default"


def test_a_mark_at_the_beginning_of_a_file_is_no_part_of_it(paths: Paths) -> None:
    """Editors of Windows write one, and lines that end in two characters."""
    text = "[network]\r\nport = 7000\r\n"
    paths.config_file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert load(paths, {}).network.port == 7000
    secret = paths.config_file.with_name("broker-password")
    secret.write_bytes(b"\xef\xbb\xbfhunter2\r\n")
    secret.chmod(0o600)
    assert read_secret(secret) == "hunter2"


def test_variables_of_every_type(paths: Paths) -> None:
    config = written(
        paths,
        "",
        COVEY_NETWORK__SEEDS="a:1, b",
        COVEY_NETWORK__BIND='["::"]',
        COVEY_NETWORK__MDNS="0",
        COVEY_NODE__TAGS="room=attic,floor=2",
        COVEY_NODE__WEIGHT="2",
        COVEY_UPLINK__VERSION="3.1.1",
        COVEY_UPLINK__QOS="2",
        COVEY_UPLINK__USERNAME="1234",
        COVEY_APPS__SENSOR_SIM__EVERY="2s",
        COVEY_APPS__SENSOR_SIM__OPTIONS__PLANTS="3",
    )
    assert config.network.seeds == ["a:1", "b"]
    assert config.network.bind == ["::"]
    assert config.network.mdns is False
    assert config.node.tags == {"room": "attic", "floor": "2"}
    assert config.node.weight == 2.0
    assert (config.uplink.version, config.uplink.qos) == ("3.1.1", 2)
    assert config.uplink.username == "1234"
    assert config.apps["sensor_sim"].every_s == 2.0
    assert config.apps["sensor_sim"].options == {"plants": 3}


def test_other_variables_are_not_ours(paths: Paths) -> None:
    load(paths, {"COVEY_DIR": "/x", "COVEY_SOCKET": "/y", "PATH": "/z", "NETWORK__PORT": "x"})


def test_apps_take_options_of_their_own(paths: Paths) -> None:
    text = "[apps.pump]\nenabled = false\nevery = '1m30s'\n[apps.pump.options]\npins = [4, 5]\n"
    app = written(paths, text).apps["pump"]
    assert (app.enabled, app.every_s, app.options) == (False, 90.0, {"pins": [4, 5]})


@pytest.mark.parametrize(
    ("text", "line", "told", "hint"),
    [
        ("[network]\nprot = 1", 2, 'unknown key "prot" in [network]', "did you mean 'port'?"),
        ("\n[netwrk]\nport = 1", 2, 'unknown table "netwrk"', "did you mean 'network'?"),
        ("[zzz]", 1, 'unknown table "zzz"', "known are: api, apps"),
        ("[uplink]\npassword = 'x'", 2, "password", "did you mean 'password_file'?"),
        ("[network]\nport = 'x'", 2, 'network.port: "x" is not a whole number from 1 to 65535', ""),
        ("[network]\nport = 99999", 2, "network.port: 99999 is not a whole number", ""),
        ("[network]\nseeds = ['a:0']", 2, "a port is a number from 1", ""),
        ("[network]\nbind = []", 2, "at least one address", ""),
        ("[voters]\nsettle = '0s'", 2, "settle: must lie between 1s and 1d", ""),
        ("[uplink]\nkeepalive = '30'", 2, "keepalive: '30' is no duration; write 500ms", ""),
        ("[uplink]\nqos = 3", 2, "uplink.qos: 3 is not 0, 1 or 2", ""),
        ("[gossip]\nprofile = 'lann'", 2, '"lan", "wan", "metered" or "local"', "'lan'"),
        (
            "[log]\nlevel = 'loud'",
            2,
            '"debug", "info", "warning" or "error"',
            "leave it out for its default",
        ),
        ("[network]\nmdns = 'yes'", 2, 'network.mdns: "yes" is not true or false', ""),
        ("[network]\nseeds = 'a'", 2, 'is not a list of texts: ["a", "b"]', ""),
        ("[network]\nseeds = ['udp://a']", 2, "write 'a' alone", ""),
        ("[network]\nbind = ['eth0']", 2, "'eth0' is no IP address", ""),
        ("[api]\nlisten = 'http://127.0.0.1:80'", 2, "write '127.0.0.1:80' alone", ""),
        ("[uplink]\nhost = 'mqtts://b/'", 2, "write 'b' alone", ""),
        ("[uplink]\nhost = 'b:1883'", 2, "write 'b' here, and port = 1883", ""),
        ("[uplink]\nhost = 'b/path'", 2, "no name or address of a host", ""),
        ("[node]\ntags = { a = 3 }", 2, 'node.tags.a: 3 is not a text in "quotes"', ""),
        ("[node.tags]\n\na = 'x'\nb = 3", 4, 'node.tags.b: 3 is not a text in "quotes"', ""),
        ("[node]\n\ntags = 3", 3, "node.tags: 3 is not a table of texts", ""),
        ("\nnode = { tegs = 3 }", 2, 'unknown key "tegs" in [node]', "did you mean 'tags'?"),
        (f"[node]\ntags = {{ a = '{'x' * 257}' }}", 2, "tags: the value of the tag 'a'", ""),
        ("[node]\nweight = 0", 2, "0 is not a number above 0, at most 100", ""),
        ("[telemetry]\nwaiting_max = 0", 2, "a whole number of at least 1", ""),
        ("[events.handlers]\na = []", 2, "events.handlers.a: [] is not a list of texts", ""),
        ("[events]\n\nhandlers = 3", 3, 'NAME = ["command", "argument"]', ""),
        ("[apps.a]\npath = 'a.py'", 2, "apps.a.path: a.py is relative", "write where it begins"),
        ("[apps.a]\nevry = '5s'", 2, 'unknown key "evry" in [apps.a]', "did you mean 'every'?"),
        ("[apps.a]\npins = 3", 2, 'unknown key "pins"', "stands in [apps.a.options]"),
        ("[uplink]\nkey_file = 'k'", 2, "goes together", ""),
        ("[api]\nlisten = 'localhost'", 2, "names no port", ""),
        ("[apps]\npump = 3", 2, "apps.pump is a table", "[apps.NAME]"),
        ("[apps.pump]\nenabled = 3", 2, "apps.pump.enabled", ""),
        ("network = 3", 1, "network is a table", ""),
        ("[a\n", 1, "not TOML", "https://toml.io"),
    ],
)
def test_complaints_name_the_place(
    paths: Paths, text: str, line: int, told: str, hint: str
) -> None:
    error = complaint(paths, text)
    assert error.message.startswith(f"{paths.config_file}:{line}: ")
    assert told in error.message
    assert hint in error.hint


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("COVEY_NETWRK__PORT", "1", 'unknown table "netwrk"'),
        ("COVEY_NETWORK__PROT", "1", 'unknown key "prot"'),
        ("COVEY_NETWORK__PORT", "many", "network.port"),
        ("COVEY_APPS__PUMP", "1", "three parts"),
        ("COVEY_APPS__PUMP__PINS", "1", 'unknown key "pins" in [apps.pump]'),
    ],
)
def test_complaints_name_the_variable(paths: Paths, variable: str, value: str, told: str) -> None:
    error = complaint(paths, "", **{variable: value})
    assert error.message.startswith(f"environment variable {variable}: ")
    assert told in error.message


def test_a_file_that_is_no_text(paths: Paths) -> None:
    paths.config_file.write_bytes(b"\xff\xfe")
    with pytest.raises(AgentError, match="byte 0 is no UTF-8") as caught:
        load(paths, {})
    assert caught.value.status == BAD_CONFIG


def test_secret_is_read_without_its_newline(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(" pass word\n")
    secret.chmod(0o600)
    assert read_secret(secret) == " pass word"


def test_what_may_not_be_read_says_how_it_may(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    paths.config_file.write_bytes(b"# \xff")
    secret = paths.config_file.with_name("a secret")
    secret.write_bytes(b"\xff")
    secret.chmod(0o600)
    for read in (lambda: load(paths, {}), lambda: read_secret(secret)):
        with pytest.raises(AgentError) as no_text:
            read()
        assert no_text.value.hint == "save it as UTF-8"
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(AgentError) as refused:
        load(paths, {})
    assert f"sudo chmod 640 {paths.config_file}`" in refused.value.hint
    with pytest.raises(AgentError) as refused:
        read_secret(secret)
    assert f"sudo chgrp covey '{secret}'" in refused.value.hint


def test_secret_that_everybody_reads_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("tell-nobody")
    secret.chmod(0o644)
    with pytest.raises(AgentError, match="everybody may read") as caught:
        read_secret(secret)
    assert "tell-nobody" not in str(caught.value) + caught.value.hint


def test_missing_secret_is_a_bad_configuration(tmp_path: Path) -> None:
    with pytest.raises(AgentError) as caught:
        read_secret(tmp_path / "nothing")
    assert caught.value.status == BAD_CONFIG


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("10s", 10), ("1.5h", 5400), ("2d", 172800), ("1h30m", 5400), ("0s", 0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert read_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "-1s", "1 s", "1w", "1h ", "1e3s", "٣s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        read_duration(text)


def test_durations_for_people() -> None:
    texts = [format_duration(seconds) for seconds in (0.05, 1.25, 59, 60, 3661, 90061)]
    assert texts == ["50ms", "1.25s", "59s", "1m", "1h1m", "1d1h"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pi.local:80", ("pi.local", 80)),
        ("10.0.0.7", ("10.0.0.7", 7747)),
        ("[fe80::1%eth0]:80", ("fe80::1%eth0", 80)),
        ("[::1]", ("::1", 7747)),
        ("fe80::1", ("fe80::1", 7747)),
    ],
)
def test_endpoints(text: str, expected: tuple[str, int]) -> None:
    assert parse_endpoint(text, 7747) == expected


@pytest.mark.parametrize("text", ["", ":80", "a:0", "a:65536", "a:b", "[::1", "[::1]80", "a:²"])
def test_what_is_no_endpoint(text: str) -> None:
    with pytest.raises(ValueError, match=r"write|port"):
        parse_endpoint(text, 7747)


# ---- what was changed since, and what is not there ----------------------------------------------


def test_changes_since_the_start(paths: Paths) -> None:
    running = written(paths, "[network]\nport = 7000\n[apps.system]\nevery = '5s'\n")
    assert unapplied(running, paths) == ([], "")
    paths.config_file.write_text("[network]\nport = 7001\n[uplink]\nhost = 'broker'\n")
    changed, problem = unapplied(running, paths)
    assert changed == [
        "network.port", "uplink.host", "apps.system.enabled", "apps.system.every",
    ]  # fmt: skip
    assert problem == ""
    paths.config_file.write_text("[network]\nprot = 1\n")
    changed, problem = unapplied(running, paths)
    assert changed == []
    assert 'unknown key "prot"' in problem


def test_what_the_command_line_gave_is_no_change(paths: Paths) -> None:
    running = replaced(written(paths, ""), "log.level", "debug")
    assert running.log.level == "debug"
    assert running.origin("log.level") == "command line"
    assert unapplied(running, paths) == ([], "")


def test_all_that_is_wrong_is_told_at_once(paths: Paths) -> None:
    text = """
network = 7747
[uplink]
host = "mqtt://broker.lan"
prot = 1883
[node]
tags = "room=lab"
weight = 0
[netwrk]
[apps]
shelf = 1
[apps.attic]
path = "attic.py"
every = "often"
"""
    error = complaint(paths, text, COVEY_LOG__LEVEL="loud", COVEY_API__LISTN="x")
    assert isinstance(error, Unusable)
    messages = [fault.message for fault in error.faults]
    for setting in (
        "network is a table", "uplink.host", '"prot"', "node.tags", "node.weight", '"netwrk"',
        "apps.shelf", "apps.attic.path", "apps.attic", "log.level", '"listn"',
    ):  # fmt: skip
        assert any(setting in message for message in messages), setting
    assert len(messages) == 11
    assert "(10 more: `covey config check` tells all)" in error.message


def test_a_variable_with_one_underscore_too_few_is_found(paths: Paths) -> None:
    environ = {"COVEY_UPLINK_HOST": "broker.lan", "COVEY_DIR": "/tmp/a", "COVEY_LOG__LEVEL": "info"}
    [problem] = problems(load(paths, environ), environ)
    assert problem.message == "environment variable COVEY_UPLINK_HOST sets nothing"
    assert "COVEY_UPLINK__HOST" in problem.hint


def test_a_tag_in_a_variable_needs_a_value(paths: Paths) -> None:
    assert written(paths, "", COVEY_NODE__TAGS="room=lab, floor=2").node.tags == {
        "room": "lab", "floor": "2",
    }  # fmt: skip
    for text in ("room", "room=lab,floor", "=lab"):
        assert f'node.tags: "{text}"' in complaint(paths, "", COVEY_NODE__TAGS=text).message


def test_defaults_are_claimed_where_nothing_else_is_set(paths: Paths) -> None:
    assert "all settings have their defaults" in in_few_words(load(paths, {}), paths)
    told = in_few_words(load(paths, {"COVEY_LOG__LEVEL": "debug"}), paths)
    assert "all settings" not in told
    assert "environment variables" in told


@pytest.mark.parametrize(("name", "kind"), SECTIONS.items())
def test_every_setting_says_what_it_takes(name: str, kind: type[Section]) -> None:
    for key, hint in get_type_hints(kind, include_extras=True).items():
        assert takes(hint), f"{name}.{key}"


def test_the_examples_in_the_docstrings() -> None:
    for module in (agent.config.loader, agent.config.accepted_values, agent.text.units):
        assert doctest.testmod(module).failed == 0


# ---- who else could have written it -------------------------------------------------------------


def refused(paths: Paths) -> str:
    with pytest.raises(AgentError) as caught:
        load(paths, {})
    assert caught.value.status == BAD_CONFIG
    assert "chmod go-w" in caught.value.hint
    return caught.value.message


@pytest.mark.parametrize("mode", [0o602, 0o666])
def test_a_configuration_that_everybody_writes_is_refused(paths: Paths, mode: int) -> None:
    written(paths, "")
    paths.config_file.chmod(mode)
    assert refused(paths).startswith(f"everybody can write {paths.config_file}")


def test_a_directory_that_everybody_writes_is_refused(paths: Paths) -> None:
    written(paths, "")
    paths.config_file.parent.chmod(0o777)
    assert refused(paths).startswith(f"everybody can write {paths.config_file.parent}:")
    paths.config_file.parent.chmod(0o1777)
    load(paths, {})  # as /tmp: nobody can put another in its place


def test_a_group_that_writes_is_refused(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    written(paths, "")
    paths.config_file.chmod(0o660)
    monkeypatch.setattr("agent.files.permissions._is_private", lambda _group, _user: False)
    assert "the group" in refused(paths)
    monkeypatch.setattr("agent.files.permissions._is_private", lambda _group, _user: True)
    load(paths, {})


def test_a_group_of_ones_own_is_private() -> None:
    me = pwd.getpwuid(os.getuid())
    assert permissions._is_private(me.pw_gid, me.pw_uid) or grp.getgrgid(me.pw_gid).gr_mem
    assert not permissions._is_private(12345, 12345)


def test_a_configuration_of_somebody_else_is_refused(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(paths, "")
    me = os.geteuid()
    monkeypatch.setattr(permissions, "ROOT", 12345)
    monkeypatch.setattr(os, "geteuid", lambda: 12346)
    assert refused(paths).startswith(f"the user {me} can write")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)  # root, who works as the data's owner
    paths.data.mkdir()
    load(paths, {})


def test_the_machine_s_configuration_is_to_be_root_s(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever finds it otherwise: given to a person, the service would refuse it."""
    written(paths, "")
    paths.config_file.chmod(0o666)
    with pytest.raises(AgentError) as mine:
        load(paths, {})
    assert f"`chown {os.geteuid()} {paths.config_file}" in mine.value.hint
    monkeypatch.setattr("agent.config.loader.SYSTEM_CONFIG", paths.config_file.parent)
    with pytest.raises(AgentError) as roots:
        load(paths, {})
    assert f"`sudo chown root: {paths.config_file}" in roots.value.hint


def test_what_nobody_writes_to_is_sound(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """A volume that is mounted read-only, as in a container, may belong to anybody."""
    written(paths, "")
    paths.config_file.chmod(0o666)
    read_only = type("", (), {"f_flag": os.ST_RDONLY})()
    monkeypatch.setattr(os, "statvfs", lambda _place: read_only)
    load(paths, {})


def test_secrets_of_apps_are_hidden_where_they_are_shown(paths: Paths) -> None:
    assert doctest.testmod(redaction).failed == 0
    text = """
[apps.tapo]
path = "/opt/tapo.py"
[apps.tapo.options]
password = "hunter2"
apiToken = "hunter2"
nested = [{ "client-secret" = "hunter2", host = "lan" }]
psk = "hunter2"
url = "https://ada:hunter2@tapo.lan/"
passage = "north"
keyboard = "de"
[events.handlers]
door = ["curl", "--password=hunter2"]
"""
    config = written(paths, text)
    shown = config.shown()
    assert "hunter2" not in str(shown)
    assert "hunter2" in str(config.values())
    assert shown["apps.tapo.options.nested"] == [{"client-secret": redaction.HIDDEN, "host": "lan"}]
    assert shown["apps.tapo.options.passage"] == "north"
    assert shown["apps.tapo.options.keyboard"] == "de"


# ---- credentials of systemd ---------------------------------------------------------------------


def test_a_credential_is_where_systemd_puts_it(tmp_path: Path) -> None:
    assert doctest.testmod(credentials).failed == 0
    sealed = "${CREDENTIALS_DIRECTORY}/broker-password"
    (tmp_path / "broker-password").write_text("hunter2\n")
    (tmp_path / "broker-password").chmod(0o440)
    place = credentials.file_at(sealed, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert read_secret(place) == "hunter2"
    with pytest.raises(AgentError, match="started with none") as caught:
        credentials.file_at(sealed, {})
    assert "LoadCredentialEncrypted" in caught.value.hint


def test_a_credential_is_no_missing_file_outside_of_the_service(
    paths: Paths, tmp_path: Path
) -> None:
    config = written(paths, "[uplink]\npassword_file = '${CREDENTIALS_DIRECTORY}/x'\n")
    assert not list(problems(config, {}))
    [problem] = problems(config, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert f"cannot read {tmp_path}/x" in problem.message
