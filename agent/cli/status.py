"""``covey status``: how the agent is, in a dozen lines."""

from typing import Any

import click

from agent import exits
from agent.cli.copyable import here
from agent.cli.output import output_option, write_facts, write_json
from agent.cli.restart import in_words
from agent.cli.ring import in_words as partitions_in_words
from agent.cli.session import Session
from agent.text.units import counted, format_duration


@click.command()
@output_option
@click.pass_context
def status(ctx: click.Context, output: str) -> None:
    """Show how the agent is. Exit status 6 if it runs but is not ready."""
    session = ctx.ensure_object(Session)
    answer = session.client().get("/api/v1/status")
    if output == "json":
        write_json(answer)
    else:
        write_facts(_facts(answer))
    if not answer["ready"]:
        ctx.exit(exits.UNHEALTHY)


def _facts(answer: dict[str, Any]) -> dict[str, object]:
    """Return what to show; an agent that waits has less to tell, and says what to do."""
    told: dict[str, object] = {
        "state": "ready" if answer["ready"] else _unready(answer["stage"]),
    }
    if answer["reasons"]:
        told["because"] = here("; ".join(answer["reasons"]))
    if answer["losses"]:
        told["lost"] = "; ".join(answer["losses"])
    if answer["advice"]:
        told["next"] = here(answer["advice"])
    if answer["cluster"]:
        told["covey"] = f"{answer['cluster']['name']} ({answer['cluster']['id']})"
        told["node"] = f"{answer['node']['name']} ({answer['node']['id']})"
    told["up for"] = format_duration(answer["uptime_s"])
    if answer["members"]:
        told |= _seen(answer)
    told |= _kept(answer)
    told["version"] = answer["version"]
    if pending := in_words(answer["configuration"]):
        told["configuration"] = here(pending)
    return told


def _kept(answer: dict[str, Any]) -> dict[str, object]:
    """Return what there is to say of readings, their way out, and the disk."""
    told: dict[str, object] = {}
    if answer["outbox"]:
        told["readings waiting"] = answer["outbox"]["waiting"]
        if held := answer["outbox"]["letters"]["held"]:
            told["dead letters"] = f"{held}; `{here('covey outbox dead list')}` shows them"
    if answer["uplink"]:
        told["uplink"] = answer["uplink"]["state"]
        told["uplink trouble"] = _trouble(answer["uplink"])
    if answer["flash"] and answer["flash"]["exceeded"]:
        told["flash"] = _flash(answer["flash"])
    return told


def _seen(answer: dict[str, Any]) -> dict[str, object]:
    """Return what to show of how the agent takes part."""
    told: dict[str, object] = {}
    told["members"] = ", ".join(f"{n} {state}" for state, n in answer["members"].items())
    if answer["absent"]:
        told["let in, not heard"] = ", ".join(one["name"] for one in answer["absent"])
    if answer["missing"]:
        told["not heard for long"] = ", ".join(
            f"{one['name']} ({counted(one['held'], 'partition')} left)" for one in answer["missing"]
        )
    if answer["draining"]:
        told["draining"] = ", ".join(_draining(one) for one in answer["draining"])
    told["epoch"] = answer["epoch"]
    told["let in by"] = ", ".join(
        f"{one['name']} ({one['state'] or 'never heard'})" for one in answer["issuers"]
    )
    told["partitions moving"] = partitions_in_words(answer["moving"])
    told["agreement"] = _agreement(answer["agreement"])
    return told


def _flash(report: dict[str, Any]) -> str:
    written = f"{report['bytes_per_hour']:,} bytes an hour, {report['budget']:,} are allowed"
    return f"{written}; `{here('covey doctor')}` says more"


def _draining(one: dict[str, Any]) -> str:
    left = [f"{counted(one['held'], 'partition')} left"] * bool(one["held"])
    left += ["votes still"] * one["votes"]
    return f"{one['name']} ({', '.join(left) or 'done'})"


def _agreement(part: dict[str, Any]) -> str:
    """Return this node's part in what the covey agrees on, and what fails without a majority."""
    told = f"{part['role']}, revision {part['applied']}"
    if part["forks"]:
        return here(f"{told}; recovered at two places that differ now: `covey recover`")
    voters = counted(part["voters"], "voter")
    if part["has_majority"] is not False:
        return told
    return here(
        f"{told}; no majority of {voters}: locks, transactions, barriers and settings wait;"
        " events and readings go on, and shared keys most of whose owners are there. If most voters"
        " are gone for good: `covey recover`"
    )


def _unready(stage: str) -> str:
    return "not ready" if stage == "member" else "waiting"


def _trouble(uplink: dict[str, Any]) -> str:
    """Return what is wrong with the uplink and what to do; without a broker, nothing is."""
    if uplink["state"] == "off":
        return ""
    return here(". ".join(text for text in (uplink["last_error"], uplink["hint"]) if text))
