"""A topic is made once for each sensor; how many are remembered is bounded."""

from agent.telemetry.outbox import Accepted
from agent.telemetry.uplink.template import Template, TemplateContext
from edge_apps.reading import Reading
from edge_apps.texts import TOPICS_REMEMBERED_MAX


def test_topics_are_remembered_by_sensor_and_bounded() -> None:
    template = Template("c/{node}/{sensor}", "", TemplateContext("barn", "ash", "1"))
    for turn in range(2):
        for number in range(3 * TOPICS_REMEMBERED_MAX):
            accepted = Accepted(number + 1, f"{turn}-{number}", Reading(f"s{number}", 1.0))
            assert template.message(accepted).topic == f"c/ash/s{number}"
            assert len(template._topics) <= TOPICS_REMEMBERED_MAX
