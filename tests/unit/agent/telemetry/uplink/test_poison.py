"""Quarantine beside a model of outbox and broker: what is bad is found, what is good goes on."""

import itertools
import random
from collections import defaultdict
from typing import Literal, NamedTuple

import pytest

from agent.telemetry.uplink import reason_codes
from agent.telemetry.uplink.poison import (
    DEATHS_MAX,
    TRANSITIONS,
    Event,
    PoisonDetector,
    PoisonPhase,
)

Kind = Literal["good", "kills", "refused"]
WINDOW = 20


class Item(NamedTuple):
    sensor: str
    kind: Kind = "good"


class Model:
    """An outbox, a pump without time, and a broker that answers in order until it dies."""

    def __init__(self, items: list[Item]) -> None:
        self.items: dict[int, Item] = {}
        self.waiting: dict[int, None] = {}  # positions, in order
        self.quarantine = PoisonDetector()
        self.delivered: list[int] = []
        self.newest: dict[str, int] = {}  # the newest delivered, by sensor
        self.buried: dict[int, str] = {}
        self.deaths = 0
        self.out_of_order = 0
        self.broken = False  # the broker kills everything
        self.glitches: list[int] = []  # connections that die of themselves: after so many answers
        self.add(*items)

    def add(self, *items: Item) -> None:
        new = dict(enumerate(items, len(self.items) + 1))
        self.items.update(new)
        self.waiting.update(dict.fromkeys(new))

    def step(self) -> bool:
        """Run one round: send a window, take the answers. Tell whether anything was sent."""
        quarantine = self.quarantine
        if quarantine.trial_is_due:
            quarantine.begin_trial()
        batch: list[int] = []
        for position in self.waiting:
            if len(batch) >= quarantine.window(WINDOW):
                break
            if not quarantine.passes_over(position, self.items[position].sensor):
                batch.append(position)
                quarantine.sent(position, self.items[position].sensor)
        if not batch:
            return quarantine.exhausted()
        self._answer(batch)
        return True

    def _answer(self, batch: list[int]) -> None:
        refused: list[int] = []
        glitch = self.glitches.pop(0) if self.glitches else len(batch)
        for index, position in enumerate(batch):
            kind = self.items[position].kind
            if self.broken or kind == "kills" or index >= glitch:
                self.deaths += 1
                self._bury(self.quarantine.lost([*refused, *batch[index:]], reason_codes.SILENCE))
                return
            if kind == "refused":
                refused.append(position)
                self._bury(self.quarantine.refused(position, reason_codes.NOT_AUTHORIZED))
            else:
                self._deliver(position)
        if refused:
            self.quarantine.drained(refused)

    def _deliver(self, position: int) -> None:
        sensor = self.items[position].sensor
        self.out_of_order += self.newest.get(sensor, 0) > position
        self.newest[sensor] = position
        self.delivered.append(position)
        del self.waiting[position]
        self.quarantine.delivered(position)

    def _bury(self, burials: list[tuple[int, str]]) -> None:
        for position, reason in burials:
            self.buried[position] = reason
            del self.waiting[position]


def settle(model: Model, steps_max: int = 20_000) -> None:
    """Run, with a good reading of a sensor of its own now and then, until only those are left."""
    first = len(model.items)
    for _ in range(steps_max):
        if next(iter(model.waiting), first + 1) > first:
            return
        if not model.step():
            model.add(Item("fresh"))
            if model.quarantine.phase is PoisonPhase.BEYOND and not model.step():
                model.quarantine.begin_anew()
    raise AssertionError(f"not settled: {list(model.waiting)[:5]}, {model.quarantine.phase}")


def bad(model: Model) -> set[int]:
    return {position for position, item in model.items.items() if item.kind != "good"}


@pytest.mark.parametrize("kind", ["kills", "refused"])
@pytest.mark.parametrize("sensors", [1, 30])
@pytest.mark.parametrize("count", [1, 30, 300])
def test_the_bad_at_the_head_hold_up_the_good_for_as_many_deaths_as_they_have_sensors(
    kind: Kind, sensors: int, count: int
) -> None:
    model = Model([Item(f"bad/{n % sensors}", kind) for n in range(count)])
    model.add(*(Item("good") for _ in range(100)))
    while not model.delivered:
        assert model.step()
    assert model.deaths <= min(sensors, count) + 4
    settle(model)
    assert set(model.buried) == bad(model)
    assert model.out_of_order == 0
    assert model.deaths <= (DEATHS_MAX + 1) * count + 4


