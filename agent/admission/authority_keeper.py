"""Who holds the authority's key: the nodes that vote, each of them.

::

    votes, has no key        ── AuthorityRequest ──▶  an issuer: does it vote, by what is committed?
                             ◀── AuthorityAnswer ───
    has it on its disk       signs, with that key, the registry that gives it the role of an issuer
    votes no more            an issuer signs the registry that takes the role; it wipes its key

So the death of one device, the founder's too, leaves others that let nodes in, and who could not
take part in the log has nothing to sign with. The key goes over a mutual stream, on which the
certificate has shown who asks, and is sealed on the disk where the platform can (``at_rest.py``).
Who was an issuer once may have kept a copy: where that is to be feared, the authority is replaced.

When the covey gets another authority, its key is with all other issuers that can be reached before
anything is signed with it (``hand_on``). Who was away meanwhile asks for it, as a new voter does.
"""

import asyncio
import logging
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import exits
from agent.admission.issuer_relay import IssuerRelay
from agent.admission.messages import (
    Answer,
    AuthorityAnswer,
    AuthorityRequest,
    NextAuthority,
    NextAuthorityAnswer,
    Refused,
)
from agent.admission.registry_issuer import RegistryIssuer
from agent.cluster.cluster_view import ClusterView
from agent.config.logs import RateLimitedLog
from agent.exits import AgentError
from agent.identity import at_rest, spares
from agent.identity.identity import Identity
from agent.identity.private_keys import parse_private_pem, private_pem
from agent.loop.periodic import until_next
from gossip.core.ids import NodeId
from gossip.registry.node import ISSUER, RegisteredNode

LOOK_S = 2.0
PUT_BY = b"\n# Nobody goes on with this by itself.\n"
"""Behind the next authority's key, where it is kept for another, or came to nothing here."""
LOOKS_BEFORE_TAKING = 3
"""So often in a row somebody is found not to vote before the role is taken back."""

log = logging.getLogger(__name__)


