"""Which code reads what others wrote, and where it meets hostile input.

The table names every module of the packages that decodes anything; a test reads the sources and
fails when one is missing (``tests/hostile/test_fuzz_inventory.py``). So whoever writes a new
decoder has to say here by what it is attacked.

``codecs``    every truncation and bit flip, spoilt fields: ``tests/hostile/test_fuzz_codecs.py``
``siege``     whole nodes under attack: ``tests/fuzz/siege.py``
``parsers``   one function at a time: ``tests/fuzz/parsers.py``
``requests``  the HTTP API: ``tests/fuzz/requests.py``
``damage``    files as worn flash returns them: ``tests/fuzz/damage.py``
``own``       reads only what this very node wrote and keeps in a database or a folder of its own
``kernel``    reads what the kernel or the administrator of this machine says
a path        a test file that does it
"""

CALLS = frozenset(
    {
        "decode", "decode_known", "loads", "from_bytes", "unpack", "unpack_from", "iter_unpack",
        "fromhex", "b64decode", "urlsafe_b64decode", "Decoder", "convert", "fromisoformat",
        "load_der_x509_certificate", "load_der_x509_csr", "parse_private_pem",
        "from_public_bytes", "ip_address",
    }
)  # fmt: skip
"""Names of what turns bytes or texts into something else."""

CODECS, SIEGE, PARSERS, REQUESTS, DAMAGE, OWN, KERNEL = (
    "codecs", "siege", "parsers", "requests", "damage", "own", "kernel",
)  # fmt: skip

