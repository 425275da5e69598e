"""A member list as a digest: how new all is that we believe, compared in a few bytes.

Every member on the list has a *version*: its life, its incarnation, its state, and the numbers of
the words and facts that we have of it. Two members whose versions are all equal have nothing to
tell each other, and one hash over all of them shows it. When the hashes differ, a second look
at one short hash for each of about the square root of N shares finds the few that do.

The shares' hashes are short, and salted with the table's hash, which changes with everything:
if two different shares ever look the same, they do so only until the next change.
"""

import hashlib
import math
from collections.abc import Collection

import msgspec

from gossip.core.ids import NodeId
from gossip.membership.model.facts import FactTable
from gossip.membership.model.members import RANK, Member, MemberState, MemberTable
from gossip.membership.model.messages import (
    BUCKET_HASH_BYTES,
    BUCKETS_MAX,
    TABLE_HASH_BYTES,
    VERSIONS_MAX,
    SyncVersion,
)

VERSION_BYTES = 24
"""About what a version takes on the wire."""

LIVE_RANKS = frozenset(RANK[state] for state in MemberState if state.is_live)

_encoder = msgspec.msgpack.Encoder()


class TableDigest:
    """Manages the digest of the member list: a version for each member, and hashes over buckets.

    Only the hash over all of them is kept, until the list or the facts change. The versions
    themselves are written down when somebody's hash is another, which is seldom.
    """

    def __init__(self, members: MemberTable, facts: FactTable) -> None:
        self._members = members
        self._facts = facts
        self._seen: tuple[int, int] | None = None
        self._table = b""

    def table(self) -> bytes:
        """Return the hash over all versions."""
        if self._seen != (self._members.changes, self._facts.changes):
            self._facts.tidy()
            self._seen = self._members.changes, self._facts.changes
            self._table = _hash(list(self.versions().values()), TABLE_HASH_BYTES)
        return self._table

    def versions(self) -> dict[NodeId, SyncVersion]:
        """Return all versions by member, in the order of ids."""
        return {member.id: self._version(member) for member in self._members}

    def warm_start(self, table: bytes) -> None:
        """Take this for the hash: somebody else computed it from the same versions."""
        self._table = table
        self._seen = self._members.changes, self._facts.changes

    def outline(self) -> bytes:
        """Return the hashes of as many shares as make outline and digest shortest together."""
        count = math.sqrt(len(self._members) * VERSION_BYTES / BUCKET_HASH_BYTES)
        return self._hashes(min(BUCKETS_MAX, math.ceil(count)), self.table())

    def differing(self, outline: bytes, salt: bytes) -> tuple[int, ...]:
        """Return the shares of which somebody else's outline differs from ours.

        An empty outline says that everything is the same.
        """
        if not outline:
            return ()
        size = BUCKET_HASH_BYTES
        theirs = [outline[at : at + size] for at in range(0, len(outline), size)]
        hashes = self._hashes(len(theirs), salt)
        ours = [hashes[at : at + size] for at in range(0, len(hashes), size)]
        return tuple(n for n, pair in enumerate(zip(ours, theirs, strict=True)) if len({*pair}) > 1)

    def within(self, buckets: int, picked: Collection[int]) -> list[SyncVersion]:
        """Return the versions in these shares, at most VERSIONS_MAX of them."""
        chosen = frozenset(picked)
        inside = [each for node, each in self.versions().items() if node % buckets in chosen]
        return inside[:VERSIONS_MAX]

    def _hashes(self, buckets: int, salt: bytes) -> bytes:
        shares: list[list[SyncVersion]] = [[] for _ in range(buckets)]
        for node, version in self.versions().items():
            shares[node % buckets].append(version)
        return b"".join(
            hashlib.blake2b(
                _encoder.encode(share), digest_size=BUCKET_HASH_BYTES, key=salt
            ).digest()
            for share in shares
        )

    def _version(self, member: Member) -> SyncVersion:
        rank, life = RANK[member.state], (member.id, member.boot, member.incarnation)
        if rank not in LIVE_RANKS:
            return SyncVersion(*life, rank, 0, 0)
        facts = self._facts.number_of(member) if self._facts.is_used else 0
        return SyncVersion(*life, rank, member.described, facts)


def _hash(versions: list[SyncVersion], size_bytes: int, salt: bytes = b"") -> bytes:
    listed = _encoder.encode(versions)
    return hashlib.blake2b(listed, digest_size=size_bytes, key=salt).digest()


def is_newer(mine: SyncVersion, theirs: SyncVersion | None) -> bool:
    """Say whether whoever has ``theirs`` of a member learns something from whoever has ``mine``.

    A higher precedence always does. Words and facts do as long as the other one cares for them: not
    when it holds the member for dead, and rightly so by what we know.
    """
    if theirs is None:
        return True
    if _precedence(mine) > _precedence(theirs):
        return True
    is_newer = (mine.boot, mine.described) > (theirs.boot, theirs.described)
    has_newer_facts = (mine.boot, mine.facts) > (theirs.boot, theirs.facts)
    return theirs.rank in LIVE_RANKS and (is_newer or has_newer_facts)


def _precedence(version: SyncVersion) -> tuple[int, int, int]:
    return version.boot, version.incarnation, version.rank
