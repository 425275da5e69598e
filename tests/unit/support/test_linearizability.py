"""The judge of histories: right histories are found right, and wrong ones wrong."""

import math
import random
from collections.abc import Callable, Hashable
from itertools import permutations
from typing import Protocol

import pytest

from tests.support.linearizability import Call, Judgement, Model, Verdict, judge, verdict_of
from tests.support.sequential_models import AppendList, Register, TokenLock

OPEN = math.inf
READ, LOCK = ("read",), ("lock",)
RIGHT, WRONG, UNKNOWN = Verdict.LINEARIZABLE, Verdict.WRONG, Verdict.UNKNOWN


def write(value: int) -> tuple[Hashable, ...]:
    return ("write", value)


def swap(old: int | None, new: int) -> tuple[Hashable, ...]:
    return ("swap", old, new)


def append(value: int) -> tuple[Hashable, ...]:
    return ("append", value)


def unlock(token: int) -> tuple[Hashable, ...]:
    return ("unlock", token)


Line = tuple[str, float, float, tuple[Hashable, ...], Hashable]


def history(*lines: Line, key: str = "k") -> list[Call]:
    """Write a history as (client, called at, answered at, request, answer)."""
    return [Call(client, key, request, answer, a, b) for client, a, b, request, answer in lines]


def verdict(model: Model, *lines: Line) -> Verdict:
    return verdict_of(judge(history(*lines), model))


REGISTERS: list[tuple[str, Verdict, list[Line]]] = [
    ("nothing happened", RIGHT, []),
    ("nobody wrote", RIGHT, [("a", 0, 1, READ, None)]),
    ("read what was written", RIGHT, [("a", 0, 1, write(1), "ok"), ("b", 2, 3, READ, 1)]),
    ("a stale read", WRONG, [("a", 0, 1, write(1), "ok"), ("b", 2, 3, READ, None)]),
    ("read out of thin air", WRONG, [("a", 0, 1, write(1), "ok"), ("b", 2, 3, READ, 9)]),
    (
        "a read beside a write may see either",
        RIGHT,
        [("a", 0, 9, write(1), "ok"), ("b", 1, 2, READ, None), ("c", 3, 4, READ, 1)],
    ),
    (
        "but not go back",
        WRONG,
        [("a", 0, 9, write(1), "ok"), ("b", 1, 2, READ, 1), ("c", 3, 4, READ, None)],
    ),
    (
        "at the same time is side by side",
        RIGHT,
        [("a", 0, 1, write(1), "ok"), ("b", 1, 2, READ, None)],
    ),
    ("an open write may have happened", RIGHT, [("a", 0, OPEN, write(1), 0), ("b", 1, 2, READ, 1)]),
    ("or not", RIGHT, [("a", 0, OPEN, write(1), 0), ("b", 1, 2, READ, None)]),
    (
        "or happen late",
        RIGHT,
        [("a", 0, OPEN, write(1), 0), ("b", 1, 2, READ, None), ("b", 3, 4, READ, 1)],
    ),
    (
        "but only once",
        WRONG,
        [
            ("a", 0, OPEN, write(1), 0),
            ("b", 1, 2, write(2), "ok"),
            ("c", 3, 4, READ, 1),
            ("c", 5, 6, READ, 2),
            ("c", 7, 8, READ, 1),
        ],
    ),
    ("and not before it was asked", WRONG, [("b", 0, 1, READ, 1), ("a", 2, OPEN, write(1), 0)]),
    (
        "a lost update",
        WRONG,
        [("a", 0, 5, swap(None, 1), True), ("b", 1, 6, swap(None, 2), True)],
    ),
    (
        "one of two swaps wins",
        RIGHT,
        [("a", 0, 5, swap(None, 1), True), ("b", 1, 6, swap(None, 2), False)],
    ),
    (
        "an open swap may win",
        RIGHT,
        [
            ("a", 0, OPEN, swap(None, 1), 0),
            ("b", 1, 2, swap(None, 2), False),
            ("c", 3, 4, READ, 1),
        ],
    ),
    ("a swap that should have won", WRONG, [("a", 0, 1, swap(None, 1), False)]),
    (
        "two readers disagree about the order of two writes",
        WRONG,
        [
            ("a", 0, 20, write(1), "ok"),
            ("b", 0, 20, write(2), "ok"),
            ("c", 1, 2, READ, 1),
            ("c", 3, 4, READ, 2),
            ("d", 1, 2, READ, 2),
            ("d", 5, 6, READ, 1),
        ],
    ),
]

