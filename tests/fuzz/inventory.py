"""Which code reads what others wrote, and where it meets hostile input.

The table names every module of the packages that decodes anything; a test reads the sources and
fails when one is missing (``tests/property/test_fuzz_inventory.py``). So whoever writes a new
decoder has to say here by what it is attacked.

``codecs``    every truncation and bit flip, spoilt fields: ``tests/property/test_fuzz_codecs.py``
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
        "decode", "loads", "from_bytes", "unpack", "unpack_from", "iter_unpack", "fromhex",
        "b64decode", "urlsafe_b64decode", "Decoder", "convert", "fromisoformat",
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
    "gossip/envelope.py": (SIEGE, "tests/unit/test_envelope.py"),
    "gossip/wire.py": (CODECS, SIEGE, "tests/unit/test_wire.py"),
    "gossip/membership/addresses.py": (SIEGE,),
    "gossip/membership/coordinates.py": (SIEGE, "tests/unit/test_membership_coordinates.py"),
    "gossip/membership/detector.py": (CODECS, SIEGE),
    "gossip/membership/exchange.py": (CODECS, SIEGE),
    "gossip/membership/forum.py": (CODECS, SIEGE),
    "gossip/membership/roundtrips.py": (CODECS, SIEGE),
    "gossip/membership/reader.py": (CODECS, SIEGE),
    "gossip/state/plane.py": (CODECS, SIEGE),
    "gossip/state/registrar.py": (SIEGE,),
    "gossip/state/registry.py": (SIEGE, PARSERS),
    "agent/admission/desk.py": (CODECS, PARSERS),
    "agent/admission/issuing.py": (PARSERS, OWN),
    "agent/admission/allegiance.py": (OWN,),
    "agent/admission/rollover.py": (OWN,),
    "agent/security/trust.py": (PARSERS, "tests/unit/test_succession.py"),
    "agent/admission/proof.py": ("tests/unit/test_renewing.py",),
    "agent/admission/renewing.py": (CODECS, "tests/unit/test_renewing.py"),
    "agent/admission/visiting.py": (CODECS, "tests/unit/test_admission_desk.py"),
    "agent/admission/joining.py": (CODECS, "tests/unit/test_admission_desk.py"),
    "agent/doctor/desk.py": (CODECS, "tests/unit/test_hostile_desks.py"),
    "agent/security/certificates.py": (PARSERS,),
    "agent/security/key_desk.py": (CODECS, "tests/unit/test_hostile_desks.py"),
    "agent/security/node_uri.py": (PARSERS,),
    "agent/net/frames.py": (PARSERS,),
    "agent/net/mdns.py": (PARSERS, "tests/unit/test_discovery.py"),
    "agent/net/relay.py": (CODECS, "tests/unit/test_relay.py"),
    "agent/net/relayed.py": (CODECS, "tests/unit/test_relay.py"),
    "agent/net/seeds.py": (KERNEL, "tests/unit/test_discovery.py"),
    "agent/net/sockets.py": ("tests/unit/test_hostile_addresses.py",),
    "agent/net/limits.py": (KERNEL,),
    "agent/net/netlink.py": (KERNEL, "tests/unit/test_interfaces.py"),
    "agent/net/refusals.py": (KERNEL, "tests/unit/test_udp.py"),
    "agent/uplink/advice.py": ("tests/unit/test_uplink_trial.py",),
    "agent/uplink/paho_client.py": ("tests/unit/test_uplink_paho_client.py",),
    "agent/uplink/memory.py": ("tests/unit/test_uplink_rules.py",),
    "agent/probation.py": ("tests/unit/test_probation.py",),
    "agent/uplink/trial.py": ("tests/unit/test_uplink_trial.py",),
    # What comes from this machine: people, programs, configuration.
    "agent/admission/tokens.py": (PARSERS,),
    "agent/api/tokens.py": (REQUESTS, "tests/unit/test_api_routes.py"),
    "agent/api/app_door.py": ("tests/unit/test_api_listen.py",),
    "agent/api/bodies.py": (REQUESTS,),
    "agent/api/events.py": (REQUESTS,),
    "agent/api/keys.py": (REQUESTS,),
    "agent/api/listen.py": (KERNEL, "tests/unit/test_api_listen.py"),
    "agent/api/influx.py": (REQUESTS, "tests/unit/test_influx_api.py"),
    "agent/api/serving.py": ("tests/unit/test_influx_api.py",),
    "agent/telemetry/json_form.py": (PARSERS, REQUESTS, "tests/property/test_lines_laws.py"),
    "agent/telemetry/plain.py": (PARSERS, "tests/property/test_lines_laws.py"),
    "agent/telemetry/lines.py": (PARSERS, REQUESTS, "tests/property/test_lines_laws.py"),
    "agent/forum/handlers.py": ("tests/unit/test_forum_service.py",),
    "agent/programs/launched.py": ("tests/unit/test_programs.py",),
    "agent/programs/service.py": ("tests/unit/test_programs.py",),
    "agent/apps/log.py": ("tests/unit/test_app_log.py",),
    "agent/config.py": (PARSERS, "tests/unit/test_config.py"),
    "agent/services.py": (KERNEL,),
    "agent/cli/events.py": (REQUESTS,),
    "gossip/state/records.py": (PARSERS, SIEGE),
    "edge_apps/client.py": ("tests/unit/test_client.py",),
    "edge_apps/hearing.py": ("tests/unit/test_app_hearing.py",),
    # Files that were copied, restored or edited.
    "agent/security/identity.py": (PARSERS, "tests/unit/test_identity_files.py"),
    "agent/security/mending.py": ("tests/unit/test_spares.py", "tests/unit/test_at_rest.py"),
    "agent/security/private_keys.py": (DAMAGE, "tests/unit/test_private_keys.py"),
    "agent/security/keyring.py": (PARSERS, "tests/unit/test_keyring.py"),
    "agent/apps/desired.py": ("tests/unit/test_app_desired.py",),
    # Files that the disk has changed.
    "agent/store/control.py": (DAMAGE, OWN),
    "agent/store/control_copy.py": (DAMAGE,),
    "agent/store/outbox_rows.py": (DAMAGE, OWN),
    "agent/store/pages.py": (DAMAGE,),
    "agent/store/progress.py": (DAMAGE, OWN),
    "agent/store/records.py": (DAMAGE, OWN),
    "agent/store/tail.py": (DAMAGE,),
    "agent/store/tokens.py": (DAMAGE, OWN),
    # What nobody else writes.
    "agent/cli/kv.py": (OWN,),
    "agent/escaping.py": (OWN,),
    "agent/notation.py": ("tests/unit/test_config.py",),
    "agent/takes.py": (OWN,),
    "agent/cli/apps_writing.py": ("tests/unit/test_cli_apps.py",),
    "agent/cli/output.py": (OWN,),
    "agent/demo/children.py": (OWN,),
    "agent/demo/collector.py": (OWN,),
    "agent/demo/screen.py": (KERNEL,),
    "agent/forum/words.py": (PARSERS, OWN),
    "agent/net/interfaces.py": (KERNEL,),
    "agent/lock.py": (OWN,),
    "edge_apps/__main__.py": (OWN,),
    "edge_apps/running.py": (OWN,),
    "gossip/membership/events.py": (OWN,),
    "gossip/membership/local.py": (OWN,),
    "gossip/sim/cast.py": (OWN,),
    "gossip/sim/puppet.py": (OWN,),
    "gossip/sim/suite.py": (SIEGE,),
    "gossip/sim/transcript.py": (OWN,),
    "gossip/state/dots.py": (OWN,),
    "gossip/state/placement.py": (OWN,),
}
