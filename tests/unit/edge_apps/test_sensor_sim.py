"""The greenhouse that does not exist has to behave like one."""

import itertools
import statistics

from edge_apps.builtin import sensor_sim
from edge_apps.builtin.sensor_sim import DAY_S, UNITS, Greenhouse
from edge_apps.testing import AppHarness

MIDNIGHT = 1_750_118_400.0  # 2025-06-17, 00:00 UTC
WEEK = [MIDNIGHT + 600 * n for n in range(7 * 144)]


def correlation(a: list[float], b: list[float]) -> float:
    return statistics.correlation(a, b)


def test_the_seed_decides() -> None:
    assert Greenhouse("a").at(MIDNIGHT) == Greenhouse("a").at(MIDNIGHT)
    assert Greenhouse("a").at(MIDNIGHT) != Greenhouse("b").at(MIDNIGHT)


def test_every_value_is_one_that_such_a_sensor_could_show() -> None:
    for seed in "abcdefgh":
        house = Greenhouse(seed)
        for climate in map(house.at, WEEK):
            assert 0 < climate.temperature < 45
            assert 20 <= climate.humidity <= 100
            assert 15 < climate.soil_moisture < 50
            assert 0 <= climate.light < 60_000
            assert 380 <= climate.co2 <= 900


def test_days_differ_from_nights() -> None:
    house = Greenhouse("a")
    noons = [house.at(MIDNIGHT + DAY_S * n + 13 * 3600) for n in range(7)]
    nights = [house.at(MIDNIGHT + DAY_S * n + 3 * 3600) for n in range(7)]
    assert all(climate.light == 0 for climate in nights)
    assert all(climate.light > 5_000 for climate in noons)
    assert min(c.temperature for c in noons) > statistics.mean(c.temperature for c in nights)
    assert max(c.co2 for c in noons) < statistics.mean(c.co2 for c in nights)


def test_the_sensors_agree_with_each_other() -> None:
    week = [Greenhouse("a").at(moment) for moment in WEEK]
    warmth = [climate.temperature for climate in week]
    assert correlation(warmth, [climate.humidity for climate in week]) < -0.5
    assert correlation(warmth, [climate.light for climate in week]) > 0.5


def test_the_soil_dries_slowly_and_is_watered_at_once() -> None:
    moisture = [Greenhouse("a").at(moment).soil_moisture for moment in WEEK]
    steps = [after - before for before, after in itertools.pairwise(moisture)]
    assert statistics.median(steps) < 0
    rising = [step > 3 for step in steps]  # one watering may fall into two of the samples
    waterings = sum(now and not before for before, now in itertools.pairwise([False, *rising]))
    assert 2 <= waterings <= 5


def test_neighbouring_moments_are_alike() -> None:
    house = Greenhouse("a")
    for moment in WEEK[::50]:
        one, other = house.at(moment), house.at(moment + 5)
        assert abs(one.temperature - other.temperature) < 0.3
        assert abs(one.co2 - other.co2) < 15


def test_the_app_publishes_all_five() -> None:
    harness = AppHarness(sensor_sim.app, {"seed": 7, "prefix": "house/2"})
    harness.run(20)
    assert {r.sensor for r in harness.published} == {f"house/2/{name}" for name in UNITS}
    assert len(harness.published) == 4 * len(UNITS)
    assert {r.unit for r in harness.published} == set(UNITS.values())
