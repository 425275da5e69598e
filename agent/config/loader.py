"""Reads the configuration: one TOML file, overridden by environment variables.

Four layers, the later wins: the defaults in ``agent/config/settings.py``, what the covey has set
for its devices (``fleet_layer.py``), the file, and variables named ``COVEY_SECTION__KEY``
(``COVEY_NETWORK__PORT=7800``). For each value, the layer it came
from is kept, so that ``covey config show --origin`` can answer "why is this 7800?".

A typing mistake must not become a default: unknown tables and keys are errors that name the
file, the line where it can be found, and the name that was probably meant. Secrets never stand
in the file or in a variable; settings that end in ``_file`` say where they are, and
``read_secret`` insists that only the owner may read them.
"""

import contextlib
import os
import re
import shlex
import stat
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from agent.config.accepted_values import choices, shown, takes
from agent.config.fleet_layer import APPLIED_AT_ONCE, SetForFleet, known, read_layer
from agent.config.paths import SYSTEM_CONFIG, Paths
from agent.config.settings import (
    SECTIONS,
    ApiSettings,
    AppSettings,
    FileSettings,
    FlashSettings,
    GossipSettings,
    HandlerSettings,
    LogSettings,
    NetworkSettings,
    NodeSettings,
    Section,
    StateSettings,
    StorageSettings,
    TelemetrySettings,
    UplinkSettings,
    VoterSettings,
)
from agent.exits import BAD_CONFIG, AgentError
from agent.files.permissions import check_nobody_else_writes
from agent.text.redaction import hidden
from agent.text.suggestions import did_you_mean
from edge_apps.homes import expanded

ENVIRONMENT_PREFIX = "COVEY_"
ENVIRONMENT_SEPARATOR = "__"
APPS, OPTIONS = "apps", "options"
OF_EVERY_APP = ("enabled", "every")
DEFAULT_ORIGIN = "default"
FLEET = "fleet"
CONFIG_BYTES_MAX = 1024 * 1024
SECRET_BYTES_MAX = 64 * 1024
CORRECT_IT = "correct it, or leave it out for its default"
COMMAND_LINE = "command line"

