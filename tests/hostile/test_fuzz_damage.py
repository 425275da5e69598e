"""A slice of what flash does to files, and proofs that the campaign would notice.

The campaigns are ``tests/fuzz/damage.py`` and ``damaged_log.py``; ``make fuzz`` runs more of them.
"""

import contextlib
from collections.abc import Iterator

import pytest

from agent.store import kv_store
from agent.store.checksums import Table
from agent.store.commit_note import CommitNote
from agent.telemetry import outbox_sql
from tests.fuzz.runs import BY_NAME, Finding, run

OUTBOXES, RECORDS, CONTROLS, LOGS = range(12), range(12), range(6), range(12)
PLANTED_WITHIN = 60
"""A planted bug must be found by one of so many seeds."""


@pytest.mark.parametrize("seed", OUTBOXES)
def test_an_outbox_loses_only_what_was_hit_and_says_which(seed: int) -> None:
    assert run(BY_NAME["outbox"], seed) > 0


@pytest.mark.parametrize("seed", RECORDS)
def test_a_state_plane_is_told_when_its_records_are_not_whole(seed: int) -> None:
    assert run(BY_NAME["records"], seed) > 0


@pytest.mark.parametrize("seed", CONTROLS)
def test_what_a_node_must_not_lose_is_there_twice(seed: int) -> None:
    assert run(BY_NAME["control"], seed) > 0


@pytest.mark.parametrize("seed", LOGS)
def test_what_voters_agree_on_is_all_there_or_all_given_up(seed: int) -> None:
    assert run(BY_NAME["consensus"], seed) > 0


def findings(kind: str) -> Iterator[str]:
    """Return what the first seeds find."""
    for seed in range(PLANTED_WITHIN):
        with contextlib.suppress(Finding):
            run(BY_NAME[kind], seed)
            continue
        with pytest.raises(Finding, match=f"--only {kind} --seed {seed} --runs 1$") as caught:
            run(BY_NAME[kind], seed)
        yield str(caught.value)


def found(kind: str, what: str) -> bool:
    """Say whether one of the first seeds finds this."""
    return any(what in finding for finding in findings(kind))


def test_it_finds_rows_that_are_believed_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Table, "verifies", lambda _self, _row: True)
    monkeypatch.setattr(outbox_sql, "is_sealed", lambda _table, _row: True)
    assert found("outbox", "other readings than were accepted")


def test_it_finds_a_log_that_ends_early_and_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CommitNote, "misses", lambda *_: False)
    assert found("outbox", "are lost and were not hit")


def test_it_finds_a_voter_that_forgets_its_last_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CommitNote, "misses", lambda *_: False)
    assert found("consensus", "are others")


def test_it_finds_a_loss_that_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.telemetry.outbox_repair.record", lambda *_: None)
    assert found("outbox", "")


def test_it_finds_a_clock_that_outlives_its_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_store.RECORDS_MIGRATIONS, "mend", lambda *_: [])
    assert found("records", "")