class AuthorityKeeper:
    """Gets the authority's key to this node when it votes, and wipes it when it does no more."""

    def __init__(
        self, who: Identity, registries: RegistryIssuer, covey: ClusterView, relay: IssuerRelay
    ) -> None:
        self._who, self._registries, self._covey, self._relay = who, registries, covey, relay
        self._held = b""
        """The public half of the key that was last found on the disk."""
        self._voteless: dict[NodeId, int] = {}
        self._writing = asyncio.Lock()
        self.is_rolling_over: Callable[[], bool] = lambda: False
        self._quiet = RateLimitedLog(log)

    async def run(self) -> None:
        """Look again and again whether the key is where it belongs, for ever."""
        while True:
            try:
                await self.look()
            except (AgentError, OSError) as error:
                told = error.message if isinstance(error, AgentError) else str(error)
                self._quiet.warning("authority", "the authority's key: %s", told)
            await until_next(LOOK_S)

    async def look(self) -> None:
        """Do what is to be done now. Raises AgentError, OSError."""
        me, registry, voters = self._who.node_id, self._covey.registry(), self._covey.voters()
        entry = registry.node(me)
        if entry is not None and me in voters:
            if not await asyncio.to_thread(self._settle_key):
                await self._ask()
            if not entry.is_issuer:
                await self._registries.set_roles(me, (*entry.roles, ISSUER))
                log.info("this node votes, holds the authority's key, and lets others in")
        elif entry is None or not entry.is_issuer:
            await self._wipe()
        if entry is not None and entry.is_issuer and self._covey.acts():
            await self._take_back(voters)

    # ---- having it ------------------------------------------------------------------------------

    def _settle_key(self) -> bool:
        """Tell whether the present authority's key is here, and in the file where it belongs.

        Raises OSError, AgentError.
        """
        wanted = self._who.trust.newest.key
        if self._held == wanted and not self._who.next_authority_file.exists():
            return True
        if not self._who.is_issuer and not self._who.next_authority_file.exists():
            return False
        for file in (self._who.authority_key_file, self._who.next_authority_file):
            if not file.exists():
                continue
            data = at_rest.read_secret(file)
            key = _parsed(data)
            if key is None or key.public_key().public_bytes_raw() != wanted:
                continue
            if file == self._who.next_authority_file:
                at_rest.replace_secret(self._who.authority_key_file, private_pem(key))
                spares.remove_with_spare(file)
            self._held = wanted
            return True
        return False

    async def _ask(self) -> None:
        """Have an issuer hand over the key. Raises AgentError, OSError."""
        answer = await self._relay.ask_any(AuthorityRequest(), "")
        if isinstance(answer, Refused):
            raise AgentError(answer.message, answer.hint, answer.status)
        key = _parsed(answer.key) if isinstance(answer, AuthorityAnswer) else None
        wanted = self._who.trust.newest.key
        if key is None or key.public_key().public_bytes_raw() != wanted:
            raise AgentError("an issuer answered with another key than the authority's.")
        async with self._writing:
            data = private_pem(key)
            await asyncio.to_thread(at_rest.replace_secret, self._who.authority_key_file, data)
            await asyncio.to_thread(spares.remove_with_spare, self._who.next_authority_file)
        self._held = wanted

    async def _wipe(self) -> None:
        """Keep no key that this node is not to have. Raises OSError."""
        others = any(each.is_issuer for each in self._covey.registry().nodes)
        if not others or not self._who.is_issuer:
            return
        async with self._writing:
            await asyncio.to_thread(self._who.forget_authority)
        self._held = b""
        log.warning("this node votes no more, and has wiped the authority's key")

    async def _take_back(self, voters: tuple[NodeId, ...]) -> None:
        """Take the role of an issuer from who votes no more, as long as others have it."""
        issuers = [each for each in self._covey.registry().nodes if each.is_issuer]
        stay = [each for each in issuers if each.id in voters]
        if not stay:
            self._voteless.clear()
            return
        gone = [each for each in issuers if each.id not in voters]
        self._voteless = {each.id: self._voteless.get(each.id, 0) + 1 for each in gone}
        for each in gone:
            if self._voteless[each.id] >= LOOKS_BEFORE_TAKING:
                await self._registries.set_roles(each.id, _without(each))
                log.warning("%s votes no more, and lets nobody in any more", each.name)

    # ---- what others ask ------------------------------------------------------------------------

    async def answer(self, question: AuthorityRequest | NextAuthority, peer: NodeId) -> Answer:
        """Answer a member over its mutual stream. Raises AgentError, OSError."""
        if isinstance(question, AuthorityRequest):
            return await self._give(peer)
        return await self._keep_next(question, peer)

    async def _give(self, peer: NodeId) -> Answer:
        """Hand the key to who votes, by what a majority says now."""
        # Whether or not the log has a registry: who votes in one without, after its recovery from a
        # copy that had none, is the only one that can put it there.
        await self._registries.confirm()
        entry = self._covey.entry(peer)
        if entry is None or peer not in self._covey.voters():
            raise AgentError("this node does not vote.", "", exits.NOT_PERMITTED)
        key = await asyncio.to_thread(self._who.authority_private_key)
        file = self._who.next_authority_file
        following = await asyncio.to_thread(at_rest.read_secret, file) if file.exists() else b""
        log.info("%s votes, and was handed the authority's key", entry.name)
        return AuthorityAnswer(private_pem(key), following)

    async def _keep_next(self, offered: NextAuthority, peer: NodeId) -> Answer:
        entry = self._covey.entry(peer)
        if entry is None or not entry.is_issuer:
            raise AgentError("only an issuer hands on a key.", "", exits.NOT_PERMITTED)
        if not self._who.is_issuer:
            raise AgentError("this node holds no key of the authority.", "", exits.UNREACHABLE)
        if self.is_rolling_over():
            raise AgentError("a roll-over was begun on this node, too.", "", exits.NO)
        if _parsed(offered.key) is None:
            raise AgentError("that is no key.", "", exits.NOT_PERMITTED)
        async with self._writing:
            data = offered.key.removesuffix(PUT_BY) + PUT_BY
            await asyncio.to_thread(at_rest.replace_secret, self._who.next_authority_file, data)
        return NextAuthorityAnswer()

    def has_begun(self) -> bool:
        """Tell whether a roll-over was begun here, and cut off. Raises AgentError, OSError."""
        file = self._who.next_authority_file
        return file.exists() and not at_rest.read_secret(file).endswith(PUT_BY)

    def put_by(self) -> None:
        """Keep the next authority's key for an order that is given again. Raises OSError."""
        if self.has_begun():
            file = self._who.next_authority_file
            at_rest.replace_secret(file, at_rest.read_secret(file) + PUT_BY)

    async def hand_on(self) -> None:
        """Have all other issuers that are there keep the next authority's key.

        Raises AgentError when one that is there has not, OSError.
        """
        data = await asyncio.to_thread(at_rest.read_secret, self._who.next_authority_file)
        others = self._covey.issuers()
        answers = await asyncio.gather(
            *(self._hand_to(each, NextAuthority(data)) for each in others)
        )
        behind = [one for one, kept in zip(others, answers, strict=True) if not kept]
        there = await asyncio.gather(*map(self._covey.is_there, behind))
        lacking = [self._name(one) for one, is_there in zip(behind, there, strict=True) if is_there]
        if lacking or len(behind) > len(others) // 2:
            names = ", ".join(lacking or map(self._name, behind))
            raise AgentError(
                f"the next authority's key is not with {names} yet, so nothing was signed with it; "
                "the covey has the authority that it had.",
                "Run the same command again; start who is off.",
                exits.UNHEALTHY,
            )

    async def _hand_to(self, issuer: NodeId, offer: NextAuthority) -> bool:
        try:
            answer = await self._relay.ask(issuer, offer, "")
        except TimeoutError:
            return False
        if isinstance(answer, Refused):
            log.warning(
                "%s did not take the next authority's key: %s", self._name(issuer), answer.message
            )
        return isinstance(answer, NextAuthorityAnswer)

    def _name(self, node: NodeId) -> str:
        entry = self._covey.entry(node)
        return entry.name if entry else f"{node:016x}"


def _without(entry: RegisteredNode) -> tuple[str, ...]:
    return tuple(role for role in entry.roles if role != ISSUER)


def _parsed(pem: bytes) -> Ed25519PrivateKey | None:
    try:
        return parse_private_pem(pem)
    except ValueError:
        return None
