"""Routes about the agent as a whole: health, metrics, status, configuration, goodbye."""

import platform
import time
from collections import Counter
from typing import Any

import msgspec
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent._version import __version__
from agent.api.facade import AgentFacade
from agent.config import Config
from agent.gauges import member_counts
from agent.metrics import CONTENT_TYPE
from gossip.ids import format_cluster_id, format_node_id


async def healthz(request: Request) -> Response:
    """Answer 200 when the agent does its work, else 503 with the reasons."""
    reasons = list(request.app.state.agent.not_ready())
    return JSONResponse({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)


async def metrics(request: Request) -> Response:
    """Answer with the metrics in Prometheus' text format."""
    return Response(
        request.app.state.agent.metrics.render(), headers={"Content-Type": CONTENT_TYPE}
    )


async def status(request: Request) -> Response:
    """Answer with what ``covey status`` shows."""
    agent: AgentFacade = request.app.state.agent
    reasons = list(agent.not_ready())
    return JSONResponse(
        {
            "ready": not reasons,
            "reasons": reasons,
            "version": __version__,
            "python": platform.python_version(),
            "cluster": {
                "id": format_cluster_id(agent.identity.cluster_id),
                "name": agent.identity.cluster_name,
            },
            "node": {
                "id": format_node_id(agent.identity.node_id),
                "name": agent.identity.node_name,
                "boot": f"{agent.boot:016x}",
                "issuer": agent.identity.is_issuer,
            },
            "uptime_s": round(max(0.0, time.time() - agent.started_at), 3),
            "members": member_counts(agent),
            "epoch": agent.registry.epoch,
            "outbox": msgspec.to_builtins(agent.telemetry.stats()),
            "uplink": msgspec.to_builtins(agent.uplink.status()),
            "apps": dict(Counter(app.state for app in await agent.apps.list())),
        }
    )


async def config(request: Request) -> Response:
    """Answer with each setting and where it was set; secrets are files, so none is shown."""
    settings: Config = request.app.state.agent.config
    return JSONResponse({"settings": settings_with_origins(settings)})


async def leave(request: Request) -> Response:
    """Answer, and then let the agent say goodbye and stop."""
    agent: AgentFacade = request.app.state.agent
    return JSONResponse({"leaving": True}, 202, background=BackgroundTask(agent.leave))


def settings_with_origins(settings: Config) -> list[dict[str, Any]]:
    """Return each setting as an object with ``setting``, ``value`` and ``origin``."""
    return [
        {"setting": name, "value": value, "origin": settings.origin(name)}
        for name, value in settings.values().items()
    ]


ROUTES = (
    ("GET", "/healthz", healthz),
    ("GET", "/metrics", metrics),
    ("GET", "/api/v1/status", status),
    ("GET", "/api/v1/config", config),
    ("POST", "/api/v1/leave", leave),
)
