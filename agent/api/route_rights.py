"""Which right each route asks for, and whose use is written down.

A test holds it against the routes. A route that is new has its row here before it has a caller.
"""

from agent.access.rights import Right

RIGHTS: dict[tuple[str, str], Right] = {
    ("GET", "/metrics"): Right.METRICS,
    # What the covey knows.
    ("GET", "/healthz"): Right.READ,
    ("GET", "/api/v1/status"): Right.READ,
    ("GET", "/api/v1/members"): Right.READ,
    ("GET", "/api/v1/members/{name}"): Right.READ,
    ("GET", "/api/v1/facts"): Right.READ,
    ("GET", "/api/v1/rtt"): Right.READ,
    ("GET", "/api/v1/kv"): Right.READ,
    ("GET", "/api/v1/kv/{key:key}"): Right.READ,
    ("GET", "/api/v1/kv/stream"): Right.READ,
    ("GET", "/api/v1/watch"): Right.READ,
    ("POST", "/api/v1/watch"): Right.READ,
    ("GET", "/api/v1/kv-spaces"): Right.READ,
    ("GET", "/api/v1/files"): Right.READ,
    ("GET", "/api/v1/files/{name:key}"): Right.READ,
    ("GET", "/api/v1/file-stat/{name:key}"): Right.READ,
    ("GET", "/api/v1/ring"): Right.READ,
    ("GET", "/api/v1/control"): Right.READ,
    ("GET", "/api/v1/control/{key:key}"): Right.READ,
    ("GET", "/api/v1/changes"): Right.READ,
    ("GET", "/api/v1/voters"): Right.READ,
    ("GET", "/api/v1/sessions"): Right.READ,
    ("GET", "/api/v1/locks"): Right.READ,
    ("GET", "/api/v1/locks/{name:key}"): Right.READ,
    ("GET", "/api/v1/barriers"): Right.READ,
    ("GET", "/api/v1/events"): Right.READ,
    ("GET", "/api/v1/readings"): Right.READ,
    ("GET", "/api/v1/outbox"): Right.READ,
    ("GET", "/api/v1/dead-letters"): Right.READ,
    ("GET", "/api/v1/authority"): Right.READ,
    # How agents are.
    ("GET", "/api/v1/config"): Right.INSPECT,
    ("GET", "/api/v1/settings"): Right.INSPECT,
    ("GET", "/api/v1/registry"): Right.INSPECT,
    ("GET", "/api/v1/ring/plan"): Right.INSPECT,
    ("GET", "/api/v1/ring/status"): Right.INSPECT,
    ("GET", "/api/v1/kv-why/{key:key}"): Right.INSPECT,
    ("GET", "/api/v1/kv-stats"): Right.INSPECT,
    ("GET", "/api/v1/nodes/{name}"): Right.INSPECT,
    ("GET", "/api/v1/copies"): Right.INSPECT,
    ("GET", "/api/v1/keys"): Right.INSPECT,
    ("GET", "/api/v1/doctor"): Right.INSPECT,
    ("GET", "/api/v1/apps"): Right.INSPECT,
    ("GET", "/api/v1/apps/{name}/log"): Right.INSPECT,
    # Readings in, also as clients of InfluxDB do it.
    ("POST", "/api/v1/readings"): Right.PUBLISH,
    ("POST", "/api/v1/write"): Right.PUBLISH,
    ("POST", "/write"): Right.PUBLISH,
    ("POST", "/api/v2/write"): Right.PUBLISH,
    ("GET", "/ping"): Right.PUBLISH,
    ("GET", "/health"): Right.PUBLISH,
    ("POST", "/query"): Right.PUBLISH,
    # Keys and locks.
    ("PUT", "/api/v1/kv/{key:key}"): Right.WRITE,
    ("POST", "/api/v1/kv/{key:key}"): Right.WRITE,
    ("POST", "/api/v1/kv/batch"): Right.WRITE,
    ("DELETE", "/api/v1/kv/{key:key}"): Right.WRITE,
    ("PUT", "/api/v1/files/{name:key}"): Right.WRITE,
    ("POST", "/api/v1/files/{name:key}"): Right.WRITE,
    ("DELETE", "/api/v1/files/{name:key}"): Right.WRITE,
    ("GET", "/api/v1/file-uploads"): Right.WRITE,
    ("POST", "/api/v1/txn"): Right.WRITE,
    ("POST", "/api/v1/sessions"): Right.WRITE,
    ("PUT", "/api/v1/sessions/{session}"): Right.WRITE,
    ("DELETE", "/api/v1/sessions/{session}"): Right.WRITE,
    ("PUT", "/api/v1/locks/{name:key}"): Right.WRITE,
    ("PATCH", "/api/v1/locks/{name:key}"): Right.WRITE,
    ("DELETE", "/api/v1/locks/{name:key}"): Right.WRITE,
    ("PUT", "/api/v1/barriers/{name:key}"): Right.WRITE,
    ("DELETE", "/api/v1/barriers/{name:key}"): Right.WRITE,
    # What this node says, and hears.
    ("POST", "/api/v1/facts"): Right.SPEAK,
    ("POST", "/api/v1/events"): Right.SPEAK,
    ("POST", "/api/v1/queries"): Right.SPEAK,
    ("GET", "/api/v1/queries"): Right.SPEAK,
    ("POST", "/api/v1/queries/{id}/answer"): Right.SPEAK,
    # This device.
    ("POST", "/api/v1/apps/{name}/start"): Right.DEVICE,
    ("POST", "/api/v1/apps/{name}/stop"): Right.DEVICE,
    ("POST", "/api/v1/sleep"): Right.DEVICE,
    ("POST", "/api/v1/wake"): Right.DEVICE,
    ("POST", "/api/v1/uplink/test"): Right.DEVICE,
    ("POST", "/api/v1/dead-letters/replay"): Right.DEVICE,
    ("DELETE", "/api/v1/dead-letters"): Right.DEVICE,
    # All devices.
    ("POST", "/api/v1/settings"): Right.OPERATE,
    ("POST", "/api/v1/kv-spaces/{name}"): Right.OPERATE,
    ("DELETE", "/api/v1/kv-spaces/{name}"): Right.OPERATE,
    ("POST", "/api/v1/kv-owners/{name}"): Right.OPERATE,
    ("POST", "/api/v1/nodes/{name}"): Right.OPERATE,
    ("POST", "/api/v1/voters"): Right.ADMIT,
    ("POST", "/api/v1/keys/rotate"): Right.OPERATE,
    ("POST", "/api/v1/keys/authority"): Right.OPERATE,
    # Who belongs.
    ("POST", "/api/v1/init"): Right.ADMIT,
    ("POST", "/api/v1/join"): Right.ADMIT,
    ("POST", "/api/v1/leave"): Right.ADMIT,
    ("POST", "/api/v1/tokens"): Right.ADMIT,
    ("GET", "/api/v1/tokens"): Right.ADMIT,
    ("DELETE", "/api/v1/tokens/{id}"): Right.ADMIT,
    ("POST", "/api/v1/members/{name}/rights"): Right.ADMIT,
    ("DELETE", "/api/v1/members/{name}"): Right.ADMIT,
    ("POST", "/api/v1/registry/mend"): Right.ADMIT,
    # All that is agreed on: in a snapshot are the values of all keys, and what lets devices in.
    ("POST", "/api/v1/recovery"): Right.ADMIT,
    ("GET", "/api/v1/snapshot"): Right.ADMIT,
    ("PUT", "/api/v1/snapshot"): Right.ADMIT,
    # The keys of a backup, with stamps of whoever puts them back.
    ("GET", "/api/v1/backup"): Right.ADMIT,
    ("PUT", "/api/v1/backup"): Right.ADMIT,
    # Who may use the API.
    ("POST", "/api/v1/access"): Right.ACCESS,
    ("GET", "/api/v1/access"): Right.ACCESS,
    ("DELETE", "/api/v1/access/{name}"): Right.ACCESS,
    ("GET", "/api/v1/audit"): Right.ACCESS,
}

AUDITED_RIGHTS = frozenset({Right.DEVICE, Right.OPERATE, Right.ADMIT, Right.ACCESS})
AUDITED = frozenset(
    {
        *(each for each, right in RIGHTS.items() if right in AUDITED_RIGHTS and each[0] != "GET"),
        ("POST", "/api/v1/txn"),
        ("POST", "/api/v1/facts"),
        ("GET", "/api/v1/snapshot"),
    }
)
"""What is a change, for the audit log. Readings, events, shared keys, locks and sessions are what a
covey is busy with, and are not in it; what is refused of them is. A snapshot changes nothing, and
takes all values along."""
