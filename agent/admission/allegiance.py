"""A running node's allegiance: whom it trusts, by whom it is certified, and how both change.

What hears of another authority, and who has to know of it, meet here (``trust_keeper.py``,
``renewal.py``, ``ca_rollover.py``).
"""

import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from agent import exits
from agent.admission import renewal
from agent.admission.ca_rollover import Rollover
from agent.admission.server import AdmissionServer
from agent.admission.trust_keeper import TrustKeeper
from agent.cluster.cluster_view import ClusterView
from agent.config.settings import NetworkSettings
from agent.exits import AgentError
from agent.identity.identity import Identity
from agent.keys.key_service import KeyService
from agent.net.streams import Streams
from agent.runtime.driver import Driver
from agent.store.control import ControlStore
from gossip.registry.registry import Registry, SignedRegistry

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
    ) -> None:
        self._who, self._control, self._network, self._driver = who, control, network, driver
        self._keeper = TrustKeeper(who, control, self._changed)
        self._signals = renewal.Signals()
        self._rollover = Rollover(who, control, covey) if who.is_issuer else None
        self._streams: Streams
        self._desk: AdmissionServer
        self._keys: KeyService
        self._keep: Keep

    def open(self, streams: Streams, desk: AdmissionServer, keys: KeyService) -> None:
        """Trust whom the registry says, and heed what the driver publishes."""
        self._streams, self._desk, self._keys = streams, desk, keys
        state = self._driver.node.state
        self._keeper.start(state.registry, state.signed)
        self._show()
        self._driver.listen(self._keeper.record)

    def note_strange_authority(self) -> None:
        """Somebody trusts another authority than we do: ask which the covey has."""
        self._signals.is_lost.set()

    def keep(self, keep: Keep) -> None:
        """Have the certificate renewed in time, for as long as ``keep`` keeps what it is given."""
        who, show, signals = self._who, self._show, self._signals
        ask, registry = self._desk.renew, lambda: self._driver.node.state.registry
        places = partial(renewal.places, who, self._network, self._control.peers)
        adopt, self._keep = self._adopt, keep
        self._keep(
            "certificate",
            lambda: renewal.keep_renewed(who, ask, registry, show, places, adopt, signals),
        )
        self._keep("authority", lambda: renewal.keep_found(who, places, adopt, show, signals))
        if self._rollover is not None:
            self._keep("roll-over", self._rollover.run)

    async def finish(self) -> None:
        """Return when all is on the disk."""
        await self._keeper.finish()

    async def roll_over(self, *, force: bool) -> None:
        """Have another authority take over. Raises AgentError."""
        if self._rollover is None:
            raise AgentError(
                "the authority is replaced where its key lies; nothing was changed.",
                f"On {self._desk.issuer_names()}: the same command.",
                exits.NOT_PERMITTED,
            )
        await self._rollover.begin(force=force)

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
        """Follow a registry that came with a certificate."""
        self._driver.call(lambda now: self._driver.node.adopt_registry(signed, now))
