"""Shows on stderr that something takes its time, to whoever waits for it at a terminal."""

import shutil
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

import click

from agent.text.escaping import one_line, shortened

if TYPE_CHECKING:
    from threading import Thread

PATIENCE_S = 1.0
"""What takes no longer shows no progress."""
PROGRESS_COLUMNS = 30
REDRAW_S = 0.1
TICK_S = 0.5
CLEAR_LINE = "\r\x1b[K"
TIME_COLUMNS = 12


def somebody_watches() -> bool:
    """Say whether stderr is a terminal."""
    return sys.stderr.isatty()


class Progress:
    """A bar on stderr, for whoever waits longer than a second at a terminal."""

    def __init__(self, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.is_wanted = somebody_watches() and not quiet
        """Whether somebody sees it."""
        self._draws_at = clock() + PATIENCE_S
        self._is_drawn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_drawn:
            click.echo(CLEAR_LINE, nl=False, err=True, color=True)

    def show(self, done: float) -> None:
        """Draw how much is done, from 0 to 1."""
        if not self.is_wanted or self._clock() < self._draws_at:
            return
        self._draws_at = self._clock() + REDRAW_S
        self._is_drawn = True
        click.echo(f"\r{self._line(done)}", nl=False, err=True, color=True)

    def _line(self, done: float) -> str:
        bar = "#" * round(done * PROGRESS_COLUMNS)
        return f"[{bar:<{PROGRESS_COLUMNS}}] {done:4.0%}"


class CountProgress(Progress):
    """So many of something so far, where nobody knows how many there will be."""

    def __init__(self, noun: str, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self._noun = noun

    def _line(self, done: float) -> str:
        return f"{done:,.0f} {self._noun} ..."


class WaitNotice:
    """Says what is waited for, and for how long already, to whoever waits longer than a second.

    A context manager; ``end`` ends it sooner. Draws from a thread of its own, because the command
    itself stands still meanwhile.
    """

    def __init__(self, words: str, *, quiet: bool = False, patience_s: float = PATIENCE_S) -> None:
        self._words = words
        self._patience_s = patience_s
        self._is_wanted = somebody_watches() and not quiet
        self._is_drawn = False
        self._thread: Thread | None = None

    def __enter__(self) -> Self:
        if self._is_wanted:
            from threading import Event, Thread

            self._ended = Event()
            self._thread = Thread(target=self._draw, name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Stop drawing, and leave no trace of it."""
        if self._thread is None:
            return
        self._ended.set()
        self._thread.join()
        self._thread = None
        self.make_room()

    def make_room(self) -> None:
        """Clear the line for something else that is to be said; the next look draws it anew."""
        if self._is_drawn:
            click.echo(CLEAR_LINE, nl=False, err=True, color=True)

    def _draw(self) -> None:
        began = time.monotonic()
        patience_s = self._patience_s
        while not self._ended.wait(patience_s):
            patience_s = TICK_S
            self._is_drawn = True
            room = shutil.get_terminal_size().columns - TIME_COLUMNS
            words = shortened(f"waiting {one_line(self._words)}", room)
            waited_s = time.monotonic() - began
            click.echo(f"{CLEAR_LINE}{words} ... {waited_s:.0f} s", nl=False, err=True, color=True)
