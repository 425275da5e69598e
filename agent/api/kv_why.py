"""The route that tells why a key reads as it does: what each of its owners has of it."""

from collections.abc import Iterable
from typing import Any

from agent.api.interfaces import AgentServices
from agent.api.name_scope import check_shared_key
from agent.api.ring import node_of
from agent.cluster.kv_messages import KeyView, VersionView
from agent.cluster.kv_why import KeyReport
from agent.http.request import Request
from agent.http.response import JSONResponse, Response
from gossip.core.ids import NodeId
from gossip.kv.dots import Dot
from gossip.kv.takeover import goal


async def show_why(request: Request) -> Response:
    """Answer with the owners of a key, and what each of them has of it; values are not shown."""
    agent: AgentServices = request.app.state.agent
    key: str = request.path_params["key"]
    check_shared_key(request, key)
    report = await agent.kv_reports.views.report(key)
    ownership = report.ownership
    return JSONResponse(
        {
            "key": key,
            "partition": report.partition,
            "epoch": report.epoch,
            "stage": ownership.stage.value,
            "since": ownership.since,
            "owners_since": ownership.owners_since,
            "pending_since": ownership.pending_since,
            "versions": [_version(each) for each in report.live],
            "copies": report.copies,
            "outcome": "ok" if report.is_quorum else "partial",
            "nodes": [_holder(agent, report, node) for node in ownership.holders],
        }
    )


def _holder(agent: AgentServices, report: KeyReport, node: NodeId) -> dict[str, Any]:
    view = report.views.get(node)
    parts = {"owner": report.ownership.owners, "pending": report.ownership.pending}
    roles = [role for role, nodes in parts.items() if node in nodes]
    told: dict[str, Any] = {**node_of(agent, node), "roles": roles, "answered": view is not None}
    if view is None:
        return told | {"reason": _silence(agent, report, node)}
    lacks, outdated = report.lacks(node), report.outdated(node)
    return told | {
        "epoch": view.epoch,
        "complete": _is_complete(report, node, view),
        "damaged": not view.copy.is_sound,
        "may_answer": view.may_answer,
        "held_back": view.is_held_back,
        "behind": bool(lacks or outdated),
        "lacks": _named(lacks),
        "outdated": _named(outdated),
        "versions": [_version(each) for each in view.versions],
        "context": _named(view.context),
        "cut": view.is_cut,
    }


def _silence(agent: AgentServices, report: KeyReport, node: NodeId) -> str:
    """Return why a node told nothing, as far as this one knows."""
    if node not in report.askable:
        return "it was removed from the covey, and is not asked"
    member = agent.members.get(node)
    if member is None:
        return "it was not heard since this agent started"
    if not member.is_live:
        is_so = "has left" if member.state.value == "left" else f"is {member.state.value}"
        return f"it {is_so}, as this node sees it, and did not answer"
    return "it is there and did not answer in time: it is busy, cut off, or of an earlier version"


def _is_complete(report: KeyReport, node: NodeId, view: KeyView) -> bool | None:
    """Tell whether a copy has all that its part asks for; None while nothing is asked of it."""
    wanted = goal(report.ownership, node)
    return None if wanted is None else view.copy.has_all_before(wanted)


def _version(version: VersionView) -> dict[str, Any]:
    expiry = {"expires_ms": version.expires_ms} if version.expires_ms else {}
    return {
        "dot": _name(version.dot),
        # The upper 48 bits of a stamp are Unix milliseconds (gossip/core/hlc.py).
        "written_ms": version.stamp >> 16,
        "stamp": f"{version.stamp:016x}",
        "size_bytes": version.size_bytes,
        "digest": version.digest.hex(),
        **expiry,
    }


def _named(dots: Iterable[Dot]) -> list[str]:
    return [_name(dot) for dot in sorted(dots)]


def _name(dot: Dot) -> str:
    """Return a dot as text: JSON's numbers lose the last digits of an actor."""
    actor, n = dot
    return f"{actor:016x}.{n}"


ROUTES = (("GET", "/api/v1/kv-why/{key:key}", show_why),)
