"""Lives that others know the end of, and what the doctor says of who belongs."""

import msgspec
import pytest

from agent.doctor import registry_checks
from agent.doctor.findings import Status
from agent.process import OUTRUN_AGAIN_S, Lives
from gossip.core.machine import Address
from gossip.registry.node import ISSUER, RegisteredNode
from gossip.registry.node_change import NodeChange, arrange
from gossip.registry.registry import admit, found, remove
from gossip.registry.strangers import Strangers

COVEY = bytes(16)
REGISTRY = admit(
    found(COVEY, RegisteredNode(1, "ada", roles=(ISSUER,)), 4), RegisteredNode(2, "bob")
)


def test_a_node_outlives_itself_once_in_an_hour() -> None:
    now = 0.0
    lives = Lives(lambda: now)
    assert lives.may_be_outrun()
    lives.begin()
    now = OUTRUN_AGAIN_S - 1
    assert not lives.may_be_outrun(), "two devices would outrun each other for ever"
    now = OUTRUN_AGAIN_S
    assert lives.may_be_outrun()


def test_the_doctor_names_who_lets_others_in() -> None:
    there = registry_checks.issuers(REGISTRY, {1, 2})
    assert (there.status, there.message) == (Status.OK, "ada lets others in, and is there.")
    two = found(COVEY, RegisteredNode(1, "ada", roles=(ISSUER,)), 4)
    two = admit(two, RegisteredNode(2, "bob", roles=(ISSUER,)))
    assert registry_checks.issuers(two, {1, 2}).message == "ada, bob let others in, and are there."
    away = registry_checks.issuers(REGISTRY, {2})
    assert away.status is Status.WARN
    assert away.message.startswith("nobody who lets others in (ada) is there")


def test_the_doctor_says_of_a_fork_what_to_do() -> None:
    assert registry_checks.fork(None).status is Status.OK
    forked = registry_checks.fork(REGISTRY)
    assert forked.status is Status.FAIL
    assert "covey registry mend" in forked.hint


def test_the_doctor_names_who_was_let_in_and_never_came() -> None:
    assert registry_checks.absentees([], []).status is Status.OK
    registry = admit(REGISTRY, RegisteredNode(3, "cy", absent=True))
    [told] = [
        each for each in registry_checks.examine(registry, None, {1}, (), ()) if each.id == "absent"
    ]
    assert (told.status, "not heard: cy." in told.message) == (Status.WARN, True)
    assert "`covey members remove cy`" in told.hint
    assert "on ada" in told.hint


def test_the_doctor_names_who_drains_so_that_nobody_forgets_it() -> None:
    assert registry_checks.draining(REGISTRY, (1,)).status is Status.OK
    drains = arrange(REGISTRY, 2, NodeChange(drains=True))
    told = registry_checks.draining(drains, (1,))
    assert told.status is Status.WARN
    assert "bob (0 partitions left)" in told.message
    assert "`covey node undrain bob`" in told.hint
    assert "does not vote can be switched off" in told.hint


@pytest.mark.parametrize(
    ("voters", "left"),
    [((), ""), ((1, 3), ""), ((1, 2, 3), ""), ((1, 2), "1 of 2 voters"), ((2,), "0 of 1 voter ")],
)
def test_the_doctor_says_whether_the_others_can_agree_without_who_drains(
    voters: tuple[int, ...], left: str
) -> None:
    told = registry_checks.draining(arrange(REGISTRY, 2, NodeChange(drains=True)), voters)
    assert ("votes still" in told.message) == (2 in voters)
    assert ("leave them on" in told.message) == bool(left)
    assert left in told.message


def test_the_doctor_names_who_took_the_present_authoritys_key_along() -> None:
    gone = remove(REGISTRY, 2, accept_loss=True)
    assert registry_checks.former_issuers(gone).status is Status.OK
    (former,) = gone.removed
    held = msgspec.structs.replace(former, held_authority=gone.authority_number)
    told = registry_checks.former_issuers(msgspec.structs.replace(gone, removed=(held,)))
    assert (told.status, "bob held the authority's key" in told.message) == (Status.WARN, True)
    assert "`covey keys rotate --authority`" in told.hint
    before = msgspec.structs.replace(former, held_authority=gone.authority_number - 1)
    assert (
        registry_checks.former_issuers(msgspec.structs.replace(gone, removed=(before,))).status
        is Status.OK
    ), "that key signs nothing any more"


def test_the_doctor_names_who_knocks() -> None:
    registry = remove(REGISTRY, 2, accept_loss=True)
    book = Strangers()
    assert registry_checks.examine(registry, None, {1}, (), book.since(0.0))[-1].status is Status.OK
    book.record(2, Address("192.0.2.9", 7747), 100.0)
    book.record(7, None, 100.0)
    told = registry_checks.examine(registry, None, {1}, (), book.since(200.0))[-1]
    assert told.status is Status.WARN
    assert "bob (0000000000000002, removed) from 192.0.2.9:7747" in told.message
    assert "0000000000000007 knocked" in told.message
    assert (
        registry_checks.examine(registry, None, {1}, (), book.since(4000.0))[-1].status is Status.OK
    )
