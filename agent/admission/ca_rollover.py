"""Another authority for the covey, begun on a device that holds the authority's key.

::

    one ──▶ next written ──▶ both are trusted ──▶ one
            authority.next    nodes renew          the former's certificates open nothing

The next authority's key is on the disk of this device and of all other issuers that are there,
before anybody else hears of it (``authority_keeper.py``): the death of one does not lose it. That
it takes over is one entry of the log: the registry with the succession, signed by the next one, and
the end of all tokens, which name the former. Then the key's file is replaced, and what signed until
now is gone from this device. Each step can be seen on the disk, so an issuer that was killed
between any two instructions goes on at its next start. One that keeps the key for another, or was
told that it came to nothing, does not. What members do meanwhile: ``renewal.py``.
"""

import asyncio
import logging
from contextlib import suppress

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import exits
from agent.admission.authority_keeper import AuthorityKeeper
from agent.admission.registry_draft import Draft
from agent.admission.registry_issuer import RegistryIssuer, end_all
from agent.cluster.cluster_view import ClusterView
from agent.cluster.elections import once_elected
from agent.exits import AgentError
from agent.identity import at_rest, spares
from agent.identity.identity import Identity
from agent.identity.private_keys import private_pem, read_private_key
from agent.loop.periodic import until_next
from gossip.core.ids import NodeId
from gossip.registry.registry import Registry, SignedRegistry, retire, succeed
from gossip.registry.succession import Authority, Succession, statement

LOOK_S = 1.0
AGAIN_S = 5.0
SETTLE_S = 5.0
"""How long the last certificate gets to be used, before the former ones open nothing."""
FORCE_S = 60.0
"""How long an order with force waits for members that are there and do not renew."""

log = logging.getLogger(__name__)


class Rollover:
    """Replaces the authority of a covey; ``run`` for as long as the agent does. Issuers only."""

    def __init__(
        self, who: Identity, registries: RegistryIssuer, covey: ClusterView, keeper: AuthorityKeeper
    ) -> None:
        self._who, self._registries, self._covey = who, registries, covey
        self._keeper = keeper
        keeper.is_rolling_over = lambda: self._working.locked()
        self._working = asyncio.Lock()
        self._forced_at: float | None = None
        self._complete_since: float | None = None

    async def begin(self, *, force: bool) -> None:
        """Have another authority take over; ``force``: wait for nobody who is away.

        Returns when it has. During a roll-over nothing but ``force`` is taken in. Raises
        AgentError.
        """
        async with self._working:
            try:
                if not self._covey.registry().overlaps:
                    await asyncio.to_thread(self._prepare)
                    await self._continue_rollover()
            except AgentError:
                await asyncio.to_thread(self._keeper.put_by)
                raise
            except OSError as error:
                raise AgentError(
                    f"the next authority's key was not saved: {error.strerror}; the covey has the "
                    "authority that it had.",
                    "Free some space, or mend the rights of the identity directory.",
                    exits.UNHEALTHY,
                ) from None
        if force and self._forced_at is None:
            self._forced_at = _now()

    async def run(self) -> None:
        """Go on where the last start ended; end a roll-over when nobody is waited for."""
        await self._finish_begun()
        while True:
            await until_next(LOOK_S)
            if not self._who.is_issuer:
                continue
            if not self._covey.registry().overlaps:
                self._forced_at = self._complete_since = None
            elif await self.awaited():
                self._complete_since = None
            elif self._complete_since is None:
                self._complete_since = _now()
            elif _now() - self._complete_since >= SETTLE_S:
                with suppress(AgentError):  # without a majority, it is tried again
                    await self.end()

    async def _finish_begun(self) -> None:
        """Go on with what was begun before the start, once a majority is there."""
        while self._who.is_issuer and await asyncio.to_thread(self._keeper.has_begun):
            try:
                async with self._working:
                    await self._continue_rollover()
            except AgentError as error:
                log.info("a roll-over goes on later: %s", error.message)
                await asyncio.sleep(AGAIN_S)
            else:
                return

    async def awaited(self) -> list[NodeId]:
        """Return for whose certificates the end of the roll-over waits.

        Who was let in and never heard may never run; if it does, it asks as one that was away.
        """
        uncertified = self._covey.registry().uncertified
        behind = [entry.id for entry in uncertified if not entry.absent]
        if self._forced_at is None:
            return behind
        if _now() - self._forced_at > FORCE_S:
            return []
        there = await asyncio.gather(*map(self._covey.is_there, behind))
        return [node for node, is_there in zip(behind, there, strict=True) if is_there]

    async def end(self) -> None:
        """Sign the registry in which the former authority's certificates open nothing."""

        def step(made: Draft) -> bool:
            if made.registry.overlaps:
                made.follow_with(retire(made.registry))
            return made.registry is not made.agreed

        is_news, _ = await self._registries.change(step, alone=True)
        if is_news:
            log.warning("the authority before the present one is good for nothing any more")

    def _prepare(self) -> None:
        """Write the next authority's key and certificate, unless they are there. Raises OSError."""
        from agent.identity import certificates

        if self._who.next_authority_file.exists():
            return
        self._who.authority_private_key()  # who lacks the present one cannot name the next
        key = Ed25519PrivateKey.generate()
        certificate = certificates.make_authority(key, self._who.cluster_id, self._who.cluster_name)
        data = private_pem(key) + certificates.to_pem(certificate)
        at_rest.replace_secret(self._who.next_authority_file, data)

    async def _continue_rollover(self) -> None:
        """Take the steps that are left, if a next authority was written. Raises AgentError."""
        if not self._who.next_authority_file.exists():
            return
        await self._keeper.hand_on()
        _, signed = await once_elected(lambda: self._registries.change(self._succeed, alone=True))
        registry = Registry.decode(SignedRegistry.decode(signed).payload)
        await asyncio.to_thread(self._replace_key, registry.authority)

    def _succeed(self, made: Draft) -> None:
        """Put in the succession, and end all tokens. Raises AgentError."""
        from agent.identity import certificates

        current = made.registry
        former = current.authority or self._who.trust.newest
        file = self._who.next_authority_file
        key, certificate = read_private_key(file), certificates.from_pem(at_rest.read_secret(file))
        public = key.public_key().public_bytes_raw()
        if public == former.key:  # it has taken over before we were killed
            return
        following = Authority(former.number + 1, public, certificate)
        told = statement(self._who.cluster_id, former, following)
        by_former = self._who.authority_private_key(former).sign(told)
        step = Succession(former, following, by_former, key.sign(told))
        made.follow_with(succeed(current, step))
        end_all(made)

    def _replace_key(self, authority: Authority | None) -> None:
        """Put the key in its place, and what signed until now away. Raises OSError."""
        key = private_pem(self._who.authority_private_key(authority))
        at_rest.replace_secret(self._who.authority_key_file, key)
        spares.remove_with_spare(self._who.next_authority_file)


def _now() -> float:
    return asyncio.get_running_loop().time()