LISTS: list[tuple[str, Verdict, list[Line]]] = [
    (
        "two appends in either order",
        RIGHT,
        [
            ("a", 0, 5, append(1), "ok"),
            ("b", 0, 5, append(2), "ok"),
            ("c", 6, 7, READ, (2, 1)),
        ],
    ),
    (
        "an append is lost",
        WRONG,
        [("a", 0, 1, append(1), "ok"), ("b", 2, 3, append(2), "ok"), ("c", 4, 5, READ, (2,))],
    ),
    (
        "an append twice, as by a retry",
        WRONG,
        [("a", 0, 1, append(1), "ok"), ("c", 4, 5, READ, (1, 1))],
    ),
    ("an open append, once", RIGHT, [("a", 0, OPEN, append(1), 0), ("c", 4, 5, READ, (1,))]),
    ("an open append, twice", WRONG, [("a", 0, OPEN, append(1), 0), ("c", 4, 5, READ, (1, 1))]),
    (
        "the past changes",
        WRONG,
        [
            ("a", 0, 9, append(1), "ok"),
            ("b", 0, 9, append(2), "ok"),
            ("c", 1, 2, READ, (1,)),
            ("c", 10, 11, READ, (2, 1)),
        ],
    ),
]

LOCKS: list[tuple[str, Verdict, list[Line]]] = [
    (
        "one after the other, tokens grow",
        RIGHT,
        [
            ("a", 0, 1, LOCK, 5),
            ("b", 2, 3, LOCK, None),
            ("a", 4, 5, unlock(5), True),
            ("b", 6, 7, LOCK, 8),
        ],
    ),
    ("two holders", WRONG, [("a", 0, 1, LOCK, 5), ("b", 2, 3, LOCK, 6)]),
    (
        "a token goes back",
        WRONG,
        [("a", 0, 1, LOCK, 5), ("a", 2, 3, unlock(5), True), ("b", 4, 5, LOCK, 4)],
    ),
    (
        "a token again",
        WRONG,
        [("a", 0, 1, LOCK, 5), ("a", 2, 3, unlock(5), True), ("b", 4, 5, LOCK, 5)],
    ),
    ("refused though free", WRONG, [("a", 0, 1, LOCK, None)]),
    (
        "refused, because somebody without an answer has it",
        RIGHT,
        [("a", 0, OPEN, LOCK, 0), ("b", 1, 2, LOCK, None)],
    ),
    (
        "who has no answer has it from then on",
        WRONG,
        [
            ("a", 0, OPEN, LOCK, 0),
            ("b", 1, 2, LOCK, None),
            ("b", 3, 4, LOCK, 9),
        ],
    ),
    (
        "an old holder gives back what is another's",
        WRONG,
        [
            ("a", 0, 1, LOCK, 5),
            ("a", 2, 3, unlock(5), True),
            ("b", 4, 5, LOCK, 8),
            ("a", 6, 7, unlock(5), True),
        ],
    ),
    (
        "an open return may let the next one in",
        RIGHT,
        [("a", 0, 1, LOCK, 5), ("a", 2, OPEN, unlock(5), 0), ("b", 4, 5, LOCK, 8)],
    ),
]


@pytest.mark.parametrize(
    ("model", "expected", "lines"),
    [
        pytest.param(model, expected, lines, id=f"{type(model).__name__}-{told}")
        for model, cases in ((Register(), REGISTERS), (AppendList(), LISTS), (TokenLock(), LOCKS))
        for told, expected, lines in cases
    ],
)
def test_verdict(model: Model, expected: Verdict, lines: list[Line]) -> None:
    assert verdict(model, *lines) is expected


def test_the_order_of_the_lines_is_nothing() -> None:
    for model, cases in ((Register(), REGISTERS), (AppendList(), LISTS), (TokenLock(), LOCKS)):
        for _, expected, lines in cases:
            assert verdict(model, *reversed(lines)) is expected


def test_keys_are_judged_apart() -> None:
    """One key is wrong; the other is too, only if its calls were mixed up with the first's."""
    one = history(("a", 0, 1, write(1), "ok"), ("b", 2, 3, READ, 2), key="one")
    two = history(("a", 0, 1, write(2), "ok"), ("b", 2, 3, READ, 2), key="two")
    judgements = judge(one + two, Register())
    assert [(each.key, each.verdict) for each in judgements] == [("one", WRONG), ("two", RIGHT)]
    assert verdict_of(judgements) is WRONG


def test_a_wrong_history_is_told_with_what_cannot_follow() -> None:
    (judgement,) = judge(
        history(("a", 0, 1, write(1), "ok"), ("b", 2, 3, READ, 1), ("c", 4, 5, READ, 7)), Register()
    )
    assert [call.client for call in judgement.order] == ["a", "b"]
    assert [call.client for call in judgement.stuck] == ["c"]
    assert str(judgement).splitlines()[-1] == "! [4, 5] c: ('read',) -> 7"


def test_the_order_that_explains_a_history_is_one() -> None:
    lines = REGISTERS[5][2]
    (judgement,) = judge(history(*lines), Register())
    assert [call.client for call in judgement.order] == ["b", "a", "c"]


