"""Shared keys while all goes wrong around them: a journal of the clients' own tells what must be.

Five devices, and clients at each that write, replace, delete, count and read. What was acknowledged
is there afterwards, or what replaced it; what was deleted is not back; lists are complete; and so
it was in each read that a client made meanwhile.
"""

import shutil
from collections.abc import Iterator

import pytest

from tests.live.harness.agents import AgentProcess
from tests.live.harness.fleet import LOCAL_TOML, Fleet
from tests.live.harness.kv_load import KvLoad
from tests.live.harness.small_disk import fill, fill_to, small_disk
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live]

NAMES = ("ash", "birch", "cedar", "elm", "fir")
SMALL_DISK, SMALL_DISK_MEBIBYTES = "cedar", 64
NEARLY_PERCENT = 97
SETTLED_WITHIN_S = 30.0
BACK_WITHIN_S = 20.0
WRITES = 40
LIVES = 2
"""So many starts after the copy was made: then the others surely know a later life (ADR 34)."""


@pytest.fixture(scope="module")
def five(networks: None) -> Iterator[Fleet]:
    """Give five agents, one of them on a small disk; each test leaves them whole."""
    with Fleet() as fleet, small_disk(fleet.folder / SMALL_DISK, SMALL_DISK_MEBIBYTES):
        fleet.form_admitted(*NAMES, toml=LOCAL_TOML)
        fleet.wait_settled(SETTLED_WITHIN_S, "all own their share")
        yield fleet


def _agents(fleet: Fleet, *names: str) -> list[AgentProcess]:
    return [fleet.agents[name] for name in names]


def _whole(fleet: Fleet) -> None:
    fleet.wait_formed(BACK_WITHIN_S, "one covey again")
    fleet.wait_settled(SETTLED_WITHIN_S, "every key is with its owners")


def test_owners_are_killed_and_frozen(five: Fleet) -> None:
    ash, birch, cedar, elm, fir = _agents(five, *NAMES)
    with KvLoad((ash, birch, cedar, elm, fir)) as load:
        for gone in ((birch,), (elm, cedar)):
            for agent in gone:
                agent.kill()
            load.wait_progress(WRITES, "while owners are dead")
            for agent in gone:
                agent.start()
            load.wait_progress(WRITES, "while they come back")
        fir.pause()
        load.wait_progress(WRITES, "while one is frozen")
        fir.resume()
        load.wait_progress(WRITES, "while it thaws")
    _whole(five)
    load.check(ash, fir)


def test_the_net_falls_apart(five: Fleet) -> None:
    """Some keys have most of their owners on one side, some on the other."""
    agents = _agents(five, *NAMES)
    west, east = agents[:2], agents[2:]
    with KvLoad(agents) as load:
        for one in west:
            for other in east:
                five.network.drop(one.at, other.at)
                five.network.drop(other.at, one.at)
        load.wait_progress(WRITES, "while there are two halves")
        five.network.pass_all()
        load.wait_progress(WRITES, "while they find each other")
        five.network.drop(agents[2].at, agents[3].at)
        load.wait_progress(WRITES, "while one does not hear another one")
        five.network.pass_all()
    _whole(five)
    load.check(agents[0], agents[-1])


def test_the_disk_of_one_is_full(five: Fleet) -> None:
    agents = _agents(five, *NAMES)
    full = five.agents[SMALL_DISK]
    with KvLoad(agents) as load:
        nearly = fill_to(full.directory, NEARLY_PERCENT, "nearly")
        eventually(
            lambda: full.counters()["covey_kv_puts_limited"], bool, BACK_WITHIN_S,
            "it takes no puts",
        )  # fmt: skip
        load.wait_progress(WRITES, "while a disk is nearly full")
        filling = fill(full.directory)
        eventually(
            lambda: full.api.get("/api/v1/status")["ready"], lambda ready: not ready,
            BACK_WITHIN_S, "it says that its disk is full",
        )  # fmt: skip
        load.wait_progress(WRITES, "while a disk is full")
        full.kill()
        filling.unlink()
        nearly.unlink()
        full.start()
        load.wait_progress(WRITES, "after there is room again")
    _whole(five)
    load.check(full, agents[0])


def test_one_is_set_back_to_an_earlier_copy_of_its_disk(five: Fleet) -> None:
    """It does not know at first what it has acknowledged: it is told, and then compares.

    Until then a read of which it is one of two owners may miss what it has lost; so the reads of
    the clients are not judged, and they delete nothing, which is by what a read has found.
    """
    agents = _agents(five, *NAMES)
    elm = five.agents["elm"]
    elm.stop()
    shutil.copytree(elm.directory / "data", elm.directory / "copy")
    with KvLoad(agents, deletes=False) as load:
        for _ in range(LIVES):
            elm.start()
            load.wait_progress(WRITES, "of which the copy knows nothing")
            elm.kill()
        shutil.rmtree(elm.directory / "data")
        (elm.directory / "copy").rename(elm.directory / "data")
        said = len(elm.log)
        elm.start()
        eventually(
            lambda: elm.log[said:], lambda log: "a later start of this node" in log,
            BACK_WITHIN_S, "it is told",
        )  # fmt: skip
        load.wait_progress(WRITES, "while it compares")
    _whole(five)
    load.check(elm, agents[0], reads=False)


def test_nodes_come_and_go(five: Fleet) -> None:
    agents = _agents(five, *NAMES)
    ash, fir = agents[0], agents[-1]
    with KvLoad(agents) as load:
        oak = five.add("oak", toml=LOCAL_TOML)
        oak.must("join", five.token(ash), "--node-name", "oak")
        oak.start()
        ash.must("node", "drain", "fir", "--wait", "--timeout", "150s", timeout_s=180.0)
        load.wait_progress(WRITES, "after one came and one gave all away")
        ash.must("node", "undrain", "fir")
        load.wait_progress(WRITES, "while it takes its share again")
    load.check(oak, fir)  # the owners still change
    _whole(five)
