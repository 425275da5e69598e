"""A node outside of a covey: founding, leaving and coming back, on real files, without an agent."""

import asyncio
from pathlib import Path

import pytest

from agent import exits
from agent.admission import former_membership
from agent.admission.former_membership import (
    FormerMembership,
    record_parting,
    recorded_parting,
    set_aside,
)
from agent.admission.newcomer import Newcomer
from agent.config.loader import Config
from agent.config.paths import Paths
from agent.exits import AgentError
from agent.identity import identity
from agent.store.control import ControlStore
from agent.store.kv_store import RecordStore
from gossip.kv.storage import HoldingChange
from tests.support.patience import GIVE_UP_S


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = Paths.find(tmp_path, {})
    found.create()
    return found


def newcomer(paths: Paths) -> Newcomer:
    return Newcomer(Config(), paths)


async def founded(paths: Paths, name: str = "barn") -> Newcomer:
    made = newcomer(paths)
    await made.found(name, "pi1")
    assert made.arrived.is_set()
    return made


def lacking(paths: Paths) -> str:
    """Return what a node lacks whose agent starts."""
    starting = newcomer(paths)
    starting.forget()
    lack = starting.lack()
    assert lack is not None
    assert "covey" in lack.hint
    return lack.message


def test_a_node_without_identity_says_what_to_do(paths: Paths) -> None:
    assert lacking(paths) == "this node belongs to no covey yet"


def test_founding_makes_identity_and_databases(paths: Paths) -> None:
    asyncio.run(founded(paths))
    assert newcomer(paths).lack() is None
    assert identity.load(paths.identity).cluster_name == "barn"
    assert all(each.is_file() for each in (paths.control_db, paths.data_db, paths.telemetry_db))


def test_nobody_founds_or_joins_twice(paths: Paths) -> None:
    async def story() -> None:
        belonging = await founded(paths)
        for again in (
            belonging.found("loft", "pi2"),
            belonging.join("covey1-x", "pi2", [], print),
        ):
            with pytest.raises(AgentError, match="already holds node pi1 of covey barn"):
                await again

    asyncio.run(story())
    assert identity.load(paths.identity).cluster_name == "barn"


def test_two_at_once_make_one_covey(paths: Paths) -> None:
    async def story() -> list[object]:
        made = newcomer(paths)
        both = made.found("barn", "pi1"), made.found("loft", "pi1")
        return list(await asyncio.gather(*both, return_exceptions=True))

    first, second = asyncio.run(story())
    assert isinstance(first, identity.Identity)
    assert isinstance(second, AgentError)
    assert identity.load(paths.identity).cluster_name == "barn"


def test_who_belongs_already_is_told_what_is_left_to_do(paths: Paths) -> None:
    """Which command starts its agent, the agent's own or the service's, `covey status` knows."""

    async def story() -> None:
        belonging = await founded(paths)
        for again in (belonging.join("covey1-x", "pi2", [], print), belonging.come_back()):
            with pytest.raises(AgentError) as caught:
                await again
            assert "takes part while its agent runs; `covey status`" in caught.value.hint

    asyncio.run(story())


def test_who_was_removed_and_joins_anew_is_told_where_its_readings_are(paths: Paths) -> None:
    asyncio.run(founded(paths))
    record_parting(paths, FormerMembership.REMOVED)
    told: list[str] = []
    with pytest.raises(AgentError):
        asyncio.run(newcomer(paths).join("covey1-nonsense", "pi1", [], told.append))
    [aside] = (paths.data / "former").iterdir()
    assert (aside / "telemetry.db").is_file()
    assert told == [f"what it had in the covey that removed it, unsent readings too: {aside}"]


def test_a_token_that_is_none_changes_nothing(paths: Paths) -> None:
    before = sorted(paths.data.iterdir())
    with pytest.raises(AgentError) as caught:
        asyncio.run(newcomer(paths).join("covey1-nonsense", "pi1", [], print))
    assert caught.value.status == exits.TOKEN_UNKNOWN
    assert sorted(paths.data.iterdir()) == before


def test_who_has_left_stays_away_and_comes_back_as_itself(paths: Paths) -> None:
    async def story() -> None:
        await founded(paths)
        before = identity.load(paths.identity).node_id
        record_parting(paths, FormerMembership.STAYS_AWAY)
        assert lacking(paths) == "this node has left the covey barn"
        assert lacking(paths) == "this node has left the covey barn", "also after another start"
        with pytest.raises(AgentError, match="has left the covey barn; nothing was changed"):
            await newcomer(paths).found("loft", "pi1")
        back = await newcomer(paths).come_back()
        assert back.node_id == before
        assert newcomer(paths).lack() is None

    asyncio.run(story())


def test_there_must_be_something_to_come_back_to(paths: Paths) -> None:
    with pytest.raises(AgentError, match="has left no covey") as caught:
        asyncio.run(newcomer(paths).come_back())
    assert "token" in caught.value.hint
    asyncio.run(founded(paths))
    with pytest.raises(AgentError, match="part of the covey barn already"):
        asyncio.run(newcomer(paths).come_back())


