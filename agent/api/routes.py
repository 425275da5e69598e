"""All routes of the HTTP API: which file answers each of them, and from which stage on.

``docs/api.md`` is the reference; a test compares it with the table below, and the table with the
files. A file is loaded when one of its routes is asked for: most agents are asked how they are and
who is there, and the other files would take 0.3 MiB of each.
"""

from functools import cache
from importlib import import_module
from typing import NamedTuple

from agent.http.application import Handler
from agent.http.request import Request
from agent.http.response import Response
from agent.loop.late import load
from agent.readiness import Stage


class Room(NamedTuple):
    """The routes of one file, and the stage from which on an agent can serve them."""

    file: str
    stage: Stage
    lines: tuple[str, ...]

    @property
    def module(self) -> str:
        """The name by which the file is imported."""
        return f"agent.api.{self.file}"

    @property
    def routes(self) -> list[tuple[str, str]]:
        """Methods with their paths."""
        return [(method, path) for method, path in map(str.split, self.lines)]


ROOMS = (
    Room("status", Stage.WAITING,
        ("GET /healthz", "GET /metrics", "GET /api/v1/status", "GET /api/v1/config")),
    Room("membership", Stage.WAITING,
        ("POST /api/v1/init", "POST /api/v1/join", "POST /api/v1/leave")),
    Room("doctor", Stage.WAITING,
        ("GET /api/v1/doctor",)),
    Room("readings", Stage.KEEPING,
        ("POST /api/v1/readings", "GET /api/v1/readings", "GET /api/v1/outbox")),
    Room("dead_letters", Stage.KEEPING,
        ("GET /api/v1/dead-letters", "POST /api/v1/dead-letters/replay",
         "DELETE /api/v1/dead-letters")),
    Room("influx", Stage.KEEPING,
        ("POST /api/v1/write", "POST /write", "POST /api/v2/write", "GET /ping", "GET /health",
         "POST /query")),
    Room("uplink", Stage.KEEPING,
        ("POST /api/v1/uplink/test",)),
    Room("apps", Stage.KEEPING,
        ("GET /api/v1/apps", "POST /api/v1/apps/{name}/start", "POST /api/v1/apps/{name}/stop",
         "GET /api/v1/apps/{name}/log")),
    Room("access", Stage.MEMBER,
        ("POST /api/v1/access", "GET /api/v1/access", "GET /api/v1/authority",
         "DELETE /api/v1/access/{name}")),
    Room("audit", Stage.WAITING,
        ("GET /api/v1/audit",)),
    Room("members", Stage.MEMBER,
        ("GET /api/v1/members", "GET /api/v1/members/{name}")),
    Room("tokens", Stage.MEMBER,
        ("POST /api/v1/tokens", "GET /api/v1/tokens", "DELETE /api/v1/tokens/{id}",
         "POST /api/v1/members/{name}/rights", "DELETE /api/v1/members/{name}")),
    Room("registry", Stage.MEMBER,
        ("GET /api/v1/registry", "POST /api/v1/registry/mend")),
    Room("facts", Stage.MEMBER,
        ("GET /api/v1/facts", "POST /api/v1/facts")),
    Room("sleep", Stage.MEMBER,
        ("POST /api/v1/sleep", "POST /api/v1/wake")),
    Room("rtt", Stage.MEMBER,
        ("GET /api/v1/rtt",)),
    Room("kv", Stage.MEMBER,
        ("GET /api/v1/kv", "GET /api/v1/kv/{key:key}", "PUT /api/v1/kv/{key:key}",
         "POST /api/v1/kv/{key:key}", "DELETE /api/v1/kv/{key:key}", "GET /api/v1/watch",
         "POST /api/v1/watch")),
    Room("kv_spaces", Stage.MEMBER,
        ("GET /api/v1/kv-spaces", "POST /api/v1/kv-spaces/{name}",
         "DELETE /api/v1/kv-spaces/{name}")),
    Room("kv_owners", Stage.MEMBER,
        ("POST /api/v1/kv-owners/{name}",)),
    Room("kv_batch", Stage.MEMBER,
        ("POST /api/v1/kv/batch",)),
    Room("kv_stream", Stage.MEMBER,
        ("GET /api/v1/kv/stream",)),
    Room("files", Stage.MEMBER,
        ("GET /api/v1/files", "GET /api/v1/files/{name:key}", "PUT /api/v1/files/{name:key}",
         "POST /api/v1/files/{name:key}", "DELETE /api/v1/files/{name:key}",
         "GET /api/v1/file-stat/{name:key}", "GET /api/v1/file-uploads")),
    Room("kv_stats", Stage.MEMBER,
        ("GET /api/v1/kv-stats",)),
    Room("kv_why", Stage.MEMBER,
        ("GET /api/v1/kv-why/{key:key}",)),
    Room("ring", Stage.MEMBER,
        ("GET /api/v1/ring", "GET /api/v1/ring/plan")),
    Room("ring_status", Stage.MEMBER,
        ("GET /api/v1/ring/status",)),
    Room("nodes", Stage.MEMBER,
        ("GET /api/v1/nodes/{name}", "POST /api/v1/nodes/{name}")),
    Room("agreement", Stage.MEMBER,
        ("POST /api/v1/txn", "GET /api/v1/control", "GET /api/v1/control/{key:key}",
         "GET /api/v1/changes")),
    Room("locks", Stage.MEMBER,
        ("POST /api/v1/sessions", "GET /api/v1/sessions", "PUT /api/v1/sessions/{session}",
         "DELETE /api/v1/sessions/{session}", "GET /api/v1/locks",
         "GET /api/v1/locks/{name:key}", "PUT /api/v1/locks/{name:key}",
         "PATCH /api/v1/locks/{name:key}", "DELETE /api/v1/locks/{name:key}")),
    Room("barriers", Stage.MEMBER,
        ("GET /api/v1/barriers", "PUT /api/v1/barriers/{name:key}",
         "DELETE /api/v1/barriers/{name:key}")),
    Room("voters", Stage.MEMBER,
        ("GET /api/v1/voters", "POST /api/v1/voters")),
    Room("recovery", Stage.MEMBER,
        ("GET /api/v1/copies", "POST /api/v1/recovery", "GET /api/v1/snapshot",
         "PUT /api/v1/snapshot")),
    Room("backup", Stage.MEMBER,
        ("GET /api/v1/backup", "PUT /api/v1/backup")),
    Room("settings", Stage.MEMBER,
        ("GET /api/v1/settings", "POST /api/v1/settings")),
    Room("events", Stage.MEMBER,
        ("POST /api/v1/events", "GET /api/v1/events", "POST /api/v1/queries",
         "GET /api/v1/queries", "POST /api/v1/queries/{id}/answer")),
    Room("keys", Stage.MEMBER,
        ("GET /api/v1/keys", "POST /api/v1/keys/rotate", "POST /api/v1/keys/authority")),
)  # fmt: skip

ROUTES = tuple(route for room in ROOMS for route in room.routes)
"""Methods with their paths, in the order in which a request is compared with them."""


def late(module: str, route: tuple[str, str]) -> Handler:
    """Return a handler that loads the file that has the right one."""
    found: list[Handler] = []

    async def answer(request: Request) -> Response:
        if not found:
            await load(module)
            found.append(handlers_in(module)[route])
        return await found[0](request)

    return answer


@cache
def handlers_in(module: str) -> dict[tuple[str, str], Handler]:
    """Return who answers which method of which path; loads the file."""
    return {(method, path): handler for method, path, handler in import_module(module).ROUTES}
