"""Readings that an outbox accepts, for the tests of what becomes of them."""

from typing import Any

from edge_apps.reading import Checked, Reading, check


def checked(*fields: Any, **named: Any) -> Checked:
    """Return a reading, made as ``Reading`` is, that was checked. Raises BadReading."""
    return check(Reading(*fields, **named))
