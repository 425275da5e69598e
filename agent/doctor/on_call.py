"""The doctor on call: nothing of it is loaded before somebody asks what is wrong."""

from typing import Any

from agent.doctor.inputs import AgentInputs, MemberInputs
from agent.doctor.survey import Survey
from agent.loop.late import load


class OnCallDoctor:
    """Examines an agent; all of it once it takes part in its covey, its device before."""

    def __init__(self, inputs: AgentInputs) -> None:
        self._inputs = inputs
        self._covey: tuple[Survey, MemberInputs] | None = None

    def take_in(self, survey: Survey, parts: MemberInputs) -> None:
        """Look at these from now on, too: the agent takes part in its covey."""
        self._covey = survey, parts

    async def examine(self) -> dict[str, Any]:
        """Return findings and matrix, as ``GET /api/v1/doctor`` shows them."""
        await load("agent.doctor.doctor")
        from agent.doctor.doctor import Doctor, EarlyDoctor

        if self._covey is None:
            return await EarlyDoctor(self._inputs).examine()
        survey, parts = self._covey
        return await Doctor(survey, self._inputs, parts).examine()
