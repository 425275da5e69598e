"""Each transcript in tests/transcripts says today what it said when it was recorded.

And it would not if the rule were broken that it is about: for a number of rules a mutation breaks
one in the code of the protocols, and the transcript named beside it must then say something else.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gossip.core.envelope import ReplayWindow
from gossip.core.machine import Address, Instant
from gossip.core.tuning import Tuning
from gossip.events import events
from gossip.events.messages import Event, EventId
from gossip.membership.anti_entropy.merge import RemoteStateMerge
from gossip.membership.detection import failure_detector, probe, updates
from gossip.membership.detection.awareness import Awareness
from gossip.membership.detection.crash_detector import CrashDetector
from gossip.membership.detection.suspicion import Suspicion
from gossip.membership.detection.updates import MemberUpdates
from gossip.membership.dissemination.outbound import Outbound
from gossip.membership.members import member_list
from gossip.membership.members.departed import DepartedPeers
from gossip.membership.members.flap_damping import FlapDamping
from gossip.membership.members.id_conflicts import IdConflicts
from gossip.membership.members.member_list import MemberList
from gossip.membership.model import sanity
from gossip.membership.model.local_member import LocalMember
from gossip.membership.model.members import Member
from gossip.membership.model.messages import Datagram, Ping, Suspect, Update
from gossip.membership.model.signatures import Signatures
from gossip.membership.swim import Swim
from gossip.sim.script.transcript import BadCommand, Transcript, replay

FOLDER = Path(__file__).resolve().parents[1] / "transcripts"
TRANSCRIPTS = sorted(FOLDER.glob("*.txt"))
INDEX = (FOLDER / "README.md").read_text()
LINES_MAX = 80
BY_CHANCE = frozenset({"crash", "join", "killed", "pause", "values"})
"""These tell who noticed first, or who owns a key, which is another with another seed."""
LONG = frozenset({"split-heals-after-25h", "reaped", "nine-at-half-loss", "loss"})
"""These go through so much that they take seconds."""
Patch = pytest.MonkeyPatch
Plant = Callable[[Patch], None]


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in LONG else [])
        for path in TRANSCRIPTS
    ],
)
def test_transcript(path: Path, request: pytest.FixtureRequest) -> None:
    recorded = path.read_text()
    answered = replay(recorded)
    if request.config.getoption("--rewrite", default=False):
        path.write_text(answered)
        return
    assert answered == recorded, "run `pytest tests/sim --rewrite`, then read the difference"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3, 4])
@pytest.mark.parametrize(
    "path", [path for path in TRANSCRIPTS if path.stem not in BY_CHANCE], ids=lambda path: path.stem
)
def test_chance_has_no_part_in_what_is_told(path: Path, seed: int) -> None:
    recorded = path.read_text()
    assert replay(recorded, seed) == recorded


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_a_transcript_can_be_read(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# "), "it begins with what it shows, and where that comes from"
    assert "----" in lines, "it asks at least one question"
    assert len(lines) <= LINES_MAX


def test_the_index_names_every_transcript_and_no_other() -> None:
    named = re.findall(r"^\| \[([a-z0-9-]+)\]\(\1\.txt\) \|", INDEX, flags=re.MULTILINE)
    assert named == sorted(named)
    assert named == sorted(path.stem for path in TRANSCRIPTS)


def test_the_language_has_no_word_that_nobody_uses() -> None:
    lines = [line for path in TRANSCRIPTS for line in path.read_text().splitlines()]
    used = {line.split()[0] for line in lines if line}
    assert not set(Transcript().words) - used


@pytest.mark.parametrize(
    "line",
    ["fly a", "run 5", "cut a", "members z", "lose much", "say b a sing b", "heard a noise"],
)
def test_a_bad_command_names_its_line(line: str) -> None:
    transcript = Transcript()
    transcript.command("nodes a b")
    with pytest.raises(BadCommand, match=line):
        transcript.command(line)


# Mutations: each breaks one rule.


def relays_are_not_asked(patch: Patch) -> None:
    patch.setattr(failure_detector.FailureDetector, "_ask_relays", lambda *_: None)


def suspects_are_pinged_without_a_word(patch: Patch) -> None:
    """Leave the accusation to gossip, as SWIM does without the buddy system."""
    send = Outbound.send

    def mutant(self: Outbound, to: Address, *messages: Datagram, **more: Any) -> None:
        asks = any(isinstance(message, Ping) for message in messages)
        kept = [each for each in messages if not (asks and isinstance(each, Suspect))]
        send(self, to, *kept, **more)

    patch.setattr(Outbound, "send", mutant)


def nacks_come_at_the_timeout(patch: Patch) -> None:
    patch.setattr(probe, "NACK_SHARE", 1.0)


def nacks_are_not_counted(patch: Patch) -> None:
    patch.setattr(failure_detector.FailureDetector, "nack", lambda *_: None)


def only_the_interval_stretches(patch: Patch) -> None:
    """Be no more patient with answers in bad health: memberlist's reading of LHA-Probe."""
    stretch = Awareness.stretch

    def mutant(self: Awareness, duration_s: float) -> float:
        return duration_s if duration_s < 1.0 else stretch(self, duration_s)

    patch.setattr(Awareness, "stretch", mutant)