def test_who_forgets_is_free_and_nothing_is_deleted(paths: Paths) -> None:
    asyncio.run(founded(paths))
    kept = {each.name: each.read_bytes() for each in paths.identity.iterdir()}
    record_parting(paths, FormerMembership.FORGETS)
    assert lacking(paths) == "this node belongs to no covey yet"
    [aside] = (paths.data / "former").iterdir()
    names = {each.name for each in aside.iterdir()}
    assert {"identity", "control.db", "data.db", "telemetry.db"} <= names
    assert {each.name: each.read_bytes() for each in (aside / "identity").iterdir()} == kept
    assert recorded_parting(paths) is None
    asyncio.run(founded(paths, "loft"))
    assert identity.load(paths.identity).cluster_name == "loft"


def test_a_new_covey_is_not_mended_from_what_the_former_one_left(paths: Paths) -> None:
    """Notes and copies beside the databases go where the databases go."""

    async def use() -> None:
        me = identity.load(paths.identity)
        control = await ControlStore.open(paths.control_db, me.cluster_id, me.node_id)
        records = await RecordStore.open(paths.data_db)
        assert control.database.losses == records.database.losses == []
        assert control.registry() is None
        await control.save_registry(7, b"signed")
        await records.save([HoldingChange(1, 1)])
        await control.close()
        await records.close()

    asyncio.run(founded(paths))
    asyncio.run(use())
    record_parting(paths, FormerMembership.FORGETS)
    assert lacking(paths) == "this node belongs to no covey yet"
    asyncio.run(founded(paths, "loft"))
    asyncio.run(use())


def test_forgetting_that_was_cut_off_goes_on(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(founded(paths))
    record_parting(paths, FormerMembership.FORGETS)
    rename = Path.rename

    def cut_off(self: Path, target: Path) -> Path:
        if self == paths.identity:
            raise OSError(5, "Input/output error", str(self))
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", cut_off)
        with pytest.raises(AgentError, match="identity: Input/output error"):
            set_aside(paths)
    assert paths.identity.is_dir()
    assert lacking(paths) == "this node belongs to no covey yet"
    assert not paths.identity.exists()


def test_while_an_agent_says_goodbye_its_files_stay_where_they_are(paths: Paths) -> None:
    """Whatever is asked of it meanwhile: it has them open, and goes on writing beside them."""

    async def story() -> None:
        leaving = await founded(paths)
        before = sorted(paths.data.iterdir())
        record_parting(paths, FormerMembership.FORGETS)
        lack = leaving.lack()
        assert lack is not None
        for asked in (leaving.found("loft", "pi2"), leaving.join("covey1-x", "pi2", [], print)):
            with pytest.raises(AgentError, match="is about to forget the covey barn; nothing was"):
                await asked
        assert sorted(paths.data.iterdir()) == sorted([*before, paths.parting])

    asyncio.run(story())


def test_a_clock_that_repeats_itself_overwrites_no_former_covey(paths: Paths) -> None:
    for name in ("barn", "loft", "mill"):
        asyncio.run(founded(paths, name))
        set_aside(paths, 20.0)  # after each start, where there is no clock
    aside = sorted((paths.data / "former").iterdir())
    kept = [identity.load(each / "identity").cluster_name for each in aside]
    assert kept == ["barn", "loft", "mill"]
    assert all((each / "telemetry.db").is_file() for each in aside)


def test_who_hangs_up_when_all_is_done_but_the_databases_has_arrived(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that has an identity and goes on waiting would do so until it is started anew."""
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def slow(_paths: Paths) -> bool:
        begun.set()
        await may_end.wait()
        return True

    async def story() -> None:
        monkeypatch.setattr("agent.admission.prepare_databases.prepare", slow)
        made = newcomer(paths)
        asking = asyncio.create_task(made.found("barn", "pi1"))
        await begun.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert not made.arrived.is_set(), "two must not make the databases at once"
        may_end.set()
        async with asyncio.timeout(GIVE_UP_S):
            await made.arrived.wait()

    asyncio.run(story())


def test_a_note_that_cannot_be_written_changes_nothing(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    asyncio.run(founded(paths))
    monkeypatch.setattr(former_membership, "replace_private", full)
    with pytest.raises(AgentError, match="No space left on device; this node is part of its covey"):
        record_parting(paths, FormerMembership.STAYS_AWAY)
    assert newcomer(paths).lack() is None


def test_a_damaged_note_still_means_away(paths: Paths) -> None:
    asyncio.run(founded(paths))
    paths.parting.write_bytes(b"\xff\x00")
    assert lacking(paths) == "this node has left the covey barn"


def test_an_identity_that_cannot_be_read_is_no_reason_to_wait(paths: Paths) -> None:
    paths.identity.mkdir()
    (paths.identity / "identity.json").write_text("{")
    with pytest.raises(AgentError, match="cannot be read") as caught:
        newcomer(paths).lack()
    assert caught.value.status == exits.BAD_CONFIG