def test_memory_is_bounded_and_the_verdict_honest() -> None:
    """Twenty open writes, and a read that none of them explains: too many sets to try."""
    lines: list[Line] = [(f"w{i}", 0, OPEN, write(i), 0) for i in range(20)]
    lines.append(("r", 1, 2, READ, 99))
    (judgement,) = judge(history(*lines), Register(), tried_max=5_000)
    assert judgement.verdict is UNKNOWN
    assert judgement.tried <= 5_001
    assert verdict_of([judgement, Judgement(WRONG, "k", 1, ())]) is WRONG


def by_hand(calls: list[Call], model: Model) -> Verdict:
    """Try every order of every choice of the open calls: what the search must agree with."""
    closed = [call for call in calls if not call.is_open]
    opened = [call for call in calls if call.is_open]
    for chosen in range(1 << len(opened)):
        some = closed + [call for bit, call in enumerate(opened) if chosen >> bit & 1]
        if any(_explains(order, model) for order in permutations(some)):
            return RIGHT
    return WRONG


def _explains(order: tuple[Call, ...], model: Model) -> bool:
    state, latest_call = model.start(()), -math.inf
    for call in order:
        if call.answered_at < latest_call:
            return False
        latest_call = max(latest_call, call.called_at)
        after = (model.unanswered if call.is_open else model.answered)(state, call)
        if after is None:
            return False
        state = after
    return True


def requests(kind: str, rng: random.Random) -> tuple[Hashable, ...]:
    if kind == "register":
        return rng.choice([READ, write(rng.randrange(3)), swap(rng.randrange(3), rng.randrange(3))])
    if kind == "list":
        return rng.choice([READ, append(rng.randrange(3))])
    return rng.choice([LOCK, unlock(rng.randrange(1, 4))])


def lived(kind: str, rng: random.Random, length: int, *, lies: float) -> list[Call]:
    """Let clients use a real object side by side; some answers are lost, some are lies."""
    live = LIVE[kind]()
    calls = []
    for number, moment in enumerate(sorted(rng.uniform(0, 10) for _ in range(length))):
        client, request = f"c{number}", requests(kind, rng)
        answer = live.serve(client, request)
        begin, end = moment - rng.expovariate(1), moment + rng.expovariate(1)
        if rng.random() < lies:
            answer = rng.choice(LIES[kind])
        calls.append(Call(client, "k", request, answer, begin, OPEN if rng.random() < 0.2 else end))
    return calls


class LiveRegister:
    value: Hashable = None

    def serve(self, client: str, request: tuple[Hashable, ...]) -> Hashable:
        match request:
            case ("write", value):
                self.value = value
                return "ok"
            case ("swap", old, new):
                fits = self.value == old
                self.value = new if fits else self.value
                return fits
        return self.value


class LiveList:
    values: tuple[Hashable, ...] = ()

    def serve(self, client: str, request: tuple[Hashable, ...]) -> Hashable:
        if request == READ:
            return self.values
        self.values = (*self.values, request[1])
        return "ok"


class LiveLock:
    holder: str | None = None
    token = 0

    def serve(self, client: str, request: tuple[Hashable, ...]) -> Hashable:
        if request == LOCK:
            if self.holder is not None:
                return None
            self.holder, self.token = client, self.token + 1
            return self.token
        fits = self.holder == client and request[1] == self.token
        self.holder = None if fits else self.holder
        return fits


class Live(Protocol):
    def serve(self, client: str, request: tuple[Hashable, ...]) -> Hashable: ...


LIVE: dict[str, Callable[[], Live]] = {"register": LiveRegister, "list": LiveList, "lock": LiveLock}
LIES: dict[str, list[Hashable]] = {
    "register": [None, 0, 1, 2, True, False],
    "list": [(), (1,), (1, 2), (2, 0, 1)],
    "lock": [None, 1, 2],
}
MODELS: dict[str, Model] = {"register": Register(), "list": AppendList(), "lock": TokenLock()}


@pytest.mark.parametrize("kind", MODELS)
def test_what_was_lived_is_right(kind: str) -> None:
    rng = random.Random(kind)
    for _ in range(40):
        calls = lived(kind, rng, 30, lies=0.0)
        assert verdict_of(judge(calls, MODELS[kind])) is RIGHT


@pytest.mark.parametrize("kind", MODELS)
def test_the_search_agrees_with_trying_everything(kind: str) -> None:
    """Small histories, about half of them wrong."""
    rng, seen = random.Random(f"{kind}, small"), {RIGHT: 0, WRONG: 0}
    for _ in range(150):
        calls = lived(kind, rng, rng.randint(1, 5), lies=0.3)
        expected = by_hand(calls, MODELS[kind])
        assert verdict_of(judge(calls, MODELS[kind])) is expected, calls
        seen[expected] += 1
    assert min(seen.values()) > 15, f"the histories say too little: {seen}"
