"""Built-in app ``sensor_sim``: a greenhouse that does not exist, for demos and dashboards.

Five sensors that behave as real ones do together: the sun warms the house and lights it,
warmth dries the air, plants take up carbon dioxide by day and give it off by night, the soil
dries with the warmth until somebody waters it. The noise is smooth and small, not white.

Everything is a function of the seed and the time, without memory: a greenhouse that was
switched off for a night shows in the morning what it would have shown, two apps with the same
seed agree, and a test can ask for any moment.

Options in ``[apps.sensor_sim.options]``: ``seed`` (the app's name by default, different on each
node if you want different houses), ``prefix = "greenhouse"``.
"""

import math
import random
from typing import NamedTuple

from edge_apps.app import App, Context

DAY_S = 86_400.0
SUNRISE, SUNSET = 0.25, 0.83  # of the day, UTC: 06:00 and about 20:00

app = App("sensor_sim")


@app.every("5s")
def sample(context: Context) -> None:
    """Publish what the five sensors show now."""
    if "greenhouse" not in context.scratch:
        seed = str(context.options.get("seed", context.name))
        context.scratch["greenhouse"] = Greenhouse(seed)
    prefix = context.options.get("prefix", "greenhouse")
    climate = context.scratch["greenhouse"].at(context.time())
    for sensor, unit in UNITS.items():
        context.publish(f"{prefix}/{sensor}", getattr(climate, sensor), unit=unit)


class Climate(NamedTuple):
    """What the sensors show at one moment, rounded to what such sensors resolve."""

    temperature: float
    humidity: float
    soil_moisture: float
    light: float
    co2: float


UNITS = {
    "temperature": "C",
    "humidity": "%",
    "soil_moisture": "%",
    "light": "lx",
    "co2": "ppm",
}


class Wobble:
    """Smooth noise around 0: a few sine waves with periods and phases drawn from ``rng``.

    Its standard deviation is ``strength``; it never exceeds about three times that.
    """

    WAVES = 6

    def __init__(self, rng: random.Random, strength: float, period_s: float) -> None:
        # n sines of amplitude a have the variance n * a^2 / 2.
        self._amplitude = strength * math.sqrt(2 / self.WAVES)
        self._waves = [
            (math.tau / (period_s * rng.uniform(0.3, 3.0)), rng.uniform(0, math.tau))
            for _ in range(self.WAVES)
        ]

    def at(self, time_s: float) -> float:
        """Return the noise at a Unix time."""
        return self._amplitude * sum(math.sin(w * time_s + phase) for w, phase in self._waves)


class Greenhouse:
    """A small greenhouse in June, in the middle of Europe."""

    def __init__(self, seed: str) -> None:
        rng = random.Random(seed)
        self._mean_c = rng.uniform(19.0, 23.0)
        self._watering_s = rng.uniform(1.5, 3.0) * DAY_S
        self._watering_phase_s = rng.uniform(0, self._watering_s)
        self._weather = Wobble(rng, 1.0, 2 * DAY_S)
        self._clouds = Wobble(rng, 1.0, 1_800)
        self._draught = Wobble(rng, 0.25, 600)
        self._sensors = {name: Wobble(rng, 1.0, 90) for name in UNITS}

    def at(self, time_s: float) -> Climate:
        """Return what the sensors show at a Unix time."""
        sun = self._sun(time_s)
        # The house follows the sun an hour and a half late: glass warms fast, soil slowly.
        warmth = self._sun(time_s - 5_400)
        celsius = self._mean_c - 4 + 10 * warmth + 1.5 * self._weather.at(time_s)
        celsius += self._draught.at(time_s)
        dryness = self._dryness(time_s)
        humidity = 95 - 2.1 * (celsius - 12) - 8 * dryness
        co2 = 520 - 140 * sun + 90 * (1 - warmth) + 15 * self._draught.at(time_s)
        return Climate(
            temperature=round(celsius + 0.05 * self._noise("temperature", time_s), 2),
            humidity=round(_within(humidity + 0.4 * self._noise("humidity", time_s), 20, 100), 1),
            soil_moisture=round(44 - 20 * dryness + 0.2 * self._noise("soil_moisture", time_s), 1),
            light=round(max(0.0, 45_000 * sun * (1 + 0.01 * self._noise("light", time_s)))),
            co2=round(_within(co2 + 4 * self._noise("co2", time_s), 380, 900)),
        )

    def _sun(self, time_s: float) -> float:
        """Return 0 at night and up to 1 at noon, less under clouds."""
        day = (time_s % DAY_S) / DAY_S
        if not SUNRISE < day < SUNSET:
            return 0.0
        height = math.sin(math.pi * (day - SUNRISE) / (SUNSET - SUNRISE))
        return height * _within(0.8 + 0.2 * self._clouds.at(time_s), 0.25, 1.0)

    def _dryness(self, time_s: float) -> float:
        """Return 0 right after watering, nearly 1 right before the next."""
        passed = (time_s + self._watering_phase_s) % self._watering_s
        # Watering takes ten minutes; drying is fast at first.
        wet = min(1.0, passed / 600)
        drying = math.sqrt(passed / self._watering_s)
        return drying if wet == 1.0 else 1.0 - wet * (1.0 - drying)

    def _noise(self, sensor: str, time_s: float) -> float:
        return self._sensors[sensor].at(time_s)


def _within(value: float, lowest: float, highest: float) -> float:
    return min(highest, max(lowest, value))
