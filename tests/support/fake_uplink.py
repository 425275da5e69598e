"""An uplink that is connected, and whose test fails at its second step."""

from collections.abc import AsyncIterator

from agent.telemetry.uplink.broker_test import ConnectStep, StepOutcome
from agent.telemetry.uplink.status import UplinkStatus


class FakeUplink:
    async def test(self) -> AsyncIterator[ConnectStep]:
        yield ConnectStep("name", StepOutcome.OK, 0.0123, "broker.lan is 10.0.0.5")
        yield ConnectStep(
            "TCP", StepOutcome.FAILED, 0.5, "nothing listens at 10.0.0.5:1883", "Start it."
        )

    def status(self) -> UplinkStatus:
        return UplinkStatus(
            "connected", 0.0, "broker.lan", 1883, "5", "covey-home-1", False, 20, 3, 4, 7, 1, "", ""
        )
