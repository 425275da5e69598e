"""The table of an app's states: what it must allow, and what it must not."""

import itertools

import pytest

from agent.apps.states import TRANSITIONS, AppEvent, AppState

OWNER = {AppEvent.START, AppEvent.STOP}


def reachable(state: AppState, events: set[AppEvent]) -> set[AppState]:
    found, new = set(), {state}
    while new:
        found |= new
        new = {
            TRANSITIONS[s, e] for s, e in itertools.product(found, events) if (s, e) in TRANSITIONS
        } - found
    return found


def test_every_state_is_reachable_and_leads_back_to_stopped() -> None:
    assert reachable(AppState.STOPPED, set(AppEvent)) == set(AppState)
    for state in AppState:
        assert AppState.STOPPED in reachable(state, set(AppEvent))


@pytest.mark.parametrize("state", [AppState.WAITING, AppState.FAILING, AppState.FINISHED])
def test_the_owner_can_start_and_stop_what_ended_by_itself(state: AppState) -> None:
    assert TRANSITIONS[state, AppEvent.START] is AppState.RUNNING
    assert TRANSITIONS[state, AppEvent.STOP] is AppState.STOPPED


def test_only_a_process_can_end() -> None:
    ends = {AppEvent.COMPLETED, AppEvent.CRASHED, AppEvent.CRASHED_AGAIN}
    assert {s for s, e in TRANSITIONS if e in ends} == {AppState.RUNNING}
    assert {s for s, e in TRANSITIONS if e is AppEvent.ENDED} == {AppState.STOPPING}


def test_nothing_runs_without_a_start() -> None:
    into_running = {e for (_, e), after in TRANSITIONS.items() if after is AppState.RUNNING}
    assert into_running == {AppEvent.START}
