"""What only the holder of the authority's key can do: make tokens, and let nodes in.

Letting a node in is one transaction in ``control.db``: the token loses a use, the node's public key
is noted, and the new registry is kept, or nothing of it happens. Only then does anything leave the
device. So a power cut at any moment leaves a token that works and no node that half belongs.

A device whose answer got lost asks again with the same key and gets the same admission; it
does not use the token up.
"""

import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from agent import exits
from agent.admission.messages import Admission, Granted, KnownPeer
from agent.admission.tokens import hash_secret, new_token
from agent.exits import AgentError
from agent.security.identity import Identity, check_name
from agent.store.control import ControlStore, NewRegistry, TokenRefusedError, TokenState
from gossip.errors import RemoteError
from gossip.state.admitted import Admitted
from gossip.state.registry import NameTaken, Registry, SignedRegistry, admit, follow

CLOCK_DIFFERENCE_MAX_S = 300.0
TTL_MAX_S = 365 * 86400.0
USES_MAX = 10_000
WEIGHT_MAX = 100.0
ZONE_CHARACTERS_MAX = 63


class Applicant(msgspec.Struct, frozen=True):
    """What a node asks to be admitted as, once its signing request has been checked."""

    entry: Admitted
    """As it would stand in the registry."""
    token_id: bytes
    secret: bytes


class Issuer:
    """Signs certificates and registries with the authority's key."""

    def __init__(
        self, identity: Identity, store: ControlStore, wall_clock: Callable[[], float] = time.time
    ) -> None:
        assert identity.is_issuer, "only a holder of the authority's key can issue"
        self._identity, self._store, self._wall_clock = identity, store, wall_clock

    async def create_token(self, ttl_s: float, uses: int) -> str:
        """Return a token that admits ``uses`` nodes within ``ttl_s`` seconds. Raises AgentError."""
        if not 1 <= ttl_s <= TTL_MAX_S or not 1 <= uses <= USES_MAX:
            raise AgentError(
                f"a token lives 1 second to 365 days and has 1 to {USES_MAX} uses; none was made.",
                hint="Give --ttl and --uses within these limits.",
                status=exits.USAGE,
            )
        from agent.security import certificates  # X.509 costs 3 MiB that most runs never need

        authority = authority_of(self._identity)
        token = new_token(self._identity.cluster_id, certificates.fingerprint(authority))
        now_s = self._wall_clock()
        secret_hash = hash_secret(token.token_id, token.secret)
        await self._store.add_token(token.token_id, secret_hash, now_s + ttl_s, uses, now_s)
        return token.encode()

    async def admit(
        self, admission: Admission, peers: tuple[KnownPeer, ...]
    ) -> tuple[Granted, NewRegistry]:
        """Let a node in; return what it is given, and the registry that has it.

        Raises AgentError, with the status that tells the reasons apart; nothing was changed then.
        """
        applicant = self._check(admission)
        fresh = await self._store.redeem(
            applicant.token_id,
            hash_secret(applicant.token_id, applicant.secret),
            applicant.entry.key,
            self._wall_clock(),
            lambda kept, again: self._next_registry(applicant.entry, kept, again=again),
        )
        granted = Granted(
            cluster_name=self._identity.cluster_name,
            certificate=self._certificate(fresh),
            keyring=self._identity.keyring_bytes(),
            registry=fresh.signed,
            peers=peers,
        )
        return granted, fresh

    def _check(self, admission: Admission) -> Applicant:
        """Check all that needs no database. Raises AgentError."""
        from agent.security import certificates

        try:
            subject, key = certificates.read_request(admission.request)
        except RemoteError as error:
            raise AgentError(
                f"the signing request was refused: {error}; nothing was changed.",
                hint="Use the same version of Covey on both devices.",
                status=exits.NOT_PERMITTED,
            ) from None
        if subject.cluster_id != self._identity.cluster_id:
            raise foreign_token()
        self._check_clock(admission.clock_ms / 1000)
        check_name(subject.name, "node")
        weight = admission.weight
        if not 0 < weight <= WEIGHT_MAX or len(admission.zone) > ZONE_CHARACTERS_MAX:
            raise AgentError(
                f"a node's weight is more than 0 and at most {WEIGHT_MAX:.0f}, and its zone has at "
                f"most {ZONE_CHARACTERS_MAX} characters; nothing was changed.",
                hint="Correct [node] weight and zone, then join again.",
                status=exits.BAD_CONFIG,
            )
        entry = Admitted(
            subject.node_id,
            subject.name,
            key,
            weight,
            admission.zone,
            serials=(certificates.new_serial(),),
        )
        return Applicant(entry, admission.token_id, admission.secret)

    def _check_clock(self, theirs_s: float) -> None:
        ours_s = self._wall_clock()
        if abs(theirs_s - ours_s) <= CLOCK_DIFFERENCE_MAX_S:
            return
        raise AgentError(
            f"the clocks differ too much: this device says {_time(theirs_s)}, the covey says "
            f"{_time(ours_s)}; nothing was changed.",
            hint="Set the clock that is wrong (NTP: `timedatectl set-ntp true`), then join again.",
            status=exits.CLOCK_OFF,
        )

    def _next_registry(self, entry: Admitted, kept: bytes | None, *, again: bool) -> NewRegistry:
        """Return the registry with this node in it. Raises AgentError.

        Runs inside the transaction, and so in the writer's thread.
        """
        signed = kept if kept is not None else self._identity.first_registry()
        current = Registry.decode(SignedRegistry.decode(signed).payload)
        known = next((node for node in current.nodes if node.key == entry.key), None)
        if known is not None:
            return NewRegistry(current.epoch, signed, known.id)
        if again:  # it was admitted with this token once, and removed since
            raise TokenRefusedError(TokenState.USED_UP)
        if current.node(entry.id) is not None:
            raise name_taken(f"the node id {entry.id:016x} belongs to another node.")
        try:
            fresh_registry = follow(SignedRegistry.decode(signed).payload, admit(current, entry))
        except NameTaken:
            raise name_taken(f"the name {entry.name!r} belongs to another node.") from None
        payload = fresh_registry.encode()
        fresh = SignedRegistry(payload, self._identity.sign(payload)).encode()
        return NewRegistry(current.epoch + 1, fresh, entry.id)

    def _certificate(self, fresh: NewRegistry) -> bytes:
        from agent.security import certificates

        node = Registry.decode(SignedRegistry.decode(fresh.signed).payload).node(fresh.node_id)
        assert node is not None, "the node was just put in"
        subject = certificates.Subject(self._identity.cluster_id, node.id, node.name)
        key = self._identity.authority_private_key()
        return certificates.issue(
            key, authority_of(self._identity), subject, node.key, node.serials[0]
        )


def authority_of(identity: Identity) -> bytes:
    """Return the authority's certificate (DER)."""
    return ssl.PEM_cert_to_DER_cert(identity.authority_file.read_text())


def name_taken(message: str) -> AgentError:
    """Return the refusal of a name or id that somebody else has."""
    return AgentError(
        message + " Nothing was changed, and the token was not used.",
        hint="Choose another name with --node-name.",
        status=exits.NAME_TAKEN,
    )


def foreign_token() -> AgentError:
    """Return the refusal of a token that is for another covey."""
    return AgentError(
        "this token belongs to another covey than the one that answered; nothing was changed.",
        hint="Make a token on a member of the covey that this device is to join, or name a member "
        "of the token's covey with --seed HOST.",
        status=exits.TOKEN_FOREIGN,
    )


def _time(unix_s: float) -> str:
    try:
        return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{unix_s:.0f} s after 1970"
