"""A slice of the fuzzing campaign, and proofs that the campaign would notice.

``make fuzz`` makes the same runs for as long as one likes. Here are the first few seeds of each
kind; how many there are is fixed, so the slice is the same on every machine.
"""

import contextlib
from collections.abc import Iterable, Iterator

import pytest

from gossip.core.machine import Address
from gossip.kv import plane
from gossip.membership import bootstrap, dispatch
from gossip.membership.detection import failure_detector, updates
from tests.fuzz import parsers
from tests.fuzz.runs import BY_NAME, Finding, run
from tests.fuzz.siege import Siege

SIEGES, READINGS, REQUESTS = range(9), range(6), range(10)
PLANTED_WITHIN = 60
"""A planted bug must be found by one of so many seeds."""


@pytest.mark.parametrize(
    "seed", [*SIEGES[:3], *(pytest.param(seed, marks=pytest.mark.slow) for seed in SIEGES[3:])]
)
def test_a_covey_under_attack_holds(seed: int) -> None:
    assert run(BY_NAME["siege"], seed) > 0


@pytest.mark.parametrize("seed", READINGS)
def test_parsers_return_or_raise_what_they_document(seed: int) -> None:
    assert run(BY_NAME["parsers"], seed) > 0


@pytest.mark.parametrize("seed", REQUESTS)
def test_requests_are_answered(seed: int) -> None:
    assert run(BY_NAME["requests"], seed) > 0


def test_good_inputs_are_read() -> None:
    """Otherwise all of the above would be about inputs that nobody would take anyway."""
    parsers.feed_goods()


def test_the_same_seed_makes_the_same_run() -> None:
    stories = []
    for _ in range(2):
        siege = Siege(7)
        told = []
        for _ in range(40):
            siege.attack()
            told.append(siege.last)
        stories.append((told, dict(siege.world.counts)))
    assert stories[0] == stories[1]


# Planted bugs: each must be found.


def findings(kind: str, seeds: Iterable[int]) -> Iterator[str]:
    """Return what these seeds find."""
    for seed in seeds:
        with contextlib.suppress(Finding):
            run(BY_NAME[kind], seed)
            continue
        with pytest.raises(Finding, match=f"--only {kind} --seed {seed} --runs 1$") as caught:
            run(BY_NAME[kind], seed)
        yield str(caught.value)


def found(kind: str, what: str, seeds: Iterable[int] = range(PLANTED_WITHIN)) -> bool:
    """Say whether one of these seeds finds this, and says how to see it again."""
    return any(what in finding for finding in findings(kind, seeds))


def test_it_finds_a_datagram_to_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    def anywhere(address: Address) -> bool:
        return 0 < address.port < 2**16

    monkeypatch.setattr(bootstrap, "is_usable", anywhere)
    monkeypatch.setattr(failure_detector, "is_usable", anywhere)
    assert found("siege", " sent to ")


def test_it_finds_a_drop_that_nobody_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    original = dispatch.Dispatcher.read

    def read(self: dispatch.Dispatcher, *arguments: object) -> bool:
        malformed = self._outbound.counts["datagrams_dropped/malformed"]
        moved = original(self, *arguments)  # type: ignore[arg-type]
        self._outbound.counts["datagrams_dropped/malformed"] = malformed
        return moved

    monkeypatch.setattr(dispatch.Dispatcher, "read", read)
    assert found("siege", "uncounted")


def test_it_finds_a_frame_that_ends_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plane, "RemoteError", ZeroDivisionError)
    assert found("siege", "Malformed")


@pytest.mark.slow
def test_it_finds_a_node_that_believes_what_is_said_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updates.MemberUpdates, "_about_us", lambda *_: None)
    # Since members sign their words, one siege in two hundred gets so far: these did.
    assert found("siege", "take each other for dead", (402, 416, 514))


def test_it_finds_a_parser_that_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.telemetry.readings_text._text", bytes.decode)
    assert found("parsers", "codec can't decode")
