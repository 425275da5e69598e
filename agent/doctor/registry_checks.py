"""What the doctor says about who belongs: the registry, who signs it, and who is not in it."""

from collections.abc import Collection, Mapping, Sequence

from agent.doctor.findings import Finding, fail, ok, warn
from agent.text.units import counted
from gossip.core.ids import NodeId, format_node_id
from gossip.kv.requests import FORK_REASON
from gossip.registry.registry import Registry
from gossip.registry.strangers import Stranger


def examine(
    registry: Registry,
    rival: Registry | None,
    live: Collection[NodeId],
    voters: Collection[NodeId],
    knocking: Sequence[Stranger],
) -> list[Finding]:
    """Return all that there is to say; ``knocking`` are strangers of the last hour."""
    removed = {gone.id: gone.name for gone in registry.removed}
    absent = [entry.name for entry in registry.absent]
    signing = [entry.name for entry in registry.nodes if entry.is_issuer]
    return [
        fork(rival),
        issuers(registry, live),
        absentees(absent, signing),
        missing(registry),
        draining(registry, voters),
        former_issuers(registry),
        strangers(knocking, removed),
    ]


def fork(rival: Registry | None) -> Finding:
    """Say whether there are two registries."""
    if rival is None:
        return ok("registry", "all that was heard of the registry is of one past.")
    message, _, hint = FORK_REASON.partition("; ")
    return fail("registry", f"{message}.", f"{hint}.")


def issuers(registry: Registry, live: Collection[NodeId]) -> Finding:
    """Say who lets others in, and whether it is there."""
    signing = [entry for entry in registry.nodes if entry.is_issuer]
    names = ", ".join(entry.name for entry in signing)
    if not signing:
        return fail("issuer", "the registry names nobody who lets others in.", "restore a backup.")
    if any(entry.id in live for entry in signing):
        there = [entry.name for entry in signing if entry.id in live]
        do = "lets others in, and is there" if len(there) == 1 else "let others in, and are there"
        return ok("issuer", f"{', '.join(there)} {do}.")
    return warn(
        "issuer",
        f"nobody who lets others in ({names}) is there: until one is back no device joins, none "
        "can be removed, and no partition goes to other owners. Everything else goes on.",
        f"start {names}; if it has left, type `covey join` there; if all are lost, restore the "
        "backup of one.",
    )


def absentees(names: Sequence[str], issuers: Sequence[str]) -> Finding:
    """Name those who were let in and are not there."""
    if not names:
        return ok("absent", "everybody who was let in has been heard.")
    return warn(
        "absent",
        f"let in and not heard: {', '.join(names)}. They own no partitions, and nothing waits for "
        "them.",
        "Start their agents. Who never comes is taken out on "
        f"{' or '.join(issuers)}: {' '.join(f'`covey members remove {name}`' for name in names)}",
    )


def missing(registry: Registry) -> Finding:
    """Name those whose share others get, because they were not heard for long."""
    gone = registry.missing
    if not gone:
        return ok("missing", "every owner of partitions was heard lately by who signs for them.")
    told = (
        f"{each.name} ({counted(registry.left_at(each.id), 'partition')} left)" for each in gone
    )
    return warn(
        "missing",
        f"not heard for so long that others get their partitions: {', '.join(told)}. What was "
        "acknowledged is with the other owners, and nothing that they hold is thrown away.",
        "Start their agents: each hands on what it took in alone, and gets a share again once it "
        "has been there for a while. Who never comes is taken out by `covey members remove`. "
        "`missing_after` in `[state]` says after how long.",
    )


def draining(registry: Registry, voters: Collection[NodeId]) -> Finding:
    """Name those who are to own nothing: it is meant, and easily forgotten."""
    drains = {each.id: each.name for each in registry.draining}
    if not drains:
        return ok("draining", "no node drains.")
    names = drains.values()
    told = (
        f"{name} ({counted(registry.left_at(node), 'partition')} left"
        f"{', votes still' * (node in voters)})"
        for node, name in drains.items()
    )
    return warn(
        "draining",
        f"by an operator's word these are to own nothing: {', '.join(told)}."
        f"{_too_few(len(voters), len(set(voters) - drains.keys()))}",
        f"{' '.join(f'`covey node undrain {name}`' for name in names)} gives the share back; with "
        "nothing left, a node that does not vote can be switched off or removed. A vote goes to a "
        "node that stands by; `covey voters` says why none does.",
    )


def _too_few(voters: int, staying: int) -> str:
    """Say what comes of it if all that drain are switched off while they vote."""
    if not voters or staying > voters // 2:
        return ""
    return (
        f" Without them {staying} of {counted(voters, 'voter')} would be left, and nothing could be"
        " agreed on any more: leave them on."
    )


def former_issuers(registry: Registry) -> Finding:
    """Name who took the authority's key along, while that is the key that signs."""
    number = registry.authority_number
    names = [gone.name for gone in registry.removed if gone.held_authority == number]
    if not names:
        return ok("removed", "nobody who was removed held the authority's key as it is now.")
    return warn(
        "removed",
        f"{', '.join(names)} held the authority's key when removed, and that key signs still: who"
        " has such a device can let others in.",
        "`covey keys rotate --authority` replaces it, while everybody is there; where a device was"
        " wiped or destroyed, nothing is to do.",
    )


def strangers(knocking: Sequence[Stranger], removed: Mapping[NodeId, str]) -> Finding:
    """Name devices that have a certificate or the keys of the covey, and no place in it."""
    if not knocking:
        return ok("strangers", "nobody knocked who is not in the registry.")
    return warn(
        "strangers",
        f"{'; '.join(_described(each, removed) for each in knocking)} knocked within the last "
        "hour and changed nothing: with keys or a certificate of this covey, and not in its "
        "registry.",
        "it was removed, is a copy of a removed device, or was let in a moment ago; where you "
        "know of none, `covey keys rotate`.",
    )


def _described(stranger: Stranger, removed: Mapping[NodeId, str]) -> str:
    node = format_node_id(stranger.id)
    name = f"{removed[stranger.id]} ({node}, removed)" if stranger.id in removed else node
    return name if stranger.source is None else f"{name} from {stranger.source}"
