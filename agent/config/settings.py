"""The settings of an agent: one struct per table of ``covey.toml``, with types and defaults.

This file is the definition. ``agent/config/loader.py`` fills these structs from the file and the
environment, ``docs/configuration.md`` explains them (a test compares the two), and
``covey config show`` prints them. A setting that nothing reads does not belong here.

Durations stay as people wrote them (``"30s"``) and are checked when the struct is made; the
property with the unit in its name gives the number.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal, get_args

import msgspec

from agent.config.fact_rules import check_configured
from agent.text.units import check_address, check_host, parse_endpoint
from edge_apps.texts import flaw
from edge_apps.units import read_duration
from gossip.membership.model.local_member import flaw_of_tags

DEFAULT_PORT = 7747
# Open to everybody is fine here: every packet is authenticated before it means anything.
EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104
HANDLER_TIMEOUT_S_MAX = 60
SETTLE_S_MAX = 86_400
MISSING_S_MIN, MISSING_S_MAX = 10, 30 * 86_400
MQTT_PORT, MQTT_TLS_PORT = 1883, 8883
MIB = 1024 * 1024
SENSOR_GLOBS_MAX = 64

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


@contextmanager
def naming(setting: str) -> Iterator[None]:
    """Put the setting's name before what is wrong with its value, for whoever reads the error."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{setting}: {error}") from None


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the file: unknown keys are errors, never silently ignored."""


class NodeSettings(Section, frozen=True, kw_only=True):
    """``[node]``: what the others are told about this node."""

    tags: dict[str, str] = {}
    facts: dict[str, str] = {}
    services: dict[str, str] = {}
    zone: str = ""
    weight: Annotated[float, msgspec.Meta(gt=0, le=100)] = 1.0

    def __post_init__(self) -> None:
        """Refuse tags and facts that could not be told. Raises ValueError."""
        if problem := flaw_of_tags(self.tags):
            raise ValueError(f"tags: {problem}")
        check_configured(self.facts, self.services)


class NetworkSettings(Section, frozen=True, kw_only=True):
    """``[network]``: where the agent listens, and where it looks for others."""

    bind: list[str] = msgspec.field(default_factory=lambda: list(EVERY_ADDRESS))
    port: Port = DEFAULT_PORT
    advertise: list[str] = []
    seeds: list[str] = []
    mdns: bool = True
    interfaces: list[str] = []

    def __post_init__(self) -> None:
        """Refuse endpoints that could never be used. Raises ValueError."""
        if not self.bind:
            raise ValueError("bind: at least one address is needed")
        with naming("bind"):
            for text in self.bind:
                check_address(text)
        for setting, texts in (("seeds", self.seeds), ("advertise", self.advertise)):
            for text in texts:
                with naming(setting):
                    parse_endpoint(text, DEFAULT_PORT)


class GossipSettings(Section, frozen=True, kw_only=True):
    """``[gossip]``: the intervals of the failure detector, as one of the tested profiles."""

    profile: Literal["lan", "wan", "metered", "local"] = "lan"
    bytes_per_day: Annotated[int, msgspec.Meta(ge=0)] = 0


class VoterSettings(Section, frozen=True, kw_only=True):
    """``[voters]``: who may vote on what devices agree on."""

    settle: str = "10m"

    def __post_init__(self) -> None:
        """Refuse a time that is none. Raises ValueError."""
        with naming("settle"):
            if not 1 <= self.settle_s <= SETTLE_S_MAX:
                raise ValueError("must lie between 1s and 1d")

    @property
    def settle_s(self) -> float:
        """Seconds that a node has to run before it may vote."""
        return read_duration(self.settle)


class StateSettings(Section, frozen=True, kw_only=True):
    """``[state]``: the shared keys: what a write survives, and how they move to other owners."""

    durability: Literal["flush", "fsync"] = "flush"
    missing_after: str = "30m"
    transfers_in: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1
    transfers_out: Annotated[int, msgspec.Meta(ge=1, le=64)] = 2
    transfer_bytes_per_s: Annotated[int, msgspec.Meta(ge=4096)] = 256 * 1024

    def __post_init__(self) -> None:
        """Refuse a time that is none. Raises ValueError."""
        with naming("missing_after"):
            if self.missing_after_s and not MISSING_S_MIN <= self.missing_after_s <= MISSING_S_MAX:
                raise ValueError("must lie between 10s and 30d, or be 0s for never")

    @property
    def transfers(self) -> tuple[int, int, int]:
        """How much is copied at a time: to here, from here, and bytes a second."""
        return self.transfers_in, self.transfers_out, self.transfer_bytes_per_s

    @property
    def missing_after_s(self) -> float:
        """Seconds for which an owner may be silent before it is missing; 0: for ever."""
        return read_duration(self.missing_after)


class StorageSettings(Section, frozen=True, kw_only=True):
    """``[storage]``: how values lie on the disk, and how full it may be."""

    encryption: Literal["off", "on"] = "off"
    key_file: str = ""
    former_key_files: list[str] = []
    disk_percent_max: Annotated[float, msgspec.Meta(ge=1, le=100)] = 95.0


class ApiSettings(Section, frozen=True, kw_only=True):
    """``[api]``: the HTTP API on TCP; the Unix socket is always there."""

    listen: str = ""
    token_file: str = ""
    metrics_token_file: str = ""
    tls: bool = False

    def __post_init__(self) -> None:
        """Refuse an endpoint without a port. Raises ValueError."""
        with naming("listen"):
            if self.listen:
                parse_endpoint(self.listen)


class FlashSettings(Section, frozen=True, kw_only=True):
    """``[flash]``: what the databases may write."""

    bytes_per_hour: Annotated[int, msgspec.Meta(ge=0)] = 0


class LogSettings(Section, frozen=True, kw_only=True):
    """``[log]``: how much the agent says, and in which form."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class UplinkSettings(Section, frozen=True, kw_only=True):
    """``[uplink]``: the MQTT broker; without a host, readings wait in the outbox."""

    host: str = ""
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    tls: bool = False
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    username: str = ""
    password_file: str = ""
    client_id: str = ""
    topic: str = "covey/{cluster}/{node}/{sensor}"
    payload: str = ""
    qos: Literal[0, 1, 2] = 1
    version: Literal["5", "3.1.1"] = "5"
    window: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 20
    keepalive: str = "30s"

    def __post_init__(self) -> None:
        """Refuse what MQTT cannot carry. Raises ValueError."""
        with naming("host"):
            check_host(self.host)
        with naming("keepalive"):
            if not 1 <= self.keepalive_s <= 65535:
                raise ValueError("must lie between 1s and 65535s (MQTT 5, section 3.1.2.10)")
        for setting in ("client_id", "username"):
            with naming(setting):
                if found := flaw(getattr(self, setting)):
                    raise ValueError(f"holds {found}, which MQTT does not carry")
        if bool(self.certificate_file) != bool(self.key_file):
            raise ValueError("key_file: goes together with certificate_file; give both or neither")

    @property
    def keepalive_s(self) -> float:
        """Seconds of silence after which the client pings the broker."""
        return read_duration(self.keepalive)

    @property
    def broker_port(self) -> int:
        """The broker's port; 0 in the file stands for MQTT's usual one, with or without TLS."""
        return self.port or (MQTT_TLS_PORT if self.tls else MQTT_PORT)


