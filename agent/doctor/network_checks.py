"""Findings about where this node is, and whether the others can reach it there."""

from collections import Counter
from collections.abc import Iterable, Sequence

from agent.doctor.findings import Finding, ok, warn
from agent.net.discovery import Here
from gossip.core.ids import NodeId
from gossip.core.machine import Address
from gossip.membership.model.members import Member

NAMED_MAX = 5
CHOOSE = "Name the networks that lead to the others under [network] interfaces, or the addresses "
CHOOSE += "under [network] advertise."


def examine(
    here: Here, members: Iterable[Member], me: NodeId, counts: Counter[str], failure: str
) -> list[Finding]:
    """Look at our addresses, at those that several members tell, and at what had no room.

    ``failure`` says why addresses cannot be listed now; empty when they can.
    """
    live = [member for member in members if member.is_live]
    told = [member for member in live if member.id == me]
    others = [member for member in live if member.id != me]
    findings = [addresses(here, told[0].addresses if told else (), others, failure)]
    return [*findings, shared(live), hints(counts)]


def addresses(
    here: Here, told: Sequence[Address], others: Iterable[Member], failure: str = ""
) -> Finding:
    """Look whether others can reach this node at what it tells them."""
    if failure:
        return warn(
            "addresses",
            f"the addresses of this device cannot be listed: {failure}.",
            "If there are too many open files, raise the limit; until then a new address is "
            "not told.",
        )
    if not here.told:
        return _without_addresses(here, any(member.addresses for member in others))
    if here.is_private:
        return warn(
            "addresses",
            f"told are {_listed(told)}, behind which are only containers of this device.",
            f"Is the network connected? {CHOOSE}",
        )
    untold = [address for address in here.told if address not in told]
    if untold:
        return warn(
            "addresses",
            f"{len(untold)} of {len(here.told)} addresses have no room beside the tags, and are "
            f"not told: {_listed(untold)}.",
            f"Use fewer or shorter tags. {CHOOSE}",
        )
    return ok("addresses", f"reached at {_listed(told)}.")


def _without_addresses(here: Here, others_have: bool) -> Finding:  # noqa: FBT001 - a fact
    if not here.neighbourly:
        return warn(
            "addresses",
            "this device has no address at which others could reach it.",
            "Is the network connected, and [network] interfaces and bind right?",
        )
    told = (
        f"this device has link-local addresses alone ({_listed(here.neighbourly)}): members "
        "on the same cable or radio find it by mDNS, and no others."
    )
    if others_have:
        return warn("addresses", told, "Others have more: did it get no answer from a DHCP server?")
    return ok("addresses", told)


def shared(live: Iterable[Member]) -> Finding:
    """Look whether several members say to be at one address: they have it, but lead apart."""
    by_address: dict[Address, list[str]] = {}
    for member in live:
        for address in member.addresses:
            by_address.setdefault(address, []).append(member.name)
    found = {address: names for address, names in by_address.items() if len(names) > 1}
    if not found:
        return ok("shared-addresses", "no two members tell the same address.")
    some = sorted(found.items())[:NAMED_MAX]
    listed = "; ".join(f"{address}: {', '.join(sorted(names))}" for address, names in some)
    more = f", and {len(found) - len(some)} more" if len(found) > len(some) else ""
    return warn(
        "shared-addresses",
        f"several members tell the same address ({listed}{more}).",
        f"It is that of a network inside each device, and leads nowhere. There: {CHOOSE}",
    )


def hints(counts: Counter[str]) -> Finding:
    """Look whether addresses were given up at which somebody may be."""
    dropped = counts["candidates_dropped/too many"]
    if dropped:
        return warn(
            "hints",
            f"{dropped} addresses at which somebody may be were not tried to the end: there is "
            "room for so many only, and those seen last are kept.",
            "If members do not find each other, name one of those that run as a seed.",
        )
    return ok("hints", "every address at which somebody may be is tried.")


def mdns(failure: str, here: Here, *, enabled: bool) -> list[Finding]:
    """Look whether mDNS works on the interfaces on which it should; nothing to say if it does."""
    if not enabled:
        return []
    if failure:
        return [
            warn(
                "mdns-sockets",
                f"mDNS does not work: {failure}.",
                "It is tried again each minute; until then members are found by seeds and by "
                "the known peers.",
            )
        ]
    if here.without_multicast:
        return [
            warn(
                "mdns-sockets",
                f"mDNS is not used on {', '.join(here.without_multicast[:NAMED_MAX])}: a socket "
                "joins groups on so many interfaces only.",
                "Name the networks that lead to the others under [network] interfaces.",
            )
        ]
    return []


def _listed(found: Sequence[Address]) -> str:
    shown = ", ".join(map(str, found[:NAMED_MAX]))
    return f"{shown} and {len(found) - NAMED_MAX} more" if len(found) > NAMED_MAX else shown
