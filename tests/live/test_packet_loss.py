"""Nine members on a bad network: nobody who is well is declared dead, and who is not, is found.

Nine are the hardest number for protocols whose effort grows with the logarithm of it: at 30 % loss
Serf loses 43 members per node and hour, which would be six in the minute that is looked at here.
"""

import time
from collections.abc import Iterator

import pytest

from tests.live.harness.agents import AgentProcess
from tests.live.harness.chronicle import Chronicle
from tests.live.harness.fleet import Fleet
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live]

NAMES = ("ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak")
LOSS_PERCENT, LOSS_FOR_S = 30, 60.0
HARD_OF_HEARING_PERCENT, HARD_OF_HEARING_FOR_S = 60, 15.0
BURSTS, BURST_S, CALM_S = 3, 2.0, 4.0
DEAD_WITHIN_S = 15.0
BACK_WITHIN_S = 15.0


@pytest.fixture(scope="module")
def whole(networks: None) -> Iterator[Fleet]:
    """Give nine agents with the timing of ``lan``."""
    with Fleet() as fleet:
        fleet.form_admitted(*NAMES)
        yield fleet


@pytest.fixture
def nine(whole: Fleet) -> Iterator[Fleet]:
    """Give the nine, all well; the test may spoil the network and leave it so."""
    yield whole
    whole.network.pass_all()
    whole.wait_formed(BACK_WITHIN_S, "all alive")


def _lost_probes(*agents: AgentProcess) -> float:
    return sum(agent.counters().get('covey_probes_total{kind="lost"}', 0.0) for agent in agents)


def _relayed_probes(agent: AgentProcess) -> float:
    """Return how often it had to ask others, because its own pings were not answered in time."""
    return agent.counters().get('covey_probes_total{kind="relayed"}', 0.0)


def test_loss_kills_nobody_and_hides_no_crash(nine: Fleet) -> None:
    chronicle, before = Chronicle(nine), _lost_probes(*nine.running())
    nine.network.lose(LOSS_PERCENT)
    time.sleep(LOSS_FOR_S)
    assert not chronicle.deaths()
    felt = _lost_probes(*nine.running()) - before
    print(f"{felt:.0f} probes lost, {len(chronicle.accusations())} times somebody was suspected")
    assert felt > 0, "the loss was not felt"

    # Its host goes as well: nobody says that it is gone, and only silence tells.
    oak = nine.agents["oak"]
    nine.network.unplug(oak.at)
    oak.kill()
    expected = {**dict.fromkeys(NAMES, "alive"), "oak": "dead"}
    nine.wait_states(expected, DEAD_WITHIN_S, "all miss oak in spite of the loss")
    assert {change.name for change in chronicle.deaths()} == {"oak"}
    nine.network.plug_in(oak.at)
    oak.start()
    nine.wait_formed(BACK_WITHIN_S, "oak is back in spite of the loss")


def test_loss_in_one_direction(nine: Fleet) -> None:
    """Elm hears two packets of five; all that it says is heard."""
    elm, chronicle = nine.agents["elm"], Chronicle(nine)
    before = _relayed_probes(elm)
    nine.network.drop(target=elm.at, percent=HARD_OF_HEARING_PERCENT)
    time.sleep(HARD_OF_HEARING_FOR_S)
    assert not chronicle.deaths()
    eventually(
        lambda: _relayed_probes(elm), lambda now: now > before, BACK_WITHIN_S, "elm hears badly"
    )


def test_bursts(nine: Fleet) -> None:
    """A microwave oven: for two seconds nothing passes at all, and then everything again."""
    chronicle, before = Chronicle(nine), _lost_probes(*nine.running())
    for _ in range(BURSTS):
        nine.network.lose(100)
        time.sleep(BURST_S)
        nine.network.pass_all()
        time.sleep(CALM_S)
    assert not chronicle.deaths()
    assert _lost_probes(*nine.running()) > before, "the bursts were felt"
