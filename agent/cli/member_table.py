"""The table of members: its columns, and a member as a line of it."""

from typing import Any

from agent.cli.output import is_terminal
from agent.text.units import format_duration

HEADER = ("NAME", "STATE", "ADDRESSES", "TAGS", "ID")
SPARE = ("ID",)
NOTHING_KNOWN: dict[str, Any] = {
    "state": "absent", "addresses": [], "tags": {}, "self": False, "roles": [], "impaired": [],
    "drains": False,
}  # fmt: skip


def everybody(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the members that an agent lists, and behind them those that nobody has heard."""
    listed = {member["id"] for member in answer["members"]}
    unheard = [one for one in answer["absent"] if one["id"] not in listed]
    return [*answer["members"], *({**NOTHING_KNOWN, **one} for one in unheard)]


def row(member: dict[str, Any]) -> tuple[object, ...]:
    """Return a line of the table; a person gets remarks, a pipe the bare words."""
    name, state = member["name"], member["state"]
    if is_terminal():
        remarks = ["this node"] * member["self"] + member["roles"] + ["drains"] * member["drains"]
        name = f"{name} ({', '.join(remarks)})" if remarks else name
        state = state_of({**member})
    return name, state, member["addresses"], member["tags"], member["id"]


def state_of(member: dict[str, Any]) -> str:
    """Return the state, and of a sleeper for how much longer."""
    until_s = member.pop("until_s", None)
    state: str = member["state"]
    if until_s is not None:
        state = f"{state} ({format_duration(until_s)})"
    return ", ".join([state, *member.pop("impaired")])
