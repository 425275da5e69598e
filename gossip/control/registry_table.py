"""The signed registry and the tokens, as a majority has agreed on them.

What stands in the log is the value itself and what it takes the place of, never how it was made: a
later version that computes owners otherwise still reads the same. A change names the *mark* of the
registry that it follows, and of each token the revision at which it was found; unless all of that
still holds, nothing of it is done, and whoever proposed it looks again.

No replica has a key here, or asks whether the signature is good: each node does when it follows a
registry (``gossip/kv/registry_sync.py``). What is looked at here is what no later version may see
otherwise: which registry it says it follows, and its number. Nothing else in it is read.
"""

from collections.abc import Iterator

import msgspec

from gossip.control.bounds import ENTRY_BYTES, TOKENS_BYTES_MAX, Space
from gossip.control.commands import ChangeRegistry, TokenChange
from gossip.control.outcomes import CONFLICT, FULL, INVALID, ChangedResult, Declined
from gossip.core.errors import Malformed
from gossip.registry.lineage import mark_of
from gossip.registry.registry import SignedRegistry


class RegistryHeader(msgspec.Struct, frozen=True, array_like=True):
    """The front of a registry (``registry.Registry``): what the log goes by, for ever."""

    cluster_id: bytes
    epoch: int
    partitions: int
    replicas: int
    nodes: msgspec.Raw
    table: msgspec.Raw
    removed: msgspec.Raw = msgspec.Raw()
    lineage: tuple[bytes, ...] = ()

    def follows(self, before: "AgreedRegistry") -> bool:
        """Tell whether it says that it comes after this one.

        It is the next one by its epoch; but one that ends a fork may be further on (``merge.py``).
        """
        place = self.epoch - before.header.epoch - 1
        return 0 <= place < len(self.lineage) and self.lineage[place] == before.mark

    def is_of_one_covey(self, before: "AgreedRegistry") -> bool:
        """Tell whether what never changes is as it was."""
        other = before.header
        return (self.cluster_id, self.partitions) == (other.cluster_id, other.partitions)


class AgreedRegistry(msgspec.Struct, frozen=True):
    """A registry that stands in the log."""

    signed: bytes
    mark: bytes
    header: RegistryHeader
    revision: int

    @property
    def size_bytes(self) -> int:
        """What it takes of the space."""
        return ENTRY_BYTES + len(self.signed)


class TokenEntry(msgspec.Struct, frozen=True, array_like=True):
    """One token as it is now; what its value says is the issuers' affair."""

    id: bytes
    value: bytes
    revision: int

    @property
    def size_bytes(self) -> int:
        """What it takes of the space."""
        return ENTRY_BYTES + len(self.id) + len(self.value)


class RegistryImage(msgspec.Struct, frozen=True, array_like=True):
    """The table, as a snapshot has it: tokens in the order of their ids."""

    signed: bytes
    revision: int
    tokens: tuple[TokenEntry, ...]

    @property
    def size_bytes(self) -> int:
        """What it takes of the space."""
        registry_bytes = ENTRY_BYTES + len(self.signed) if self.signed else 0
        return registry_bytes + sum(each.size_bytes for each in self.tokens)


_HEADERS = msgspec.msgpack.Decoder(RegistryHeader)


def read_registry(signed: bytes, revision: int) -> AgreedRegistry:
    """Return a registry as the log sees it. Raises Malformed."""
    payload = SignedRegistry.decode(signed).payload
    try:
        header = _HEADERS.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"not a registry: {error}") from None
    return AgreedRegistry(signed, mark_of(payload), header, revision)


