"""The numbers that Prometheus reads: counters of the pure code, and gauges of the runtime.

The protocol machines count in plain ``collections.Counter`` objects, under keys
``family/label``: an increment costs 40 ns there and ten times that in a metrics library. When
somebody scrapes, and only then, the counters are read and become
``covey_<family>_total{kind="<label>"}``. Gauges are functions that are asked at the same
moment. ``prometheus_client`` is imported with the first scrape: an agent that nobody scrapes
does not pay its 4 MiB.

Each ``Metrics`` has a registry of its own, so that several agents in one process, as in the
tests, do not add up.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from agent.metric_families import FAMILIES

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

PREFIX = "covey"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Counts = Mapping[str, int]


class Gauge(NamedTuple):
    """A number that is asked for at each scrape; with a ``label``, one number per value of it."""

    name: str
    documentation: str
    read: Callable[[], float | Mapping[str, float]]
    label: str


class Metrics:
    """Collects what is to be exported; ``render`` writes it in Prometheus' text format."""

    def __init__(self) -> None:
        self._sources: list[Callable[[], Counts]] = []
        self._gauges: list[Gauge] = []
        self._registry: CollectorRegistry | None = None

    def count(self, source: Callable[[], Counts]) -> None:
        """Export the counters that ``source`` returns, keyed ``family/label``.

        Several sources may have the same key: their counts are added.
        """
        self._sources.append(source)

    def gauge(
        self,
        name: str,
        documentation: str,
        read: Callable[[], float | Mapping[str, float]],
        label: str = "",
    ) -> None:
        """Export ``covey_<name>``. With a label, ``read`` returns a number per label value."""
        self._gauges.append(Gauge(name, documentation, read, label))

    def counts(self) -> Counter[str]:
        """Return all counters of all sources, added up."""
        total: Counter[str] = Counter()
        for source in self._sources:
            total.update(source())
        return total

    def render(self) -> bytes:
        """Return the metrics as text; its media type is ``CONTENT_TYPE``."""
        from prometheus_client import generate_latest  # late, see the module's text

        if self._registry is None:
            self._registry = self._create_registry()
        return generate_latest(self._registry)

    def _create_registry(self) -> "CollectorRegistry":
        from prometheus_client import CollectorRegistry, ProcessCollector

        registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=registry)  # CPU, resident memory, open files, start time
        registry.register(self)
        return registry

    def collect(self) -> Iterator["Metric"]:
        """Yield the metric families; called by ``prometheus_client`` at each scrape."""
        yield from self._counter_families()
        yield from self._gauge_families()

    def _counter_families(self) -> Iterator["Metric"]:
        from prometheus_client.core import CounterMetricFamily

        families: dict[str, CounterMetricFamily] = {}
        for key, value in sorted(self.counts().items()):
            family, _, kind = key.partition("/")
            if family not in families:
                text = FAMILIES.get(family, f"Events of the family {family}, by kind.")
                families[family] = CounterMetricFamily(f"{PREFIX}_{family}", text, labels=["kind"])
            families[family].add_metric([kind], value)
        yield from families.values()

    def _gauge_families(self) -> Iterator["Metric"]:
        from prometheus_client.core import GaugeMetricFamily

        for gauge in self._gauges:
            labels = [gauge.label] if gauge.label else []
            family = GaugeMetricFamily(f"{PREFIX}_{gauge.name}", gauge.documentation, labels=labels)
            value = gauge.read()
            samples = value if isinstance(value, Mapping) else {"": value}
            for label, number in samples.items():
                family.add_metric([label] if gauge.label else [], number)
            yield family
