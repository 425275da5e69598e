"""The protocols of the Lifeguard paper, played by Covey's machine with parts of it exchanged.

Where a constant of ``gossip/core/tuning.py`` turns a part off, that is how; else a method of one of
the machine's classes is replaced while a row is played. What Covey adds to the paper is out of the
way in the paper's rows (``NOT_IN_THE_PAPER``). Nothing of this is an option of the product.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import msgspec

from gossip.core.ids import Boot, NodeId
from gossip.core.machine import Address, Instant
from gossip.core.tuning import LAN, Tuning
from gossip.events.plane import EventPlane
from gossip.membership.detection import probe
from gossip.membership.detection.failure_detector import FailureDetector
from gossip.membership.detection.probe import Probe
from gossip.membership.detection.updates import MemberUpdates
from gossip.membership.model.messages import Ack, Ping, Update
from gossip.membership.swim import Swim

ALPHA, BETA, LAMBDA = 5, 6, 4


def paper_tuning(members: int) -> Tuning:
    """Return the paper's constants: alpha 5, beta 6, and memberlist's for the rest."""
    crowd = LAN.crowd(members)
    exchange_s = 30.0 * max(1, math.ceil(math.log2(members)) - 4)
    return msgspec.structs.replace(
        LAN,
        suspicion_periods=ALPHA * max(1.0, math.log10(members)) / crowd,
        suspicion_stretch=BETA,
        confirmations_max=3,
        awareness_max=8,
        transmits_min=LAMBDA * math.ceil(math.log10(members + 1)),
        transmits_per_doubling=0,
        exchange_interval_s=exchange_s / crowd,
        sleep_grace_s=2 * exchange_s,
        probe_checkers=0,
        observers_per_member=0,
        flapping_patience=1.0,
    )


WITHOUT_LHA_PROBE: dict[str, float] = {"awareness_max": 0}
WITHOUT_LHA_SUSPICION: dict[str, float] = {"suspicion_stretch": 1, "confirmations_max": 0}


class Row(msgspec.Struct, frozen=True):
    """A protocol to be measured: the paper's without some of its parts, or Covey."""

    name: str
    without: dict[str, float] = {}
    buddy_system: bool = True
    is_covey: bool = False

    def tuning(self, members: int) -> Tuning:
        """Return the constants for a covey of this size."""
        return (
            LAN if self.is_covey else msgspec.structs.replace(paper_tuning(members), **self.without)
        )

    @contextlib.contextmanager
    def played(self) -> Iterator[None]:
        """Let the machine's classes be this row's meanwhile."""
        with contextlib.ExitStack() as stack:
            if not self.is_covey:
                for owner, name, method in NOT_IN_THE_PAPER:
                    stack.enter_context(mock.patch.object(owner, name, method))
                if not self.buddy_system:
                    stack.enter_context(mock.patch.object(FailureDetector, "_ping", ping_alone))
                if "awareness_max" in self.without:
                    stack.enter_context(mock.patch.object(probe, "NACK_SHARE", math.inf))
            yield


SWIM = Row("SWIM", {**WITHOUT_LHA_PROBE, **WITHOUT_LHA_SUSPICION}, buddy_system=False)
LIFEGUARD = Row("Lifeguard")
COVEY = Row("Covey as shipped", is_covey=True)
ROWS = (
    SWIM,
    Row("LHA-Probe", WITHOUT_LHA_SUSPICION, buddy_system=False),
    Row("LHA-Suspicion", WITHOUT_LHA_PROBE, buddy_system=False),
    Row("Buddy System", {**WITHOUT_LHA_PROBE, **WITHOUT_LHA_SUSPICION}),
    LIFEGUARD,
    COVEY,
)

_hear, _about_us = MemberUpdates.saw_packet, MemberUpdates._about_us  # noqa: SLF001  to be wrapped


def hear_no_header(
    self: MemberUpdates, sender: NodeId, boot: Boot, incarnation: int, source: Address, now: Instant
) -> bool:
    """Learn nothing from the incarnation in the header of a packet."""
    member = self._members.get(sender)
    if member is not None and member.boot == boot:
        incarnation = member.incarnation
    return _hear(self, sender, boot, incarnation, source, now)


def refute_by_update(
    self: MemberUpdates, claim: Update, source: Address | None, now: Instant
) -> None:
    """Refute what is new, by an update alone."""
    del source
    if (claim.boot, claim.incarnation) >= (self._local.boot, self._local.incarnation):
        _about_us(self, claim, None, now)


def ping_alone(self: FailureDetector, probe: Probe, number: int, now: Instant) -> None:
    """Ping, and leave it to the updates to tell a suspect that it is one."""
    member = self._members.get(probe.target)
    if member is not None:
        probe.pinged_at[number] = now
        self._outbound.send(member.addresses_by_preference[0], Ping(number, probe.target))


def nothing(*_: object, **__: object) -> None:
    """Do without."""


NOT_IN_THE_PAPER: tuple[tuple[type, str, Callable[..., Any]], ...] = (
    (MemberUpdates, "saw_packet", hear_no_header),
    (MemberUpdates, "_about_us", refute_by_update),
    (MemberUpdates, "_send_state", nothing),
    (FailureDetector, "_ask_again", nothing),
    (FailureDetector, "_ask_by_stream", nothing),
    (Probe, "catch_up", nothing),
)
"""What Covey does and the paper does not, and what takes its place in the paper's rows."""


@contextlib.contextmanager
def senders_wait(
    row: Row, release_at: Callable[[NodeId, Instant], Instant | None]
) -> Iterator[None]:
    """Let whoever is held wait in its first send meanwhile, as a thread of memberlist does.

    A held member gets stuck in one probe, tells no updates, and still judges its suspects by the
    time. In the paper's rows the time of the probe runs out meanwhile, and the answer comes too
    late; Covey gives a probe that it finds late its full time again (``Probe.catch_up``).
    ``release_at`` tells until when a member is held, by the member's own clock.
    """
    wake, gossip, ack = FailureDetector.wake, Swim._gossip, FailureDetector.ack  # noqa: SLF001  to be wrapped

    def waiting_wake(self: FailureDetector, now: Instant) -> None:
        wait(self._probe, release_at(self._local.id, now))
        wake(self, now)

    def wait(probe: Probe | None, until: Instant | None) -> None:
        if probe is None or probe.is_over or until is None or probe.due_at >= until:
            return
        if row.is_covey:
            probe.catch_up(until)
        probe.due_at = until

    def waiting_gossip(self: Swim[EventPlane], now: Instant) -> None:
        until = release_at(self._local.id, now)
        if until is not None:
            self._gossip_at = until
        gossip(self, now)

    def ack_in_time(self: FailureDetector, message: Ack, sender: NodeId, now: Instant) -> None:
        probe = self._probe
        takes_s = self._awareness.stretch(self._tuning.probe_interval_s)
        if row.is_covey or probe is None or now < probe.started_at + takes_s:
            ack(self, message, sender, now)

    with (
        mock.patch.object(FailureDetector, "wake", waiting_wake),
        mock.patch.object(FailureDetector, "ack", ack_in_time),
        mock.patch.object(Swim, "_gossip", waiting_gossip),
    ):
        yield
