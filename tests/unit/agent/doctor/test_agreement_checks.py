"""What the doctor says of who decides: what waits, what goes on, and what to do."""

from typing import Any

import msgspec
import pytest

from agent.doctor.agreement_checks import agreement
from agent.doctor.findings import Status
from gossip.control.bounds import STATE_BYTES_MAX
from gossip.control.requests import ControlStatus

STATUS = ControlStatus(
    role="follower",
    generation=2,
    applied_index=9,
    leader=1,
    voters=(1, 2, 3),
    learners=(),
    has_majority=True,
    sessions=0,
    keys=0,
    used_bytes=0,
    watches=0,
    is_halted=False,
)


@pytest.mark.parametrize(
    ("others", "agreed", "halted", "status", "words", "hint"),
    [
        ((), True, False, Status.OK, "3 voters, in generation 2, agree", ""),
        (
            (),
            False,
            False,
            Status.FAIL,
            "Events and readings go on, and shared keys most of",
            "covey recover",
        ),
        (("bob",), True, False, Status.FAIL, "at two places", "covey recover"),
        ((), True, True, Status.WARN, "stands still", "Update"),
    ],
)
def test_what_it_says(
    others: tuple[str, ...], agreed: bool, halted: bool, status: Status, words: str, hint: str
) -> None:
    told = msgspec.structs.replace(STATUS, is_halted=halted)
    finding = agreement(told, others, is_agreed=agreed)
    assert finding.status is status
    assert words in finding.message
    assert hint in finding.hint


def test_it_warns_before_the_control_plane_is_full() -> None:
    nearly = msgspec.structs.replace(STATUS, used_bytes=STATE_BYTES_MAX * 91 // 100)
    finding = agreement(nearly, (), is_agreed=True)
    assert finding.status is Status.WARN
    assert "58.2 of 64 MiB" in finding.message
    assert "Delete keys" in finding.hint


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        (
            {"save_hangs_s": 61.0},
            Status.FAIL,
            "not ended a save for 1m1s. It agrees on nothing",
        ),
        ({}, Status.FAIL, "takes nothing. It agrees on nothing, and does not lead while another"),
        ({"voters": (1,), "role": "leader"}, Status.FAIL, "commands are refused, and none is"),
        ({"voters": (1,), "role": "copy"}, Status.FAIL, "It agrees on nothing"),
        ({"is_halted": True}, Status.WARN, "stands still"),
    ],
)
def test_a_disk_that_keeps_its_node_out_is_named_first(
    more: dict[str, Any], status: Status, words: str
) -> None:
    told = msgspec.structs.replace(STATUS, takes_writes=False, **more)
    finding = agreement(told, (), is_agreed=more.get("is_halted", False))
    assert finding.status is status
    assert words in finding.message


@pytest.mark.parametrize(
    ("ago_s", "status"), [(None, Status.OK), (3_700.0, Status.OK), (90.0, Status.WARN)]
)
def test_a_leader_that_stood_still_is_told_of_for_an_hour(
    ago_s: float | None, status: Status
) -> None:
    told = msgspec.structs.replace(STATUS, stood_still_s_ago=ago_s)
    finding = agreement(told, (), is_agreed=True)
    assert finding.status is status
    assert ("1m30s ago" in finding.message) is (status is Status.WARN)


@pytest.mark.parametrize("is_agreed", [False, True])
def test_it_names_whom_this_node_does_not_believe_and_both_ways_on(is_agreed: bool) -> None:
    finding = agreement(STATUS, (), ("elm",), is_agreed=is_agreed)
    assert finding.status is (Status.WARN if is_agreed else Status.FAIL)
    assert "elm says that what is agreed on goes on in a later generation than 2" in finding.message
    assert "`covey recover --follow elm`" in finding.hint
    assert "`covey members remove elm`" in finding.hint
