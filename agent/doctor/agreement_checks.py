"""Whether the covey can agree on anything: what works without that, and what to do about it."""

from collections.abc import Sequence

from agent.doctor.findings import Finding, fail, ok, warn
from agent.text.units import counted, format_duration
from gossip.control.bounds import STATE_BYTES_MAX
from gossip.control.requests import ControlStatus

NEARLY_FULL = 0.9
STOOD_STILL_TOLD_S = 3600.0


def agreement(
    status: ControlStatus,
    others: Sequence[str],
    doubted: Sequence[str] = (),
    *,
    is_agreed: bool,
) -> Finding:
    """Look whether a majority of the voters follows a leader; ``others`` follow another recovery.

    ``doubted`` say that a later generation has begun, and are not believed.
    ``is_agreed`` is what somebody has found who has just asked.
    """
    generation = status.generation
    if others:
        return _is_forked(others, generation)
    if not status.takes_writes and not status.is_halted:
        return _takes_nothing(status)
    if doubted:
        return _doubts(doubted, generation, is_agreed=is_agreed)
    if not is_agreed:
        return _has_no_majority(len(status.voters))
    if status.is_halted:
        return warn(
            "agreement",
            "what is agreed on goes on with what this version does not know, or fails at, so this"
            " node's copy stands still.",
            "Update this agent; its log says what it was.",
        )
    if status.used_bytes > NEARLY_FULL * STATE_BYTES_MAX:
        return _is_nearly_full(status.used_bytes)
    ago_s = status.stood_still_s_ago
    if ago_s is not None and ago_s < STOOD_STILL_TOLD_S:
        return _stood_still(ago_s)
    return ok(
        "agreement", f"{counted(len(status.voters), 'voter')}, in generation {generation}, agree."
    )


def _is_forked(others: Sequence[str], generation: int) -> Finding:
    return fail(
        "agreement",
        f"generation {generation} of what is agreed on was recovered at two places, and neither"
        " knows what the other has decided; who follows the other one: "
        f"{', '.join(others)}.",
        "`covey recover` says how to choose one.",
    )


def _has_no_majority(voters: int) -> Finding:
    return fail(
        "agreement",
        f"no majority of {counted(voters, 'voter')} can be reached: locks, transactions, barriers"
        " and settings of the fleet wait. Events and readings go on, and shared keys most of whose"
        " owners are there.",
        "Start the voters (`covey voters` names them). If most are gone for good: `covey recover`"
        " shows which copies are left, and what to do.",
    )


def _is_nearly_full(used_bytes: int) -> Finding:
    return warn(
        "agreement",
        f"the control plane holds {used_bytes / 2**20:.1f} of {STATE_BYTES_MAX // 2**20} MiB; when"
        " it is full, no key is written and no lock taken any more. Devices are still let in and"
        " put out.",
        "Delete keys that nobody needs: `GET /api/v1/control?keys_only=1` lists them, `covey txn"
        " --then 'delete KEY'` deletes one.",
    )


def _stood_still(ago_s: float) -> Finding:
    return warn(
        "agreement",
        f"{format_duration(round(ago_s))} ago this node, which led, had stood still, and gave all"
        " sessions and lock delays their full time again: who is gone keeps its locks for longer.",
        "`loop` says what it stood still in, `covey_control_renewals_total` how often.",
    )


def _takes_nothing(status: ControlStatus) -> Finding:
    """Say that this node's disk keeps it out, and what becomes of the others meanwhile."""
    hangs_s = status.save_hangs_s
    what = f"hangs: it has not ended a save for {format_duration(round(hangs_s))}"
    is_alone = len(status.voters) == 1 and status.role != "copy"
    then = (
        "Nothing is agreed on: commands are refused, and none is begun."
        if is_alone
        else "It agrees on nothing, and does not lead while another voter can."
    )
    return fail(
        "agreement",
        f"this node's disk {what if hangs_s else 'takes nothing'}. {then}",
        "`disk` and the kernel's log (`dmesg`) say more: free some space, or replace the card.",
    )


def _doubts(doubted: Sequence[str], generation: int, *, is_agreed: bool) -> Finding:
    """Name whom this node does not believe: who is right, a person knows."""
    return (warn if is_agreed else fail)(
        "agreement",
        f"{', '.join(doubted)} {'says' if len(doubted) == 1 else 'say'} that what is agreed on"
        f" goes on in a later generation than {generation}, and neither votes here nor holds"
        " the authority's key, so this node does not believe it.",
        f"If an operator had the covey go on from it: `covey recover --follow {doubted[0]}`. If"
        f" nobody did, it lies: `covey members remove {doubted[0]}`.",
    )
