"""Finds an app by its name: in the configuration, among the built-in ones, or installed.

An app's name is looked up in this order, the first that applies:

1. ``path = "/home/pi/door.py"`` or ``module = "door.app"`` in ``[apps.NAME]``;
2. the apps that come with Covey, in ``edge_apps/builtin/``;
3. the entry-point group ``covey.apps`` of the packages installed beside Covey::

       [project.entry-points."covey.apps"]
       door = "door.app:app"

In a module or file, the app is the attribute ``app``, unless the name after a colon says
otherwise (``module = "door.app:back_door"``).
"""

import importlib.util
from collections.abc import Mapping
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from edge_apps import builtin
from edge_apps.app import App
from edge_apps.homes import expanded
from gossip.core.errors import CoveyError
from gossip.core.names import is_name

ENTRY_POINT_GROUP = "covey.apps"
ATTRIBUTE = "app"
PATH_OPTION, MODULE_OPTION = "path", "module"


class AppNotFound(CoveyError):
    """No app under that name, or what stands there is none; the message says where it looked."""


def available() -> tuple[str, ...]:
    """Return the names of the apps that need no configuration, sorted."""
    return tuple(sorted({*builtin.NAMES, *installed()}))


def installed() -> dict[str, str]:
    """Return the apps of the packages beside Covey, with the versions of these packages.

    What a package calls by something that is no name is left out.
    """
    points = [each for each in metadata.entry_points(group=ENTRY_POINT_GROUP) if is_name(each.name)]
    return {point.name: point.dist.version if point.dist else "" for point in points}


def find(name: str, options: Mapping[str, Any]) -> App:
    """Return the app called ``name``. Raises AppNotFound, and what its module raises."""
    if path := options.get(PATH_OPTION):
        return _app_in(_load(name, expanded(path)), ATTRIBUTE, str(path))
    if module := options.get(MODULE_OPTION):
        return _from_module(str(module))
    if name in builtin.NAMES:
        return _from_module(f"edge_apps.builtin.{name}")
    for point in metadata.entry_points(group=ENTRY_POINT_GROUP, name=name):
        return _from_module(point.value)
    raise AppNotFound(
        f"no app is called {name!r}; there are {', '.join(available())}, and what [apps.NAME] "
        "names with path or module"
    )


def _from_module(reference: str) -> App:
    module, _, attribute = reference.partition(":")
    return _app_in(import_module(module), attribute or ATTRIBUTE, module)


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"covey_app_{name}", path)
    try:
        is_file = path.is_file()
        if is_file:
            path.open("rb").close()
    except OSError as error:  # what its own code raises is another matter, with a stack
        raise AppNotFound(
            f"cannot read {path}: {error.strerror}; whoever runs the app has to be able to: "
            f"correct path in [apps.{name}], or the rights of the file and its directories"
        ) from None
    if spec is None or spec.loader is None or not is_file:
        raise AppNotFound(f"{path} is no Python file; correct path in [apps.{name}]")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _app_in(module: ModuleType, attribute: str, place: str) -> App:
    found = getattr(module, attribute, None)
    if not isinstance(found, App):
        raise AppNotFound(f"{place} has no App called {attribute}; write {attribute} = App(...)")
    return found
