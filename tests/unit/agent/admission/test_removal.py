"""A node that reads that it was removed: what it writes down, and what it deletes and keeps."""

import asyncio
from pathlib import Path

import pytest

from agent.admission.former_membership import (
    REMOVED_KEPT_S,
    FormerMembership,
    discard_removed,
    record_parting,
    record_removal,
    recorded_parting,
    wipe,
)
from agent.admission.newcomer import Newcomer
from agent.admission.removal import Removal
from agent.config.loader import Config
from agent.config.paths import Paths
from agent.exits import AgentError
from agent.identity.identity import Identity, load
from gossip.kv.requests import RegistryAdopted
from gossip.registry.node import RegisteredNode
from gossip.registry.ownership import Ownership
from gossip.registry.registry import Registry, admit, remove, replace
from tests.support.kv_net import node, registry_of
from tests.support.patience import GIVE_UP_S


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = Paths(tmp_path / "config.toml", tmp_path / "data", tmp_path / "run")
    found.create()
    return found


def founded(paths: Paths) -> Identity:
    asyncio.run(Newcomer(Config(), paths).found("barn", "pi1"))
    paths.fleet_settings.write_text("{}")
    return load(paths.identity)


def held(paths: Paths) -> list[bool]:
    kept = (paths.data_db, paths.consensus_db, paths.fleet_settings)
    return [bool(list(paths.data.glob(f"{each.name}*"))) for each in kept]


def told(paths: Paths, who: Identity, registry: Registry) -> None:
    """Let this node read that registry, and start again."""

    async def story() -> None:
        ended = asyncio.Event()
        removal = Removal(who, paths, ended.set)
        removal.on_event(RegistryAdopted(b"", registry))
        await asyncio.wait_for(ended.wait(), GIVE_UP_S)

    asyncio.run(story())
    Newcomer(Config(), paths).forget()


def settled_with(who: Identity) -> Registry:
    """Return a registry in which this node and three others own all, for long."""
    registry = registry_of([1, 2, 3], 8)
    registry = admit(registry, RegisteredNode(who.node_id, "pi1"))
    table = tuple(Ownership(each.target, 1) for each in registry.table)
    return Registry(registry.cluster_id, 5, 8, 3, registry.nodes, table)


def test_who_was_removed_deletes_what_it_held_and_keeps_its_own(
    paths: Paths, caplog: pytest.LogCaptureFixture
) -> None:
    who = founded(paths)
    assert held(paths) == [True, True, True]
    told(paths, who, remove(settled_with(who), who.node_id))
    assert held(paths) == [False, False, False]
    assert recorded_parting(paths) is FormerMembership.REMOVED
    assert "its copies of shared keys are deleted after a day" in caplog.text
    assert paths.telemetry_db.is_file()
    assert paths.control_db.is_file()
    assert load(paths.identity).node_name == "pi1"
    assert not paths.wipe_mark.exists()
    assert not wipe(paths), "once is enough"


def test_who_was_replaced_deletes_what_it_held(paths: Paths) -> None:
    who = founded(paths)
    told(paths, who, replace(settled_with(who), who.node_id, node(9)))
    assert held(paths) == [False, False, False]


def test_what_may_be_nowhere_else_is_kept(paths: Paths, caplog: pytest.LogCaptureFixture) -> None:
    who = founded(paths)
    registry = admit(registry_of([1], 8), RegisteredNode(who.node_id, "pi1"))
    alone = tuple(Ownership((who.node_id,), 1) for _ in registry.table)
    registry = Registry(registry.cluster_id, 5, 8, 3, registry.nodes, alone)
    told(paths, who, remove(registry, who.node_id, accept_loss=True))
    assert held(paths) == [True, True, True]
    assert "may be nowhere else, so all of it is kept" in caplog.text


def test_who_was_removed_by_a_version_that_said_nothing_keeps_all(paths: Paths) -> None:
    who = founded(paths)
    registry = remove(settled_with(who), who.node_id)
    [gone] = registry.removed
    told(paths, who, Registry(registry.cluster_id, 6, 8, 3, registry.nodes, registry.table, ()))
    assert held(paths) == [True, True, True]
    assert gone.spared


def test_a_wipe_that_was_cut_off_goes_on_at_the_next_start(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    founded(paths)
    record_removal(paths, wipes=True)
    unlink = Path.unlink

    def fail(path: Path, *, missing_ok: bool = False) -> None:
        if path.name.startswith("consensus.db"):
            raise OSError(5, "Input/output error", str(path))
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fail)
        with pytest.raises(AgentError, match="Input/output error"):
            wipe(paths)
    assert paths.wipe_mark.exists()
    assert wipe(paths)
    assert held(paths) == [False, False, False]


@pytest.mark.parametrize("parting", [None, FormerMembership.STAYS_AWAY])
def test_nobody_deletes_anything_who_was_not_removed(
    paths: Paths, parting: FormerMembership | None
) -> None:
    """The mark alone, of a removal that was cut off before it was written down, does nothing."""
    founded(paths)
    paths.wipe_mark.touch()
    if parting is not None:
        record_parting(paths, parting)
    assert not wipe(paths)
    assert held(paths) == [True, True, True]


def test_its_copies_of_shared_keys_are_there_for_a_day(paths: Paths) -> None:
    who = founded(paths)
    data = paths.data_db.read_bytes()
    told(paths, who, remove(settled_with(who), who.node_id))
    assert (paths.removed / "data.db").read_bytes() == data
    assert paths.removed.stat().st_mode & 0o777 == 0o700
    lack = Newcomer(Config(), paths).lack()
    assert lack is not None
    assert "`covey salvage` writes out the shared keys" in lack.hint
    now_s = paths.removed.stat().st_mtime
    for early in (now_s - 1e9, now_s, now_s + REMOVED_KEPT_S - 1):
        assert not discard_removed(paths, early)
    assert paths.removed.is_dir()
    assert discard_removed(paths, now_s + REMOVED_KEPT_S)
    assert not paths.removed.exists()
    assert not discard_removed(paths, now_s + REMOVED_KEPT_S), "once is enough"
    lack = Newcomer(Config(), paths).lack()
    assert lack is not None
    assert "salvage" not in lack.hint
