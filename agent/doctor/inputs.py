"""What the doctor of a running agent looks at; who wires the agent hands it over."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from agent.apps.host import AppHost
from agent.cluster.flash_budget import FlashBudget
from agent.config.loader import Config
from agent.config.paths import Paths
from agent.identity.identity import Identity
from agent.keys.key_service import KeyService
from agent.loop.stalls import StallWatch
from agent.loop.watched import Watch
from agent.net.discovery import Discovery
from agent.programs.isolation import Programs
from agent.runtime.driver import Driver
from agent.runtime.probation import Probation
from agent.system.wall_clock import WallClock
from agent.telemetry.service import Telemetry
from agent.telemetry.uplink.service import Uplink


class AgentInputs(NamedTuple):
    """What there is to look at of an agent from its start on."""

    config: Config
    paths: Paths
    clock: WallClock
    watch: Watch
    not_ready: Callable[[], Sequence[str]]
    """Returns why the agent cannot do its work now; empty when it can."""
    advice: Callable[[], str]
    """Returns what to do for it to come further."""


class MemberInputs(NamedTuple):
    """What there is to look at besides when the agent takes part in its covey."""

    identity: Identity
    driver: Driver
    discovery: Discovery
    apps: AppHost
    programs: Programs
    uplink: Uplink
    telemetry: Telemetry
    keys: KeyService
    probation: Probation
    stalls: StallWatch
    losses: Callable[[], Sequence[str]]
    """Returns what was found to be lost on the disk since the start."""
    flash: FlashBudget
    is_superseded: Callable[[], bool]
    """Tells whether another device with this identity is believed in place of this one."""
    uptime_s: Callable[[], float]
    """Returns how long this agent has been there."""
    has_begun_anew: bool
    """Whether this process began another life of its node within the last hour."""
