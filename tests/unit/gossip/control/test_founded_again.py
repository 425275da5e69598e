"""The only node of a covey has lost its log: it begins another, and no token is given twice."""

from gossip.consensus.configuration import Voter
from gossip.consensus.storage import founded_again
from gossip.control.commands import AcquireLock, OpenSession
from gossip.control.outcomes import LockResult, SessionResult
from gossip.control.requests import ControlCompleted, ControlWrite
from gossip.control.state_machine import ControlState
from gossip.core.machine import Emit, Persist
from tests.support.control_solo import STORE, SoloDriver

ME, NOW_MS = 1, 1_790_000_000_000


def write(solo: SoloDriver, write: ControlWrite) -> object:
    number = solo.plane.submit(write, solo.time)
    while effects := list(solo.plane.effects()):
        for effect in effects:
            if isinstance(effect, Persist):
                solo.plane.persisted(effect.token, solo.time)
            elif isinstance(effect, Emit) and isinstance(effect.event, ControlCompleted):
                assert effect.event.request == number
                return effect.event.result
    raise AssertionError("nothing came of it")


def test_tokens_and_generations_only_grow() -> None:
    index = 0
    for life in range(3):
        at = NOW_MS + life * 1000
        state = founded_again(Voter(STORE, ME), ControlState().snapshot(), at, 1024)
        solo = SoloDriver(ME, state)
        assert solo.plane.status(solo.time).generation == 1 + at // 2**32
        opened = write(solo, ControlWrite(OpenSession(ME, 60_000)))
        assert isinstance(opened, SessionResult)
        held = write(solo, ControlWrite(AcquireLock("door", opened.session)))
        assert isinstance(held, LockResult)
        assert held.token > max(index, at)
        index = held.token
