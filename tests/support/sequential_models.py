"""What objects do when nobody else is there: the models that histories are judged against.

Requests are tuples that begin with a verb, so that a history reads like a story:

    register   ("read",) -> value    ("write", value) -> "ok"    ("swap", old, new) -> True or False
    list       ("read",) -> tuple    ("append", value) -> "ok"
    lock       ("lock",) -> token or None    ("unlock", token) -> True or False

None of the answers may be None but that of a refused lock and of a register that nobody wrote.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple, cast

from tests.support.linearizability import Call

Request = tuple[Hashable, ...]


class Register:
    """One value, with compare-and-set."""

    def start(self, calls: Sequence[Call]) -> Hashable:
        """Nobody wrote yet; the state is wrapped, because None means that something cannot be."""
        return (None,)

    def answered(self, state: Hashable, call: Call) -> Hashable | None:
        (value,) = cast("Request", state)
        match call.request:
            case ("read",):
                return state if call.answer == value else None
            case ("write", written):
                return (written,) if call.answer == "ok" else None
            case ("swap", old, new):
                if call.answer != (value == old):
                    return None
                return (new,) if call.answer else state
        raise AssertionError(f"no request to a register: {call.request}")

    def unanswered(self, state: Hashable, call: Call) -> Hashable:
        (value,) = cast("Request", state)
        match call.request:
            case ("write", written):
                return (written,)
            case ("swap", old, new) if value == old:
                return (new,)
        return state


class Grown(NamedTuple):
    """The state of a list, and the longest that anybody will read."""

    values: Request
    longest: Request

    def grow(self, value: Hashable) -> "Grown | None":
        """Return the list with one more value; None when nobody could read the longest any more.

        A list only grows, so at each time it and the longest one agree as far as both go. There
        would be too many orders to try without that.
        """
        at = len(self.values)
        if at < len(self.longest) and self.longest[at] != value:
            return None
        return Grown((*self.values, value), self.longest)


class AppendList:
    """A list that grows. Its reads show the whole past."""

    def start(self, calls: Sequence[Call]) -> Hashable:
        read = [call.answer for call in calls if call.request == ("read",) and not call.is_open]
        return Grown((), max((cast("Request", each) for each in read), key=len, default=()))

    def answered(self, state: Hashable, call: Call) -> Hashable | None:
        grown = cast("Grown", state)
        match call.request:
            case ("read",):
                return grown if call.answer == grown.values else None
            case ("append", value):
                return grown.grow(value) if call.answer == "ok" else None
        raise AssertionError(f"no request to a list: {call.request}")

    def unanswered(self, state: Hashable, call: Call) -> Hashable | None:
        match call.request:
            case ("append", value):
                return cast("Grown", state).grow(value)
        return state


class Held(NamedTuple):
    """The state of a lock: who has it, and the least token that the last grant can have had."""

    holder: str | None
    token: int
    is_known: bool
    """Whether the grant had just this token: a client without an answer got one that is unknown."""


class TokenLock:
    """A lock whose grants carry tokens that grow; its holder alone can give it back."""

    def start(self, calls: Sequence[Call]) -> Hashable:
        return Held(None, 0, is_known=True)

    def answered(self, state: Hashable, call: Call) -> Hashable | None:
        held = cast("Held", state)
        match call.request:
            case ("lock",):
                return self._locked(held, call)
            case ("unlock", int(token)):
                if call.answer != self._is_holder(held, call.client, token):
                    return None
                return Held(None, max(token, held.token), is_known=True) if call.answer else held
        raise AssertionError(f"no request to a lock: {call.request}")

    def unanswered(self, state: Hashable, call: Call) -> Hashable:
        held = cast("Held", state)
        match call.request:
            case ("lock",) if held.holder is None:
                return Held(call.client, held.token + 1, is_known=False)
            case ("unlock", int(token)) if self._is_holder(held, call.client, token):
                return Held(None, max(token, held.token), is_known=True)
        return held

    @staticmethod
    def _locked(held: Held, call: Call) -> Held | None:
        if call.answer is None:
            return None if held.holder is None else held
        if held.holder is not None:
            return None
        assert isinstance(call.answer, int), "a grant is answered with its token"
        return Held(call.client, call.answer, is_known=True) if call.answer > held.token else None

    @staticmethod
    def _is_holder(held: Held, client: str, token: int) -> bool:
        fits = token == held.token if held.is_known else token >= held.token
        return held.holder == client and fits
