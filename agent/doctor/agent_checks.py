"""What can be said of a running agent from what it counts and knows, without asking others."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from agent.apps.host import AppStatus
from agent.apps.states import AppState
from agent.cluster.flash_budget import FlashReport
from agent.config.service_address import service_of_api
from agent.doctor.findings import Finding, fail, ok, warn
from agent.loop.stalls import MACHINE, Stall, describe
from agent.system.wall_clock import ClockStep
from agent.telemetry.dead_letter_sql import LetterTotals
from agent.telemetry.dead_letters import DeadLetter
from agent.telemetry.uplink.status import UplinkStatus
from agent.text.units import format_duration
from gossip.core.machine import Address, Instant
from gossip.membership.model.members import Member
from gossip.registry.node import RegisteredNode

MISSED_AFTER_S = 60.0
"""Who belongs and was not heard so long after a start is said to be missing."""
OTHER_COVEYS_NAMED = 5
UNOPENED = ("forged", "unknown_key")
FLOOD_SHARE = 0.01
STEP_WARN_S, STEP_TOLD_S = 5.0, 86400.0
STALL_WARN_S, STALL_LOOK_BACK_S = 0.25, 3600.0
"""A stall of half the time that a ping may take makes others ask around."""


def health(reasons: Sequence[str], advice: str = "") -> Finding:
    """Look whether the agent can do its work; ``advice`` says what it waits for, if it does."""
    if reasons:
        hint = advice or "See its log."
        return fail("health", f"the agent is not ready: {'; '.join(reasons)}.", hint)
    return ok("health", "the agent is ready.")


def clock(step: ClockStep | None, now: Instant) -> Finding:
    """Look whether the clock was set lately; ``now`` is on the clock that nobody sets."""
    if step is not None and now - step.at < STEP_TOLD_S and abs(step.by_s) >= STEP_WARN_S:
        ago = format_duration(round(now - step.at))
        return warn(
            "clock-set",
            f"the clock was set by {step.by_s:+.0f} s, {ago} ago.",
            "Readings that wait are corrected; what has left carries the time of then. Is NTP "
            "running: `timedatectl`?",
        )
    return ok("clock-set", "the clock was not set within the last day.")


def flash(report: FlashReport) -> Finding:
    """Look whether the databases write more than the owner allows."""
    written = f"the databases write {report.bytes_per_hour:,} bytes an hour"
    if report.exceeded:
        return warn(
            "flash",
            f"{written}, of {report.budget:,} that are allowed.",
            "The metric covey_flash_bytes_per_hour says which database: data is shared keys, "
            "telemetry readings. Write less often, or raise bytes_per_hour in [flash].",
        )
    return ok("flash", f"{written}.")


def authority(uncertified: Sequence[str], *, overlaps: bool) -> Finding:
    """Look who has no certificate of the covey's present authority."""
    names = ", ".join(uncertified)
    if uncertified and overlaps:
        return warn(
            "authority",
            f"the authority is being replaced; without a certificate of the new one: {names}.",
            "They get one by themselves within minutes of being there. Not to wait for them: "
            "`covey keys rotate --authority --force` on a node that lets others in.",
        )
    if uncertified:
        return warn(
            "authority",
            f"certificates of an authority that was given up, which open nothing: {names}.",
            "Start them where they reach a member: they get new ones.",
        )
    if overlaps:
        return ok("authority", "the authority is being replaced, and all have new certificates.")
    return ok("authority", "all have certificates of the present authority.")


def keys(awaited: Sequence[str], *, is_turning: bool, is_known_outside: bool) -> Finding:
    """Look whether a key still opens datagrams that somebody has who should not.

    ``awaited`` are the members without whom the former key is not given up while the keys turn;
    ``is_known_outside``: a device that was removed knows the newest.
    """
    if is_known_outside:
        return warn(
            "keys",
            "a device that was removed has a key that opens datagrams still.",
            "New keys are made by themselves on nodes that let others in: start one.",
        )
    if not is_turning:
        return ok("keys", "one key seals and opens datagrams.")
    if not awaited:
        return ok("keys", "the keys of datagrams are being replaced, and nobody is waited for.")
    return warn(
        "keys",
        "the keys of datagrams are being replaced; what the former one seals opens until these "
        f"have the new one: {', '.join(awaited)}.",
        "They get it when they are back. Not to wait for them: `covey keys rotate --force`.",
    )


