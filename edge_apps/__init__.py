"""What an app is written with, and the apps that come with Covey.

    from edge_apps import App, Context

    app = App("greenhouse")

    @app.every("5s")
    def sample(context: Context) -> None:
        context.publish("greenhouse/temperature", 21.5, unit="C")

The names below are the whole SDK; ``docs/apps.md`` is its tutorial. They are imported when
first used, because the command line imports ``edge_apps.client`` on its way to every answer
and has no use for the rest.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_apps.agreement import Compare, Delete, Get, Put
    from edge_apps.app import App, Context, Event, Kv, Query
    from edge_apps.barriers import Barrier
    from edge_apps.client import AgentTimedOut, AgentUnreachable, ApiError, Client, ClientError
    from edge_apps.locks import Lock, NotHeld
    from edge_apps.reading import Reading
    from edge_apps.runner import run

__all__ = [
    "AgentTimedOut",
    "AgentUnreachable",
    "ApiError",
    "App",
    "Barrier",
    "Client",
    "ClientError",
    "Compare",
    "Context",
    "Delete",
    "Event",
    "Get",
    "Kv",
    "Lock",
    "NotHeld",
    "Put",
    "Query",
    "Reading",
    "run",
]

_HOMES = {
    "edge_apps.client": {"AgentTimedOut", "AgentUnreachable", "ApiError", "Client", "ClientError"},
    "edge_apps.agreement": {"Compare", "Delete", "Get", "Put"},
    "edge_apps.barriers": {"Barrier"},
    "edge_apps.locks": {"Lock", "NotHeld"},
    "edge_apps.reading": {"Reading"},
    "edge_apps.app": {"App", "Context", "Event", "Kv", "Query"},
    "edge_apps.runner": {"run"},
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'edge_apps' has no attribute {name!r}")
