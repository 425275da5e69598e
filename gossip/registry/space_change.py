"""How many owners the keys of a space have, where it is not as many as all others.

A space gets partitions of its own (``places.py``) when somebody asks for that first. It keeps them
from then on: another number of owners is another target for these, which they reach by the stages
of ``ownership.py``, and nothing is read or written otherwise meanwhile.
"""

import msgspec

from gossip.core.errors import InvalidRequest
from gossip.core.names import NAME_RULE, is_name
from gossip.registry.lineage import LINEAGE_MAX
from gossip.registry.ownership import Ownership
from gossip.registry.places import DEVICE, REPLICAS_MAX, SPACES_MAX, Place, space_numbers
from gossip.registry.registry import Registry, following


def check_space(name: str, replicas: int) -> None:
    """Raise InvalidRequest unless a space may be called so, and have so many owners."""
    if not is_name(name) or name == DEVICE:
        raise InvalidRequest(
            f"{name[:80]!r} is no name of a space with partitions of its own: {NAME_RULE}, and not "
            f"{DEVICE!r}; nothing was changed"
        )
    if not 1 <= replicas <= REPLICAS_MAX:
        raise InvalidRequest(
            f"keys have 1 to {REPLICAS_MAX} owners, not {replicas}; nothing was changed"
        )


def place_space(registry: Registry, name: str, replicas: int) -> Registry:
    """Return the next registry, in which the keys of a space have so many owners.

    Returns the same one if they have. Raises InvalidRequest.
    """
    check_space(name, replicas)
    if registry.spaces.get(name) == replicas:
        return registry
    if not registry.places:
        raise InvalidRequest(
            "not all agents of this covey are known to find keys that have a place of their own; "
            "update those that do not, and try again when `covey ring` shows homes"
        )
    places = registry.places
    if name not in registry.spaces:
        places += _made(registry, name)
    meant = tuple(
        msgspec.structs.replace(each, replicas=replicas) if each.space == name else each
        for each in places
    )
    fresh = following(msgspec.structs.replace(registry, places=meant), registry.nodes)
    # The one that it follows is the one that was agreed on, not what was made of it here.
    lineage = (registry.mark, *registry.lineage)[:LINEAGE_MAX]
    return msgspec.structs.replace(fresh, lineage=lineage)


def _made(registry: Registry, name: str) -> tuple[Place, ...]:
    if len(registry.spaces) >= SPACES_MAX:
        raise InvalidRequest(
            f"there are {SPACES_MAX} spaces with partitions of their own already, and no more are "
            "possible; nothing was changed"
        )
    numbers = space_numbers(name)
    assert not any(map(registry.has, numbers)), "two names have one number in 2^43 cases"
    return tuple(Place(number, 0, Ownership((), 0), name) for number in numbers)
