"""Signed words: what a member says about itself counts with its own signature.

All members share the keys of the datagrams, so a packet proves "a member" and not "this member".
What a member says about itself (Alive, Left, Asleep, its facts) therefore carries a signature made
with the key of its identity, whose public half stands in the registry, and whoever passes the words
on passes the signature on. Accusations (Suspect, Dead) carry none: anybody may accuse, and signed
words refute.

Three rules:

* A signature that does not fit is refused, whoever it is about.
* Who was heard once with a signature is a *signer*: words without one are refused from then on. Who
  never was runs an earlier version, and is believed as before there were signatures.
* A life of a signer begins with words that it has signed. That somebody names a later one in its
  name, in the header of a packet or in an accusation, is no reason to believe in it.

A signature costs its receiver a fifth of a millisecond or more. Only what would change something is
looked at, and what was looked at lately is known by its digest.
"""

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import msgspec

from gossip.core.ids import Boot, ClusterId, NodeId
from gossip.core.machine import Address, Instant
from gossip.membership.model.rate_limit import Throttle

CONTEXT = b"covey words v1\x00"
"""Put before what is signed: the same key signs requests to the issuer, and handshakes."""
SIGNATURE_BYTES_MAX = 64
DIGEST_BYTES = 16
DIGESTS_MAX = 1024
PROOFS_ASKED_MAX = 3
"""How often a member is asked for signed words in one life: one of an earlier version has none."""
REPORT_AGAIN_S = 60.0
REPORTED_MAX = 64

FORGED, UNSIGNED = "forged", "unsigned"
"""Why words are refused, as it is counted."""


class SigningKeys(NamedTuple):
    """How a node signs, and checks the signatures of others."""

    cluster_id: ClusterId
    sign: Callable[[bytes], bytes]
    """Signs with this node's identity."""
    verify: Callable[[bytes, bytes, bytes], bool]
    """(public key, payload, signature) -> whether the key's owner signed the payload."""


class Words(Protocol):
    """What a member says about itself in one of its lives."""

    @property
    def member(self) -> NodeId:
        """Who says it."""

    @property
    def signature(self) -> bytes:
        """The member's; empty for none."""

    def said(self) -> tuple[object, ...]:
        """Return all that is signed."""


class WordsRefused(msgspec.Struct, frozen=True):
    """Told to the application, not all the time: somebody passed on what its subject has not said.

    ``sender`` and ``source`` are those of the packet or stream; a packet may name anybody in both.
    """

    member: NodeId
    reason: str
    sender: NodeId
    source: Address | None
    name: str = ""
    """What the member is called, and ..."""
    sender_name: str = ""
    """... who passed it on; empty for who is not listed."""


class PacketSender(NamedTuple):
    """Whose packet or frame is being read."""

    sender: NodeId
    source: Address | None
    at: Instant


class Signatures:
    """Signs our own words, and says whether others signed what is told of them."""

    def __init__(
        self,
        me: NodeId = 0,
        signing: SigningKeys | None = None,
        counts: Counter[str] | None = None,
        emit: Callable[[WordsRefused], None] | None = None,
    ) -> None:
        """Without ``signing``, nothing is signed and nothing is checked."""
        self.forgeries = 0
        """How many signatures did not fit; whoever reads a packet stops at the first."""
        self._me = me
        self._signing = signing
        self._counts: Counter[str] = Counter() if counts is None else counts
        self._emit = emit
        self._keys: Mapping[NodeId, bytes] = {}
        self._signers: set[NodeId] = set()
        self._looked_at: OrderedDict[bytes, bool] = OrderedDict()
        self._asked: dict[NodeId, tuple[Boot, int]] = {}
        self._reported = Throttle(REPORT_AGAIN_S, REPORTED_MAX)
        self._heard: PacketSender | None = None

    def admit(self, keys: Mapping[NodeId, bytes]) -> None:
        """Know these public keys, those of the registry, and no others any more."""
        if keys != self._keys:
            self._signers = {each for each in self._signers if self._keys[each] == keys.get(each)}
            self._asked = {node: asked for node, asked in self._asked.items() if node in keys}
            self._keys = keys

    def hears(self, sender: NodeId, source: Address | None, now: Instant) -> None:
        """Note whose packet or frame is being read."""
        self._heard = PacketSender(sender, source, now)

    def sign(self, said: tuple[object, ...]) -> bytes:
        """Return our signature of this; empty where nothing is signed."""
        if self._signing is None:
            return b""
        self._counts["signatures/made"] += 1
        return self._signing.sign(self._payload(said))

    def believes(self, words: Words) -> bool:
        """Say whether the member may be believed to have said this about itself."""
        return self.holds(words.member, words.said(), words.signature)

    def holds(self, member: NodeId, said: tuple[object, ...], signature: bytes) -> bool:
        """Say whether to believe that the member said this; what not is counted and told of."""
        key = self._keys.get(member)
        if self._signing is None or not key:
            return True
        if not signature:
            if self.is_signer(member):
                self.refuse(member, UNSIGNED)
                return False
            return True
        if not self._fits(key, self._payload(said), signature):
            self.forgeries += 1
            self.refuse(member, FORGED)
            return False
        self._signers.add(member)
        return True

    def is_signer(self, member: NodeId) -> bool:
        """Say whether this member's words count with its signature alone."""
        return member in self._signers or (member == self._me and self._signing is not None)

    def may_live(self, member: NodeId, boot: Boot, known: Boot) -> bool:
        """Say whether a member known in one life may be believed to live this one, unsigned."""
        return boot <= known or not self.is_signer(member)

    def lacks_proof(self, member: NodeId) -> bool:
        """Say whether this member could have signed, and was never heard to have."""
        return bool(self._signing and self._keys.get(member)) and not self.is_signer(member)

    def asks_proof(self, member: NodeId, boot: Boot) -> bool:
        """Say whether to ask for signed words now: in each life of an earlier version, rarely."""
        if not self.lacks_proof(member):
            return False
        life, times = self._asked.get(member, (boot, 0))
        times = times if life == boot else 0
        self._asked[member] = boot, times + 1
        return times < PROOFS_ASKED_MAX

    def refuse(self, member: NodeId, reason: str) -> None:
        """Count what is not believed, and name who told it, though not each time."""
        self._counts[f"words_refused/{reason}"] += 1
        heard = self._heard
        if heard is None or self._emit is None:
            return
        if self._reported.allows((heard.sender, heard.source, reason), heard.at):
            self._emit(WordsRefused(member, reason, heard.sender, heard.source))

    def _payload(self, said: tuple[object, ...]) -> bytes:
        assert self._signing is not None, "asked only where something is signed"
        return CONTEXT + self._signing.cluster_id + _encoder.encode(said)

    def _fits(self, key: bytes, payload: bytes, signature: bytes) -> bool:
        assert self._signing is not None, "asked only where something is signed"
        seen = hashlib.blake2b(signature + key + payload, digest_size=DIGEST_BYTES).digest()
        fits = self._looked_at.get(seen)
        if fits is None:
            self._counts["signatures/verified"] += 1
            fits = self._looked_at[seen] = self._signing.verify(key, payload, signature)
            if len(self._looked_at) > DIGESTS_MAX:
                self._looked_at.popitem(last=False)
        else:
            self._counts["signatures/known"] += 1
        return fits


_encoder = msgspec.msgpack.Encoder()
