"""A running node's allegiance: whom it trusts, by whom it is certified, and how both change.

What hears of another authority, and who has to know of it, meet here (``trust_keeper.py``,
``renewal.py``, ``ca_rollover.py``).
"""

import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from agent import exits
from agent.admission import renewal
from agent.admission.homes import HomeKeeper
from agent.admission.registry_issuer import RegistryIssuer
from agent.admission.server import AdmissionServer
from agent.admission.trust_keeper import TrustKeeper
from agent.cluster.cluster_view import ClusterView
from agent.config.settings import NetworkSettings
from agent.exits import AgentError
from agent.identity.identity import Identity
from agent.keys.key_service import KeyService
from agent.loop.periodic import until_next
from agent.net.streams import Streams
from agent.runtime.driver import Driver
from agent.store.control import ControlStore
from gossip.registry.registry import Registry, SignedRegistry, open_registry

if TYPE_CHECKING:
    from agent.admission.ca_rollover import Rollover

LOOK_S = 2.0

Keep = Callable[[str, Callable[[], Coroutine[Any, Any, None]]], object]

log = logging.getLogger(__name__)


async def keep_newest(who: Identity, control: ControlStore) -> None:
    """Put the registry that lies with the identity into the database, if that has an older one.

    Else a node whose database was set back would follow one whose authority it trusts no longer.
    """
    signed = who.first_registry()
    registry = Registry.decode(SignedRegistry.decode(signed).payload)
    await control.save_registry(registry.epoch, signed)


class Allegiance:
    """Manages whom an agent trusts and who certifies it; ``open``, then ``keep``."""

    def __init__(
        self,
        who: Identity,
        control: ControlStore,
        network: NetworkSettings,
        driver: Driver,
        covey: ClusterView,
        registries: RegistryIssuer,
    ) -> None:
        self._who, self._control, self._network, self._driver = who, control, network, driver
        self._covey, self._registries = covey, registries
        self._keeper = TrustKeeper(who, control, self._changed)
        self._signals = renewal.Signals()
        self._made_rollover: Rollover | None = None
        self._streams: Streams
        self._server: AdmissionServer
        self._keys: KeyService
        self._keep: Keep

    def open(self, streams: Streams, server: AdmissionServer, keys: KeyService) -> None:
        """Trust whom the registry says, and heed what the driver publishes."""
        self._streams, self._server, self._keys = streams, server, keys
        state = self._driver.node.state
        self._keeper.start(state.registry, state.signed)
        self._show()
        self._driver.listen(self._keeper.record)

    def on_strange_authority(self) -> None:
        """Somebody trusts another authority than we do: ask which the covey has."""
        self._signals.is_lost.set()

    def keep(self, keep: Keep) -> None:
        """Have the certificate renewed in time, for as long as ``keep`` keeps what it is given."""
        who, show, signals = self._who, self._show, self._signals
        ask, registry = self._server.renew, lambda: self._driver.node.state.registry
        places = partial(renewal.places, who, self._network, self._control.peers)
        adopt, self._keep = self._adopt, keep
        self._keep(
            "certificate",
            lambda: renewal.keep_renewed(who, ask, registry, show, places, adopt, signals),
        )
        self._keep("authority", lambda: renewal.keep_found(who, places, adopt, show, signals))
        self._keep("authority-key", self._server.keeper.run)
        self._keep("carry-over", self._server.carry_over)
        self._keep("homes", HomeKeeper(who, self._registries, self._covey).run)
        self._keep("roll-over", self._roll_over_steps)

    async def finish(self) -> None:
        """Return when all is on the disk."""
        await self._keeper.finish()

    async def roll_over(self, *, force: bool) -> None:
        """Have another authority take over. Raises AgentError."""
        if not self._who.is_issuer:
            raise AgentError(
                "the authority is replaced where its key lies; nothing was changed.",
                f"On {self._server.issuer_names()}: the same command.",
                exits.NOT_PERMITTED,
            )
        await self._rollover().begin(force=force)

    def _rollover(self) -> "Rollover":
        if self._made_rollover is None:
            from agent.admission.ca_rollover import Rollover  # most members have no such key

            keeper = self._server.keeper
            self._made_rollover = Rollover(self._who, self._registries, self._covey, keeper)
        return self._made_rollover

    async def _roll_over_steps(self) -> None:
        """Take the steps of a roll-over, from when on this node holds the authority's key."""
        while not self._who.is_issuer:
            await until_next(LOOK_S)
        await self._rollover().run()

    def _changed(self) -> None:
        """Show and accept other certificates from now on; get one that others accept."""
        self._show()
        self._keys.trust_changed()
        if len(self._who.trust.authorities) == 1:
            self._streams.end_former()
        self._signals.has_new_authority.set()

    def _show(self) -> None:
        try:
            self._streams.renew()
        except AgentError as error:
            log.error("%s", error.message)  # noqa: TRY400 - it says what to do

    async def _adopt(self, signed: bytes) -> None:
        """Follow a registry that came with a certificate, once it is on the disk.

        Raises RemoteError or StorageError.
        """
        sync = self._driver.node.state.registry_sync
        if sync.is_next(signed):
            await self._control.save_registry(open_registry(signed, self._who.verify).epoch, signed)
        self._driver.call(lambda now: self._driver.node.adopt_registry(signed, now))
