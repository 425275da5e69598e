"""The systems that are compared: how an agent of each starts, and how it says what it believes.

All have encryption on and the LAN timing that they come with. Each is told of the first member
and finds the rest; Covey and Serf also have mDNS on. Covey's agents are admitted beforehand, on
disk, so that what is measured is the membership and not the issuing of certificates.
"""

import asyncio
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from agent.admission.prepare_databases import prepare
from agent.config.paths import Paths
from bench.bytecode import compile_packages
from tests.live.harness.admitted import Seat, found_and_admit
from tests.live.harness.agents import COVEY, environment

KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
"""For Serf and kinship; Covey makes its own."""
PORT = 7946
SETTINGS = '[log]\nlevel = "debug"\n[apps.system]\nenabled = false\n'
"""No app; and changes of members that come and go are told one by one, so that all are counted."""


class Contender(Protocol):
    """A system that takes part."""

    coming: "re.Pattern[str]"
    dying: "re.Pattern[str]"

    def prepare(self, seats: Sequence[Seat]) -> None:
        """Put on disk what the agents need."""

    def command(self, seat: Seat, first: Seat) -> list[str]:
        """Return the command that runs an agent."""

    def environ(self, seat: Seat) -> dict[str, str]:
        """Return the environment of that command."""


class Covey:
    """``covey run``, no app and no uplink, and default settings but for the level of the log."""

    # The notice that a member comes and goes repeats what was told on the level "debug".
    coming = re.compile(r"member_log: (\S+) is alive \(")
    dying = re.compile(r"member_log: (\S+) is dead \((?!comes and goes)")

    def prepare(self, seats: Sequence[Seat]) -> None:
        """Found a covey on the first device and admit all others, as the issuer would."""
        for seat in seats:
            seat.folder.mkdir(parents=True)
            (seat.folder / "covey.toml").write_text(SETTINGS)
        found_and_admit(seats, "bench")
        for seat in seats:
            asyncio.run(prepare(Paths.find(seat.folder)))
        compile_packages()

    def command(self, seat: Seat, first: Seat) -> list[str]:  # noqa: ARG002 - it is on disk
        """Return the command that runs an agent."""
        return [str(COVEY), "--dir", str(seat.folder), "run"]

    def environ(self, seat: Seat) -> dict[str, str]:
        """Return an environment without settings of the developer's own agent."""
        return environment(seat.folder)


class Serf:
    """``serf agent`` of Debian; its peer in design."""

    coming = re.compile(r"EventMemberJoin: (\S+)")
    dying = re.compile(r"EventMemberFailed: (\S+)")

    def prepare(self, seats: Sequence[Seat]) -> None:
        """Do nothing: a key on the command line is all."""

    def command(self, seat: Seat, first: Seat) -> list[str]:
        """Return the command that runs an agent."""
        return [
            "serf", "agent", f"-node={seat.name}", f"-bind={seat.host.ipv4}:{PORT}",
            "-iface=eth0", "-discover=bench", f"-retry-join={first.host.ipv4}",
            "-retry-interval=1s", f"-encrypt={KEY}",
        ]  # fmt: skip

    def environ(self, seat: Seat) -> dict[str, str]:  # noqa: ARG002 - the same for all
        """Return the environment as it is."""
        return dict(os.environ)


class Kinship:
    """kinship of PyPI: the same protocol in Rust, as a library for Python."""

    coming = re.compile(r"Member(?:Joined|Recovered) (\S+)")
    dying = re.compile(r"MemberDead (\S+)")
    script = Path(__file__).with_name("kinship_agent.py")

    def prepare(self, seats: Sequence[Seat]) -> None:
        """Do nothing: a key on the command line is all."""

    def command(self, seat: Seat, first: Seat) -> list[str]:
        """Return the command that runs an agent."""
        return [sys.executable, str(self.script), seat.name, f"{seat.host.ipv4}:{PORT}",
                f"{first.host.ipv4}:{PORT}", KEY]  # fmt: skip

    def environ(self, seat: Seat) -> dict[str, str]:  # noqa: ARG002 - the same for all
        """Return the environment as it is."""
        return dict(os.environ)


CONTENDERS: dict[str, Contender] = {"covey": Covey(), "serf": Serf(), "kinship": Kinship()}
