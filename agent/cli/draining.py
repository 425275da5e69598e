"""Waits until a node that drains has nothing left, and until it has no vote where another can.

A voter that is switched off counts in every majority all the same: two of three that were emptied
and switched off leave one that can agree on nothing. So the vote is waited for as
well; where nobody can have it, what is said is how many voters would be left.
"""

import time
from typing import Any

from agent.cli.progress import Progress, WaitNotice
from agent.cli.ring import in_words
from agent.cli.session import Session
from agent.exits import TIMED_OUT, UNHEALTHY, AgentError
from agent.text.units import counted, format_duration

LOOK_S, VOTE_LOOK_S = 0.5, 2.0
SURE_S = 15.0
"""Who has begun to lead has heard within this who could vote; before, it says so of nobody."""
CONTACT_S = 15.0
"""Whom the leader has not heard for so long is not counted on."""


class DrainWatch:
    """Watches one node, for so long in all. All raise AgentError."""

    def __init__(self, session: Session, name: str, timeout_s: float) -> None:
        self._session, self._client = session, session.client()
        self._name, self._timeout_s = name, timeout_s
        self._give_up = time.monotonic() + timeout_s

    def for_partitions(self, epoch: int) -> None:
        """Wait until nothing lies there by a registry of this epoch or a later one."""
        most = 0
        with Progress(quiet=self._session.quiet) as progress:
            while True:
                seen = self._client.get(f"/api/v1/nodes/{self._name}")
                if seen["epoch"] >= epoch:
                    if not self._is_left(seen):
                        return
                    most = max(most, seen["held"])
                    progress.show(1 - seen["held"] / most)
                if time.monotonic() >= self._give_up:
                    raise self._partitions_left(seen)
                self._sleep(LOOK_S)

    def _is_left(self, seen: dict[str, Any]) -> bool:
        if not seen["drains"]:
            raise AgentError(
                f"{self._name} drains no more: somebody took it back",
                f"`covey node show {self._name}`",
                UNHEALTHY,
            )
        return bool(seen["held"])

    def for_vote(self) -> str:
        """Wait until it has no vote, or nobody can have it; return what to say of it then."""
        with WaitNotice(f"for the vote of {self._name} to go", quiet=self._session.quiet):
            sure_at = time.monotonic() + SURE_S
            while True:
                answer: dict[str, Any] = self._client.get("/api/v1/voters")
                is_known = answer["wanted"] is not None
                if is_known and not any(each["name"] == self._name for each in _voting(answer)):
                    return ""
                if answer["changing"] or any(each["soon"] for each in answer["others"]):
                    sure_at = time.monotonic() + SURE_S
                if time.monotonic() >= sure_at:
                    return kept_vote(answer, self._name)
                if time.monotonic() >= self._give_up:
                    raise self._vote_left(answer)
                self._sleep(VOTE_LOOK_S)

    def _sleep(self, look_s: float) -> None:
        time.sleep(min(look_s, max(0.0, self._give_up - time.monotonic())))

    def _partitions_left(self, seen: dict[str, Any]) -> AgentError:
        """Return what to say when the time is over: what is left, and who is waited for."""
        moving = in_words(seen["moving"])
        left = f"{counted(seen['held'], 'partition')} still there after {self._after()}"
        steps = f"; of the covey's partitions {moving}" if moving else ""
        away = f". Of those that share them, not there: {', '.join(seen['away'])}"
        return AgentError(
            f"{self._name} drains, with {left}{steps}{away if seen['away'] else ''}",
            f"{self._goes_on()}. A partition moves once most of its owners are there",
            TIMED_OUT,
        )

    def _vote_left(self, answer: dict[str, Any]) -> AgentError:
        waits = [f"{each['name']}: {each['reason']}" for each in answer["others"] if each["soon"]]
        return AgentError(
            f"nothing lies on {self._name} any more, and it votes still after {self._after()}"
            f"{'; ' * bool(waits)}{', '.join(waits)}",
            f"{self._goes_on()}. `covey voters replace {self._name} NEW` names who is to vote",
            TIMED_OUT,
        )

    def _after(self) -> str:
        return format_duration(self._timeout_s)

    def _goes_on(self) -> str:
        return (
            f"it goes on: `covey node drain {self._name} --wait` waits for it again, and `covey"
            f" node undrain {self._name}` takes it back"
        )


def _voting(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in answer["voters"] if each["role"] in ("leader", "voter")]


def kept_vote(answer: dict[str, Any], name: str) -> str:
    """Return what it means that a node votes on that is empty and may be switched off.

    ``answer`` is that of the route of voters. Raises AgentError where it is to stay on: too few
    voters would be there without it, and without the others that drain or are silent.
    """
    if answer["wanted"] is None:
        raise AgentError(
            f"nothing lies on {name} any more, and nobody can say whether it votes: no majority of"
            " the voters agrees on a leader",
            "do not switch it off before `covey voters` shows one",
            UNHEALTHY,
        )
    voting = _voting(answer)
    left = [each for each in voting if not each["drains"] and _is_there(each)]
    gone = ", ".join(each["name"] for each in voting if each not in left)
    needed = len(voting) // 2 + 1
    are_left = f"without {gone} there are {len(left)} of {counted(len(voting), 'voter')}"
    if len(left) >= needed:
        return (
            f"It votes still, for nobody else can: {are_left}, of which"
            f" {len(left) - needed or 'none'} may be off."
        )
    raise AgentError(
        f"nothing lies on {name} any more, but it votes, and nobody else can: {are_left}, and"
        f" nothing is agreed on by fewer than {needed}",
        "do not switch it off: let another device join, which votes once it has run for a while"
        " (`covey voters` says why each does not vote), start voters that are off, or `covey"
        " members remove` one that is never to come back",
        UNHEALTHY,
    )


def _is_there(voter: dict[str, Any]) -> bool:
    return bool(voter["role"] == "leader" or voter["heard_s_ago"] <= CONTACT_S)
