"""What a node tells about itself comes from four places, and each name has one giver."""

import asyncio
from pathlib import Path

import pytest

from agent import exits
from agent.cluster import fact_publisher
from agent.cluster.fact_publisher import FactPublisher
from agent.config.settings import NodeSettings
from agent.exits import AgentError
from agent.store.control import ControlStore
from gossip.core.errors import LimitExceeded
from tests.support.fake_agent import FactsInMemory

OWN = {"covey": "1.2.3", "cores": "4"}
CONFIGURED = NodeSettings(facts={"rack": "north"}, services={"web": ":80/http"})
ALWAYS = {**OWN, "rack": "north", "service/web": ":80/http"}


class Apps:
    """Apps that run when the test says so."""

    def __init__(self, **versions: str) -> None:
        self.versions = versions
        self.changed = asyncio.Event()

    def running(self) -> dict[str, str]:
        return {**self.versions}


def board(store: FactsInMemory, settings: NodeSettings = CONFIGURED) -> FactPublisher:
    return FactPublisher(OWN, settings, store, store.published.append)


def change(on: FactPublisher, drop: tuple[str, ...] = (), **give: str) -> None:
    asyncio.run(on.change(give, drop))


def test_what_is_configured_and_what_is_set_are_told_together() -> None:
    store = FactsInMemory()
    told = board(store)
    told.publish()
    change(told, litres="120", pump="off")
    change(told, drop=("pump",), litres="80")
    assert store.published == [
        ALWAYS,
        {**ALWAYS, "litres": "120", "pump": "off"},
        {**ALWAYS, "litres": "80"},
    ]
    assert told.given() == store.kept == {"litres": "80"}


def test_what_is_as_it_was_costs_nothing() -> None:
    store = FactsInMemory()
    told = board(store)
    change(told, litres="120")
    store.kept = {}
    change(told, litres="120")
    told.publish()
    assert len(store.published) == 1
    assert store.kept == {}, "and nothing is written"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("covey", "'covey' is told by the agent itself"),
        ("service/covey-api", "is told by the agent itself"),
        ("app/door", "'app/door' is told by the agent itself"),
        ("rack", r"'rack' is given by \[node\] in covey.toml"),
        ("service/web", r"is given by \[node\] in covey.toml"),
    ],
)
def test_no_other_giver_is_overridden(name: str, says: str) -> None:
    store = FactsInMemory()
    told = board(store)
    for give, drop in (({"litres": "1", name: ":1/x"}, ()), ({"litres": "1"}, (name,))):
        with pytest.raises(AgentError, match=says) as caught:
            asyncio.run(told.change(give, drop))
        assert caught.value.status == exits.NOT_PERMITTED
        assert "nothing was changed" in caught.value.message
    assert (store.published, store.kept) == ([], {})


def test_a_fact_that_was_not_set_cannot_be_dropped() -> None:
    store = FactsInMemory()
    told = board(store)
    change(told, litres="120", pump="off")
    with pytest.raises(AgentError, match="no fact called 'valve' was set here") as caught:
        change(told, drop=("litres", "valve"))
    assert (caught.value.status, caught.value.hint) == (exits.NOT_FOUND, "set are litres, pump")
    assert store.kept == {"litres": "120", "pump": "off"}


@pytest.mark.parametrize(
    ("give", "says"),
    [
        ({str(n): "" for n in range(253)}, "257 facts, and 256 are allowed"),
        ({str(n): "x" * 4096 for n in range(16)}, "bytes, of 65536 allowed"),
    ],
)
def test_limits_count_all_that_is_told(give: dict[str, str], says: str) -> None:
    store = FactsInMemory()
    told = board(store)
    with pytest.raises(LimitExceeded, match=f"{says}; nothing was changed"):
        asyncio.run(told.change(give, ()))
    assert (store.published, store.kept) == ([], {})
    del give["0"]
    asyncio.run(told.change(give, ()))
    assert store.published == [{**ALWAYS, **give}]


def test_what_cannot_be_kept_is_not_told() -> None:
    store = FactsInMemory()
    told = board(store)
    store.refusal = AgentError("the disk is full")
    with pytest.raises(AgentError, match="the disk is full"):
        change(told, litres="120")
    assert (store.published, told.given()) == ([], {})


def test_two_changes_at_once_both_hold() -> None:
    store = FactsInMemory()
    told = board(store)

    async def both() -> None:
        await asyncio.gather(told.change({"a": "1"}, ()), told.change({"b": "2"}, ()))

    asyncio.run(both())
    assert store.kept == {"a": "1", "b": "2"}


def test_a_name_that_the_configuration_takes_over_is_told_from_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = FactsInMemory()
    store.kept = {"rack": "south", "litres": "120"}
    told = board(store)
    told.publish()
    assert store.published == [{**ALWAYS, "litres": "120"}]
    assert "the fact rack, which was set here, is told otherwise now" in caplog.text
    change(told, drop=("rack",))
    assert store.kept == {"litres": "120"}
    assert len(store.published) == 1


def test_what_does_not_fit_after_an_upgrade_does_not_keep_the_agent_down(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = FactsInMemory()
    store.kept = {str(n): "" for n in range(253)}
    told = board(store)
    told.publish()
    told.publish()
    assert store.published == [ALWAYS]
    assert len(caplog.messages) == 1
    assert "`covey facts set` do not fit and are not told: 257 facts" in caplog.text
    change(told, drop=("0",))
    assert len(store.published[-1]) == 256
    assert len(caplog.messages) == 1


async def turns() -> None:
    """Let everything run that does not wait for time."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_apps_are_told_when_they_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fact_publisher, "SETTLED_S", 0)

    async def scenario() -> list[dict[str, str]]:
        store, apps = FactsInMemory(), Apps(system="1.2")
        following = asyncio.create_task(board(store).follow(apps))
        for versions in ({"system": "1.2", "door": ""}, {"system": "1.2", "door": ""}, {}):
            await turns()
            apps.versions = versions
            apps.changed.set()
        await turns()
        following.cancel()
        return store.published

    assert asyncio.run(scenario()) == [
        {**ALWAYS, "app/system": "1.2"},
        {**ALWAYS, "app/system": "1.2", "app/door": ""},
        ALWAYS,
    ]


def test_an_app_is_not_told_of_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fact_publisher, "SETTLED_S", 3600)

    async def scenario() -> list[dict[str, str]]:
        store, apps = FactsInMemory(), Apps()
        following = asyncio.create_task(board(store).follow(apps))
        await turns()
        apps.versions = {"door": ""}
        apps.changed.set()
        await turns()
        following.cancel()
        return store.published

    assert asyncio.run(scenario()) == [ALWAYS]


def test_what_was_set_is_on_disk(tmp_path: Path) -> None:
    async def life(*facts: tuple[str, str]) -> dict[str, str]:
        store = await ControlStore.open(tmp_path / "control.db", bytes(16), 1)
        try:
            told = FactPublisher(OWN, NodeSettings(), store, lambda _facts: None)
            await told.change(dict(facts), ())
            return told.given()
        finally:
            await store.close()

    assert asyncio.run(life(("litres", "120"), ("room", "dach\n"))) == {
        "litres": "120",
        "room": "dach\n",
    }
    assert asyncio.run(life()) == {"litres": "120", "room": "dach\n"}
