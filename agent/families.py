"""What each family of counters counts: the help texts of ``/metrics``.

A family is the part before the slash in a counter's key; the part after it is the ``kind``.
``docs/api.md`` lists the same families, and a test compares both with the code that counts.
"""

FAMILIES: dict[str, str] = {
    # ---- membership
    "probes": "Pings to members, by how they ended or for whom they were sent.",
    "relays": "Pings on behalf of a member that got no answer itself.",
    "acks": "Answers to pings that were not sent, or no longer waited for.",
    "pings_ignored": "Pings that were meant for somebody else.",
    "suspicions": "Members suspected of being dead, and suspicions seconded by others.",
    "deaths": "Members declared dead because a suspicion was not refuted in time.",
    "refutations": "Claims about this node that it had to refute.",
    "claims_ignored": "Claims about members that changed nothing, by the reason.",
    "claims_told": "Newer beliefs told to members that showed older ones.",
    "members_changed": "Changes in the member list, by the new state.",
    "members_refused": "Members that were not listed, by the reason.",
    "members_unlisted": "Members taken off the list.",
    "rumours": "Rumours sent along with other messages.",
    "messages_sent": "Messages of the membership, by their kind.",
    "messages_skipped": "Messages of a kind that this version does not know.",
    "exchanges": "Exchanges of whole member lists over a stream.",
    "introductions": "Attempts to reach somebody who may be a member.",
    "reconnects": "Attempts to reach members that are dead or forgotten.",
    "hints_dropped": "Addresses that discovery found and nobody had room to remember.",
    "pauses": "Times when this node itself stood still and accused nobody for it.",
    # ---- network
    "datagrams": "UDP datagrams.",
    "datagrams_dropped": "UDP datagrams that changed nothing, by the reason.",
    "frames": "Messages over streams between members.",
    "frames_dropped": "Messages over streams that were not sent, or changed nothing.",
    "frames_skipped": "Messages over streams of a kind that this version does not know.",
    "streams": "TLS streams between members, by what happened to them.",
    "streams_refused": "TLS streams that were not let in, by the reason.",
    "discovery": "What mDNS and the seeds brought, and why something was not used.",
    "admissions": "Nodes that asked to be let in, by the outcome.",
    # ---- shared keys
    "requests": "Requests for keys that were passed on or refused.",
    "reads": "Reads of keys, by the outcome.",
    "writes": "Writes of keys, by the outcome.",
    "lists": "Lists of keys, by the outcome.",
    "watches": "Watches that were refused.",
    "repairs": "Keys that were made equal again on their owners, by who noticed.",
    "comparisons": "Comparisons of partitions between owners.",
    "surveys": "Rounds of asking other owners what they have.",
    "handovers": "Partitions taken over from, or let go to, other owners.",
    "persists": "Batches of changes that are on disk.",
    "events_dropped": "Events that a slow reader inside the agent did not take in time.",
    # ---- storage and telemetry
    "database_writes": "Writes to SQLite, by the outcome.",
    "database_transactions": "Transactions of SQLite; each carries many writes.",
    "database_syncs": "Times when what was written was forced to the disk.",
    "readings": "Readings, by how far they got.",
    "readings_refused": "Readings that were not accepted, by the reason.",
    "followed_readings": "Readings that a slow follower missed; the outbox has them.",
    "dead_letters": "Readings that the broker refused for good.",
    "progress_saves": "Failures to save which readings were delivered.",
    "uplink_connections": "Connections to the broker, by what happened to them.",
    "uplink_connects_failed": "Attempts to connect that failed, by the reason.",
    "uplink_losses": "Connections to the broker that were lost, by the reason.",
    "uplink_refusals": "Publications that the broker refused, by the reason.",
    # ---- apps and API
    "apps": "Processes of apps, by how they began or ended.",
    "app_log_lines_dropped": "Lines that apps printed and that were not kept or not shown.",
    "api_errors": "Requests to the HTTP API that were refused or failed, by the code.",
}
