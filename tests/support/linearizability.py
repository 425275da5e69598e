"""Whether a history could have happened one operation after the other.

A history is linearizable when each operation can be given one moment between its call and its
answer, such that the operations, one after the other in the order of these moments, would have got
the answers that they got (Herlihy and Wing 1990). The search is that of Wing and Gong (1993) as
Lowe (2017) and Porcupine do it: take any operation that may be next, and step back where none may.
What was tried is remembered as (who is taken, state), so that no such pair is tried twice.

Three things keep it honest and quick:

* Objects that do not influence each other are judged apart (P-compositionality), by their key.
* An operation without an answer stays open to the end: it may be taken at any time after its call,
  with whatever outcome, or never.
* Memory is bounded: when more pairs than ``tried_max`` were tried, the verdict is ``UNKNOWN``, and
  neither yes nor no.

Times are any numbers that grow. Two at the same time overlap: nothing is said about their order.
"""

import enum
import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple, Protocol

TRIED_MAX = 200_000


class Call(NamedTuple):
    """One operation of a client, and what it was told. Open operations have no answer."""

    client: str
    key: str
    request: Hashable
    answer: Hashable
    """What the client was told; without a meaning while the operation is open."""
    called_at: float
    answered_at: float = math.inf

    @property
    def is_open(self) -> bool:
        """Whether the client was never told what became of it."""
        return self.answered_at == math.inf


class Model(Protocol):
    """What an object does when operations come one after the other."""

    def start(self, calls: Sequence[Call]) -> Hashable:
        """Return the state before all operations; ``calls`` are those to come, in any order."""

    def answered(self, state: Hashable, call: Call) -> Hashable | None:
        """Return the state after a call that is answered so; None: this answer is impossible."""

    def unanswered(self, state: Hashable, call: Call) -> Hashable | None:
        """Return the state after a call, whatever it was answered; None: it never happened."""


class Verdict(enum.Enum):
    """What is known of a history."""

    LINEARIZABLE = "linearizable"
    WRONG = "wrong"
    UNKNOWN = "unknown: too much to try"


class Judgement(NamedTuple):
    """What was found out about the history of one object."""

    verdict: Verdict
    key: str
    tried: int
    """So many pairs of (who is taken, state) were remembered."""
    order: tuple[Call, ...]
    """The order that explains the history; of one that is wrong, the longest that was found."""
    stuck: tuple[Call, ...] = ()
    """Of a history that is wrong: what may come next behind that order, and cannot."""

    def __str__(self) -> str:
        lines = [f"{self.key!r} is {self.verdict.value} ({self.tried} tried)"]
        if self.verdict is not Verdict.LINEARIZABLE:
            lines += [f"  {_told(call)}" for call in self.order]
            lines += [f"! {_told(call)}" for call in self.stuck]
        return "\n".join(lines)


def judge(history: Iterable[Call], model: Model, tried_max: int = TRIED_MAX) -> list[Judgement]:
    """Judge each object of a history by itself, in the order of their keys."""
    by_key: defaultdict[str, list[Call]] = defaultdict(list)
    for call in history:
        assert call.called_at <= call.answered_at, f"answered before it was asked: {call}"
        by_key[call.key].append(call)
    return [_Search(key, by_key[key], model, tried_max).run() for key in sorted(by_key)]


def verdict_of(judgements: Iterable[Judgement]) -> Verdict:
    """Sum up: one wrong object is enough, and one of which nothing is known hides the rest."""
    verdicts = {each.verdict for each in judgements}
    for verdict in (Verdict.WRONG, Verdict.UNKNOWN):
        if verdict in verdicts:
            return verdict
    return Verdict.LINEARIZABLE


class _Event:
    """A call or an answer, in a list from which taken operations are lifted out."""

    __slots__ = ("after", "before", "call", "end", "is_answer", "number")

    def __init__(self, call: Call, number: int, end: "_Event | None" = None) -> None:
        self.call, self.number, self.end = call, number, end
        self.is_answer = False
        self.before: _Event = self
        self.after: _Event = self

    def lift(self) -> None:
        self.before.after, self.after.before = self.after, self.before

    def lower(self) -> None:
        self.before.after = self.after.before = self


