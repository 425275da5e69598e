"""Routes of the covey's keys: who holds which, turning them, and replacing the authority."""

from typing import Any

from agent.api.interfaces import AgentServices
from agent.api.request_bodies import read_object, truth_of
from agent.http.request import Request
from agent.http.response import JSONResponse, Response
from agent.keys.key_service import KeyHolding
from agent.keys.messages import KeyringState
from agent.keys.rotation import RotationPhase
from gossip.core.ids import format_node_id


async def list_keys(request: Request) -> Response:
    """Answer with who holds which keys; fingerprints, never a secret."""
    agent: AgentServices = request.app.state.agent
    holdings = await agent.keys.report()
    return JSONResponse(await describe_keys(agent, holdings))


async def rotate(request: Request) -> Response:
    """Begin a rotation, and answer with the same as ``list_keys``."""
    agent: AgentServices = request.app.state.agent
    await agent.keys.rotate(force=await _read_force(request))
    return JSONResponse(await describe_keys(agent, await agent.keys.report()), 202)


async def roll_over(request: Request) -> Response:
    """Have another authority take over, and answer with the same as ``list_keys``."""
    agent: AgentServices = request.app.state.agent
    await agent.allegiance.roll_over(force=await _read_force(request))
    return JSONResponse(await describe_keys(agent, await agent.keys.report()), 202)


async def _read_force(request: Request) -> bool:
    """Return what the body says. Raises BadRequest."""
    return truth_of(await read_object(request, frozenset({"force"})), "force", default=False)


async def describe_keys(agent: AgentServices, holdings: list[KeyHolding]) -> dict[str, Any]:
    """Return everybody's keys as JSON."""
    own = agent.keys.state()
    awaited = set(agent.keys.awaited())
    return {
        "generation": own.generation,
        "phase": own.phase,
        "rotating": own.phase != RotationPhase.STEADY,
        "authority": {
            "number": agent.registry.authority_number,
            "overlaps": agent.registry.overlaps,
            "uncertified": [entry.name for entry in agent.registry.uncertified],
        },
        "members": [
            {
                "id": format_node_id(one.id),
                "name": one.name,
                "self": one.id == agent.identity.node_id,
                "live": one.is_live,
                "answered": one.answered,
                "awaited": one.id in awaited,
                **_keys(one.state),
            }
            for one in holdings
        ],
    }


def _keys(state: KeyringState | None) -> dict[str, Any]:
    if state is None:
        return {"generation": None, "primary": None, "keys": []}
    shown = {key.id: key.fingerprint for key in state.keys}
    return {
        "generation": state.generation,
        "primary": shown.get(state.primary),
        "keys": list(shown.values()),
    }


ROUTES = (
    ("GET", "/api/v1/keys", list_keys),
    ("POST", "/api/v1/keys/rotate", rotate),
    ("POST", "/api/v1/keys/authority", roll_over),
)
