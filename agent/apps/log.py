"""What an app prints: the last lines in memory, and a file that cannot fill the disk.

A line is stamped when it arrives, because most programs do not say when they print. The file
``NAME.log`` is renamed to ``NAME.log.1`` when it is full, over the one before: an app that
prints in a loop keeps its last mebibyte and costs no more. When the disk refuses a line, the
line is counted and still found in memory.

What does something to a terminal is an escape, in the file as well: people look at it with `tail`.
"""

import datetime as dt
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from agent.loop.bounded_queue import LossyQueue
from agent.text.escaping import one_line, with_tabs
from agent.text.units import counted

FILE_BYTES_MAX = 512 * 1024
TAIL_LINES_MAX = 500
LINE_BYTES_MAX = 8 * 1024
FOLLOWER_LINES_MAX = 1_000
OURS = "--"
"""Begins what the agent itself says, behind the stamp; no line of an app begins so."""


class AppLog:
    """Manages the output of one app. ``wall_clock`` gives Unix seconds.

    ``counts`` has ``app_log_lines_dropped/disk`` and ``app_log_lines_dropped/slow_reader``.
    """

    def __init__(self, path: Path, counts: Counter[str], wall_clock: Callable[[], float]) -> None:
        self._path = path
        self._counts = counts
        self._wall_clock = wall_clock
        self._partial = b""
        self._tail: deque[str] = deque(_last_lines(path), maxlen=TAIL_LINES_MAX)
        self._followers: set[LossyQueue[str]] = set()

    def feed(self, data: bytes) -> None:
        """Take in output as it comes; lines may be cut anywhere."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > LINE_BYTES_MAX:
            lines.append(self._partial)
            self._partial = b""
        self._add([_of_app(line[:LINE_BYTES_MAX]) for line in lines])

    def record(self, text: str) -> None:
        """Add a line of the agent's own, after whatever the app had begun to print."""
        begun = [_of_app(self._partial)] if self._partial else []
        self._partial = b""
        self._add([*begun, f"{OURS} {one_line(text)}"])

    def tail(self, lines: int) -> list[str]:
        """Return the last lines, at most those kept in memory."""
        return list(self._tail)[-lines:] if lines > 0 else []

    async def follow(self, lines: int) -> AsyncIterator[str]:
        """Yield the last lines and then each new one, until the caller stops.

        A caller that does not keep up misses lines; it is told how many.
        """
        follower: LossyQueue[str] = LossyQueue(FOLLOWER_LINES_MAX)
        self._followers.add(follower)
        try:
            for line in self.tail(lines):
                yield line
            while True:
                if missed := await follower.wait():
                    lost = counted(missed, "line")
                    yield f"{OURS} {lost} left out: they came faster than they were read"
                else:
                    yield follower.pop()
        finally:
            self._followers.discard(follower)

    def _add(self, texts: list[str]) -> None:
        if not texts:
            return
        now = dt.datetime.fromtimestamp(self._wall_clock(), dt.UTC)
        stamp = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        lines = [f"{stamp} {text}" for text in texts]
        self._tail.extend(lines)
        for follower in self._followers:
            if lost := follower.extend(lines):
                self._counts["app_log_lines_dropped/slow_reader"] += lost
        self._write(lines)

    def _write(self, lines: list[str]) -> None:
        try:
            self._rotate()
            with self._path.open("a", encoding="utf-8") as file:
                file.write("".join(f"{line}\n" for line in lines))
        except OSError:
            self._counts["app_log_lines_dropped/disk"] += len(lines)

    def _rotate(self) -> None:
        if self._path.exists() and self._path.stat().st_size >= FILE_BYTES_MAX:
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))


def _of_app(line: bytes) -> str:
    """Return a line of the app as it is kept: nothing in it acts, and it is not taken for ours."""
    text = with_tabs(line.decode(errors="replace"))[:LINE_BYTES_MAX]
    return f" {text}" if text.startswith(OURS) else text


def _last_lines(path: Path) -> list[str]:
    """Return the lines at the end of an earlier life's file; none when there is no such file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_LINES_MAX * 100))
            data = file.read()
    except OSError:
        return []
    lines = data.decode(errors="replace").removesuffix("\n").split("\n") if data else []
    return lines if size <= len(data) else lines[1:]  # the first one is cut
