"""Twenty thousand datagrams a second at one member, from a stranger and from one of the covey.

The flooded agent reads what it can and its kernel drops the rest, real packets among it. It must
stay a member all the same, hear of a crash, and not grow. For a stranger every packet is one
failed seal; a member's packets open, and are pings that want an answer.
"""

import random
import subprocess
from collections.abc import Iterable, Iterator

import pytest

from agent.identity.identity import load
from gossip.core.envelope import Envelope
from gossip.core.ids import next_boot, parse_node_id
from gossip.core.wire import pack
from gossip.membership.model.messages import DATAGRAMS, Ping
from tests.live.harness.admitted import identity_of
from tests.live.harness.agents import AgentProcess
from tests.live.harness.chronicle import Chronicle
from tests.live.harness.fleet import Fleet
from tests.live.harness.programs import overhear, send, write_packets
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live, pytest.mark.alone]

NAMES = ("ash", "birch", "cedar", "elm", "fir")
PER_SECOND = 20_000
FLOOD_S = 8
OVERHEARD = 20
LIKE_NOISE = 10
"""Of so many packets of a stranger, one was overheard, and the others are random bytes."""
NOISE_BYTES = 120
DEAD_WITHIN_S = 12.0
"""Evidence of silence alone, with the timing of ``lan``."""
BACK_WITHIN_S = 15.0
MEMORY_GROWTH_BYTES_MAX = 32 * 2**20
DROPPED = "covey_datagrams_dropped_total"
OTHER_LIFE = 1000
"""A start of the traitor that is later than all that it made as an agent."""


@pytest.fixture(scope="module")
def five(networks: None) -> Iterator[Fleet]:
    """Give five agents; each test leaves them whole."""
    with Fleet() as fleet:
        fleet.form_admitted(*NAMES)
        yield fleet


def _count(agent: AgentProcess, family: str) -> float:
    samples = agent.counters().items()
    return sum(value for name, value in samples if name.startswith(family))


def _noise(overheard: list[bytes]) -> Iterable[bytes]:
    rng = random.Random(7)
    for number in range(PER_SECOND * FLOOD_S):
        real = number % LIKE_NOISE == 0
        yield rng.choice(overheard) if real else rng.randbytes(NOISE_BYTES)


def _pings(traitor: AgentProcess, target: AgentProcess) -> Iterable[bytes]:
    """Seal pings as a later life of the traitor would."""
    who = load(identity_of(traitor.directory))
    boot = next_boot(OTHER_LIFE, random.Random(7))
    envelope = Envelope(who.cluster_id, who.node_id, boot, who.keyring())
    wanted = parse_node_id(target.me()["id"])
    for number in range(PER_SECOND * FLOOD_S):
        yield envelope.seal(pack([DATAGRAMS.encode(Ping(number, wanted))]), 1)


def _endure(five: Fleet, flood: "subprocess.Popen[str]", absent: set[str]) -> None:
    """Let elm vanish while ash is flooded; all must find that out, and lose nobody else."""
    ash, elm = five.agents["ash"], five.agents["elm"]
    chronicle, memory = Chronicle(five), ash.rss_bytes()
    before = _count(ash, "covey_datagrams_total")
    five.network.unplug(elm.at)
    watching = [agent for agent in five.running() if agent is not elm]
    eventually(
        lambda: [agent.states()["elm"] for agent in watching],
        lambda seen: set(seen) == {"dead"},
        DEAD_WITHIN_S,
        "all miss elm, the flooded one too",
    )
    sent, _ = flood.communicate()
    assert flood.returncode == 0
    five.network.plug_in(elm.at)
    read = _count(ash, "covey_datagrams_total") - before
    growth = ash.rss_bytes() - memory
    print(f"{sent.strip()} a second came; {read:.0f} were read; {growth / 2**20:.1f} MiB more")
    assert growth < MEMORY_GROWTH_BYTES_MAX
    lost = {change.name for change in chronicle.deaths() if change.by != "elm"}
    assert lost <= {"elm", *absent}, "the flood cost the covey a member"
    assert "Traceback" not in ash.log


def test_a_stranger_floods_one_member(five: Fleet) -> None:
    ash = five.agents["ash"]
    noise = write_packets(five.folder / "noise.hex", _noise(overhear(ash.at, OVERHEARD)))
    before = _count(ash, DROPPED)
    stranger = five.network.add_host()
    _endure(five, send(stranger, ash.at, noise, PER_SECOND), absent=set())
    assert _count(ash, DROPPED) > before + PER_SECOND, "what is refused is counted"
    five.wait_formed(BACK_WITHIN_S, "all are well")


def test_a_member_floods_another(five: Fleet) -> None:
    """Fir's agent is gone, and somebody has its keys."""
    ash, fir = five.agents["ash"], five.agents["fir"]
    pings = write_packets(five.folder / "pings.hex", _pings(fir, ash))
    assert fir.stop() == 0
    before = _count(ash, "covey_messages_sent_total")
    _endure(five, send(fir.at, ash.at, pings, PER_SECOND), absent={"fir"})
    assert _count(ash, "covey_messages_sent_total") > before + PER_SECOND, "they were answered"
    # Nothing of a life counts behind its signed good-bye, so the flood brings nobody back.
    states = {**dict.fromkeys(NAMES, "alive"), "fir": "left"}
    five.wait_states(states, DEAD_WITHIN_S, "who has left stays away, whoever has its keys")
