"""The demo for a person at a terminal: a live picture, and keys that break things.

The terminal is put into a mode in which keys arrive one by one and unseen, on the alternate
screen; whatever ends the demo, it is put back as it was.
"""

import asyncio
import os
import shutil
import sys
import termios
import time
import tty
from collections import deque
from types import TracebackType
from typing import Self

from agent.cli.demo.fleet import DemoNode
from agent.cli.demo.render import Screen, draw
from agent.cli.demo.setup import DemoSetup
from agent.cli.demo.views import AgentView, poll
from agent.exits import AgentError

REFRESH_S = 0.4
EVENTS_MAX = 50
ENTER = "\x1b[?1049h\x1b[?25l\x1b[2J"  # xterm: alternate screen, no cursor, clear
LEAVE = "\x1b[?25h\x1b[?1049l"
HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
QUIT_KEYS = ("q", "Q", "\x03", "\x1b")


class Terminal:
    """A terminal in key-by-key mode; a context manager that always puts it back."""

    def __init__(self) -> None:
        self._input = sys.stdin.fileno()
        self._before = termios.tcgetattr(self._input)

    def __enter__(self) -> Self:
        """Take the terminal over."""
        tty.setcbreak(self._input)
        sys.stdout.write(ENTER)
        sys.stdout.flush()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Put it back."""
        termios.tcsetattr(self._input, termios.TCSADRAIN, self._before)
        sys.stdout.write(LEAVE)
        sys.stdout.flush()

    def show(self, lines: list[str]) -> None:
        """Draw the lines over the old ones, without flicker."""
        text = HOME + f"{CLEAR_LINE}\r\n".join(lines) + CLEAR_LINE + CLEAR_BELOW
        sys.stdout.write(text)
        sys.stdout.flush()

    def keys(self) -> str:
        """Return what was typed."""
        return os.read(self._input, 64).decode(errors="replace")


class LiveScreen:
    """Runs the demo until somebody quits, or ``seconds`` have passed."""

    def __init__(self, stage: DemoSetup, *, colour: bool) -> None:
        self._stage = stage
        self._colour = colour
        self._began = time.monotonic()
        self._events: deque[str] = deque(maxlen=EVENTS_MAX)
        self._views: list[AgentView] = []
        self._quit = asyncio.Event()
        self._acts: set[asyncio.Task[None]] = set()

    async def run(self, seconds: float | None) -> None:
        """Show the picture and obey the keys."""
        loop = asyncio.get_running_loop()
        with Terminal() as terminal:
            loop.add_reader(sys.stdin.fileno(), lambda: self._obey(terminal.keys()))
            try:
                async with asyncio.timeout(seconds):
                    await self._refresh(terminal)
            except TimeoutError:
                pass
            finally:
                loop.remove_reader(sys.stdin.fileno())
                await asyncio.gather(*self._acts, return_exceptions=True)

    async def _refresh(self, terminal: Terminal) -> None:
        while not self._quit.is_set():
            views = await poll(self._stage.fleet.nodes)
            self._note_changes(views)
            self._views = views
            width, height = shutil.get_terminal_size()
            terminal.show(draw(self._picture(), width, height, colour=self._colour))
            try:
                await asyncio.wait_for(self._quit.wait(), REFRESH_S)
            except TimeoutError:
                continue

    def _picture(self) -> Screen:
        collector = self._stage.collector
        return Screen(
            views=self._views,
            broker=self._stage.broker.description,
            rate=collector.rate(),
            received=len(collector.times_seen),
            repeated=collector.repeated,
            events=self._events,
            elapsed_s=time.monotonic() - self._began,
        )

    def _obey(self, keys: str) -> None:
        if not keys or keys in QUIT_KEYS:  # nothing at all: the terminal is gone
            self._quit.set()
            return
        nodes = self._stage.fleet.nodes
        for key in keys:
            if key.isdecimal() and 1 <= int(key) <= len(nodes):
                task = asyncio.create_task(self._toggle(nodes[int(key) - 1]), name="demo key")
                self._acts.add(task)
                task.add_done_callback(self._acts.discard)

    async def _toggle(self, node: DemoNode) -> None:
        try:
            if node.running:
                self._say(f"kill -9 {node.name}")
                await node.kill()
            else:
                self._say(f"reviving {node.name}")
                await node.start()
        except (AgentError, OSError) as error:
            self._say(f"{node.name}: {error}")

    def _note_changes(self, views: list[AgentView]) -> None:
        """Turn what changed since the last picture into events."""
        before = {view.name: view.states for view in self._views}
        for view in views:
            for name, state in view.states.items():
                earlier = before.get(view.name, {}).get(name)
                if state != earlier and (earlier is not None or name != view.name):
                    self._say(f"{view.name} sees {name} {state}")

    def _say(self, text: str) -> None:
        elapsed_s = time.monotonic() - self._began
        self._events.append(f"{elapsed_s:7.1f} s  {text}")
