"""What a device and a covey say to each other while the device is let in.

::

    device                           member                           issuer
      │  TLS 1.3, no certificate yet    │                                │
      │── Greeting ────────────────────▶│                                │
      │◀──────────────────── Welcome ───│  the authority's certificate   │
      │  checks: fingerprint as in the token, member's certificate signed by it, same covey;
      │  only now does it say who it is, and prove that it has the token
      │── Admission ───────────────────▶│── Ask(Admission) ─────────────▶│  one entry of the log:
      │                                 │                                │  token, name, registry
      │◀──────────── Granted, Refused ──│◀────────────── Answer(…) ──────│

A member that holds the authority's key answers by itself; any other passes the question on. By the
same way nodes that vote get that key (``authority_keeper.py``). The
frames between members go over their mutual streams, with the number of the question. Tags: see
``gossip/core/wire.py``; the field order is the format, new fields go to the end with a default.
"""

from typing import Annotated

import msgspec

from agent.admission.token_terms import TokenTerms
from gossip.core.ids import ClusterId, NodeId
from gossip.core.machine import Address
from gossip.core.names import Name
from gossip.core.wire import Codec
from gossip.registry.node import Serial
from gossip.registry.node_change import NodeChange
from gossip.registry.places import REPLICAS_MAX
from gossip.registry.succession import Successions

GUEST_FRAME_BYTES_MAX = 256 * 1024
"""Between strangers. A registry of 300 nodes with its placement has some 40 KiB."""
GREETING_BYTES_MAX = 16 * 1024
"""What a member reads from a device that it knows nothing about."""
TOKEN_ID_BYTES = 8
HASH_PROOF_BYTES = 32
"""Of a device whose version of Covey proves with a hash; one of these days, none does."""
SIGNATURE_BYTES = 64
TOKENS_SHOWN_MAX = 200
WORDS_CHARACTERS_MAX = 1000

Status = Annotated[int, msgspec.Meta(ge=1, le=125)]
"""With which a command ends that was refused: never 0, which would be success."""
Words = Annotated[str, msgspec.Meta(max_length=WORDS_CHARACTERS_MAX)]
TokenId = Annotated[bytes, msgspec.Meta(min_length=TOKEN_ID_BYTES, max_length=TOKEN_ID_BYTES)]
Signature = Annotated[bytes, msgspec.Meta(max_length=SIGNATURE_BYTES)]
Secret = Annotated[bytes, msgspec.Meta(max_length=4096)]
"""A private key in PEM, with the authority's certificate behind it where it is the next one's."""


class Greeting(msgspec.Struct, frozen=True, array_like=True, tag=80):
    """The device looks for a member of this covey."""

    cluster_id: ClusterId


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag=81):
    """The member shows which covey it belongs to, right or wrong."""

    cluster_id: ClusterId
    authority: bytes
    successions: Successions = ()
    """How this authority came after those that the other side may still trust."""


class AdmissionRequest(msgspec.Struct, frozen=True, array_like=True, tag=82):
    """The device asks to be let in: proof of the token (``proofs.py``), a signing request (DER)."""

    token_id: TokenId
    proof: Signature
    request: bytes
    clock_ms: int
    weight: float
    zone: str
    replaces: bool = False
    """It takes the name and the place of a node that is gone."""
    signature: Signature = b""
    """Of the key that the request names, over all else but the proof: it asks for itself, now."""

    def __repr__(self) -> str:
        return f"Admission(token {self.token_id.hex()})"


class KnownPeer(msgspec.Struct, frozen=True, array_like=True):
    """A member that the device may try first."""

    id: NodeId
    name: Name
    addresses: tuple[Address, ...]


class Granted(msgspec.Struct, frozen=True, array_like=True, tag=83):
    """Everything that the device needs to run."""

    cluster_name: Name
    certificate: bytes
    keyring: bytes
    registry: bytes
    peers: tuple[KnownPeer, ...]
    signature: Signature = b""
    """Of the authority, over all else: a member that passes it on can change nothing."""

    def __repr__(self) -> str:
        return f"Granted({self.cluster_name})"


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=84):
    """No; the status of ``agent/exits.py`` and the sentences for the person."""

    status: Status
    message: Words
    hint: Words


class TokenRequest(msgspec.Struct, frozen=True, array_like=True, tag=85):
    """A member asks the issuer for a token on behalf of its user."""

    terms: TokenTerms


class TokenIssued(msgspec.Struct, frozen=True, array_like=True, tag=86):
    """The issuer's answer."""

    token: Annotated[str, msgspec.Meta(pattern=r"\Acovey1-[A-Za-z0-9_-]+\Z")]

    def __repr__(self) -> str:
        return "TokenIssued()"


