"""What is set for a space is agreed on, and each node goes by its copy."""

import asyncio

import pytest

from agent.cluster.agreement import Agreement
from agent.cluster.kv_spaces import KvSpaces
from agent.exits import AgentError
from gossip.core.errors import InvalidRequest
from gossip.kv.limits import SPACES_MAX
from gossip.kv.quotas import Quotas
from gossip.kv.spaces import Spaces, SpaceSetting
from tests.support.control_solo import SoloDriver
from tests.support.patience import GIVE_UP_S


async def _until(spaces: Spaces, key: str, policy: str) -> None:
    async with asyncio.timeout(GIVE_UP_S):
        while spaces.policy(key) != policy:  # noqa: ASYNC110  it tells nobody
            await asyncio.sleep(0.005)


async def _follow() -> None:
    agreement, spaces = Agreement(SoloDriver(5).driver()), Spaces()
    settings = KvSpaces(agreement, Quotas(spaces))
    following = asyncio.create_task(settings.follow())
    await settings.change("lamps", {"policy": "lww"})
    await settings.change("a b&ü", {"policy": "set"})
    await _until(spaces, "lamps/hall", "lww")
    await _until(spaces, "a b&ü", "set")
    assert (await settings.all())[1] == {
        "lamps": SpaceSetting(policy="lww"),
        "a b&ü": SpaceSetting(policy="set"),
    }
    await settings.unset("lamps")
    await _until(spaces, "lamps/hall", "siblings")
    with pytest.raises(AgentError, match="nothing is set"):
        await settings.unset("lamps")
    with pytest.raises(InvalidRequest):
        await settings.change("a/b", {"policy": "lww"})
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


def test_a_space_is_followed_and_taken_back() -> None:
    asyncio.run(_follow())


async def _fill() -> None:
    settings = KvSpaces(Agreement(SoloDriver(5).driver()), Quotas(Spaces()))
    for number in range(SPACES_MAX):
        await settings.change(f"s{number}", {"policy": "lww"})
    with pytest.raises(AgentError, match="spaces are set already"):
        await settings.change("one-more", {"policy": "lww"})
    await settings.change("s0", {"policy": "siblings"})


@pytest.mark.slow
def test_there_is_a_bound_and_what_is_set_can_still_be_changed() -> None:
    asyncio.run(_fill())
