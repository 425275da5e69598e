"""What the steps of many make of the agreed registry and tokens, before it is signed.

A step is given the draft as those before it have left it, and puts in what it wants changed. One
that raises has changed nothing. What comes of all is one ``ChangeRegistry``
(``registry_issuer.py``).
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from agent.cluster.agreed_registry import AgreedState
from agent.store.tokens import TokenRecord
from gossip.control.commands import ChangeRegistry, TokenChange
from gossip.registry.batch import as_next
from gossip.registry.registry import Registry, SignedRegistry

T = TypeVar("T")

Sign = Callable[[Registry], bytes]
"""Returns the signed form of a registry."""


class Draft:
    """The agreed registry and tokens with changes that are not yet agreed on."""

    def __init__(self, base: AgreedState) -> None:
        self.base = base
        self._payload = SignedRegistry.decode(base.signed).payload
        self.agreed = Registry.decode(self._payload)
        """The registry before any of the steps."""
        self.registry = self.agreed
        self._tokens: dict[bytes, TokenRecord | None] = {}
        self._is_whole = False

    def token(self, token_id: bytes) -> TokenRecord | None:
        """Return a token; None if it is not known, or not any more."""
        if token_id in self._tokens:
            return self._tokens[token_id]
        entry = self.base.tokens.get(token_id)
        return TokenRecord.decode(entry.value) if entry is not None else None

    def tokens(self) -> list[TokenRecord]:
        """Return all tokens, the newest last."""
        return newest_last(self.token(each) for each in {*self.base.tokens, *self._tokens})

    def put_token(self, token: TokenRecord) -> None:
        """Add a token, or put it in the place of what it was."""
        self._tokens[token.id] = token

    def forget_token(self, token_id: bytes) -> None:
        """Remember nothing of a token any more."""
        self._tokens[token_id] = None

    def follow_with(self, registry: Registry) -> None:
        """Have this registry come next, made from ``registry`` by one or several steps."""
        self.registry = registry

    def end_fork_with(self, merged: Registry) -> None:
        """Have exactly this registry come next: it names its past itself (``merge.py``)."""
        self.registry, self._is_whole = merged, True

    def undo(self) -> Callable[[], None]:
        """Return what brings the draft back to how it is now."""
        registry, tokens, is_whole = self.registry, dict(self._tokens), self._is_whole

        def undo() -> None:
            self.registry, self._tokens, self._is_whole = registry, tokens, is_whole

        return undo

    def changes(self, sign: Sign) -> ChangeRegistry | None:
        """Return what is to be agreed on; None when nothing is changed."""
        tokens = self.token_changes()
        if self.registry is self.agreed:
            return ChangeRegistry(b"", b"", tokens) if tokens else None
        fresh = self.registry
        if not self._is_whole:
            fresh = as_next(self._payload, self.agreed, fresh)
        return ChangeRegistry(self.base.mark, sign(fresh), tokens)

    def token_changes(self) -> tuple[TokenChange, ...]:
        """Return what is changed of the tokens."""
        return tuple(filter(None, map(self._token_change, sorted(self._tokens))))

    def _token_change(self, token_id: bytes) -> TokenChange | None:
        entry, token = self.base.tokens.get(token_id), self._tokens[token_id]
        before, after = entry.value if entry else b"", token.encode() if token else b""
        if before == after:
            return None
        return TokenChange(token_id, entry.revision if entry else 0, after)


Step = Callable[[Draft], T]
"""Changes a draft, and returns what it found. Raises what it refuses with; in a worker thread."""


class DraftOutcome(NamedTuple):
    """What came of some steps: of each, in their order, its result or what it raised."""

    change: ChangeRegistry | None
    results: list[object]


def draft(base: AgreedState, steps: list[Step[object]], sign: Sign) -> DraftOutcome:
    """Carry out steps one after the other, and sign what they come to."""
    made = Draft(base)
    results: list[object] = []
    for step in steps:
        undo = made.undo()
        try:
            results.append(step(made))
        except Exception as error:  # noqa: BLE001 - handed to whoever asked for this step
            undo()
            results.append(error)
    return DraftOutcome(made.changes(sign), results)


def is_done(change: ChangeRegistry, now: AgreedState) -> bool:
    """Tell whether a change of which nobody answered was carried out, and nothing since."""
    if change.registry and change.registry != now.signed:
        return False
    values = {each.id: each.value for each in now.tokens.values()}
    return all(values.get(each.id, b"") == each.value for each in change.tokens)


def newest_last(tokens: Iterable[TokenRecord | None]) -> list[TokenRecord]:
    """Return the tokens that there are in the order in which they were made."""
    there = [each for each in tokens if each is not None]
    return sorted(there, key=lambda token: (token.note.made_at, token.id))
