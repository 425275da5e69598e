"""What goes first when there is no room: readings of lesser classes, and of each the oldest.

A sensor is *bulk*, *normal* or an *alarm*, by its name. Of which classes anything may be dropped is
a setting; without it nothing is, and new readings are refused. A reading never makes room for one
of a lesser class: an outbox full of alarms refuses bulk.
"""

import re
from collections.abc import Iterable, Sequence
from enum import IntEnum
from fnmatch import translate
from typing import NamedTuple

CLASSES_REMEMBERED_MAX = 10_000


class SensorClass(IntEnum):
    """How much a sensor's readings matter, the least first."""

    BULK = 0
    NORMAL = 1
    ALARM = 2

    @property
    def word(self) -> str:
        """Its name as settings and counters have it."""
        return self.name.lower()


FULL, AGE = "full", "age"
KINDS = tuple(f"{each.word}_{why}" for each in SensorClass for why in (FULL, AGE))
"""For what readings are dropped, as it is counted: class and reason."""


class EvictionRules:
    """The classes of sensors, and of which of them readings may be dropped."""

    def __init__(
        self,
        bulk: Sequence[str] = (),
        alarms: Sequence[str] = (),
        drop: Iterable[str] = (),
    ) -> None:
        self.dropped = tuple(each for each in SensorClass if each.word in set(drop))
        self._is_bulk, self._is_alarm = _matcher(bulk), _matcher(alarms)
        self._known: dict[str, SensorClass] = {}

    def class_of(self, sensor: str) -> SensorClass:
        """Return a sensor's class; what is named as both is an alarm."""
        known = self._known.get(sensor)
        if known is None:
            if len(self._known) >= CLASSES_REMEMBERED_MAX:
                self._known.clear()
            known = self._known[sensor] = self._look(sensor)
        return known

    def _look(self, sensor: str) -> SensorClass:
        if self._is_alarm and self._is_alarm.match(sensor):
            return SensorClass.ALARM
        if self._is_bulk and self._is_bulk.match(sensor):
            return SensorClass.BULK
        return SensorClass.NORMAL

    def giving_way_to(self, sensors: Iterable[str]) -> list[SensorClass]:
        """Return which classes may be dropped for readings of these, in the order in which."""
        if not self.dropped:
            return []
        most = max(map(self.class_of, sensors))
        return [each for each in self.dropped if each <= most]


class WaitingBounds(NamedTuple):
    """How much may wait: readings, bytes, and seconds since they were taken; 0 for any."""

    readings_max: int = 1_000_000
    bytes_max: int = 0
    age_max_s: float = 0.0


def _matcher(globs: Sequence[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(map(translate, globs))) if globs else None
