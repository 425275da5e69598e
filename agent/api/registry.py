"""Routes about the registry itself: its epoch, who signs it, and what to do when it has forked."""

from typing import Any

from agent.api.interfaces import AgentServices
from agent.http.request import Request
from agent.http.response import JSONResponse, Response
from gossip.core.ids import format_node_id


async def show(request: Request) -> Response:
    """Answer with the registry that this node follows; ``fork`` names its rival, if it has one."""
    agent: AgentServices = request.app.state.agent
    registry, rival = agent.registry, agent.rival
    return JSONResponse(
        {
            "epoch": registry.epoch,
            "nodes": len(registry.nodes),
            "issuers": issuers(agent),
            "removed": [
                {"id": format_node_id(gone.id), "name": gone.name, "epoch": gone.epoch}
                for gone in registry.removed
            ],
            "fork": None if rival is None else {"epoch": rival.epoch, "nodes": len(rival.nodes)},
        }
    )


async def mend(request: Request) -> Response:
    """End a fork: have a registry signed that follows both."""
    agent: AgentServices = request.app.state.agent
    return JSONResponse({"epoch": await agent.admission.mend()})


def issuers(agent: AgentServices) -> list[dict[str, Any]]:
    """Return who may sign the registry, and how each of them is."""
    return [
        {
            "id": format_node_id(entry.id),
            "name": entry.name,
            "state": None if (known := agent.members.get(entry.id)) is None else known.state.value,
        }
        for entry in agent.registry.nodes
        if entry.is_issuer
    ]


ROUTES = (
    ("GET", "/api/v1/registry", show),
    ("POST", "/api/v1/registry/mend", mend),
)
