"""Shared keys as people type them: ``device/ash/mode`` means the key in the home of the node ash.

A home goes by its device's id, which stays when a node is called otherwise. So the name is replaced
here, once and aloud, and what the agent is asked is the key itself.
"""

from typing import Any

import click

from edge_apps.client import ApiError

DEVICE, NOT_FOUND = "device/", "not-found"
ID_DIGITS = frozenset("0123456789abcdef")
ID_CHARACTERS = 16


class DeviceKey(click.ParamType[str]):
    """A shared key, or what some begin with."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the key with the id of the device that it names."""
        del param
        key = str(value)
        name, slash, rest = key.removeprefix(DEVICE).partition("/")
        is_id = len(name) == ID_CHARACTERS and ID_DIGITS.issuperset(name)
        if ctx is None or not key.startswith(DEVICE) or not slash or is_id:
            return key
        from gossip.core.names import is_name  # most keys are no device's

        if not is_name(name):
            return key
        try:
            node = ctx.obj.client().get(f"/api/v1/nodes/{name}")["id"]
        except ApiError as error:
            if error.code != NOT_FOUND:
                raise
            return key
        ctx.obj.say(f"{DEVICE}{name}/ is {DEVICE}{node}/.")
        return f"{DEVICE}{node}/{rest}"


KEY = DeviceKey()