@pytest.mark.parametrize("seed", range(30))
def test_any_mixture_is_sorted_out(seed: int) -> None:
    rng = random.Random(seed)
    kinds: list[Kind] = ["kills"] * rng.randint(0, 30)
    kinds += ["refused"] * rng.randint(0, 30)
    kinds += ["good"] * rng.randint(1, 300)
    rng.shuffle(kinds)
    model = Model([Item(f"s/{rng.randrange(8)}", kind) for kind in kinds])
    settle(model)
    assert set(model.buried) == bad(model)


@pytest.mark.parametrize("seed", range(10))
def test_a_network_that_ends_connections_makes_no_dead_letters_and_keeps_the_order(
    seed: int,
) -> None:
    rng = random.Random(seed)
    model = Model([Item(f"s/{n % 5}") for n in range(500)])
    # Every death but the last of a pair leaves something through: no reading is alone twice.
    model.glitches = [rng.choice([0, 1, 5, 19]) if n % 2 else 20 for n in range(200)]
    settle(model)
    assert not model.buried
    assert model.out_of_order == 0


def test_a_broker_that_kills_everything_makes_no_dead_letters() -> None:
    model = Model([Item(f"s/{n % 7}") for n in range(200)])
    model.broken = True
    for _ in range(500):
        if not model.step():
            model.quarantine.begin_anew()
    assert not model.buried
    assert len(model.quarantine._deaths) <= 200
    model.broken = False
    model.deaths = 0
    settle(model)
    assert not model.buried
    assert model.deaths == 0


def test_a_lone_killer_waits_for_another_reading_that_passes() -> None:
    model = Model([Item("bad", "kills")])
    for _ in range(100):
        if not model.step():
            model.quarantine.begin_anew()
    assert not model.buried
    model.add(Item("good"))
    settle(model)
    assert set(model.buried) == {1}
    assert "ends the connection" in model.buried[1]


def test_a_bad_reading_among_good_ones_of_its_sensor_is_found() -> None:
    items = [Item("t")] * 50 + [Item("t", "kills")] * 3 + [Item("t")] * 100
    model = Model(items)
    settle(model)
    assert set(model.buried) == bad(model)
    assert model.deaths < 30


@pytest.mark.parametrize("kind", ["kills", "refused"])
@pytest.mark.parametrize("name", ["bad", "bad{n}"])
def test_who_publishes_poison_for_ever_holds_nobody_up(kind: Kind, name: str) -> None:
    """Also under a new name each time, and faster than the connections come back."""
    model = Model([])
    for n in range(300):
        model.add(Item(name.format(n=n), kind), *(Item(f"good{i}") for i in range(10)))
        deaths = model.deaths
        for _ in range(20):  # what one connection delivers before the next poison comes
            if model.deaths > deaths or not model.waiting or not model.step():
                break
        good = sum(model.items[position].kind == "good" for position in model.waiting)
        assert good <= 20 * WINDOW, "what waits does not grow with what has come"
    assert model.out_of_order == 0
    assert len(model.buried) > 50, "and what is bad is found, one after the other"


def test_what_is_kept_does_not_grow_with_what_went_through() -> None:
    model = Model([])
    for n in range(40):
        model.add(*(Item(f"s/{n}/{k}", "kills" if k == 7 else "good") for k in range(20)))
        settle(model)
    while model.step():
        pass
    kept = model.quarantine
    assert kept.phase is PoisonPhase.NORMAL
    assert kept._deaths == kept._refusals == kept._sensor_of == {}
    assert kept._shunned == set()


def test_the_window_shrinks_fast_and_recovers() -> None:
    quarantine = PoisonDetector()
    assert quarantine.window(20) == 20
    quarantine.lost(list(range(1, 65)), reason_codes.SILENCE)
    assert quarantine.window(100) == 8
    quarantine.lost(list(range(1, 9)), reason_codes.SILENCE)
    assert quarantine.window(100) == 1
    for position in range(1, 64):
        quarantine.delivered(position)
        assert quarantine.window(100) == 1
    quarantine.delivered(64)
    assert quarantine.window(100) == 100


def test_urgent_until_it_is_surely_the_broker() -> None:
    quarantine = PoisonDetector()
    assert not quarantine.is_urgent
    told = []
    for _ in range(100):
        quarantine.lost([1], reason_codes.SILENCE)
        told.append(quarantine.is_urgent)
    assert told[0]
    assert not told[-1]
    quarantine.delivered(1)
    assert not quarantine.is_urgent


def test_every_phase_can_be_left() -> None:
    leaves = defaultdict(set)
    for (phase, _), then in TRANSITIONS.items():
        leaves[phase].add(then)
    assert set(leaves) == set(PoisonPhase)
    assert {event for _, event in TRANSITIONS} == set(Event)
    for start, end in itertools.permutations(PoisonPhase, 2):
        seen, todo = {start}, [start]
        while todo:
            new = leaves[todo.pop()] - seen
            seen |= new
            todo += new
        assert end in seen
