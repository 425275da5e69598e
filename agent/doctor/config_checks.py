"""What can be wrong with a configuration that reads well: files, commands, apps that are not there.

``agent/config/loader.py`` refuses what no agent could use; this looks at the machine as well. It is
run by ``covey config check`` and the doctor, not at the start: a file may come later, with a mount.
"""

import importlib.util
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from agent.config.credentials import VARIABLE, file_at, is_credential
from agent.config.loader import APPS, Config, ineffective
from agent.config.paths import Paths
from agent.config.settings import AppSettings
from agent.exits import AgentError
from agent.installation.extras import install_command
from agent.store.value_keys import read_key
from agent.text.suggestions import did_you_mean
from edge_apps.homes import expanded

FILE_SUFFIX = "_file"
HIDDEN = (Path("/home"), Path("/root"), Path("/run/user"))
"""What ProtectHome=yes hides (systemd.exec(5))."""
MADE_WHEN_MISSING = frozenset({"api.token_file", "api.metrics_token_file"})


class Problem(NamedTuple):
    """One thing that is wrong, and what to do about it."""

    message: str
    hint: str


def in_few_words(config: Config, paths: Paths) -> str:
    """Say of a configuration in which nothing is wrong where it comes from."""
    if paths.config_file.exists():
        return f"{paths.config_file} is good"
    says = f"{paths.config_file} does not exist: "
    if not config.origins:
        return says + "all settings have their defaults"
    return f"{says}what environment variables do not set has its default"


def problems(
    config: Config, environ: Mapping[str, str], *, of_service: bool = False
) -> Iterator[Problem]:
    """Look at everything that the configuration names.

    ``of_service`` says that the service reads it, which sees no home directories.
    """
    for variable, right in ineffective(environ).items():
        hint = f"write {right}, with two underscores behind the table's name"
        yield Problem(f"environment variable {variable} sets nothing", hint)
    yield from _files(config, environ)
    yield from _value_keys(config, environ)
    yield from _commands(config)
    for name, settings in sorted(config.apps.items()):
        yield from _app(config, name, settings)
    yield from _templates(config)
    if of_service:
        yield from _hidden(config)


def is_hidden(path: Path) -> bool:
    """Say whether a path is one that the service does not see: ProtectHome= in its unit."""
    return any(path.is_relative_to(each) for each in HIDDEN)


def _hidden(config: Config) -> Iterator[Problem]:
    named = {k: v for k, v in config.values().items() if k.endswith((FILE_SUFFIX, ".path"))}
    for name, value in named.items():
        if is_hidden(expanded(str(value))):
            message = f"the service does not see home directories, and {value} is in one"
            yield _problem(config, name, message, "put it elsewhere, in /etc/covey for example")


def _value_keys(config: Config, environ: Mapping[str, str]) -> Iterator[Problem]:
    """Look at the keys of values at rest: without a usable one the agent does not start."""
    for text in filter(None, (config.storage.key_file, *config.storage.former_key_files)):
        if is_credential(text) and VARIABLE not in environ:
            continue  # as in _files
        path = file_at(text, environ)
        if text == config.storage.key_file and _unreadable(path):
            continue  # _files has said so
        try:
            read_key(path)
        except AgentError as error:
            yield Problem(error.message, error.hint)


def _files(config: Config, environ: Mapping[str, str]) -> Iterator[Problem]:
    for name, value in config.values().items():
        if not name.endswith(FILE_SUFFIX) or not value or name in MADE_WHEN_MISSING:
            continue
        if name.startswith(f"{APPS}."):
            continue  # an app's own option, which may mean something else
        if is_credential(value) and VARIABLE not in environ:
            continue  # it is there while the service runs, and this is not the service
        if trouble := _unreadable(file_at(value, environ)):
            yield _problem(config, name, trouble, "correct the path, or the rights of the file")


def _commands(config: Config) -> Iterator[Problem]:
    for section, settings in (("events", config.events), ("queries", config.queries)):
        for event, command in settings.handlers.items():
            if shutil.which(command[0]) is None:
                message = f"there is no command {command[0]!r}"
                hint = "install it, or write its whole path; it has to be executable"
                yield _problem(config, f"{section}.handlers.{event}", message, hint)


def _app(config: Config, name: str, settings: AppSettings) -> Iterator[Problem]:
    from edge_apps.loader import available

    place = f"{APPS}.{name}"
    if settings.path:
        if trouble := _unreadable(expanded(settings.path)):
            hint = f"`covey app new {name}` writes an app, `covey app try FILE` tries it"
            yield _problem(config, f"{place}.path", trouble, hint)
    elif module := settings.module:
        top = module.partition(":")[0].partition(".")[0]
        if importlib.util.find_spec(top) is None:
            hint = f"install it beside Covey: `{install_command(top)}`"
            message = f"no module {top!r} is installed"
            yield _problem(config, f"{place}.module", message, hint)
    elif name not in (known := available()):
        hint = did_you_mean(name, known, "a program of your own needs path or module")
        yield _problem(config, place, f"no app is called {name!r}", hint)


def _templates(config: Config) -> Iterator[Problem]:
    from agent.telemetry.uplink.template import Template, TemplateContext

    where = TemplateContext("covey", "node", "id")
    for key, payload in (("topic", ""), ("payload", config.uplink.payload)):
        try:
            Template(config.uplink.topic, payload, where)
        except AgentError as error:
            message = error.message[:1].lower() + error.message[1:]
            yield Problem(f"{config.origin(f'uplink.{key}')}: {message}", error.hint)
            return


def _unreadable(path: Path) -> str:
    """Say why a file cannot be read; empty if it can."""
    try:
        with path.open("rb"):
            return ""
    except OSError as error:
        return f"cannot read {path}: {error.strerror}"


def _problem(config: Config, name: str, message: str, hint: str) -> Problem:
    return Problem(f"{config.origin(name)}: {name}: {message}", hint)