def stores(losses: Sequence[str], kept: Sequence[str]) -> Finding:
    """Look what the disk lost; ``kept`` are the damaged files that were replaced."""
    files = f"Damaged files are kept for you to look at, and may be deleted: {', '.join(kept)}."
    if losses:
        hint = "A card that does this once does it again: replace it."
        told = " ".join(f"{loss.rstrip('.')}." for loss in losses)
        return fail("stores", told, f"{hint} {files}" if kept else hint)
    if kept:
        return warn("stores", "nothing was lost since the start, but something was before.", files)
    return ok("stores", "nothing was found to be damaged in what is stored.")


def tasks(troubles: Sequence[str], last_errors: Mapping[str, str], counts: Counter[str]) -> Finding:
    """Look whether all background tasks of the agent run, and which had to be started again."""
    if troubles:
        return fail("tasks", f"{'; '.join(troubles)}.", "It is tried again; the log has the trace.")
    failed = [
        f"{name} ({counts[f'tasks_failed/{name}']} times, {error})"
        for name, error in sorted(last_errors.items())
    ]
    if failed:
        return warn(
            "tasks",
            f"all background tasks run; since the start these failed: {', '.join(failed)}.",
            "They went on. If it happens again and again, report the agent's log.",
        )
    return ok("tasks", "all background tasks run, and none has failed.")


def probation(set_aside: Sequence[str]) -> Finding:
    """Look whether something that others told has ended the agent, and is passed over."""
    if set_aside:
        return fail(
            "set-aside",
            f"these ended the agent twice, and are not taken in: {', '.join(set_aside)}.",
            "Report it with the agent's log. A newer version of Covey tries them again. What is "
            "passed over is missing here: a record is read from its other owners.",
        )
    return ok("set-aside", "nothing that others told has ended the agent twice.")


def membership(
    members: Iterable[Member], belonging: Iterable[RegisteredNode], uptime_s: float
) -> Finding:
    """Look who is not there: known to be away, or not heard at all since this agent started.

    Of the second nothing is on any list of members: this agent knows of them from the registry
    alone. ``uptime_s`` is how long it has had time to hear them.
    """
    known = list(members)
    away = sorted(each.name for each in known if each.state.value in ("suspect", "dead"))
    listed = {each.id for each in known}
    unheard = sorted(each.name for each in belonging if each.id not in listed and not each.absent)
    told = [f"suspect or dead: {', '.join(away)}"] if away else []
    if unheard and uptime_s >= MISSED_AFTER_S:
        told.append(f"not heard since this agent started: {', '.join(unheard)}")
    if told:
        return warn(
            "members",
            f"{'; '.join(told)}.",
            "`covey members show NAME` says why and since when. What is gone for good: `covey "
            "members remove NAME`.",
        )
    return ok("members", "nobody is suspect or dead.")


def owners(moving: Mapping[str, int], waits_for: Iterable[str], issuer_away: str) -> Finding:
    """Look whether each partition has come to its owners; ``waits_for`` are those not there."""
    count = sum(moving.values())
    if not count:
        return ok("owners", "every partition is with its owners.")
    told = f"partitions on their way to other owners: {count}; those of before answer meanwhile"
    if issuer_away:
        return warn("owners", f"{told}. {issuer_away} is away, which signs each step.", "Start it.")
    if away := sorted(set(waits_for)):
        hint = "Start them, or remove those that never come back (`covey members remove`)."
        return warn("owners", f"{told}. These take part and are away: {', '.join(away)}.", hint)
    return ok("owners", f"{told}.")


