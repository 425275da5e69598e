"""Settings for the fleet: keys of the control plane under one reserved prefix, by scope.

A setting is set for all devices, for those with a tag, or for one device by its name. The narrower
scope wins; of two tags that one device has, the one that comes later by its letters, so that every
reader comes to the same. What a setting's name and text mean is known where settings are known, in
the agent's configuration: whoever sets one passes a ``check``, and whoever reads one checks again,
since it may have been set by another version.
"""

from collections.abc import Callable, Iterable, Mapping
from urllib.parse import quote, unquote

import msgspec

from gossip.control.keys import KeyEntry
from gossip.control.transactions import DeleteKey, PutKey, check_operation
from gossip.core.errors import InvalidRequest

RESERVED_PREFIX = "covey/"
"""Keys that Covey itself gives a meaning; they are set by commands of their own."""
ACCESS_PREFIX = f"{RESERVED_PREFIX}access/"
"""Who may use the API; what is written there, the agent knows (``agent/access``)."""
SETTINGS_PREFIX = f"{RESERVED_PREFIX}settings/"

FOR_ALL = "all"
TAG, NODE = "tag:", "node:"
"""How the other scopes begin: ``tag:site=barn``, ``node:pi-1``."""

CheckSetting = Callable[[str, str], None]
"""Takes a setting's name and its text. Raises InvalidRequest, which says what would be right."""


class FleetSetting(msgspec.Struct, frozen=True):
    """A setting as it is to be on a device, with where that comes from."""

    name: str
    text: str
    scope: str
    revision: int


def check_scope(scope: str) -> None:
    """Raise InvalidRequest unless this is a scope."""
    name, has_equals, value = scope.removeprefix(TAG).partition("=")
    is_tag = scope.startswith(TAG) and bool(name and has_equals and value)
    is_node = scope.startswith(NODE) and scope != NODE
    if not (scope == FOR_ALL or is_tag or is_node):
        raise InvalidRequest(f"`{scope}` is no scope: use all, tag:NAME=VALUE or node:NAME")


def setting_key(scope: str, name: str) -> str:
    """Return the key under which a setting is kept. Raises InvalidRequest."""
    check_scope(scope)
    if not name:
        raise InvalidRequest("which setting? Its name is missing")
    return f"{SETTINGS_PREFIX}{quote(scope, safe=':=')}/{quote(name, safe='')}"


def parse_setting_key(key: str) -> tuple[str, str] | None:
    """Return the scope and the name of a setting; None for any other key.

    >>> parse_setting_key(setting_key("tag:site=barn/left", "probe.interval"))
    ('tag:site=barn/left', 'probe.interval')
    """
    scope, _, name = key.removeprefix(SETTINGS_PREFIX).partition("/")
    if not key.startswith(SETTINGS_PREFIX) or not name:
        return None
    return unquote(scope), unquote(name)


def put_setting(scope: str, name: str, text: str, check: CheckSetting) -> PutKey:
    """Return the operation that sets a setting. Raises InvalidRequest, also that of ``check``."""
    check(name, text)
    operation = PutKey(setting_key(scope, name), text.encode())
    check_operation(operation)
    return operation


def delete_setting(scope: str, name: str) -> DeleteKey:
    """Return the operation that takes a setting back. Raises InvalidRequest."""
    return DeleteKey(setting_key(scope, name))


def listed_settings(entries: Iterable[KeyEntry]) -> list[FleetSetting]:
    """Return the settings among these keys, in the order of the keys."""
    return [
        FleetSetting(parsed[1], entry.value.decode(errors="replace"), parsed[0], entry.modified)
        for entry in entries
        if (parsed := parse_setting_key(entry.key)) is not None
    ]


def effective_settings(
    entries: Iterable[KeyEntry], node_name: str, tags: Mapping[str, str]
) -> dict[str, FleetSetting]:
    """Return what holds on one device, by name, with the scope that each setting comes from."""
    own = {f"{TAG}{name}={value}" for name, value in tags.items()}
    order = (FOR_ALL, *sorted(own), f"{NODE}{node_name}")
    rank = {scope: place for place, scope in enumerate(order)}
    mine = [each for each in listed_settings(entries) if each.scope in rank]
    return {each.name: each for each in sorted(mine, key=lambda each: rank[each.scope])}