def everybody_confirms(patch: Patch) -> None:
    """Count an accusation anew each time that it is heard."""
    accuse = Suspicion.accuse

    def mutant(self: Suspicion, accuser: int) -> bool:
        return accuse(self, accuser + len(self.accusers))

    patch.setattr(Suspicion, "accuse", mutant)


def confirmations_are_worth_nothing(patch: Patch) -> None:
    patch.setattr(MemberUpdates, "_confirm", lambda *_: None)


def the_word_of_one_is_enough_in_a_small_covey(patch: Patch) -> None:
    patch.setattr(Tuning, "confirmations", lambda self, members: 3 if members >= 5 else 0)


def headers_prove_nothing(patch: Patch) -> None:
    patch.setattr(MemberUpdates, "saw_life", lambda *_: None)


def stale_accusations_are_ignored(patch: Patch) -> None:
    about_us = MemberUpdates._about_us

    def mutant(self: MemberUpdates, claim: Update, source: Address | None, now: Instant) -> None:
        if claim.incarnation >= self._local.incarnation:
            about_us(self, claim, source, now)

    patch.setattr(MemberUpdates, "_about_us", mutant)


def incarnations_have_32_bits(patch: Patch) -> None:
    rise_above = LocalMember.rise_above

    def mutant(self: LocalMember, incarnation: int) -> None:
        rise_above(self, incarnation)
        short = self.incarnation % 2**32
        self._alive = msgspec.structs.replace(self._alive, incarnation=short)

    patch.setattr(LocalMember, "rise_above", mutant)


def every_number_is_believed(patch: Patch) -> None:
    for module in (updates, sanity):
        patch.setattr(module, "is_plausible", lambda *_: True)


def a_merge_accuses(patch: Patch) -> None:
    """Take over in an exchange what the other one suspects, as an accuser."""

    def mutant(self: RemoteStateMerge, member: Member, claim: Update) -> None:
        self._updates.apply(claim, None, 0.0)

    patch.setattr(RemoteStateMerge, "_verify", mutant)


def updates_are_sent_four_times(patch: Patch) -> None:
    patch.setattr(Tuning, "transmit_limit", lambda *_: 4)


def pauses_go_unnoticed(patch: Patch) -> None:
    patch.setattr(Swim, "_resume", lambda *_: None)


def pauses_use_up_the_time_of_suspects(patch: Patch) -> None:
    patch.setattr(Suspicion, "extend", lambda *_: None)


def sleepers_are_accused(patch: Patch) -> None:
    patch.setattr(updates, "_is_early", lambda *_: False)


def addresses_are_forgotten(patch: Patch) -> None:
    patch.setattr(DepartedPeers, "add", lambda *_: None)


def the_dead_stay_listed(patch: Patch) -> None:
    patch.setattr(MemberList, "reap", lambda *_: None)