Tables = dict[str, Any]


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an agent is told. ``origins`` maps ``section.key`` to where it was set."""

    node: NodeSettings = NodeSettings()
    network: NetworkSettings = NetworkSettings()
    gossip: GossipSettings = GossipSettings()
    voters: VoterSettings = VoterSettings()
    state: StateSettings = StateSettings()
    storage: StorageSettings = StorageSettings()
    flash: FlashSettings = FlashSettings()
    api: ApiSettings = ApiSettings()
    log: LogSettings = LogSettings()
    uplink: UplinkSettings = UplinkSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    files: FileSettings = FileSettings()
    events: HandlerSettings = HandlerSettings()
    queries: HandlerSettings = HandlerSettings()
    apps: dict[str, AppSettings] = {}
    origins: dict[str, str] = {}

    def values(self) -> dict[str, Any]:
        """Return each setting under ``section.key``, in the order of the documentation."""
        flat = {
            f"{section}.{key}": value
            for section in SECTIONS
            for key, value in msgspec.to_builtins(getattr(self, section)).items()
        }
        usual = msgspec.to_builtins(AppSettings())
        for name, app in sorted(self.apps.items()):
            own = msgspec.to_builtins(app)
            options = own.pop(OPTIONS)
            said = {k: own[k] for k in own if own[k] != usual[k] or k in OF_EVERY_APP}
            flat |= {f"{APPS}.{name}.{key}": value for key, value in said.items()}
            flat |= {f"{APPS}.{name}.{OPTIONS}.{key}": value for key, value in options.items()}
        return flat

    def shown(self) -> dict[str, Any]:
        """Return what ``values`` returns, to be shown: without what looks like a secret."""
        return {name: hidden(name, value) for name, value in self.values().items()}

    def origin(self, setting: str) -> str:
        """Say where a setting or a part of it was set: a line of a file, a variable, default."""
        known = (self.origins[each] for each in _and_above(setting) if each in self.origins)
        return next(known, DEFAULT_ORIGIN)


class Unusable(AgentError):
    """What is wrong with a configuration: says the first of the faults, and keeps all."""

    def __init__(self, faults: Sequence[AgentError]) -> None:
        first, *others = faults
        more = f" ({len(others)} more: `covey config check` tells all)" if others else ""
        super().__init__(first.message + more, first.hint, BAD_CONFIG)
        self.faults = tuple(faults)


def load(paths: Paths, environ: Mapping[str, str] | None = None) -> Config:
    """Read the configuration; a missing file means defaults.

    Raises AgentError with status BAD_CONFIG, which is Unusable and has all faults where the text
    could be read; nothing is ever half applied.
    """
    environ = os.environ if environ is None else environ
    is_system = paths.config_file.parent == SYSTEM_CONFIG
    check_nobody_else_writes(paths.config_file, paths.data, is_system=is_system)
    text = _read(paths.config_file)
    tables = _parse(text, paths.config_file)
    source = _SettingSource(paths.config_file, text)
    _check_names(tables, source)
    _lay_under(tables, known(read_layer(paths.fleet_settings).settings), source)
    _override(tables, environ, source)
    sections = {
        name: _convert(tables.get(name, {}), kind, name, source) for name, kind in SECTIONS.items()
    }
    apps = {name: _app(name, table, source) for name, table in tables.get(APPS, {}).items()}
    if source.faults:
        raise Unusable(source.faults)
    return Config(**sections, apps=apps, origins=source.origins)


def replaced(config: Config, setting: str, value: Any) -> Config:
    """Return the configuration with one setting as the command line wants it."""
    section, key = setting.split(".")
    changed = msgspec.structs.replace(getattr(config, section), **{key: value})
    origins = {**config.origins, setting: COMMAND_LINE}
    return msgspec.structs.replace(config, **{section: changed}, origins=origins)


def taken_over(running: Config, now: Config) -> Config:
    """Return the configuration of a running agent with what can be applied at once as it is now.

    What the command line gave stays.
    """
    for setting in APPLIED_AT_ONCE:
        section, key = setting.split(".")
        if running.origin(setting) == COMMAND_LINE:
            continue
        value = getattr(getattr(now, section), key)
        changed = msgspec.structs.replace(getattr(running, section), **{key: value})
        origins = {**running.origins, setting: now.origin(setting)}
        running = msgspec.structs.replace(running, **{section: changed}, origins=origins)
    return running


def unapplied(running: Config, paths: Paths) -> tuple[list[str], str]:
    """Return the settings that were changed since ``running`` was read, or what is wrong now.

    What the command line gave is no change, whatever the file says.
    """
    try:
        now = load(paths)
    except AgentError as error:
        return [], error.message
    before, after = running.values(), now.values()
    names = [*before, *(name for name in after if name not in before)]
    return [
        name
        for name in names
        if running.origin(name) != COMMAND_LINE
        and (name not in before or name not in after or before[name] != after[name])
    ], ""


def read_secret(path: Path) -> str:
    """Return a secret's text without the newline at its end.

    Raises AgentError when the file cannot be read, or others than its owner and group may.
    """
    try:
        mode = path.stat().st_mode
        data = path.read_bytes()[:SECRET_BYTES_MAX]
        text = data.decode("utf-8-sig").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise AgentError(
            f"cannot read the secret in {path}: {_because(error)}",
            _how_to_be_read(error, path),
            BAD_CONFIG,
        ) from None
    if mode & stat.S_IRWXO:
        raise AgentError(
            f"everybody may read the secret in {path}; it was not used",
            f"chmod 600 {path}, and change the secret if strangers use this machine",
            BAD_CONFIG,
        )
    return text


class _SettingSource:
    """The file's text, for line numbers, each value's origin, and what was found to be wrong."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.origins: dict[str, str] = {}
        self.faults: list[AgentError] = []
        self._lines = _lines_of_keys(text)

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Go on behind what is wrong: whoever mends a file wants to know all of it at once."""
        try:
            yield
        except AgentError as fault:
            self.faults.append(fault)

    def place(self, setting: str) -> str:
        """Say where a setting or a table stands: its line, or that of what it is a part of."""
        for each in _and_above(setting):
            if each in self.origins and not self.origins[each].startswith(str(self.path)):
                return self.origins[each]
            if line := self._lines.get(each):
                return f"{self.path}:{line}"
        return str(self.path)

    def record_origin(self, setting: str, value: Any) -> None:
        """Remember where a setting stands, and each key of one that is a table."""
        self.origins[setting] = self.place(setting)
        for key in value if isinstance(value, dict) else ():
            self.origins[f"{setting}.{key}"] = self.place(f"{setting}.{key}")

    def overrule(self, setting: str, place: str) -> None:
        """Remember that a variable stands in place of what the file says."""
        for part in [each for each in self.origins if each.startswith(f"{setting}.")]:
            del self.origins[part]
        self.origins[setting] = place


def _and_above(setting: str) -> Iterator[str]:
    """Yield a setting, what it is a part of, and so on.

    >>> list(_and_above("node.tags.rack"))
    ['node.tags.rack', 'node.tags', 'node']
    """
    while setting:
        yield setting
        setting = setting.rpartition(".")[0]


def _lines_of_keys(text: str) -> dict[str, int]:
    """Find the line of each table and key by their plain look; unusual spellings have none."""
    lines: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.split("\n"), start=1):
        if header := re.match(r"\s*\[\s*([\w.\"'-]+)\s*\]", line):
            table = header[1].replace('"', "").replace("'", "")
            lines.setdefault(table, number)
        elif key := re.match(r"\s*[\"']?([\w.-]+)[\"']?\s*=", line):
            lines.setdefault(f"{table}.{key[1]}" if table else key[1], number)
    return lines


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
        if len(data) > CONFIG_BYTES_MAX:
            raise AgentError(f"{path} is larger than a configuration can be", "", BAD_CONFIG)
        return data.decode("utf-8-sig")  # some editors begin with a mark of the order of bytes
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise AgentError(
            f"cannot read {path}: {_because(error)}",
            _how_to_be_read(error, path),
            BAD_CONFIG,
        ) from None


def _parse(text: str, path: Path) -> Tables:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        place = f"{path}:{line[1]}" if line else str(path)
        raise AgentError(
            f"{place}: not TOML: {error}",
            'texts stand in "quotes", tables begin with [name]; see https://toml.io',
            BAD_CONFIG,
        ) from None


def _check_names(tables: Tables, source: _SettingSource) -> None:
    """Note what is unknown as wrong and take it out, and the origin of what is known."""
    for name, table in list(tables.items()):
        known = False
        with source.noting():
            _check_known(name, (*SECTIONS, APPS), source.place(name))
            if not isinstance(table, dict):
                hint = f"write [{name}] above its keys"
                raise _bad(source.place(name), f"{name} is a table", hint)
            known = True
        if not known:
            del tables[name]
            continue
        for key, value in list(table.items()):
            known = False
            with source.noting():
                _check_key(name, key, value, source)
                known = True
            if not known:
                del table[key]


def _check_key(name: str, key: str, value: Any, source: _SettingSource) -> None:
    """Note the origin of a key of a table. Raises AgentError if there is none of this name."""
    setting = f"{name}.{key}"
    place = source.place(setting)
    if name != APPS:
        _check_known(key, _keys(SECTIONS[name]), place, name)
    elif isinstance(value, dict):
        _check_app(key, value, source)
    else:
        raise _bad(place, f"{setting} is a table", "write [apps.NAME]")
    source.record_origin(setting, value)


def _check_app(app: str, table: Tables, source: _SettingSource) -> None:
    """Note the origins of an app's keys; what is unknown is wrong, and taken out."""
    for key, value in list(table.items()):
        setting = f"{APPS}.{app}.{key}"
        with source.noting():
            try:
                _check_known(key, _keys(AppSettings), source.place(setting), f"{APPS}.{app}")
            except AgentError:
                del table[key]
                raise
        source.record_origin(setting, value)


