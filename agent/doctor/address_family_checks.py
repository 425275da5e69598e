"""Members that share no address family: who carries the streams between them, if anybody does."""

from collections.abc import Callable, Iterable, Mapping

from agent.doctor.findings import Finding, fail, ok, warn
from gossip.core.ids import NodeId
from gossip.core.machine import Address

NAMED_MAX = 8


def examine(addresses: Mapping[str, Iterable[Address]]) -> Finding:
    """Look at the addresses that members tell, by name; of who tells none nothing is known."""
    families = {name: _families(told) for name, told in sorted(addresses.items())}
    six = [name for name, has in families.items() if has == {True}]
    four = [name for name, has in families.items() if has == {False}]
    both = [name for name, has in families.items() if len(has) == 2]
    if not (four and six):
        return ok("families", "no two members are apart in IPv4 and IPv6.")
    apart = f"{_some(four)} with IPv4 alone and {_some(six)} with IPv6 alone"
    if both:
        return warn(
            "families",
            f"{apart} do not reach each other; their streams go through {_some(both)}.",
            "It works, and takes longer: give them an address of the other family, if you can.",
        )
    return fail(
        "families",
        f"{apart} do not reach each other, and no member has both.",
        "Give one member an address of each family: the others then reach each other through it.",
    )


def apart(addresses: Mapping[NodeId, Iterable[Address]]) -> Callable[[NodeId, NodeId], bool]:
    """Return what says whether two members tell addresses, and none of the same family."""
    families = {node: _families(told) for node, told in addresses.items()}

    def are_apart(one: NodeId, other: NodeId) -> bool:
        ours, theirs = families.get(one), families.get(other)
        return bool(ours and theirs and ours.isdisjoint(theirs))

    return are_apart


def _families(told: Iterable[Address]) -> set[bool]:
    """Return which families there are: True stands for IPv6."""
    return {":" in address.host for address in told}


def _some(names: list[str]) -> str:
    more = len(names) - NAMED_MAX
    return ", ".join(names[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
