"""What only the holder of the authority's key can do: make tokens, and let nodes in.

Letting a node in is one transaction in ``control.db``: the token loses a use, the node's public key
is noted, and the new registry is kept, or nothing of it happens. Only then does anything leave the
device. So a power cut at any moment leaves a token that works and no node that half belongs.

A device whose answer got lost asks again with the same key and gets the same admission; it
does not use the token up.

Who made a token, who was let in with it and who ended it stands in the log. A token that expired
stays so when the clock is set back: that it has is looked at every minute and written down, and
the clock that counts goes on by itself meanwhile.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial

import msgspec

from agent import exits
from agent.admission import presence
from agent.admission.messages import (
    HASH_PROOF_BYTES,
    TOKENS_SHOWN_MAX,
    AdmissionRequest,
    Granted,
    KnownPeer,
    Renewal,
    TokenShown,
)
from agent.admission.proofs import check_signed, is_proven, sign_granted
from agent.admission.token_terms import TokenTerms, check_place, check_terms
from agent.admission.tokens import foreign_token, new_token
from agent.exits import AgentError
from agent.identity.identity import Identity, check_name
from agent.store.control import ControlStore, NewRegistry
from agent.store.tokens import (
    CLOCKS_APART_MAX_S,
    TokenNote,
    TokenRecord,
    TokenRefusedError,
    TokenState,
)
from agent.text.units import counted, format_duration
from gossip.core.errors import RemoteError
from gossip.core.ids import NodeId, format_node_id
from gossip.kv.requests import OwnersReady
from gossip.registry.lineage import mark_of
from gossip.registry.merge import merge
from gossip.registry.node import RegisteredNode
from gossip.registry.registry import (
    NameTaken,
    Registry,
    SignedRegistry,
    UnknownNode,
    WouldLose,
    admit,
    advance,
    amend,
    follow,
    remove,
    replace,
)

EXPIRY_LOOK_S = 60.0
RENEWED_AGAIN_S = 60.0
"""How often at most a node gets a new serial: each makes a registry, which all are offered."""

log = logging.getLogger(__name__)


class Issuer:
    """Signs certificates and registries with the authority's key."""

    def __init__(
        self, identity: Identity, store: ControlStore, wall_clock: Callable[[], float] = time.time
    ) -> None:
        assert identity.is_issuer, "only a holder of the authority's key can issue"
        self._identity, self._store, self._wall_clock = identity, store, wall_clock
        self._latest_s = wall_clock()
        self._looked_at = time.monotonic()
        self._making = asyncio.Lock()
        self._renewed_at: dict[NodeId, float] = {}

    async def create_token(self, terms: TokenTerms, maker: str) -> str:
        """Return a token for nodes that join under these terms. Raises AgentError."""
        check_terms(terms)
        from agent.identity import certificates  # X.509 costs 3 MiB that most runs never need

        authority = certificates.fingerprint(self._identity.authority)
        token = new_token(self._identity.cluster_id, authority)
        now_s = self._wall_clock()
        note = TokenNote(now_s, maker, terms.uses, terms.node_name, terms.zone, terms.weight)
        expires_at = now_s + terms.ttl_s
        async with self._making:
            self._check_room(now_s)
            await self._store.add_token(
                TokenRecord(token.token_id, token.public_key(), expires_at, terms.uses, note)
            )
        log.info(
            "token %s made by %s: for %s within %s",
            token.token_id.hex(), maker, counted(terms.uses, "node"), format_duration(terms.ttl_s),
        )  # fmt: skip
        return token.encode()

    def tokens(self) -> list[TokenShown]:
        """Return the tokens that are remembered, the newest last; of many, all that are good."""
        now_s = self._now_s()
        good_last = sorted(
            self._store.tokens(), key=lambda token: token.state(now_s) is TokenState.VALID
        )
        shown = [_shown(token, now_s) for token in good_last[-TOKENS_SHOWN_MAX:]]
        return sorted(shown, key=lambda token: token.made_at)

    def _check_room(self, now_s: float) -> None:
        """Raise AgentError when so many tokens are good that a list could not show one more."""
        good = sum(token.state(now_s) is TokenState.VALID for token in self._store.tokens())
        if good >= TOKENS_SHOWN_MAX:
            raise AgentError(
                f"{good} tokens are good at this time, which is the most; none was made.",
                "See `covey token list`, and end what nobody needs: `covey token revoke ID`.",
                exits.NOT_PERMITTED,
            )

    async def revoke_token(self, token_id: bytes, who: str) -> TokenState:
        """End a token; return what it was worth before."""
        state = await self._store.revoke_token(token_id, self._now_s())
        if state is TokenState.VALID:
            log.info("token %s revoked by %s", token_id.hex(), who)
        return state

    async def watch_expiry(self) -> None:
        """Write down which tokens have expired, for ever."""
        while True:
            await self._end_expired()
            await asyncio.sleep(EXPIRY_LOOK_S)

    async def _end_expired(self) -> None:
        now_s = self._now_s()
        if any(_is_over(token, now_s) for token in self._store.tokens()):
            await self._store.end_tokens(lambda token: _is_over(token, now_s))

    def _now_s(self) -> float:
        """Return the time at which tokens are judged: it goes on, whatever is set back."""
        at = time.monotonic()
        self._latest_s = max(self._wall_clock(), self._latest_s + at - self._looked_at)
        self._looked_at = at
        return self._latest_s

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
        token = self._check_token(admission)
        entry = self._check(admission)
        with_it = admit
        if admission.replaces:
            of_name = self._holder(token.note.node_name or entry.name)
            is_gone = of_name is not None and not await is_there(of_name)
            with_it = partial(_instead, gone=of_name if is_gone else None)
        fresh = await self._store.redeem(
            admission.token_id,
            lambda token: is_proven(admission, token.public_key),
            entry.key,
            self._now_s(),
            lambda kept, token, again: self._next_registry(
                entry, kept, token, again=again, admitted=with_it
            ),
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

    async def advance(self, ready: OwnersReady) -> bytes | None:
        """Say which partitions go on, and who is there; return the registry that does, if any.

        The one it is made from may be newer than the one that ``ready`` is about.
        """
        news: tuple[Registry, Registry] | None = None

        def step(kept: bytes | None) -> NewRegistry:
            nonlocal news
            signed = kept if kept is not None else self._identity.first_registry()
            payload = SignedRegistry.decode(signed).payload
            current = Registry.decode(payload)
            following = advance(current, ready.done, ready.epoch, ready.here, ready.away)
            if following is current:
                return NewRegistry(current.epoch, signed, self._identity.node_id, is_news=False)
            news = current, following
            return self._sign(follow(payload, following), self._identity.node_id)

        fresh = await self._store.change_registry(step)
        if news is None:
            return None
        presence.tell(*news)
        return fresh.signed

    def _check_token(self, admission: AdmissionRequest) -> TokenRecord:
        """Return the token. Raises AgentError for one that nobody has.

        Before anything that costs more.
        """
        token = self._store.token(admission.token_id)
        if token is None:
            raise TokenRefusedError(TokenState.UNKNOWN)
        if token.is_outdated:  # and nothing is kept that could tell who has it
            raise TokenRefusedError(TokenState.OUTDATED)
        if len(admission.proof) == HASH_PROOF_BYTES:
            raise AgentError(
                "this device has an older version of Covey than the node that lets others in, and "
                "proves its token in a way that is not taken any more; nothing was changed.",
                hint="Install the covey's version on this device; the token stays good.",
                status=exits.NOT_PERMITTED,
            )
        if not is_proven(admission, token.public_key):
            raise TokenRefusedError(TokenState.UNKNOWN)
        return token

    def _holder(self, name: str) -> NodeId | None:
        """Return who has a name, in the newest registry here; None if nobody has."""
        kept = self._store.registry()
        signed = kept[1] if kept is not None else self._identity.first_registry()
        nodes = Registry.decode(SignedRegistry.decode(signed).payload).nodes
        return next((node.id for node in nodes if node.name == name), None)

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

    async def set_roles(self, node: NodeId, roles: tuple[str, ...]) -> NewRegistry:
        """Say what a node may do; return the registry that says so. Raises UnknownNode."""

        def change(current: Registry) -> Registry:
            entry = current.node(node)
            if entry is None:
                raise UnknownNode(f"no node {node:016x} belongs to this covey")
            return amend(current, msgspec.structs.replace(entry, roles=roles))

        return await self._change(node, change)

    async def remove(self, node: NodeId, *, accept_loss: bool = False) -> NewRegistry:
        """Take a node out; return the registry without it.

        Raises UnknownNode, InvalidRequest, and AgentError for this node itself.
        """
        if node == self._identity.node_id:
            raise AgentError(
                "this node holds the authority's key and cannot be removed; nothing was changed.",
                hint="`covey leave` takes it out for a time.",
                status=exits.NOT_PERMITTED,
            )
        return await self._change(
            node, lambda current: remove(current, node, accept_loss=accept_loss)
        )

    async def mend(self, rival: bytes) -> NewRegistry:
        """End a fork: sign the registry that follows both the newest here and this one.

        This disk was set back once, and its tokens with it: all end.
        """

        def change(kept: bytes | None) -> NewRegistry:
            signed = kept if kept is not None else self._identity.first_registry()
            ours, theirs = (SignedRegistry.decode(each).payload for each in (signed, rival))
            both = Registry.decode(ours), mark_of(ours), Registry.decode(theirs), mark_of(theirs)
            return self._sign(merge(*both), self._identity.node_id)

        return await self._store.hand_over(change)

    async def _change(self, node: NodeId, make: Callable[[Registry], Registry]) -> NewRegistry:
        """Sign what is made of the newest registry on account of this node."""

        def change(kept: bytes | None) -> NewRegistry:
            signed = kept if kept is not None else self._identity.first_registry()
            payload = SignedRegistry.decode(signed).payload
            return self._sign(follow(payload, make(Registry.decode(payload))), node)

        return await self._store.change_registry(change)

    async def renew(self, renewal: Renewal) -> tuple[bytes, NewRegistry]:
        """Return a new certificate for a node of the registry, and the registry that names it.

        The serial that the node uses stays good beside it. Who asks twice with one serial gets the
        same twice: whoever passed a renewal on could else take from a node what it uses by now.
        Raises AgentError, RemoteError.
        """
        from agent.identity import certificates

        subject, key = certificates.read_request(renewal.request)
        check_signed(renewal, key)
        self._check_clock(renewal.clock_ms / 1000)
        serial = certificates.new_serial()

        def change(kept: bytes | None) -> NewRegistry:
            signed = kept if kept is not None else self._identity.first_registry()
            payload = SignedRegistry.decode(signed).payload
            current = Registry.decode(payload)
            entry = current.node(subject.node_id)
            if entry is None or entry.key != key or subject.cluster_id != current.cluster_id:
                raise AgentError(
                    "this node is not in the registry with this key; nothing was changed.",
                    "Join again, with a token that `covey token create` prints on a member.",
                    exits.NOT_PERMITTED,
                )
            number, is_again = current.authority_number, renewal.serial in entry.serials[1:]
            if is_again and entry.authority == number:  # an answer got lost, or a replay
                return NewRegistry(current.epoch, signed, entry.id, is_news=False)
            if entry.authority == number:  # else there is a reason to ask at once
                self._check_renewed_at(entry.id)
            in_use = renewal.serial if entry.shows(renewal.serial) else None
            fresh = (serial, in_use) if in_use else (serial,)
            serials = entry.serials if is_again else fresh
            entry = msgspec.structs.replace(entry, serials=serials, authority=number)
            return self._sign(follow(payload, amend(current, entry)), entry.id)

        renewed = await self._store.change_registry(change)
        if renewed.is_news:
            self._renewed_at[renewed.node_id] = time.monotonic()
        return self._certificate(renewed), renewed

    def _check_renewed_at(self, node: NodeId) -> None:
        """Raise AgentError when this node was given a new serial just now."""
        if time.monotonic() - self._renewed_at.get(node, -RENEWED_AGAIN_S) < RENEWED_AGAIN_S:
            raise AgentError(
                "this node's certificate was renewed a moment ago; nothing was changed.",
                f"It may be again in {format_duration(RENEWED_AGAIN_S)}.",
                exits.NOT_PERMITTED,
            )

    def _sign(self, registry: Registry, node: NodeId) -> NewRegistry:
        return signed_by_authority(registry, self._identity, node)

    def _next_registry(
        self,
        entry: RegisteredNode,
        kept: bytes | None,
        token: TokenRecord,
        *,
        again: bool,
        admitted: Callable[[Registry, RegisteredNode], Registry],
    ) -> NewRegistry:
        """Return the registry with this node in it. Raises AgentError.

        Runs inside the transaction, and so in the writer's thread.
        """
        signed = kept if kept is not None else self._identity.first_registry()
        current = Registry.decode(SignedRegistry.decode(signed).payload)
        entry = msgspec.structs.replace(
            _as_fixed(entry, token.note), authority=current.authority_number
        )
        known = next((node for node in current.nodes if node.key == entry.key), None)
        if known is not None:
            return NewRegistry(current.epoch, signed, known.id, is_news=not again)
        if again:  # it was admitted with this token once, and removed since
            raise TokenRefusedError(TokenState.USED_UP)
        if current.node(entry.id) is not None:
            raise name_taken(f"the node id {entry.id:016x} belongs to another node.")
        try:
            fresh_registry = follow(SignedRegistry.decode(signed).payload, admitted(current, entry))
        except NameTaken:
            raise name_taken(
                f"the name {entry.name!r} belongs to another node.",
                f"Or, if that one is gone for good: `covey join --replace {entry.name} TOKEN`.",
            ) from None
        return self._sign(fresh_registry, entry.id)

    def _certificate(self, fresh: NewRegistry) -> bytes:
        from agent.identity import certificates

        registry = Registry.decode(SignedRegistry.decode(fresh.signed).payload)
        node = registry.node(fresh.node_id)
        assert node is not None, "the node was just put in"
        subject = certificates.Subject(self._identity.cluster_id, node.id, node.name)
        key = self._identity.authority_private_key(registry.authority)
        authority = registry.authority or self._identity.trust.newest
        return certificates.issue(key, authority.certificate, subject, node.key, node.serials[0])


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
    if former.is_issuer:
        hint = "Its backup takes its place; or join under another name with --node-name."
        raise _cannot_replace(entry.name, "it lets others in", hint, exits.NAME_TAKEN)
    if former.id != gone:
        raise _cannot_replace(
            entry.name,
            "it is there",
            "Switch it off and wait until it counts as dead, or take it out where the covey was "
            f"founded: `covey members remove {entry.name}`.",
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


def _is_over(token: TokenRecord, now_s: float) -> bool:
    """Tell whether it has expired for good: a clock that is behind just now ends none."""
    is_expired = token.state(now_s) is TokenState.EXPIRED and token.expires_at <= now_s
    return is_expired and not token.note.ended


def _shown(token: TokenRecord, now_s: float) -> TokenShown:
    note = token.note
    return TokenShown(
        id=token.id,
        state=token.state(now_s).value,
        made_at=note.made_at,
        made_by=note.made_by,
        expires_at=token.expires_at,
        uses=note.uses,
        uses_left=token.uses_left,
        node_name=note.node_name,
        zone=note.zone,
        weight=note.weight,
        admitted=token.admitted,
    )


def signed_by_authority(registry: Registry, identity: Identity, node: NodeId) -> NewRegistry:
    """Return a registry signed by the authority that it names. Raises AgentError."""
    payload = registry.encode()
    signature = identity.sign(payload, registry.authority)
    return NewRegistry(registry.epoch, SignedRegistry(payload, signature).encode(), node)


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
