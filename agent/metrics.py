"""The numbers that Prometheus reads: counters of the pure code, and gauges of the runtime.

The protocol machines count in plain ``collections.Counter`` objects, under keys
``family/label``: an increment costs 40 ns there and ten times that in a metrics library. When
somebody scrapes, and only then, the counters are read and become
``covey_<family>_total{kind="<label>"}``. Gauges are functions that are asked at the same
moment. ``prometheus_client`` is imported with the first scrape: an agent that nobody scrapes
does not pay its 4 MiB.

A family is the part before the slash in a counter's key; ``FAMILIES`` says what each counts.
``docs/api.md`` lists the same families, and a test compares both with the code that counts.

Each ``Metrics`` has a registry of its own, so that several agents in one process, as in the
tests, do not add up.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

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


FAMILIES: dict[str, str] = {
    # ---- values at rest
    "copies_doubted": "Starts that compare all shared keys before they are read here, and why.",
    "values_resealed": "Rows of shared keys written anew because another key, or none, seals them.",
    # ---- membership
    "probes": "Pings to members, by how they ended or for whom they were sent.",
    "relays": "Pings on behalf of a member that got no answer itself.",
    "acks": "Answers to pings that were not sent, or no longer waited for.",
    "pings_ignored": "Pings that were meant for somebody else.",
    "pings_answered": "Pings that came by a stream, because no datagram got through.",
    "relayed_streams": "Streams asked of this node by members that do not reach each other.",
    "path_checks": "Looks at members for blocked streams and narrow paths, and how they ended.",
    "crash_reports": "Hosts that said that a member's process is gone, and what was made of it.",
    "crash_checks": "Members looked for at once because of such a word or an ended stream.",
    "suspicions": "Members suspected of being dead, and suspicions seconded by others.",
    "deaths": "Members declared dead because a suspicion was not refuted in time.",
    "refutations": "Updates about this node that it had to refute.",
    "updates_ignored": "Updates about members that changed nothing, by the reason.",
    "updates_retracted": "States of a member that its own packets showed to be lies.",
    "words_refused": "What members were said to say of themselves and have not signed, by reason.",
    "signatures": "Signatures of what members say of themselves: made, verified, known already.",
    "updates_corrected": "Newer states told to members that showed older ones.",
    "members_changed": "Changes in the member list, by the new state.",
    "members_refused": "Members that were not listed, by the reason.",
    "members_unlisted": "Members taken off the list.",
    "updates": "Updates, events and queries sent along with other messages.",
    "messages_sent": "Messages of the membership, by their kind.",
    "messages_skipped": "Messages of unknown kinds, and requests beyond what one packet may ask.",
    "state_syncs": "State syncs: comparisons of member lists over a stream.",
    "state_sync_bytes": "Bytes of the frames by which member lists are compared.",
    "state_sync_entries": "Members of whom a state sync told something new.",
    "facts_ignored": "Facts that others told and that were not kept, by the reason.",
    "facts_received": "Facts that state syncs brought.",
    "addresses_ignored": "Addresses of other members that are not used, by the reason.",
    "bootstraps": "Attempts to reach somebody who may be a member.",
    "reconnects": "Attempts to reach members that are dead or forgotten.",
    "candidates_dropped": "Addresses that discovery found and nobody had room to remember.",
    "coordinates": "Samples that moved this node's place, and places of others that cannot be.",
    "sleeps": "Sleeps of this node, announced and ended.",
    "flapping": "Members that began to come and go, and their changes that nobody was told of.",
    "id_conflicts": "Signs that two devices have one identity.",
    "gossip_bytes": "Bytes of the membership, as payload of UDP and of streams.",
    "pauses": "Times when this node itself stood still and accused nobody for it.",
    "events": "Events sent and delivered.",
    "events_ignored": "Events that were told and not taken, by the reason.",
    "event_syncs": "Event syncs: comparisons of recent events with another member.",
    "queries": "Queries asked, heard and answered.",
    "queries_ignored": "Queries that were told and not handled, by the reason.",
    "queries_ended": "Queries of others that ended without a receipt for an answer.",
    "queries_dropped": "Queries that an app did not take in time.",
    "query_responses": "Answers to queries, by what was done with them.",
    "query_responses_ignored": "Answers that changed nothing, by the reason.",
    "handlers": "Commands run for events and queries, by how they ended.",
    # ---- network
    "datagrams": "UDP datagrams.",
    "datagrams_dropped": "UDP datagrams that changed nothing, by the reason.",
    "frames": "Messages over streams between members.",
    "frames_dropped": "Messages over streams that were not sent, or changed nothing.",
    "icmp_refusals_ignored": "ICMP refusals that prove nothing, by the reason.",
    "frames_skipped": "Messages over streams of a kind that this version does not know.",
    "streams": "TLS streams between members, by what happened to them.",
    "streams_refused": "TLS streams that were not let in, by the reason.",
    "discovery": "What mDNS and the seeds brought, and why something was not used.",
    "keyrings": "Rings of new keys that were offered to others, or taken into use.",
    "keyrings_refused": "Rings of new keys that were not taken, by the reason.",
    "admissions": "Nodes that asked to be let in, by the outcome.",
    "registries_signed": "Registries that this issuer signed to carry partitions to new owners.",
    "registries_refused": "Registries that were not followed: signed, and with another past.",
    # ---- shared keys
    "requests": "Requests for keys that were passed on or refused.",
    "reads": "Reads of keys, by the outcome.",
    "writes": "Writes of keys, by the outcome.",
    "writes_foretold": "Times that somebody told of writes that were yet to be made here: a lie.",
    "lists": "Lists of keys, by the outcome.",
    "moves": "Keys of devices that were moved to their homes from where they hashed to.",
    "watches": "Watches that were refused, whose changes were put off, or that said a gap.",
    "hints": "Keys of which owners that were away are to be told, and were.",
    "repairs": "Keys that were made equal again on their owners, by who noticed.",
    "clock_rounds": "Comparisons of this node's clock with those of others, by what followed.",
    "expiries": "Expired values that this node was to delete, by the outcome.",
    "puts_refused": "Puts that this node did not take: full disks, or a quota.",
    "partition_syncs": "Comparisons of partitions between owners.",
    "digest_rounds": "Rounds of asking other owners what they have.",
    "handoffs": "Partitions taken over from, or let go to, other owners.",
    "persists": "Batches of changes, by whether the disk took them.",
    "events_dropped": "Events that a slow reader inside the agent did not take in time.",
    # ---- files
    "files": "Files that were written, moved and removed through this agent.",
    "blocks": "Blocks of files, by what was done with their bodies here.",
    "blocks_refused": "Blocks that were not taken, or not given out, by the reason.",
    "blocks_dropped": "Parts of blocks that changed nothing, by the reason.",
    # ---- agreement
    "consensus_elections": "Elections that this store asked for, stood in, won or handed over.",
    "consensus_proposals": "Commands that a leader took into its log, or could not take.",
    "consensus_appends": "Appends of a leader that did not fit a follower's log.",
    "consensus_changes": "Configurations that a leader put into its log.",
    "consensus_snapshots": "Snapshots of the agreed state, made, sent and installed.",
    "consensus_clones": "Stores of the log that were found to live twice.",
    "consensus_dropped": "Messages of agreement that changed nothing, by the reason.",
    "control_part": "How often this node began to take part in the agreement, and ended.",
    "control_copies": "Snapshots of the agreed state that this node pulled from a voter.",
    "control_snapshots": "Snapshots of the agreed state that came too early for the log.",
    "control_asks": "Questions to this voter that nobody may ask, or that it does not know.",
    "control_answers": "Answers from voters that nobody waited for any more.",
    "control_halts": "Commands in the log that this version does not know, or fails at.",
    "control_generations": "Other generations of what is agreed on, or rival ones, that were met.",
    "control_voters": "What this leader changed of who votes and who stands by, by kind.",
    "control_sessions": "Sessions that this node renewed and lost, ended or unsure.",
    "control_renewals": "Times when this leader had stood still, and gave all their time again.",
    # ---- storage and telemetry
    "database_writes": "Writes to SQLite, by the outcome.",
    "database_transactions": "Transactions of SQLite; each carries many writes.",
    "database_rebuilds": "Damaged databases that were replaced by what could be read of them.",
    "database_syncs": "Times when what was written was forced to the disk.",
    "readings": "Readings, by how far they got.",
    "readings_lost": "Readings that the disk lost after they were accepted.",
    "loop_stalls": "Times when the event loop stood still for more than 20 ms, by where it was.",
    "loop_stalled_ms": "Milliseconds for which the event loop stood still so, by where it was.",
    "readings_dropped": "Readings dropped to make room, or for their age, by class and reason.",
    "readings_refused": "Readings that were not accepted, by the reason.",
    "followed_readings": "Readings that a slow follower missed; the outbox has them.",
    "dead_letters": "Readings that were given up, and how they left the dead letters.",
    "progress_saves": "Failures to save which readings were delivered.",
    "uplink_connections": "Connections to the broker, by what happened to them.",
    "uplink_connects_failed": "Attempts to connect that failed, by the reason.",
    "uplink_losses": "Connections to the broker that were lost, by the reason.",
    "uplink_refusals": "Publications that the broker refused, by the reason.",
    # ---- the agent itself
    "tasks_failed": "Failures of the agent's background tasks, by name.",
    "ended_by": "What the agent took in from others when its last life ended, by the kind.",
    "set_aside": "Times that something was passed over which ended the agent twice, by the kind.",
    "clock": "Times that the wall clock was set, by the direction.",
    # ---- apps and API
    "apps": "Processes of apps, by how they began or ended.",
    "app_log_lines_dropped": "Lines that apps printed and that were not kept or not shown.",
    "api_bodies": "Requests that were given up because their body came too slowly, by why.",
    "api_connections": "Connections to the HTTP API that were closed or not taken, by why.",
    "audit_entries": "Entries of the audit log, by whether they were written.",
    "api_refusals": "Requests of the API that were refused to who asked, by the reason.",
    "api_errors": "Requests to the HTTP API that were refused or failed, by the code.",
}
"""The help texts of ``/metrics``, by family."""
