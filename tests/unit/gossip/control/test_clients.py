"""Each command once: repeated, late, forgotten; and the table never grows beyond its bounds."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossip.control import clients
from gossip.control.commands import RegisterClient, Transact
from gossip.control.outcomes import SETTLED, UNKNOWN_CLIENT, UNSETTLED
from gossip.control.transactions import (
    Compare,
    CompareField,
    CompareRelation,
    GetKey,
    PutKey,
)
from tests.support.control_log import ControlLog

PUT = Transact((), (PutKey("k", b"1"),))


def test_a_repeated_command_gets_the_same_answer_and_changes_nothing() -> None:
    log = ControlLog()
    client = log.client()
    created = Compare("k", CompareField.CREATED, CompareRelation.EQUAL, 0)
    create = Transact((created,), (PutKey("k", b"mine"),))
    first = log.append(create, client=client, sequence=1)
    log.restore_other()
    again = log.append(create, client=client, sequence=1)
    assert again == first
    assert getattr(again.outcome, "succeeded", False)
    assert log.get("k")[0].version == 1
    log.check()


def test_what_is_settled_is_forgotten_and_never_carried_out_again() -> None:
    log = ControlLog()
    client = log.client()
    log.append(PUT, client=client, sequence=1)
    log.append(PUT, client=client, sequence=2, settled=2)
    late: Any = log.append(PUT, client=client, sequence=1).outcome
    assert late.code == SETTLED
    assert log.get("k")[0].version == 2
    log.check()


def test_who_is_not_known_is_told_and_nothing_is_carried_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clients, "CLIENTS_MAX", 2)
    log = ControlLog()
    first, second = log.client(), log.client()
    log.append(PUT, client=first, sequence=1)
    third = log.client()
    assert [each.number for each in log.state.clients] == [first, third]
    gone: Any = log.append(PUT, client=second, sequence=1).outcome
    assert gone.code == UNKNOWN_CLIENT
    assert log.get("k")[0].version == 1
    log.check()


def test_a_client_that_settles_nothing_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "CLIENT_OUTCOMES_MAX", 2)
    log = ControlLog()
    client = log.client()
    for sequence in (1, 2):
        log.append(PUT, client=client, sequence=sequence)
    stopped: Any = log.append(PUT, client=client, sequence=3).outcome
    assert stopped.code == UNSETTLED
    assert log.append(PUT, client=client, sequence=1).index == 2, "what was answered still is"
    settled: Any = log.append(PUT, client=client, sequence=3, settled=2).outcome
    assert settled.succeeded
    log.check()


def test_large_outcomes_push_out_who_was_silent_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "CLIENTS_BYTES_MAX", 1_000)
    log = ControlLog()
    log.put("large", bytes(400))
    numbers = [log.client() for _ in range(3)]
    for number in numbers:
        log.append(Transact((), (GetKey("large"),)), client=number, sequence=1)
    assert [each.number for each in log.state.clients] == numbers[1:]
    assert log.state.clients.size_bytes <= 1_000
    log.check()


def test_registering_twice_makes_two() -> None:
    log = ControlLog()
    log.apply(RegisterClient(1))
    log.apply(RegisterClient(1))
    assert len(log.state.clients) == 2


@settings(max_examples=40)
@given(st.lists(st.integers(1, 6), max_size=30), st.integers(0, 3))
def test_however_often_it_is_sent_each_counts_once(sequences: list[int], lag: int) -> None:
    """Copies in any order: as many writes as different sequences that came before settling."""
    log = ControlLog()
    client = log.client()
    done: set[int] = set()
    settled = 0
    for sequence in sequences:
        settled = max(settled, sequence - lag)
        if sequence >= settled:
            done.add(sequence)
        log.append(PUT, client=client, sequence=sequence, settled=max(0, sequence - lag))
        assert [entry.version for entry in log.get("k")] == [len(done)] * bool(done)
    log.check()
