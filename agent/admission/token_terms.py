"""What a token allows: for how many nodes, for how long, and under which name, zone and weight.

Whoever holds a token lets devices in, so what it allows has a measure that a person would give it:
a week, a hundred nodes. What a token fixes, the device that shows it cannot choose.
"""

from typing import Annotated

import msgspec

from agent import exits
from agent.exits import AgentError
from agent.identity.identity import check_name
from agent.text.units import format_duration

TTL_MIN_S, TTL_MAX_S = 1.0, 7 * 86400.0
USES_MAX = 100
WEIGHT_MAX = 100.0
TEXT_CHARACTERS_MAX = 63

Text = Annotated[str, msgspec.Meta(max_length=TEXT_CHARACTERS_MAX)]


class TokenTerms(msgspec.Struct, frozen=True, array_like=True):
    """What was asked for a token; an empty text and a weight of 0 leave it to the device."""

    ttl_s: float
    uses: int = 1
    node_name: Text = ""
    zone: Text = ""
    weight: float = 0.0


def check_terms(terms: TokenTerms) -> None:
    """Return if a token may be made so. Raises AgentError."""
    if not TTL_MIN_S <= terms.ttl_s <= TTL_MAX_S:
        raise _unusual(
            f"a token lives {format_duration(TTL_MIN_S)} to {format_duration(TTL_MAX_S)}", "ttl_s"
        )
    if not 1 <= terms.uses <= USES_MAX:
        raise _unusual(f"a token is for 1 to {USES_MAX} nodes", "uses")
    if terms.node_name:
        check_name(terms.node_name, "node")
        if terms.uses != 1:
            raise _unusual("a token that fixes a name is for one node", "uses")
    if not 0 <= terms.weight <= WEIGHT_MAX:
        raise _unusual(f"a node's weight is more than 0 and at most {WEIGHT_MAX:.0f}", "weight")
    check_place(terms.zone, terms.weight or 1.0)


def check_place(zone: str, weight: float) -> None:
    """Return if a node may stand in the registry so. Raises AgentError."""
    if zone:
        check_name(zone, "zone")
    if not 0 < weight <= WEIGHT_MAX:
        raise AgentError(
            f"a node's weight is more than 0 and at most {WEIGHT_MAX:.0f}; nothing was changed.",
            hint="Correct [node] weight, then join again.",
            status=exits.BAD_CONFIG,
        )


def _unusual(what: str, parameter: str) -> AgentError:
    return AgentError(f"{what}; none was made.", f"Give `{parameter}` within that.", exits.USAGE)