def _check_known(name: str, known: Iterable[str], place: str, table: str = "") -> None:
    """Refuse an unknown table, or an unknown key of ``table``."""
    known = tuple(known)
    if name in known:
        return
    hint = did_you_mean(name, known) or f"known are: {', '.join(sorted(known))}"
    if table.startswith(f"{APPS}."):
        hint += f"; what the app itself is told stands in [{table}.{OPTIONS}]"
    what = f'unknown key "{name}" in [{table}]' if table else f'unknown table "{name}"'
    raise _bad(place, what, hint)


def _keys(kind: type[Section]) -> tuple[str, ...]:
    return kind.__struct_fields__


def typed_setting(setting: str, text: str) -> Any:
    """Return what a text means as the value of this setting. Raises AgentError."""
    section, key = setting.split(".")
    kind, source = SECTIONS[section], _SettingSource(Path(FLEET), "")
    value = _typed(text, get_type_hints(kind, include_extras=True)[key])
    _convert({key: value}, kind, section, source)
    if source.faults:
        raise source.faults[0]
    return value


def _lay_under(tables: Tables, fleet: Mapping[str, SetForFleet], source: _SettingSource) -> None:
    """Fill in what the covey has set and the file has not.

    What this version does not take is left out: it must not keep a device from starting.
    """
    for setting, given in fleet.items():
        section, key = setting.split(".")
        if key in tables.get(section, {}):
            continue
        with contextlib.suppress(AgentError):
            value = typed_setting(setting, given.text)
            tables.setdefault(section, {})[key] = value
            source.overrule(setting, f"{FLEET}, {given.scope}")


