"""Counters and gauges as Prometheus reads them; its own parser is the judge."""

from collections import Counter

from prometheus_client.parser import text_string_to_metric_families

from agent.metrics import Metrics


def samples(metrics: Metrics) -> dict[tuple[str, str], float]:
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            found[sample.name, ",".join(sample.labels.values())] = sample.value
    return found


def test_counts_become_counters_by_kind() -> None:
    metrics = Metrics()
    counts = Counter({"datagrams_dropped/forged": 3, "probes/failed": 1})
    metrics.count(lambda: counts)
    counts["probes/failed"] += 1
    found = samples(metrics)
    assert found["covey_datagrams_dropped_total", "forged"] == 3
    assert found["covey_probes_total", "failed"] == 2


def test_sources_with_the_same_key_add_up() -> None:
    metrics = Metrics()
    metrics.count(lambda: {"frames/sent": 1})
    metrics.count(lambda: {"frames/sent": 2, "frames/late": 0})
    assert samples(metrics)["covey_frames_total", "sent"] == 3
    assert metrics.counts() == {"frames/sent": 3, "frames/late": 0}


def test_gauges_are_asked_at_each_scrape() -> None:
    metrics = Metrics()
    values = {"alive": 2.0}
    metrics.gauge("members", "Members by state.", lambda: values, label="state")
    metrics.gauge("outbox_waiting", "Readings that wait.", lambda: len(values))
    assert samples(metrics)["covey_members", "alive"] == 2
    values["dead"] = 1.0
    found = samples(metrics)
    assert found["covey_members", "dead"] == 1
    assert found["covey_outbox_waiting", ""] == 2


def test_the_process_is_measured() -> None:
    found = samples(Metrics())
    assert found["process_resident_memory_bytes", ""] > 1_000_000
    assert ("process_cpu_seconds_total", "") in found


def test_two_agents_in_one_process_stay_apart() -> None:
    one, other = Metrics(), Metrics()
    one.count(lambda: {"a/b": 1})
    assert ("covey_a_total", "b") in samples(one)
    assert ("covey_a_total", "b") not in samples(other)