def names(members: Iterable[Member]) -> Finding:
    """Look whether two members that are there have one name, or one calls itself otherwise."""
    live = [each for each in members if each.is_live]
    count = Counter(each.name for each in live)
    taken = sorted(name for name, bearers in count.items() if bearers > 1)
    if taken:
        return fail(
            "names",
            f"two members are called {', '.join(taken)}.",
            "Join one of the two anew with another --node-name.",
        )
    otherwise = sorted(f"{each.name} (as {each.says})" for each in live if each.says)
    if otherwise:
        return warn(
            "names",
            f"some call themselves otherwise than the registry does: {', '.join(otherwise)}.",
            "What they say was edited, or is a lie; everything shows the registry's names.",
        )
    return ok("names", "every member has a name of its own.")


def profiles(mine: str, others: Mapping[str, str]) -> Finding:
    """Look whether all members have the same gossip profile; ``others`` has theirs by name."""
    different = sorted(f"{name} ({profile})" for name, profile in others.items() if profile != mine)
    if different:
        return warn(
            "profiles",
            f"this node has the gossip profile {mine}, and others have another: "
            f"{', '.join(different)}.",
            "Set [gossip] profile to the same everywhere: they judge each other too soon or late.",
        )
    return ok("profiles", f"no member has another gossip profile than {mine}.")


def clones(
    suspected: Mapping[str, Sequence[Address]],
    *,
    is_superseded: bool = False,
    has_begun_anew: bool = False,
) -> Finding:
    """Look whether two devices were heard with one identity; where, by the member's name.

    Of two such devices neither hears the other. The one to which nobody listens ``is_superseded``;
    either ``has_begun_anew`` a moment ago, as one does, once, whose data was set back.
    """
    if is_superseded:
        return fail(
            "clones",
            "another device has this node's identity too, and nobody listens to this one any more.",
            "Move the data directory of one of the two away, and join it anew with a token.",
        )
    told = [f"{name} ({', '.join(map(str, at))})" for name, at in sorted(suspected.items())]
    if told:
        return fail(
            "clones",
            f"two devices have the identity of {'; '.join(told)}.",
            "Stop one of the two, move its data directory away, and join it anew with a token.",
        )
    if has_begun_anew:
        return warn(
            "clones",
            "the others knew a later start of this node than its own: its data was set back, or "
            "another device has its identity too.",
            "If its card or disk was copied, stop one of the two, move its data directory away, "
            "and join it anew with a token.",
        )
    return ok("clones", "every identity was heard from one device.")


def seals(counts: Counter[str]) -> Finding:
    """Look how many datagrams did not open: another covey's, or under an old key."""
    unopened = {kind: counts[f"datagrams_dropped/{kind}"] for kind in UNOPENED}
    total = sum(unopened.values())
    told = f"{total} datagrams did not open since the start"
    if total > max(10.0, FLOOD_SHARE * counts["datagrams/received"]):
        return warn(
            "seals",
            f"{told} ({unopened['unknown_key']} under keys that this node lacks).",
            "Another covey's agents send here, or a node missed new keys: `covey keys list`.",
        )
    return ok("seals", f"{told}.")


def other_coveys(cluster_ids: Iterable[str], heard: int) -> Finding:
    """Look whether agents of other coveys announce themselves on this network."""
    found = sorted(set(cluster_ids))
    if found:
        return warn(
            "other-coveys",
            f"other coveys are on this network: {', '.join(found[:OTHER_COVEYS_NAMED])}.",
            "If a device of yours is among them it is in the wrong cluster: "
            "move its data directory away, and join it with a token of this covey.",
        )
    told = f" (announced {heard} times since the start)" if heard else ""
    return ok("other-coveys", f"no other covey announces itself now{told}.")


def sightings(others_alive: int, seen: int, *, mdns: bool) -> Finding:
    """Look whether multicast brings the other members, or seeds alone do."""
    if mdns and others_alive and not seen:
        return warn(
            "mdns",
            f"mDNS shows none of the other members that are alive: {others_alive}.",
            "Multicast blocked between the devices, or they are on other networks: use seeds.",
        )
    return ok(
        "mdns", f"other members that mDNS shows: {seen}." if mdns else "mDNS is switched off."
    )


