"""Shows on stderr that something takes its time, to whoever waits for it at a terminal."""

import sys
import time
from collections.abc import Callable
from typing import Self

import click

PATIENCE_S = 1.0
"""What takes no longer shows no progress."""
PROGRESS_COLUMNS = 30
REDRAW_S = 0.1


class Progress:
    """A bar on stderr, for whoever waits longer than a second at a terminal."""

    def __init__(self, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._is_wanted = sys.stderr.isatty() and not quiet
        self._draws_at = clock() + PATIENCE_S
        self._is_drawn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_drawn:
            click.echo("\r\x1b[K", nl=False, err=True)

    def show(self, done: float) -> None:
        """Draw how much is done, from 0 to 1."""
        if not self._is_wanted or self._clock() < self._draws_at:
            return
        self._draws_at = self._clock() + REDRAW_S
        self._is_drawn = True
        bar = "#" * round(done * PROGRESS_COLUMNS)
        click.echo(f"\r[{bar:<{PROGRESS_COLUMNS}}] {done:4.0%}", nl=False, err=True)