class RegistryTable:
    """Manages the agreed registry and tokens; what they take is counted in ``space``."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self.agreed: AgreedRegistry | None = None
        self._tokens: dict[bytes, TokenEntry] = {}
        self._token_bytes = 0

    def __iter__(self) -> Iterator[TokenEntry]:
        return (self._tokens[each] for each in sorted(self._tokens))

    def token(self, name: bytes) -> TokenEntry | None:
        """Return a token; None if there is none."""
        return self._tokens.get(name)

    @property
    def mark(self) -> bytes:
        """The mark of the registry; empty while there is none."""
        return self.agreed.mark if self.agreed else b""

    # Changing it, all or nothing

    def change(self, change: ChangeRegistry, index: int) -> ChangedResult | Declined:
        """Put the next registry and other tokens in the place of what was expected."""
        fresh: AgreedRegistry | None = None
        if change.registry:
            try:
                fresh = read_registry(change.registry, index)
            except Malformed as error:
                return Declined(INVALID, str(error))
        refusal = self._refusal(change, fresh) or self._lacks_space(change, fresh)
        if refusal is not None:
            return refusal
        if fresh is not None:
            self._put(fresh)
        for each in change.tokens:
            self._put_token(each, index)
        return ChangedResult(index)

    def _refusal(self, change: ChangeRegistry, fresh: AgreedRegistry | None) -> Declined | None:
        if fresh is not None and change.expected != self.mark:
            return Declined(CONFLICT, "another registry was agreed on meanwhile; look again")
        for each in change.tokens:
            if each.expected != self._revision_of(each.id):
                return Declined(CONFLICT, "a token was changed meanwhile; look again")
        if fresh is None or self.agreed is None:
            return None
        if not fresh.header.is_of_one_covey(self.agreed):
            return Declined(INVALID, "a registry of another covey, or with other partitions")
        if not fresh.header.follows(self.agreed):
            return Declined(INVALID, "a registry that does not follow the one before it")
        return None

    def _revision_of(self, name: bytes) -> int:
        known = self._tokens.get(name)
        return known.revision if known else 0

    def _lacks_space(self, change: ChangeRegistry, fresh: AgreedRegistry | None) -> Declined | None:
        more_bytes = token_bytes = sum(self._growth(each) for each in change.tokens)
        if fresh is not None:
            more_bytes += fresh.size_bytes - (self.agreed.size_bytes if self.agreed else 0)
        if token_bytes > 0 and self._token_bytes + token_bytes > TOKENS_BYTES_MAX:
            return Declined(FULL, f"tokens take at most {TOKENS_BYTES_MAX} bytes; revoke some")
        if not self._space.fits(more_bytes, is_own=True):
            return Declined(FULL, f"the control plane holds {self._space.used_bytes} bytes")
        return None

    def _growth(self, change: TokenChange) -> int:
        known = self._tokens.get(change.id)
        after = TokenEntry(change.id, change.value, 0).size_bytes if change.value else 0
        return after - (known.size_bytes if known else 0)

    def _put(self, fresh: AgreedRegistry) -> None:
        self._space.add(fresh.size_bytes - (self.agreed.size_bytes if self.agreed else 0))
        self.agreed = fresh

    def _put_token(self, change: TokenChange, revision: int) -> None:
        growth = self._growth(change)
        self._space.add(growth)
        self._token_bytes += growth
        if change.value:
            self._tokens[change.id] = TokenEntry(change.id, change.value, revision)
        else:
            del self._tokens[change.id]

    # Snapshots

    def image(self) -> RegistryImage | None:
        """Return what a snapshot has of it; None while nothing is here."""
        if self.agreed is None and not self._tokens:
            return None
        signed, revision = (self.agreed.signed, self.agreed.revision) if self.agreed else (b"", 0)
        return RegistryImage(signed, revision, tuple(self))

    def take_over(self, other: "RegistryTable") -> None:
        """Have what another table has, in place of all that is here."""
        for each in list(self):
            self._put_token(TokenChange(each.id, each.revision, b""), each.revision)
        self._space.add(-(self.agreed.size_bytes if self.agreed else 0))
        self.agreed = None
        image = other.image()
        if image is not None:
            self.restore(image)

    def restore(self, image: RegistryImage) -> None:
        """Go on from a snapshot. Raises Malformed."""
        if image.signed:
            self._put(read_registry(image.signed, image.revision))
        for each in image.tokens:
            self._put_token(TokenChange(each.id, 0, each.value), each.revision)