class TelemetrySettings(Section, frozen=True, kw_only=True):
    """``[telemetry]``: how many readings the outbox holds."""

    waiting_max: Annotated[int, msgspec.Meta(ge=1)] = 1_000_000
    keep_delivered: Annotated[int, msgspec.Meta(ge=0)] = 10_000
    waiting_bytes_max: Annotated[int, msgspec.Meta(ge=0)] = 0
    waiting_age_max: str = "0s"
    bulk: list[str] = []
    alarms: list[str] = []
    drop: list[Literal["bulk", "normal", "alarm"]] = []
    dead_letters_max: Annotated[int, msgspec.Meta(ge=1)] = 10_000
    dead_letters_bytes_max: Annotated[int, msgspec.Meta(ge=MIB)] = 16 * MIB

    def __post_init__(self) -> None:
        """Refuse a time that is none, and globs without end. Raises ValueError."""
        with naming("waiting_age_max"):
            if self.waiting_age_max_s and not self.drop:
                raise ValueError("says when readings are dropped, and drop names none that may be")
        for setting in ("bulk", "alarms"):
            with naming(setting):
                if len(getattr(self, setting)) > SENSOR_GLOBS_MAX:
                    raise ValueError(f"at most {SENSOR_GLOBS_MAX} globs")

    @property
    def waiting_age_max_s(self) -> float:
        """Seconds after which a reading is too old to be delivered; 0 for never."""
        return read_duration(self.waiting_age_max)