class _Search:
    """The search through the history of one object.

    The events lie in a ring in the order of their times. Up to the first answer in it stand the
    calls that may be next; when no answer is left, all that must be explained is explained.
    """

    def __init__(self, key: str, calls: list[Call], model: Model, tried_max: int) -> None:
        self._key, self._model, self._tried_max = key, model, tried_max
        self._root = _ring(calls)
        self._answers_left = sum(not call.is_open for call in calls)
        self._state: Hashable = model.start(calls)
        self._taken = 0
        self._path: list[tuple[_Event, Hashable]] = []
        self._tried: set[tuple[int, Hashable]] = {(0, self._state)}
        self._longest: tuple[Call, ...] = ()
        self._stuck: tuple[Call, ...] = ()

    def run(self) -> Judgement:
        """Return the verdict."""
        event = self._root.after
        while self._answers_left:
            if len(self._tried) > self._tried_max:
                return self._judgement(Verdict.UNKNOWN)
            assert event is not self._root, "an answer that is not explained stands in the ring"
            if not event.is_answer:
                event = self._root.after if self._take(event) else event.after
                continue
            # Whoever may be next stands before the first answer, and was tried.
            self._note_stuck()
            if not self._path:
                return self._judgement(Verdict.WRONG)
            event = self._step_back().after
        self._longest, self._stuck = tuple(event.call for event, _ in self._path), ()
        return self._judgement(Verdict.LINEARIZABLE)

    def _take(self, event: _Event) -> bool:
        """Let a call be the next, if its answer and what was tried allow it."""
        call, model = event.call, self._model
        after = (model.unanswered if call.is_open else model.answered)(self._state, call)
        if after is None or (call.is_open and after == self._state):
            return False
        taken = self._taken | 1 << event.number
        if (taken, after) in self._tried:
            return False
        self._tried.add((taken, after))
        self._path.append((event, self._state))
        self._state, self._taken = after, taken
        event.lift()
        if event.end is not None:
            event.end.lift()
            self._answers_left -= 1
        return True

    def _step_back(self) -> _Event:
        event, self._state = self._path.pop()
        self._taken ^= 1 << event.number
        if event.end is not None:
            event.end.lower()
            self._answers_left += 1
        event.lower()
        return event

    def _note_stuck(self) -> None:
        """Remember the longest order that was found, and what could not follow it."""
        if self._stuck and len(self._path) <= len(self._longest):
            return
        self._longest = tuple(event.call for event, _ in self._path)
        stuck, event = [], self._root.after
        while not event.is_answer:
            stuck.append(event.call)
            event = event.after
        self._stuck = tuple(stuck)

    def _judgement(self, verdict: Verdict) -> Judgement:
        return Judgement(verdict, self._key, len(self._tried), self._longest, self._stuck)


def _ring(calls: list[Call]) -> _Event:
    """Return the root of a ring of all events, in the order of their times, calls first."""
    root = _Event(Call("", "", None, None, -math.inf), -1)
    timed: list[tuple[float, bool, int, _Event]] = []
    for number, call in enumerate(calls):
        begin = _Event(call, number)
        timed.append((call.called_at, False, number, begin))
        if not call.is_open:
            begin.end = _Event(call, number)
            begin.end.is_answer = True
            timed.append((call.answered_at, True, number, begin.end))
    last = root
    for _, _, _, event in sorted(timed, key=lambda each: each[:3]):
        event.before, last.after = last, event
        last = event
    last.after, root.before = root, last
    return root


def _told(call: Call) -> str:
    answer = "open" if call.is_open else f"{call.answer!r}"
    until = "..." if call.is_open else f"{call.answered_at:g}"
    return f"[{call.called_at:g}, {until}] {call.client}: {call.request!r} -> {answer}"
