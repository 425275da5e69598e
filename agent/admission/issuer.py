"""What only the holder of the authority's key can do: let nodes in, and certify them anew.

The tokens with which they are let in are ``token_issuer.py``'s, and the registries that say who
belongs ``registry_issuer.py``'s; an issuer has one of each.

Letting a node in is one entry of the control plane's log: the token loses a use, the node is noted
as let in with it, and the new registry takes the place of the one before, or nothing of it happens.
Only then does anything leave the device. So a power cut at any moment leaves a token that works and
no node that half belongs.

A device whose answer got lost asks again with the same key and gets the same admission; it
does not use the token up.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import msgspec

from agent import exits
from agent.admission.messages import (
    AdmissionRequest,
    Granted,
    KnownPeer,
    Renewal,
)
from agent.admission.proofs import check_signed, sign_granted
from agent.admission.registry_draft import Draft
from agent.admission.registry_issuer import NewRegistry, RegistryIssuer
from agent.admission.token_issuer import TokenIssuer
from agent.admission.token_terms import check_place
from agent.admission.tokens import foreign_token
from agent.cluster.agreed_registry import NoMajorityError
from agent.exits import AgentError
from agent.identity.identity import Identity, check_name
from agent.store.tokens import (
    CLOCKS_APART_MAX_S,
    TokenNote,
    TokenRefusedError,
    TokenState,
)
from agent.text.units import format_duration
from gossip.core.errors import RemoteError
from gossip.core.ids import NodeId, format_node_id
from gossip.registry.node import RegisteredNode
from gossip.registry.registry import (
    NameTaken,
    Registry,
    SignedRegistry,
    WouldLose,
    admit,
    amend,
    replace,
)

RENEWED_AGAIN_S = 60.0
"""How often at most a node gets a new serial: each makes a registry, which all are offered."""

log = logging.getLogger(__name__)


class Issuer:
    """Lets nodes in, and signs their certificates with the authority's key."""

    def __init__(
        self,
        identity: Identity,
        registries: RegistryIssuer,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        assert identity.is_issuer, "only a holder of the authority's key can issue"
        self._identity, self._wall_clock = identity, wall_clock
        self.registries = registries
        self.tokens = TokenIssuer(identity, registries, wall_clock)
        self._renewed_at: dict[NodeId, float] = {}

    async def admit(
        self,
        admission: AdmissionRequest,
        peers: tuple[KnownPeer, ...],
        origin: str,
        is_there: Callable[[NodeId], Awaitable[bool]],
    ) -> tuple[Granted, NewRegistry]:
        """Let a node in; return what it is given, and the registry that has it.

        ``origin`` is where it asks from, for the log; nobody of whom ``is_there`` holds is
        replaced. Raises AgentError, with the status that tells the reasons apart; nothing was
        changed then.
        """
        token = await self.tokens.check(admission)
        entry = self._check(admission)
        gone: NodeId | None = None
        if admission.replaces:
            of_name = await self.registries.holder(token.note.node_name or entry.name)
            gone = of_name if of_name is not None and not await is_there(of_name) else None

        def admitted(current: Registry, entry: RegisteredNode) -> Registry:
            if admission.replaces:
                return _instead(current, entry, gone=gone)
            return admit(current, entry)

        now_s = self.tokens.now_s()
        fresh = await self.registries.change_for(
            lambda made: _let_in(made, admission.token_id, entry, now_s, admitted)
        )
        granted = Granted(
            cluster_name=self._identity.cluster_name,
            certificate=self._certificate(fresh),
            keyring=self._identity.keyring_bytes(),
            registry=fresh.signed,
            peers=peers,
        )
        signing = Registry.decode(SignedRegistry.decode(fresh.signed).payload).authority
        granted = sign_granted(granted, self._identity.authority_private_key(signing))
        if fresh.is_news:
            log.info(
                "admitted %s from %s with token %s (registry epoch %d)",
                format_node_id(fresh.node_id), origin, admission.token_id.hex(), fresh.epoch,
            )  # fmt: skip
        return granted, fresh

    def _check(self, admission: AdmissionRequest) -> RegisteredNode:
        """Return the entry that is asked for. Raises AgentError."""
        from agent.identity import certificates

        try:
            subject, key = certificates.read_request(admission.request)
            check_signed(admission, key)
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
        check_place(admission.zone, admission.weight)
        if not subject.node_id:
            raise AgentError(
                "the node id 0 stands for nobody; nothing was changed.",
                hint="Join with Covey's own `covey join`, which draws an id.",
                status=exits.NOT_PERMITTED,
            )
        return RegisteredNode(
            subject.node_id,
            subject.name,
            key,
            admission.weight,
            admission.zone,
            serials=(certificates.new_serial(),),
            absent=True,
        )

    def _check_clock(self, theirs_s: float) -> None:
        ours_s = self._wall_clock()
        if abs(theirs_s - ours_s) <= CLOCKS_APART_MAX_S:
            return
        raise AgentError(
            f"the clocks differ too much: this device says {_time(theirs_s)}, the covey says "
            f"{_time(ours_s)}; nothing was changed.",
            hint="Set the clock that is wrong (NTP: `timedatectl set-ntp true`), then join again.",
            status=exits.CLOCK_OFF,
        )

    async def renew(self, renewal: Renewal) -> tuple[bytes, NewRegistry]:
        """Return a new certificate for a node of the registry, and the registry that names it.

        The serial that the node uses stays good beside it. Who asks twice with one serial gets the
        same twice: whoever passed a renewal on could else take from a node what it uses by now.
        Without a majority no serial can be new; then the one in use gets a longer life, so that no
        node ends up outside for it. Raises AgentError, RemoteError.
        """
        from agent.identity import certificates

        subject, key = certificates.read_request(renewal.request)
        check_signed(renewal, key)
        self._check_clock(renewal.clock_ms / 1000)
        serial = certificates.new_serial()

        def step(made: Draft) -> tuple[NodeId, bool]:
            current = made.registry
            entry = current.node(subject.node_id)
            if entry is None or entry.key != key or subject.cluster_id != current.cluster_id:
                raise AgentError(
                    "this node is not in the registry with this key; nothing was changed.",
                    "Join again, with a token that `covey token create` prints on a member.",
                    exits.NOT_PERMITTED,
                )
            number, is_again = current.authority_number, renewal.serial in entry.serials[1:]
            if is_again and entry.authority == number:  # an answer got lost, or a replay
                return entry.id, entry.serials[0] == serial
            if entry.authority == number:  # else there is a reason to ask at once
                self._check_renewed_at(entry.id)
            in_use = renewal.serial if entry.shows(renewal.serial) else None
            fresh = (serial, in_use) if in_use else (serial,)
            serials = entry.serials if is_again else fresh
            entry = msgspec.structs.replace(entry, serials=serials, authority=number)
            made.follow_with(amend(current, entry))
            return entry.id, True

        try:
            renewed = await self.registries.change_for(step)
        except NoMajorityError:
            return self._prolong(subject.node_id, key, renewal.serial)
        if renewed.is_news:
            self._renewed_at[renewed.node_id] = time.monotonic()
        return self._certificate(renewed), renewed

    def _prolong(self, node: NodeId, key: bytes, serial: bytes) -> tuple[bytes, NewRegistry]:
        """Certify a node again under the serial that it uses. Raises AgentError."""
        registry, signed = self.registries.followed()
        entry = registry.node(node)
        is_its_own = entry is not None and entry.key == key and entry.shows(serial)
        if entry is None or not is_its_own or entry.authority != registry.authority_number:
            raise AgentError(
                "this certificate cannot be renewed before a majority of the voters is back; "
                "nothing was changed.",
                "See `covey voters` on a member.",
                exits.UNREACHABLE,
            )
        certificate = certify(self._identity, registry, node, serial)
        return certificate, NewRegistry(registry.epoch, signed, node, is_news=False)

    def _check_renewed_at(self, node: NodeId) -> None:
        """Raise AgentError when this node was given a new serial just now."""
        if time.monotonic() - self._renewed_at.get(node, -RENEWED_AGAIN_S) < RENEWED_AGAIN_S:
            raise AgentError(
                "this node's certificate was renewed a moment ago; nothing was changed.",
                f"It may be again in {format_duration(RENEWED_AGAIN_S)}.",
                exits.NOT_PERMITTED,
            )

    def _certificate(self, fresh: NewRegistry) -> bytes:
        registry = Registry.decode(SignedRegistry.decode(fresh.signed).payload)
        node = registry.node(fresh.node_id)
        assert node is not None, "the node was just put in"
        return certify(self._identity, registry, node.id, node.serials[0])


def certify(who: Identity, registry: Registry, node: NodeId, serial: bytes) -> bytes:
    """Return a certificate of a registry's authority for a node in it. Raises AgentError."""
    from agent.identity import certificates

    entry = registry.node(node)
    assert entry is not None, "whoever belongs is certified"
    subject = certificates.Subject(who.cluster_id, entry.id, entry.name)
    key = who.authority_private_key(registry.authority)
    authority = registry.authority or who.trust.newest
    return certificates.issue(key, authority.certificate, subject, entry.key, serial)


def _let_in(
    made: Draft,
    token_id: bytes,
    entry: RegisteredNode,
    now_s: float,
    admitted: Callable[[Registry, RegisteredNode], Registry],
) -> tuple[NodeId, bool]:
    """Use a token for this node, and put it into the registry; False: it was let in before.

    A node that asks again, because the answer was lost, is not counted again, even if the token has
    expired or run out meanwhile. Raises AgentError.
    """
    current, token = made.registry, made.token(token_id)
    if token is None:
        raise TokenRefusedError(TokenState.UNKNOWN)
    known = next((node for node in current.nodes if node.key == entry.key), None)
    if known is not None and known.id in token.admitted:
        return known.id, False
    state = token.state(now_s)
    if state is not TokenState.VALID:
        raise TokenRefusedError(state)
    if known is not None:
        made.put_token(token.used(known.id))
        return known.id, True
    if current.node(entry.id) is not None:
        raise name_taken(f"the node id {entry.id:016x} belongs to another node.")
    if entry.id in token.admitted:  # it was admitted with this token once, and removed since
        raise TokenRefusedError(TokenState.USED_UP)
    entry = msgspec.structs.replace(
        _as_fixed(entry, token.note), authority=current.authority_number
    )
    try:
        made.follow_with(admitted(current, entry))
    except NameTaken:
        raise name_taken(
            f"the name {entry.name!r} belongs to another node.",
            f"Or, if that one is gone for good: `covey join --replace {entry.name} TOKEN`.",
        ) from None
    made.put_token(token.used(entry.id))
    return entry.id, True


def _instead(current: Registry, entry: RegisteredNode, *, gone: NodeId | None) -> Registry:
    """Put a node in the place of the one of its name, if that is ``gone``. Raises AgentError."""
    former = next((node for node in current.nodes if node.name == entry.name), None)
    if former is None:
        raise _cannot_replace(
            entry.name,
            "nobody has that name",
            "Join with --node-name to have it, or see `covey members` on a member for another.",
            exits.NOT_FOUND,
        )
    if [each.id for each in current.nodes if each.is_issuer] == [former.id]:
        hint = "Its backup takes its place; or join under another name with --node-name."
        raise _cannot_replace(entry.name, "it alone lets others in", hint, exits.NAME_TAKEN)
    if former.id != gone:
        raise _cannot_replace(
            entry.name,
            "it is there",
            "Switch it off and wait until it counts as dead, or take it out: `covey members remove "
            f"{entry.name}` on a member that lets others in.",
            exits.NAME_TAKEN,
        )
    try:
        return replace(current, former.id, entry)
    except WouldLose as error:
        hint = "Start the owners that are off and let them finish, then join again."
        raise AgentError(f"{error}.", hint, exits.UNHEALTHY) from None


def _cannot_replace(name: str, why: str, hint: str, status: int) -> AgentError:
    told = f"{name!r} cannot be replaced: {why}. Nothing was changed, and the token was not used."
    return AgentError(told, hint, status)


def _as_fixed(entry: RegisteredNode, note: TokenNote) -> RegisteredNode:
    """Return the entry with what its token fixes."""
    return msgspec.structs.replace(
        entry,
        name=note.node_name or entry.name,
        zone=note.zone or entry.zone,
        weight=note.weight or entry.weight,
    )


def name_taken(message: str, more: str = "") -> AgentError:
    """Return the refusal of a name or id that somebody else has."""
    return AgentError(
        message + " Nothing was changed, and the token was not used.",
        hint=f"Choose another name with --node-name. {more}".rstrip(),
        status=exits.NAME_TAKEN,
    )


def _time(unix_s: float) -> str:
    try:
        return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{unix_s:.0f} s after 1970"