class Renewal(msgspec.Struct, frozen=True, array_like=True, tag=108):
    """A node asks for a new certificate, as a guest or by way of its stream.

    ``signature`` is of its own key over all else (``renewal.py``): whom the registry names with
    this key is let in again also when the old certificate is over. ``serial`` is the one in use.
    """

    request: bytes
    serial: Serial
    clock_ms: int
    signature: Signature


class Renewed(msgspec.Struct, frozen=True, array_like=True, tag=109):
    """The new certificate (DER), and the signed registry that names it, beside the old one."""

    certificate: bytes
    registry: bytes


class TokenList(msgspec.Struct, frozen=True, array_like=True, tag=104):
    """A member asks which tokens there are."""


class TokenShown(msgspec.Struct, frozen=True, array_like=True):
    """A token without its secret. Times are Unix seconds, ``state`` a value of ``TokenState``."""

    id: TokenId
    state: str
    made_at: float
    made_by: str
    expires_at: float
    uses: int
    uses_left: int
    node_name: str
    zone: str
    weight: float
    admitted: tuple[str, ...]


class TokensShown(msgspec.Struct, frozen=True, array_like=True, tag=105):
    """The issuer's answer: the newest last, ``TOKENS_SHOWN_MAX`` at most."""

    tokens: tuple[TokenShown, ...]


class TokenRevocation(msgspec.Struct, frozen=True, array_like=True, tag=106):
    """A member asks that a token be good for nobody any more."""

    id: TokenId


class TokenRevoked(msgspec.Struct, frozen=True, array_like=True, tag=107):
    """The issuer's answer: what the token was worth before."""

    state: str


class RemovalOrder(msgspec.Struct, frozen=True, array_like=True, tag=110):
    """A member that leaves for good asks that its place and its name be free."""

    node: NodeId
    accept_loss: bool = False
    """Also when acknowledged writes may be gone with it."""


class NodeRemoved(msgspec.Struct, frozen=True, array_like=True, tag=111):
    """The issuer's answer: the epoch of the first registry without it."""

    epoch: int


class AuthorityRequest(msgspec.Struct, frozen=True, array_like=True, tag=87):
    """A node that votes, and may so let others in, asks for the authority's key."""


class AuthorityAnswer(msgspec.Struct, frozen=True, array_like=True, tag=94):
    """An issuer's answer: the key's file (PEM), and the next one's while that takes over."""

    key: Secret
    next_key: Secret = b""

    def __repr__(self) -> str:
        return "AuthorityAnswer()"


class NextAuthority(msgspec.Struct, frozen=True, array_like=True, tag=95):
    """An issuer hands on the key that is to take over (``authority.next``), before it does."""

    key: Secret

    def __repr__(self) -> str:
        return "NextAuthority()"


class NextAuthorityAnswer(msgspec.Struct, frozen=True, array_like=True, tag=127):
    """The other issuer's answer: it is on the disk."""


class PlacementOrder(msgspec.Struct, frozen=True, array_like=True, tag=128):
    """A member asks for another zone or weight of a node, or that it drain, or not any more."""

    node: NodeId
    change: NodeChange


class NodePlaced(msgspec.Struct, frozen=True, array_like=True, tag=129):
    """The issuer's answer: the epoch of a registry that has it so."""

    epoch: int


class SpaceOrder(msgspec.Struct, frozen=True, array_like=True, tag=18):
    """A member asks for partitions of their own, with so many owners, for the keys of a space."""

    name: Name
    replicas: Annotated[int, msgspec.Meta(ge=1, le=REPLICAS_MAX)]


TokenQuestion = TokenRequest | TokenList | TokenRevocation
TokenAnswer = TokenIssued | TokensShown | TokenRevoked
AuthorityQuestion = AuthorityRequest | NextAuthority
Question = (
    AdmissionRequest
    | Renewal
    | TokenQuestion
    | RemovalOrder
    | PlacementOrder
    | SpaceOrder
    | AuthorityQuestion
)
Verdict = Granted | Renewed | Refused | TokenAnswer | NodeRemoved | NodePlaced
Answer = Verdict | AuthorityAnswer | NextAuthorityAnswer


class RelayedRequest(msgspec.Struct, frozen=True, array_like=True, tag=88):
    """A member passes a question on to an issuer; ``origin``: the address that a guest has."""

    number: int
    question: Question
    origin: Annotated[str, msgspec.Meta(max_length=64)] = ""


class RelayedReply(msgspec.Struct, frozen=True, array_like=True, tag=89):
    """The issuer's answer to the question with that number."""

    number: int
    answer: Answer


GUEST_CODEC: Codec[Greeting | AdmissionRequest | Renewal] = Codec(
    Greeting | AdmissionRequest | Renewal
)
MEMBER_CODEC: Codec[Welcome | Granted | Refused | Renewed] = Codec(
    Welcome | Granted | Refused | Renewed
)
RELAY_CODEC: Codec[RelayedRequest | RelayedReply] = Codec(RelayedRequest | RelayedReply)
