"""Who waits for a node to drain is told of its vote: gone, about to go, or needed."""

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from agent.cli.draining import DrainWatch, kept_vote
from agent.exits import TIMED_OUT, UNHEALTHY, AgentError

SETTLING = "its agent has not run for long enough"


def voters(*voting: str, drains: str = "", silent: str = "", **others: bool) -> dict[str, Any]:
    """Return what the route of voters answers; the first leads, ``others`` may vote soon or not."""
    return {
        "wanted": len(voting),
        "changing": False,
        "voters": [
            {
                "name": name,
                "role": "voter" if place else "leader",
                "drains": name in drains.split(),
                "heard_s_ago": 60.0 if name in silent.split() else 0.1,
            }
            for place, name in enumerate(voting)
        ],
        "others": [{"name": n, "reason": SETTLING, "soon": soon} for n, soon in others.items()],
    }


UNKNOWN = voters("ash") | {"wanted": None, "changing": None}


class Asked:
    """A session of the command line whose agent answers one after the other, the last for ever."""

    quiet = True

    def __init__(self, *answers: dict[str, Any]) -> None:
        self.left = list(answers)

    def client(self) -> "Asked":
        return self

    def get(self, _path: str) -> dict[str, Any]:
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let each wait pass at once."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += max(seconds, 0.001)

    stub = SimpleNamespace(sleep=sleep, monotonic=lambda: now[0])
    monkeypatch.setattr("agent.cli.draining.time", stub)
    return now


def waited(*answers: dict[str, Any], timeout_s: float = 900.0) -> str:
    return DrainWatch(Asked(*answers), "ash", timeout_s).for_vote()  # type: ignore[arg-type]


def test_a_vote_that_another_can_have_is_waited_for() -> None:
    ready = voters("oak", "ash", "elm", drains="ash", fir=True)
    changing = voters("oak", "ash", "elm", drains="ash") | {"changing": True}
    gone = voters("oak", "fir", "elm", ash=False)
    assert waited(*[ready] * 100, *[UNKNOWN] * 3, *[changing] * 20, gone) == ""
    assert waited(gone) == ""


def test_a_vote_that_nobody_has_heard_of_yet_is_waited_for_a_moment() -> None:
    """A leader that has just begun has no reports."""
    nobody = voters("oak", "ash", "elm", drains="ash", fir=False)
    gone = voters("oak", "fir", "elm", ash=False)
    assert waited(*[nobody] * 5, gone) == ""


def test_the_time_that_is_given_ends_the_wait_and_says_who_is_not_ready(
    clock: list[float],
) -> None:
    with pytest.raises(AgentError) as over:
        waited(voters("oak", "ash", "elm", drains="ash", fir=True, yew=False), timeout_s=60.0)
    assert over.value.status == TIMED_OUT
    assert f"votes still after 1m; fir: {SETTLING}" in str(over.value)
    assert "yew" not in str(over.value)
    assert "`covey voters replace ash NEW`" in over.value.hint
    assert clock[0] == pytest.approx(60.0)


def test_one_of_three_may_be_switched_off_though_nobody_takes_its_vote() -> None:
    kept = waited(voters("oak", "ash", "elm", drains="ash", fir=False))
    assert kept == (
        "It votes still, for nobody else can: without ash there are 2 of 3 voters, of which none"
        " may be off."
    )


THREE = "oak", "ash", "elm"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (voters("ash", drains="ash"), "without ash there are 0 of 1 voter, and nothing is agreed"),
        (voters(*THREE, drains="ash elm"), "without ash, elm there are 1 of 3 voters"),
        (voters(*THREE, drains="ash", silent="elm"), "without ash, elm there are 1 of 3 voters"),
        (UNKNOWN, "nobody can say whether it votes"),
    ],
)
def test_one_without_which_nothing_could_be_agreed_on_is_not_said_to_be_done_with(
    answer: dict[str, Any], says: str
) -> None:
    with pytest.raises(AgentError) as refusal:
        waited(answer)
    assert refusal.value.status == UNHEALTHY
    assert says in str(refusal.value)
    assert "do not switch it off" in refusal.value.hint


def test_what_is_said_to_be_left_is_enough_or_it_is_refused() -> None:
    for count, drained in itertools.product((1, 3, 5), range(1, 6)):
        names = ["ash", "oak", "elm", "fir", "yew"][:count]
        gone = names[:drained]
        answer = voters(*reversed(names), drains=" ".join(gone))
        if 2 * (count - len(gone)) > count:
            assert "votes still" in kept_vote(answer, "ash")
        else:
            with pytest.raises(AgentError):
                kept_vote(answer, "ash")