def strangers_are_welcome(patch: Patch) -> None:
    patch.setattr(MemberList, "has_room_for", lambda self, _: len(self.members) < 100)


def flapping_is_nothing(patch: Patch) -> None:
    patch.setattr(FlapDamping, "came_back", lambda *_, **__: None)


def clones_are_nobodys_business(patch: Patch) -> None:
    patch.setattr(IdConflicts, "former_life", lambda *_: None)


def refusals_are_always_believed(patch: Patch) -> None:
    patch.setattr(CrashDetector, "_ignore_refusals", lambda *_: None)


def paths_are_for_ever(patch: Patch) -> None:
    """Go on sending to where a member was first heard, whatever it says."""
    patch.setattr(member_list, "_path_kept", lambda known, _: known and known.path)


def packets_open_again(patch: Patch) -> None:
    patch.setattr(ReplayWindow, "is_new", lambda *_: True)
    patch.setattr(ReplayWindow, "admit", lambda *_: None)


def equal_events_are_one(patch: Patch) -> None:
    """Tell events apart by what they say and when, as Serf does."""

    def mutant(event: Event) -> EventId:
        return EventId(1, 0, hash((event.time, event.name, event.payload)) % 2**32)

    patch.setattr(events, "id_of", mutant)


def events_of_before_are_news(patch: Patch) -> None:
    objection = events.EventBuffer._objection

    def mutant(self: events.EventBuffer, event: Event, now: Instant, old: int) -> str | None:
        self._is_first_life = self.is_sure = True
        return objection(self, event, now, 0)

    patch.setattr(events.EventBuffer, "_objection", mutant)


def any_signature_is_good(patch: Patch) -> None:
    patch.setattr(Signatures, "_fits", lambda *_: True)


def none_is_as_good(patch: Patch) -> None:
    patch.setattr(Signatures, "is_signer", lambda *_: False)


BROKEN: list[tuple[Plant, str]] = [
    (any_signature_is_good, "signed-words"),
    (none_is_as_good, "signed-words"),
    (relays_are_not_asked, "probe-indirect"),
    (suspects_are_pinged_without_a_word, "buddy-system"),
    (nacks_come_at_the_timeout, "nack"),
    (nacks_are_not_counted, "health-nacks"),
    (only_the_interval_stretches, "health-probe"),
    (everybody_confirms, "suspicion-confirmed"),
    (confirmations_are_worth_nothing, "suspicion-confirmed"),
    (the_word_of_one_is_enough_in_a_small_covey, "suspicion-small-covey"),
    (headers_prove_nothing, "header-refutes"),
    (stale_accusations_are_ignored, "refute-stale-suspicion"),
    (incarnations_have_32_bits, "refute-at-the-top"),
    (every_number_is_believed, "refute-at-the-top"),
    (a_merge_accuses, "merge-is-no-accuser"),
    (updates_are_sent_four_times, "retransmit-floor"),
    (pauses_go_unnoticed, "pause-speaks-first"),
    (pauses_use_up_the_time_of_suspects, "pause-gives-time-back"),
    (sleepers_are_accused, "sleep"),
    (addresses_are_forgotten, "reaped"),
    (the_dead_stay_listed, "reaped"),
    (strangers_are_welcome, "flood-of-members"),
    (flapping_is_nothing, "flapping"),
    (clones_are_nobodys_business, "clones"),
    (refusals_are_always_believed, "refusals-forged"),
    (paths_are_for_ever, "new-address"),
    (packets_open_again, "replay"),
    (equal_events_are_one, "event-twins"),
    (events_of_before_are_news, "event-not-replayed"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("plant", "name"), BROKEN, ids=[plant.__name__ for plant, _ in BROKEN])
def test_a_broken_rule_changes_its_transcript(plant: Plant, name: str, monkeypatch: Patch) -> None:
    recorded = (FOLDER / f"{name}.txt").read_text()
    plant(monkeypatch)
    assert replay(recorded) != recorded