def _override(tables: Tables, environ: Mapping[str, str], source: _SettingSource) -> None:
    """Lay ``COVEY_SECTION__KEY`` variables over the tables."""
    for variable in sorted(environ):
        name = variable.removeprefix(ENVIRONMENT_PREFIX)
        if name == variable or ENVIRONMENT_SEPARATOR not in name:
            continue  # COVEY_DIR and other people's variables
        with source.noting():
            _lay_over(tables, variable, environ[variable], source)


def _lay_over(tables: Tables, variable: str, text: str, source: _SettingSource) -> None:
    """Put one variable in place of what the file says. Raises AgentError."""
    name = variable.removeprefix(ENVIRONMENT_PREFIX)
    section, key = name.lower().split(ENVIRONMENT_SEPARATOR, 1)
    place = f"environment variable {variable}"
    _check_known(section, (*SECTIONS, APPS), place)
    if section == APPS:
        app, separator, key = key.partition(ENVIRONMENT_SEPARATOR)
        if not separator or not key:
            raise _bad(place, "an app's setting has three parts", "COVEY_APPS__NAME__KEY")
        _lay_over_app(tables.setdefault(APPS, {}).setdefault(app, {}), app, key, text, place)
        source.overrule(f"{APPS}.{app}.{key.replace(ENVIRONMENT_SEPARATOR, '.')}", place)
    else:
        _check_known(key, _keys(SECTIONS[section]), place, section)
        hint = get_type_hints(SECTIONS[section])[key]
        tables.setdefault(section, {})[key] = _typed(text, hint)
        source.overrule(f"{section}.{key}", place)


def _lay_over_app(table: Tables, app: str, key: str, text: str, place: str) -> None:
    """Put a variable into an app's table, or into that of its options. Raises AgentError."""
    key, _, option = key.partition(ENVIRONMENT_SEPARATOR)
    if key == OPTIONS and option:
        table.setdefault(OPTIONS, {})[option] = literal(text)
        return
    _check_known(key, _keys(AppSettings), place, f"{APPS}.{app}")
    table[key] = _typed(text, get_type_hints(AppSettings)[key])


