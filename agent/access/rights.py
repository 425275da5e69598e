"""What can be done at the HTTP API, as a few rights; and the roles, each of which is some of them.

Each route asks for one right (``agent/api/route_rights.py``). To let devices in is a right of its
own and of administrators alone: who has a device in the covey has its Unix socket, and there is an
administrator.
"""

from enum import Enum


class Right(Enum):
    """One kind of thing that can be asked of an agent."""

    METRICS = "metrics"
    READ = "read"
    """Keys, readings, events, members: what the covey knows."""
    INSPECT = "inspect"
    """How agents are: configuration, registry, keys' fingerprints, apps and their logs, doctor."""
    PUBLISH = "publish"
    """Hand in readings."""
    WRITE = "write"
    """Change keys; hold locks and sessions."""
    SPEAK = "speak"
    """Send events, ask and answer queries, say facts about this node."""
    DEVICE = "device"
    """Start and stop apps, sleep and wake, try the broker: what concerns this device alone."""
    OPERATE = "operate"
    """Settings of the fleet, keys of the covey, who owns how much: what concerns all devices."""
    ADMIT = "admit"
    """Let devices in, take them out, found, join and leave."""
    ACCESS = "access"
    """Make and revoke access tokens; read who did what."""


class Role(Enum):
    """What an access token is for."""

    ADMIN = "admin"
    OPERATOR = "operator"
    PUBLISHER = "publisher"
    READER = "reader"
    NODE = "node"
    """One device's own: good at that device alone."""


ALL_RIGHTS = frozenset(Right)
OF_ROLE: dict[Role, frozenset[Right]] = {
    Role.READER: frozenset({Right.METRICS, Right.READ, Right.INSPECT}),
    Role.PUBLISHER: frozenset({Right.PUBLISH}),
    Role.NODE: frozenset(
        {Right.METRICS, Right.READ, Right.INSPECT, Right.PUBLISH, Right.SPEAK, Right.DEVICE}
    ),
    Role.OPERATOR: ALL_RIGHTS - {Right.ADMIT, Right.ACCESS},
    Role.ADMIN: ALL_RIGHTS,
}
WITHIN_PREFIXES = frozenset(
    {Right.METRICS, Right.READ, Right.INSPECT, Right.PUBLISH, Right.WRITE, Right.SPEAK}
)
"""What is left of a role whose token is for some keys alone: what all devices have in common is
behind no prefix."""
SCOPED_ROLES = frozenset({Role.READER, Role.OPERATOR})
"""The roles whose tokens may be for some keys alone: the others write none, or rule over all."""

OF_CONFIGURED_TOKEN = OF_ROLE[Role.OPERATOR]
"""The token in ``api-token``: as ever, all but to let devices in and out."""
NEEDS_SECRECY = frozenset({Right.ADMIT, Right.ACCESS})
"""What is never done for a token that came in the clear from another machine: it was overheard."""

OF_APP: dict[str, frozenset[Right]] = {
    "read": frozenset({Right.METRICS, Right.READ}),
    "publish": frozenset({Right.PUBLISH}),
    "write": frozenset({Right.WRITE}),
    "speak": frozenset({Right.SPEAK}),
}
"""What an app may have at most, by the words of ``rights`` in its table in ``covey.toml``."""


def rights_of(role: Role, prefixes: tuple[str, ...]) -> frozenset[Right]:
    """Return what a token of this role may do, which is for these keys alone, if any are named.

    >>> sorted(each.value for each in rights_of(Role.READER, ()))
    ['inspect', 'metrics', 'read']
    """
    return OF_ROLE[role] & WITHIN_PREFIXES if prefixes else OF_ROLE[role]