COVERED: dict[str, tuple[str, ...]] = {
    # What comes from the network.
    "gossip/control/answering.py": ("tests/unit/gossip/control/test_in_node.py",),
    "gossip/control/commands.py": ("tests/unit/gossip/control/test_commands.py",),
    "gossip/control/fleet_settings.py": ("tests/unit/gossip/control/test_fleet_settings.py",),
    "gossip/control/participation.py": ("tests/unit/gossip/control/test_plane.py",),
    "gossip/control/plane.py": (CODECS, "tests/unit/gossip/control/test_plane.py"),
    "gossip/control/recovery.py": ("tests/unit/gossip/control/test_recovery.py",),
    "gossip/control/registry_table.py": ("tests/unit/gossip/control/test_registry_table.py",),
    "gossip/control/state_image.py": ("tests/unit/gossip/control/test_state_image.py",),
    "gossip/core/envelope.py": (SIEGE, "tests/unit/gossip/core/test_envelope.py"),
    "gossip/core/wire.py": (CODECS, SIEGE, "tests/unit/gossip/core/test_wire.py"),
    "gossip/membership/model/addresses.py": (SIEGE,),
    "gossip/membership/network/coordinates.py": (
        SIEGE,
        "tests/unit/gossip/membership/network/test_coordinates.py",
    ),
    "gossip/membership/dispatch.py": (CODECS, SIEGE),
    "gossip/consensus/configuration.py": ("tests/unit/gossip/consensus/test_configuration.py",),
    "gossip/events/plane.py": (CODECS, SIEGE),
    "gossip/consensus/raft.py": (CODECS, "tests/unit/gossip/consensus/test_misfits.py"),
    "gossip/kv/plane.py": (CODECS, SIEGE),
    "gossip/kv/registry_sync.py": (SIEGE,),
    "gossip/kv/typed_values.py": ("tests/property/test_types.py",),
    "gossip/registry/registry.py": (SIEGE, PARSERS),
    "agent/backup/contents.py": ("tests/unit/agent/backup/test_parts.py",),
    "agent/backup/key_pages.py": ("tests/unit/agent/backup/test_key_pages.py",),
    "agent/backup/parts.py": ("tests/unit/agent/backup/test_parts.py",),
    "agent/admission/server.py": (CODECS, PARSERS),
    "agent/admission/issuer.py": (PARSERS, OWN),
    "agent/admission/registry_issuer.py": (PARSERS, OWN),
    "agent/admission/registry_draft.py": (PARSERS, OWN),
    "agent/admission/authority_keeper.py": (
        CODECS,
        "tests/unit/agent/admission/test_authority_keeper.py",
    ),
    "agent/admission/trust_keeper.py": (OWN,),
    "agent/agent.py": (OWN,),
    "agent/cluster/cluster_view.py": (OWN,),
    "agent/admission/allegiance.py": (OWN,),
    "agent/admission/ca_rollover.py": (OWN,),
    "agent/identity/trust.py": (PARSERS, "tests/unit/gossip/registry/test_succession.py"),
    "agent/admission/proofs.py": ("tests/unit/agent/admission/test_renewal.py",),
    "agent/admission/renewal.py": (CODECS, "tests/unit/agent/admission/test_renewal.py"),
    "agent/admission/client.py": (CODECS, "tests/unit/agent/admission/test_server.py"),
    "agent/admission/joining.py": (CODECS, "tests/unit/agent/admission/test_server.py"),
    "agent/blocks/block_store.py": ("tests/unit/agent/blocks/test_block_store.py",),
    "agent/blocks/named_files.py": ("tests/unit/agent/blocks/test_named_files.py",),
    "agent/blocks/service.py": (CODECS, "tests/unit/agent/blocks/test_transfers.py"),
    "gossip/bodies/file_records.py": ("tests/unit/gossip/bodies/test_file_records.py",),
    "agent/cluster/kv_lines.py": ("tests/unit/agent/cluster/test_kv_lines.py",),
    "agent/cluster/kv_stats.py": (CODECS, "tests/hostile/test_servers.py"),
    "agent/cluster/kv_why.py": (CODECS, "tests/hostile/test_servers.py"),
    "agent/doctor/survey.py": (CODECS, "tests/hostile/test_servers.py"),
    "agent/identity/certificates.py": (PARSERS,),
    "agent/keys/key_service.py": (CODECS, "tests/hostile/test_servers.py"),
    "agent/identity/node_uri.py": (PARSERS,),
    "agent/net/framing.py": (PARSERS,),
    "agent/net/mdns.py": (PARSERS, "tests/unit/agent/net/test_discovery.py"),
    "agent/net/relay.py": (CODECS, "tests/unit/agent/net/test_relay.py"),
    "agent/net/relay_client.py": (CODECS, "tests/unit/agent/net/test_relay.py"),
    "agent/net/seeds.py": (KERNEL, "tests/unit/agent/net/test_discovery.py"),
    "agent/net/sockets.py": ("tests/hostile/test_addresses.py",),
    "agent/net/origin.py": (KERNEL,),
    "agent/net/netlink.py": (KERNEL, "tests/unit/agent/net/test_interfaces.py"),
    "agent/net/icmp.py": (KERNEL, "tests/unit/agent/net/test_udp.py"),
    "agent/telemetry/uplink/advice.py": ("tests/unit/agent/telemetry/uplink/test_broker_test.py",),
    "agent/telemetry/uplink/paho_client.py": (
        "tests/unit/agent/telemetry/uplink/test_paho_client.py",
    ),
    "agent/telemetry/uplink/broker_memory.py": ("tests/unit/agent/telemetry/uplink/test_rules.py",),
    "agent/runtime/probation.py": ("tests/unit/agent/runtime/test_probation.py",),
    "agent/telemetry/uplink/broker_test.py": (
        "tests/unit/agent/telemetry/uplink/test_broker_test.py",
    ),
    # What comes from this machine: people, programs, configuration.
    "agent/admission/tokens.py": (PARSERS,),
    "agent/api/tokens.py": (REQUESTS, "tests/unit/agent/api/test_routes.py"),
    "agent/api/gates.py": ("tests/hostile/test_access.py",),
    "agent/access/access_tokens.py": ("tests/hostile/test_access.py",),
    "agent/access/audit.py": ("tests/unit/agent/access/test_audit.py",),
    "agent/api/access.py": (REQUESTS, "tests/hostile/test_access.py"),
    "agent/cli/access.py": ("tests/hostile/test_cli.py",),
    "agent/api/request_bodies.py": (REQUESTS,),
    "agent/cluster/agreement_json.py": ("tests/unit/agent/api/test_agreement.py",),
    "agent/cluster/snapshot_file.py": ("tests/unit/agent/cluster/test_snapshot_file.py",),
    "agent/cli/txn.py": ("tests/live/test_control.py",),
    "agent/config/fleet_layer.py": ("tests/unit/agent/config/test_fleet_layer.py",),
    "edge_apps/testing.py": (OWN,),
    "edge_apps/agreement.py": ("tests/unit/agent/api/test_agreement.py",),
    "agent/api/events.py": (REQUESTS,),
    "agent/api/kv.py": (REQUESTS,),
    "agent/api/listeners.py": (KERNEL, "tests/unit/agent/api/test_listeners.py"),
    "agent/api/influx.py": (REQUESTS, "tests/unit/agent/api/test_influx.py"),
    "agent/http/connection.py": ("tests/unit/agent/http/test_connection.py",),
    "agent/http/request.py": (REQUESTS, "tests/unit/agent/http/test_application.py"),
    "agent/api/server.py": ("tests/unit/agent/api/test_influx.py",),
    "agent/telemetry/readings_json.py": (PARSERS, REQUESTS, "tests/property/test_readings_text.py"),
    "agent/telemetry/plain_lines.py": (PARSERS, "tests/property/test_readings_text.py"),
    "agent/telemetry/readings_text.py": (PARSERS, REQUESTS, "tests/property/test_readings_text.py"),
    "agent/cluster/event_handlers.py": ("tests/unit/agent/cluster/test_events.py",),
    "agent/programs/launched.py": ("tests/unit/agent/programs/test_programs.py",),
    "agent/programs/systemd_user.py": ("tests/unit/agent/programs/test_programs.py",),
    "agent/apps/log.py": ("tests/unit/agent/apps/test_log.py",),
    "agent/config/loader.py": (PARSERS, "tests/unit/agent/config/test_loader.py"),
    "agent/config/service_address.py": (KERNEL,),
    "agent/cli/events.py": (REQUESTS,),
    "gossip/kv/records.py": (PARSERS, SIEGE),
    "gossip/kv/watch_token.py": (PARSERS,),
    "edge_apps/client.py": ("tests/unit/edge_apps/test_client.py",),
    "edge_apps/kv_frames.py": (PARSERS, "tests/hostile/test_kv_stream.py"),
    "edge_apps/key_watch.py": ("tests/unit/edge_apps/test_key_watch.py",),
    "edge_apps/listener.py": ("tests/unit/edge_apps/test_listener.py",),
    # Files that were copied, restored or edited.
    "agent/identity/identity.py": (PARSERS, "tests/unit/agent/identity/test_identity.py"),
    "agent/identity/repair.py": (
        "tests/unit/agent/identity/test_spares.py",
        "tests/unit/agent/identity/test_at_rest.py",
    ),
    "agent/identity/private_keys.py": (DAMAGE, "tests/unit/agent/identity/test_private_keys.py"),
    "agent/identity/keyring.py": (PARSERS, "tests/unit/agent/identity/test_keyring.py"),
    "agent/apps/desired.py": ("tests/unit/agent/apps/test_desired.py",),
    # Files that the disk has changed.
    "agent/store/consensus_store.py": (
        DAMAGE,
        "tests/unit/agent/store/test_consensus_store.py",
    ),
    "agent/store/control.py": (DAMAGE, OWN),
    "agent/store/control_copy.py": (DAMAGE,),
    "agent/telemetry/outbox_sql.py": (DAMAGE, OWN),
    "agent/store/sql_reader.py": (OWN, "tests/unit/agent/store/test_sql_reader.py"),
    "agent/store/pages.py": (DAMAGE,),
    "agent/telemetry/delivery_progress.py": (DAMAGE, OWN),
    "agent/store/kv_store.py": (DAMAGE, OWN),
    "agent/store/commit_note.py": (DAMAGE,),
    "agent/store/tokens.py": (DAMAGE, OWN),
    # What nobody else writes.
    "agent/cli/db.py": (OWN,),
    "agent/cli/kv.py": (OWN,),
    "agent/cli/kv_transfer.py": (OWN,),
    "agent/text/escaping.py": (OWN,),
    "agent/text/units.py": ("tests/unit/agent/config/test_loader.py",),
    "agent/config/accepted_values.py": (OWN,),
    "agent/cli/app_authoring.py": ("tests/unit/agent/cli/test_app_authoring.py",),
    "agent/cli/output.py": (OWN,),
    "agent/cli/demo/processes.py": (OWN,),
    "agent/cli/demo/collector.py": (OWN,),
    "agent/cli/demo/screen.py": (KERNEL,),
    "agent/cluster/event_json.py": (PARSERS, OWN),
    "agent/net/interfaces.py": (KERNEL,),
    "agent/store/lock.py": (OWN,),
    "edge_apps/__main__.py": (OWN,),
    "edge_apps/runner.py": (OWN,),
    "gossip/events/events.py": (OWN,),
    "gossip/membership/model/local_member.py": (OWN,),
    "gossip/sim/consensus_store.py": (OWN,),
    "gossip/sim/consensus_world.py": (OWN,),
    "gossip/sim/script/actors.py": (OWN,),
    "gossip/sim/script/scripted_peer.py": (OWN,),
    "gossip/sim/toy_cipher.py": (SIEGE,),
    "gossip/sim/script/transcript.py": (OWN,),
    "gossip/kv/dots.py": (OWN,),
    "gossip/registry/placement.py": (OWN,),
}
