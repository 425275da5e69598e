"""Routes about the agent as a whole: health, metrics, status, configuration."""

import asyncio
import platform
from collections import Counter
from importlib import import_module
from typing import Any

import msgspec

from agent._version import __version__
from agent.api.interfaces import AgentServices
from agent.api.members import absentees, draining, missing
from agent.api.registry import issuers
from agent.config.loader import Config
from agent.http.request import Request
from agent.http.response import JSONResponse, Response
from agent.metrics import CONTENT_TYPE, Metrics
from agent.readiness import Stage
from gossip.core.ids import format_cluster_id, format_node_id

NOTHING_KEPT = dict.fromkeys(("cluster", "node", "outbox", "uplink", "apps", "flash"))
NOTHING_SEEN = dict.fromkeys(
    ("members", "absent", "missing", "draining", "epoch", "issuers", "moving", "agreement")
)


async def healthz(request: Request) -> Response:
    """Answer 200 when the agent does its work, else 503 with the reasons.

    What the disk lost does not keep it from its work, and is said beside.
    """
    agent: AgentServices = request.app.state.agent
    reasons, losses = list(agent.not_ready()), list(agent.losses())
    answer = {"ready": not reasons, "reasons": reasons, "losses": losses}
    return JSONResponse(answer, 503 if reasons else 200)


async def metrics(request: Request) -> Response:
    """Answer with the metrics in Prometheus' text format."""
    shown: Metrics = request.app.state.agent.metrics
    # In a thread: it takes long, and what would be late meanwhile are the pings.
    await asyncio.to_thread(import_module, "prometheus_client")
    return Response(shown.render(), headers={"Content-Type": CONTENT_TYPE})


async def status(request: Request) -> Response:
    """Answer with what ``covey status`` shows; what the agent has not come to yet is null."""
    agent: AgentServices = request.app.state.agent
    reasons = list(agent.not_ready())
    return JSONResponse(
        {
            "configuration": _unapplied(agent),
            "ready": not reasons,
            "reasons": reasons,
            "losses": list(agent.losses()),
            "advice": agent.advice,
            "stage": agent.stage.word,
            "version": __version__,
            "python": platform.python_version(),
            "uptime_s": round(agent.uptime_s, 3),
            **(await _kept(agent) if agent.stage >= Stage.KEEPING else NOTHING_KEPT),
            **(_seen(agent) if agent.stage >= Stage.MEMBER else NOTHING_SEEN),
        }
    )


async def _kept(agent: AgentServices) -> dict[str, Any]:
    """Return who this node is, and what it keeps."""
    me = agent.identity
    return {
        "cluster": {"id": format_cluster_id(me.cluster_id), "name": me.cluster_name},
        "node": {
            "id": format_node_id(me.node_id),
            "name": me.node_name,
            "boot": f"{agent.boot:016x}",
            "issuer": me.is_issuer,
        },
        "outbox": msgspec.to_builtins(agent.telemetry.stats()),
        "uplink": msgspec.to_builtins(agent.uplink.status()),
        "flash": agent.flash.report()._asdict(),
        "apps": dict(Counter(app.state for app in await agent.apps.list())),
    }


def _seen(agent: AgentServices) -> dict[str, Any]:
    """Return how this node takes part."""
    return {
        "members": agent.members.count_by_state(),
        "absent": absentees(agent),
        "missing": missing(agent),
        "draining": draining(agent),
        "epoch": agent.registry.epoch,
        "issuers": issuers(agent),
        "moving": agent.registry.count_moving(),
        "agreement": _agreement(agent),
    }


def _agreement(agent: AgentServices) -> dict[str, Any]:
    """Return this node's part in what the covey agrees on; nobody is asked for it.

    A node that does not vote hears of a lost majority only when it wants something: null there.
    """
    status = agent.agreement.status()
    is_copy = status.role == "copy"
    return {
        "role": status.role,
        "applied": status.applied_index,
        "voters": len(status.voters),
        "has_majority": None if is_copy and not status.has_majority else status.has_majority,
        "generation": status.generation,
        "forks": len(status.forks),
    }


async def config(request: Request) -> Response:
    """Answer with each setting and where it was set; secrets are files, so none is shown."""
    agent: AgentServices = request.app.state.agent
    settings = settings_with_origins(agent.config)
    return JSONResponse({"settings": settings, **_unapplied(agent)})


def _unapplied(agent: AgentServices) -> dict[str, Any]:
    """Return which settings a restart would change, and what would keep it from starting."""
    changed, problem = agent.unapplied()
    return {"changed": changed, "problem": problem}


def settings_with_origins(settings: Config) -> list[dict[str, Any]]:
    """Return each setting as an object with ``setting``, ``value`` and ``origin``."""
    return [
        {"setting": name, "value": value, "origin": settings.origin(name)}
        for name, value in settings.shown().items()
    ]


ROUTES = (
    ("GET", "/healthz", healthz),
    ("GET", "/metrics", metrics),
    ("GET", "/api/v1/status", status),
    ("GET", "/api/v1/config", config),
)
