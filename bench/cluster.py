"""A cluster of one contender: hosts, agents, and a witness that reads them all."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from bench.contenders import Contender
from bench.witness import Witness
from tests.live.harness.admitted import Seat
from tests.live.harness.network import Network, Side

WHOLE_WITHIN_S = 180.0
ENDED_WITHIN_S = 10.0


class Cluster:
    """Agents by number, on hosts of their own; use it as a context manager."""

    def __init__(self, contender: Contender, members: int, east: int = 0) -> None:
        """``east``: how many of them sit on the other side of the cable that can be pulled."""
        self.contender = contender
        self.folder = Path(tempfile.mkdtemp(prefix="covey-"))
        self.network = Network()
        sides: list[Side] = ["east" if n >= members - east else "west" for n in range(members)]
        self.seats = [
            Seat(f"node-{number}", self.network.add_host(side), self.folder / f"n{number}")
            for number, side in enumerate(sides)
        ]
        self.witness = Witness(contender.coming, contender.dying)
        self.agents: dict[int, subprocess.Popen[bytes]] = {}
        contender.prepare(self.seats)

    def launch(self, *numbers: int) -> None:
        """Start these agents at once, or all when none is named."""
        for number in numbers or range(len(self.seats)):
            seat = self.seats[number]
            command = self.contender.command(seat, self.seats[0])
            self.agents[number] = agent = subprocess.Popen(
                [*seat.host.enter(), *command], env=self.contender.environ(seat),
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                bufsize=0, start_new_session=True,
            )  # fmt: skip
            assert agent.stdout is not None, "a pipe was asked for"
            self.witness.watch(seat.name, os.dup(agent.stdout.fileno()))
            agent.stdout.close()

    def kill(self, *numbers: int) -> None:
        """End these agents, or all when none is named, without a good-bye."""
        for number in numbers or tuple(self.agents):
            self.agents[number].kill()

    def bury(self, *numbers: int) -> None:
        """Kill and forget these agents, or all when none is named."""
        chosen = numbers or tuple(self.agents)
        self.kill(*chosen)
        for number in chosen:
            self.agents.pop(number).wait(ENDED_WITHIN_S)
            self.witness.forget(self.seats[number].name)

    def form(self) -> float | None:
        """Start all; return how long it took until all saw all, None when it took too long."""
        begun = time.monotonic()
        self.launch()
        if self.witness.wait_whole(WHOLE_WITHIN_S) is None:
            return None
        return time.monotonic() - begun

    def form_anew(self) -> None:
        """End all and start them again, so that no measurement feels the one before."""
        self.bury()
        self.must_form()

    def must_form(self) -> None:
        """Start all. Raises RuntimeError when they do not find each other."""
        if self.form() is None:
            raise RuntimeError(f"{len(self.seats)} agents did not find each other")

    def processes(self) -> list[int]:
        """Return the process ids of the agents that run."""
        return [agent.pid for agent in self.agents.values()]

    def close(self) -> None:
        """End everything and leave nothing behind."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.bury()
        self.witness.close()
        self.network.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        """Return the cluster itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Clean up."""
        self.close()