def loop(stalls: int, worst: Stall | None) -> Finding:
    """Look whether the agent stands still: how often since the start, and the worst of an hour."""
    if worst is None or worst.lasted_s < STALL_WARN_S:
        told = f"; the longest of this hour: {describe(worst)}" if worst else ""
        return ok("loop", f"stalls of the event loop since the start: {stalls}{told}.")
    hint = (
        "Look what else this machine does (`top`): the others may take this node for dead."
        if worst.cause == MACHINE
        else "Report the place: whatever it does takes too long at once. Is the disk very slow?"
    )
    return warn("loop", f"{describe(worst)}; stalls since the start: {stalls}.", hint)


def dead_letters(totals: LetterTotals, newest: Sequence[DeadLetter]) -> Finding:
    """Look whether readings were given up, and nobody has decided about them."""
    if not totals.held:
        return ok("dead-letters", "no reading was given up.")
    reason = f"; the newest, of {newest[-1].reading.sensor}: {newest[-1].reason}" if newest else ""
    forgotten = f"; {totals.forgotten} older ones are forgotten" if totals.forgotten else ""
    return warn(
        "dead-letters",
        f"{totals.held} readings were given up{reason}{forgotten}.",
        "See `covey outbox dead list`. Mend what the reason names, then "
        "`covey outbox dead replay --all` sends them again; `covey outbox dead drop --all` deletes "
        "them.",
    )


def uplink(status: UplinkStatus) -> Finding:
    """Look at the connection to the broker."""
    if status.state == "off":
        return ok("uplink", "no broker is configured.")
    where = f"{status.host}:{status.port}"
    if status.connected and (status.hint or status.last_error):
        told = status.last_error or "connected, but not for long at a time"
        told += f"; {status.waiting} readings wait on disk"
        return warn("uplink", f"{where}: {told}.", status.hint or "The broker's log may say why.")
    if status.connected:
        return ok("uplink", f"connected with {where}, {status.waiting} readings wait.")
    return warn(
        "uplink",
        f"{status.last_error or f'No connection with {where} yet'}; "
        f"{status.waiting} readings wait on disk.",
        status.hint or "Is the broker running, and its port open?",
    )


def program_users(programs: Sequence[str], lacking: str, *, is_issuer: bool) -> Finding:
    """Look whether programs that did not come with Covey could read this node's keys.

    ``lacking`` says why they have no users of their own; empty if they have.
    """
    if not programs or not lacking:
        told = "have users of their own" if programs else "come with Covey"
        return ok("program-users", f"all programs that run here {told}.")
    keys = "this node's keys, and the authority's," if is_issuer else "this node's keys"
    return warn(
        "program-users",
        f"{', '.join(programs)} could read {keys} and the agent's memory: {lacking}.",
        "As a service the agent gives each a user of its own: `covey service install`. Else run "
        "only what you trust with all that.",
    )


def api_tls(listen: str, *, tls: bool) -> Finding:
    """Look whether tokens of the HTTP API can be read on the network."""
    if tls or not service_of_api(listen):
        told = "shows a certificate" if listen and tls else "is reached from this device alone"
        return ok("api-tls", f"the HTTP API {told}.")
    return warn(
        "api-tls",
        f"the HTTP API listens on {listen} without TLS: its tokens can be overheard.",
        "Set tls = true in [api]. `covey access authority` shows what clients verify it with.",
    )


def apps(running: Iterable[AppStatus]) -> Finding:
    """Look for apps that end again and again."""
    failing = sorted(app.name for app in running if app.state == AppState.FAILING)
    if failing:
        return fail(
            "apps",
            f"crash again and again: {', '.join(failing)}.",
            f"`covey app log {failing[0]}` shows what it printed last.",
        )
    return ok("apps", "no app crashes again and again.")