def ineffective(environ: Mapping[str, str]) -> dict[str, str]:
    """Return variables that set nothing for want of an underscore, and how they are spelled.

    >>> ineffective({"COVEY_UPLINK_HOST": "broker.lan", "COVEY_DIR": "/tmp/a"})
    {'COVEY_UPLINK_HOST': 'COVEY_UPLINK__HOST'}
    """
    meant = {
        f"{ENVIRONMENT_PREFIX}{section}_{key}".upper(): (section, key)
        for section, kind in SECTIONS.items()
        for key in _keys(kind)
    }
    return {
        variable: ENVIRONMENT_PREFIX + ENVIRONMENT_SEPARATOR.join(meant[variable]).upper()
        for variable in sorted(environ)
        if variable in meant
    }


def _typed(text: str, hint: Any) -> Any:
    """Read a variable for a setting of this type; what does not fit is found by ``_convert``."""
    if hint is str:
        return text
    value = literal(text)
    if get_origin(hint) is list and isinstance(value, str):
        return [part.strip() for part in text.split(",") if part.strip()]
    if get_origin(hint) is dict and isinstance(value, str):
        parts = [part.strip() for part in text.split(",") if part.strip()]
        return (
            dict(part.partition("=")[::2] for part in parts) if all(map(_is_pair, parts)) else text
        )
    try:
        return msgspec.convert(text, hint, strict=False)
    except msgspec.ValidationError:
        return value


def _is_pair(text: str) -> bool:
    return text.partition("=")[1] == "=" and not text.startswith("=")


def literal(text: str) -> Any:
    """Return a TOML value; what is none is a text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _app(name: str, table: Tables, source: _SettingSource) -> AppSettings:
    setting = f"{APPS}.{name}"
    path = table.get("path")
    if isinstance(path, str) and path and not expanded(path).is_absolute():
        hint = f"write where it begins, such as {Path(path).absolute()}"
        place = source.place(f"{setting}.path")
        source.faults.append(_bad(place, f"{setting}.path: {path} is relative", hint))
    app: AppSettings = _convert(table, AppSettings, setting, source)
    return app


def _convert(table: Tables, kind: type[Section], name: str, source: _SettingSource) -> Any:
    """Fill a struct; what is wrong is noted with the setting and where it was set, and left out."""
    good: Tables = {}
    for key, hint in get_type_hints(kind, include_extras=True).items():
        if key in table:
            with source.noting():
                _check_kind(table[key], hint, f"{name}.{key}", source)
                good[key] = table[key]
    try:
        return msgspec.convert(good, kind)
    except msgspec.ValidationError as error:  # from __post_init__: the setting's name, the problem
        key, colon, problem = str(error).partition(": ")
        setting = f"{name}.{key}" if colon else name
        source.faults.append(
            _bad(source.place(setting), f"{setting}: {problem or key}", CORRECT_IT)
        )
        return kind()


def _check_kind(value: Any, hint: Any, setting: str, source: _SettingSource) -> None:
    """Refuse a value that is no such thing as the setting takes, or has such a key."""
    if get_origin(hint) is dict and isinstance(value, dict):
        of_each = get_args(hint)[1]
        for key, part in value.items():
            _check_kind(part, of_each, f"{setting}.{key}", source)
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError:
        close = did_you_mean(value, choices(hint)) if isinstance(value, str) else ""
        told = f"{setting}: {shown(value)} is not {takes(hint)}"
        raise _bad(source.place(setting), told, close or CORRECT_IT) from None


def _because(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"its byte {error.start} is no UTF-8"
    return error.strerror or type(error).__name__


def _how_to_be_read(error: OSError | UnicodeDecodeError, path: Path) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "save it as UTF-8"
    if isinstance(error, PermissionError):
        file = shlex.quote(str(path))
        give = f"`sudo chgrp covey {file} && sudo chmod 640 {file}`"
        return f"run as its owner; where the service is to read it, {give}"
    return "check the path: it has to be a file"


def _bad(place: str, message: str, hint: str) -> AgentError:
    return AgentError(f"{place}: {message}", hint, BAD_CONFIG)
