"""The benchmark's witness understands what the systems print, Covey's own log first of all."""

import logging
import os
import time

import pytest

from agent.cluster.member_log import log_member
from bench.contenders import CONTENDERS
from bench.witness import Witness
from gossip.membership.model.members import Member, MemberChanged, MemberState
from tests.support.patience import GIVE_UP_S

SAID = {
    "serf": (
        "    2026/11/21 05:34:56 [INFO] serf: EventMemberJoin: bob 10.77.0.3\n",
        "    2026/11/21 05:35:56 [INFO] serf: EventMemberFailed: bob 10.77.0.3\n",
    ),
    "kinship": ("MemberJoined bob\n", "MemberDead bob\n"),
}


@pytest.fixture
def covey_said(caplog: pytest.LogCaptureFixture) -> tuple[str, str]:
    caplog.set_level(logging.DEBUG, "agent.cluster.member_log")
    caplog.handler.setFormatter(logging.Formatter("%(levelname)-7s %(name)s: %(message)s"))
    alive = Member(0xB, "bob", (), {}, MemberState.ALIVE, 1, 1, 0.0)
    dead = Member(0xB, "bob", (), {}, MemberState.DEAD, 1, 1, 0.0)
    log_member(MemberChanged(alive, None, "joined"))
    came = caplog.text
    caplog.clear()
    log_member(MemberChanged(dead, MemberState.ALIVE, "did not answer", muted=True))
    return came, caplog.text


@pytest.mark.parametrize("system", sorted(CONTENDERS))
def test_comings_and_deaths_are_read(system: str, covey_said: tuple[str, str]) -> None:
    came, died = SAID.get(system, covey_said)
    contender = CONTENDERS[system]
    witness = Witness(contender.coming, contender.dying)
    pipes = {name: os.pipe() for name in ("ann", "bob")}
    try:
        for name, (reading, _) in pipes.items():
            witness.watch(name, reading)
        os.write(pipes["bob"][1], came.replace("bob", "ann").encode())
        assert not witness.is_whole()
        begun = time.monotonic()
        os.write(pipes["ann"][1], came.encode())
        assert witness.wait_whole(GIVE_UP_S) is not None
        os.write(pipes["ann"][1], died[:9].encode())  # lines may arrive in pieces
        os.write(pipes["ann"][1], died[9:].encode())
        known = witness.wait_known_dead("bob", ["ann"], begun, GIVE_UP_S)
        assert len(known) == 1
        assert not witness.is_whole()
        witness.forget("bob")
        assert witness.is_whole(), "who was ended on purpose is missed by nobody"
    finally:
        for name, (_, writing) in pipes.items():
            os.close(writing)
            witness.forget(name)
        witness.close()
