"""The budget of bytes a day: what is projected, and when the log complains."""

import logging
from collections import Counter

import pytest

from agent.cluster.traffic_budget import DAY_S, SAMPLE_EVERY_S, WINDOW_SAMPLES, TrafficBudget


class ByteCounter:
    """A link whose traffic the test sets."""

    def __init__(self, bytes_per_day: int = 0) -> None:
        self.now = 1000.0
        self.counts = Counter({"datagrams/sent": 10**9})
        self.budget = TrafficBudget(lambda: self.counts, lambda: self.now, bytes_per_day)

    def minutes(self, count: int, bytes_per_minute: int) -> None:
        for _ in range(count):
            self.now += SAMPLE_EVERY_S
            self.counts["gossip_bytes/datagrams sent"] += bytes_per_minute // 2
            self.counts["gossip_bytes/streams received"] += bytes_per_minute // 2
            self.budget.sample()


def test_the_rate_of_the_last_hour_is_extrapolated_to_a_day() -> None:
    meter = ByteCounter()
    assert meter.budget.projected() == 0
    meter.minutes(3, 1000)
    assert meter.budget.projected() == 1000 * DAY_S / 60
    meter.minutes(WINDOW_SAMPLES, 200)
    assert meter.budget.projected() == 200 * DAY_S / 60
    assert not meter.budget.exceeded, "without a budget nothing is exceeded"


def test_the_log_complains_once_and_says_when_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "agent.cluster.traffic_budget")
    meter = ByteCounter(bytes_per_day=1_000_000)
    meter.minutes(3, 10_000)
    assert caplog.messages == [], "a start takes more than what follows"
    meter.minutes(20, 10_000)
    assert len(caplog.messages) == 1
    assert "14400000 bytes a day" in caplog.messages[0]
    assert meter.budget.exceeded
    meter.minutes(WINDOW_SAMPLES, 100)
    assert len(caplog.messages) == 2
    assert "within its budget" in caplog.messages[1]
    assert not meter.budget.exceeded
