"""The uplink as the agent sees it: configured or not, running, and able to tell how it fares."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from agent.config.settings import UplinkSettings
from agent.exits import AgentError
from agent.telemetry.outbox import Outbox
from agent.telemetry.uplink.broker_memory import BrokerMemory
from agent.telemetry.uplink.status import UplinkStatus
from agent.telemetry.uplink.template import Template, TemplateContext

if TYPE_CHECKING:
    from agent.telemetry.uplink.broker_test import ConnectStep

# A client id names its cluster for whoever reads the broker's log; the node id makes it unique.
CLUSTER_CHARACTERS = 32


class Uplink:
    """The way to the broker of ``[uplink]``; without a host, readings wait in the outbox.

    Raises AgentError for templates and files that cannot be used.
    """

    def __init__(
        self,
        settings: UplinkSettings,
        outbox: Outbox,
        place: TemplateContext,
        rng: random.Random,
        memory: BrokerMemory | None = None,
    ) -> None:
        self._settings = settings
        self._outbox = outbox
        self._place = place
        self._started_s = time.time()
        template = Template(settings.topic, settings.payload, place)
        self._client_id = settings.client_id or default_client_id(place)
        self._trying = asyncio.Lock()
        self._pump = None
        if settings.host:
            # Only for who has a broker: paho, and what hands readings to it.
            from agent.telemetry.uplink.delivery import Delivery
            from agent.telemetry.uplink.mqtt_client import PahoMqttClient

            link = PahoMqttClient(settings, self._client_id)
            self._pump = Delivery(settings, outbox, link, template, rng=rng, memory=memory)

    @property
    def counts(self) -> Counter[str]:
        """What happened, by "family/label"."""
        return self._pump.counts if self._pump else Counter()

    async def run(self) -> None:
        """Deliver until cancelled."""
        if self._pump is None:
            await asyncio.Event().wait()
        else:
            await self._pump.run()

    def test(self) -> "AsyncIterator[ConnectStep]":
        """Try the broker, beside the connection that there is; yield each step as it ends.

        Raises AgentError without a broker, and for settings that cannot be used.
        """
        return self._hurrying(test(self._settings, self._place))

    async def _hurrying(self, steps: "AsyncIterator[ConnectStep]") -> "AsyncIterator[ConnectStep]":
        """Let the uplink itself connect at once where the test could.

        Tests take turns: they have one client id, and a broker would throw one out for the other.
        """
        async with self._trying:
            async for step in steps:
                yield step
                if step.step == "login" and step.outcome == "ok" and self._pump is not None:
                    self._pump.hurry()

    def status(self) -> UplinkStatus:
        """Return one look at the uplink."""
        if self._pump is not None:
            return self._pump.status()
        stats = self._outbox.stats()
        return UplinkStatus(
            state="off",
            since_s=self._started_s,
            host="",
            port=self._settings.broker_port,
            version=self._settings.version,
            client_id=self._client_id,
            fell_back=False,
            window=0,
            in_flight=0,
            waiting=stats.waiting,
            delivered=stats.delivered,
            dead_letters=stats.dead_letters,
            last_error="",
            hint="Set host in [uplink] to deliver the readings to an MQTT broker.",
        )


def test(settings: UplinkSettings, place: TemplateContext) -> "AsyncIterator[ConnectStep]":
    """Try the broker of these settings. Raises AgentError."""
    if not settings.host:
        raise AgentError(
            "No broker is configured.", hint="Set host in [uplink] to its name or address."
        )
    from agent.telemetry.uplink.broker_test import BrokerTest  # paho only for who has a broker

    return BrokerTest(settings, place, settings.client_id or default_client_id(place)).run()


def default_client_id(place: TemplateContext) -> str:
    """Return a client id that no other node uses."""
    return f"covey-{place.cluster[:CLUSTER_CHARACTERS]}-{place.node_id}"