class FileSettings(Section, frozen=True, kw_only=True):
    """``[files]``: how large a file may be, and how much of the disk the blocks of files take."""

    file_bytes_max: Annotated[int, msgspec.Meta(ge=1, le=4 * 2**30)] = 2**30
    directory_bytes_max: Annotated[int, msgspec.Meta(ge=0)] = 8 * 2**30


class HandlerSettings(Section, frozen=True, kw_only=True):
    """``[events]`` and ``[queries]``: the commands that are run when one arrives."""

    handlers: dict[str, Annotated[list[str], msgspec.Meta(min_length=1)]] = {}
    timeout: str = "5s"
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    environment: list[str] = []

    def __post_init__(self) -> None:
        """Refuse a time that is none. Raises ValueError."""
        with naming("timeout"):
            if not 0 < self.timeout_s <= HANDLER_TIMEOUT_S_MAX:
                raise ValueError(f"must lie above 0s, and not above {HANDLER_TIMEOUT_S_MAX}s")

    @property
    def timeout_s(self) -> float:
        """Seconds after which a handler is killed, or an app that does not answer given up."""
        return read_duration(self.timeout)


AppRight = Literal["read", "publish", "write", "speak"]


class AppSettings(Section, frozen=True, kw_only=True):
    """``[apps.NAME]``: what the agent does with an app; ``options`` are the app's own."""

    enabled: bool = True
    rights: list[AppRight] = msgspec.field(default_factory=lambda: list(get_args(AppRight)))
    keys: list[Annotated[str, msgspec.Meta(min_length=1)]] = []
    every: str = ""
    path: str = ""
    module: str = ""
    environment: list[str] = []
    options: dict[str, Any] = {}

    def __post_init__(self) -> None:
        """Refuse an interval that is none. Raises ValueError."""
        with naming("every"):
            if self.every and not read_duration(self.every) > 0:
                raise ValueError("must be longer than nothing")

    @property
    def is_own(self) -> bool:
        """Whether it is a program of the owner, and not one that came with a package."""
        return bool(self.path or self.module)

    def told(self) -> dict[str, Any]:
        """Return what the app itself is told: its options, and where and how often it runs."""
        ours = {"every": self.every, "path": self.path, "module": self.module}
        return {**self.options, **{key: value for key, value in ours.items() if value}}

    @property
    def every_s(self) -> float | None:
        """Seconds between two rounds of the app; None leaves it to the app."""
        return read_duration(self.every) if self.every else None


SECTIONS: dict[str, type[Section]] = {
    "node": NodeSettings,
    "network": NetworkSettings,
    "gossip": GossipSettings,
    "voters": VoterSettings,
    "state": StateSettings,
    "storage": StorageSettings,
    "flash": FlashSettings,
    "api": ApiSettings,
    "log": LogSettings,
    "uplink": UplinkSettings,
    "telemetry": TelemetrySettings,
    "files": FileSettings,
    "events": HandlerSettings,
    "queries": HandlerSettings,
}
