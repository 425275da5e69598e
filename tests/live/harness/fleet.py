"""A fleet: several agents on a network of their own, from ``covey init`` to the last clean-up."""

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from tests.live.harness.admitted import Seat, found_and_admit
from tests.live.harness.agents import AgentProcess
from tests.live.harness.network import Network, Side
from tests.live.harness.waiting import eventually

FORMED_WITHIN_S = 5.0
VOTING_WITHIN_S = 20.0
WHOLE_WITHIN_S = 60.0

LAN_TOML = '[gossip]\nprofile = "lan"\n'
LOCAL_TOML = '[gossip]\nprofile = "local"\n'
"""Everything about five times as fast, for what does not hang on the profile."""
VOTERS_TOML = f'{LOCAL_TOML}[voters]\nsettle = "2s"\n'
"""Three vote within some ten seconds: ``form_admitted(..., toml=VOTERS_TOML)``, ``wait_voters``."""


class Fleet:
    """Agents by name, each on a host of its own; use it as a context manager.

    Directories are made directly under the system's temporary folder, because the path of a
    Unix socket has at most 107 bytes.
    """

    def __init__(self, network: Network | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="covey-"))
        self._own_network = network is None
        self.network = network or Network()
        self.agents: dict[str, AgentProcess] = {}
        self.is_closed = False

    def add(self, name: str, side: Side = "west", toml: str = LAN_TOML) -> AgentProcess:
        """Give a new device a host and a directory; it belongs to no covey yet."""
        host = self.network.add_host(side)
        agent = AgentProcess(name, self.folder / name, host)
        agent.configure(toml)
        self.agents[name] = agent
        return agent

    def found(self, agent: AgentProcess, covey: str = "test") -> None:
        """Make a covey on this device and start it."""
        agent.must("init", covey, "--node-name", agent.name)
        agent.start()

    def token(self, issuer: AgentProcess, *options: str) -> str:
        """Have a token made."""
        return issuer.must("token", "create", *options).stdout.strip()

    def form(self, *names: str, east: tuple[str, ...] = (), toml: str = LAN_TOML) -> None:
        """Make a covey of these devices: the first founds it, all others have only a token."""
        first, *others = [
            self.add(name, "east" if name in east else "west", toml) for name in names
        ]
        self.found(first)
        token = self.token(first, "--uses", str(max(1, len(others))))
        for agent in others:
            agent.must("join", token, "--node-name", agent.name)
        for agent in others:
            agent.launch()
        self.wait_formed(FORMED_WITHIN_S)

    def form_admitted(self, *names: str, east: tuple[str, ...] = (), toml: str = LAN_TOML) -> None:
        """Make the same covey without joining, and start all devices at once."""
        self.admit(*names, east=east, toml=toml)
        for agent in self.agents.values():
            agent.launch()
        self.wait_formed(FORMED_WITHIN_S)

    def admit(self, *names: str, east: tuple[str, ...] = (), toml: str = LAN_TOML) -> None:
        """Make a covey of these devices on their disks; none of them runs yet."""
        agents = [self.add(name, "east" if name in east else "west", toml) for name in names]
        seats = [Seat(agent.name, agent.at, agent.directory) for agent in agents]
        found_and_admit(seats, "test")

    def running(self) -> list[AgentProcess]:
        """Return the agents whose process runs."""
        return [agent for agent in self.agents.values() if agent.process]

    def wait_states(self, expected: dict[str, str], within_s: float, what: str) -> None:
        """Wait until every running agent sees exactly these states."""

        def look() -> dict[str, dict[str, str]]:
            return {agent.name: agent.states() for agent in self.running()}

        eventually(look, lambda seen: all(s == expected for s in seen.values()), within_s, what)

    def wait_formed(self, within_s: float, what: str = "one covey") -> None:
        """Wait until all running agents see each other alive, and nobody else."""
        self.wait_states({agent.name: "alive" for agent in self.running()}, within_s, what)

    def wait_settled(self, within_s: float, what: str) -> None:
        """Wait until every running agent knows that no partition is on its way to other owners.

        Nor is to go on its way when the issuer has heard who runs.
        """

        def moving() -> list[int]:
            names = {agent.name for agent in self.running()}
            answers = [agent.api.get("/api/v1/ring") for agent in self.running()]
            return [
                sum(answer["moving"].values())
                + sum(node["absent"] and node["name"] in names for node in answer["nodes"])
                for answer in answers
            ]

        eventually(moving, lambda counts: not any(counts), within_s, what)

    def wait_voters(self, count: int = 3) -> None:
        """Wait until so many vote, as every running agent sees it; needs ``VOTERS_TOML``."""

        def voters() -> list[int]:
            answers = [agent.api.get("/api/v1/voters") for agent in self.running()]
            return [
                sum(each["role"] != "learner" for each in answer["voters"]) for answer in answers
            ]

        what = f"{count} vote, and all know it"
        eventually(voters, lambda seen: set(seen) == {count}, VOTING_WITHIN_S, what)

    def leader(self) -> AgentProcess:
        """Wait until all running agents follow one leader, and return that."""
        names = {agent.name for agent in self.running()}
        found = eventually(
            lambda: {agent.api.get("/api/v1/voters")["leader"] for agent in self.running()},
            lambda seen: len(seen) == 1 and seen <= names,
            VOTING_WITHIN_S,
            "all follow one leader",
        )
        return self.agents[found.pop()]

    def logs(self) -> str:
        """Return the end of each agent's log, for a failure message."""
        return "\n".join(
            f"--- {agent.name} {'runs' if agent.process else 'ended'} ---\n{agent.log_tail()}"
            for agent in self.agents.values()
        )

    def make_whole(self, names: Iterable[str]) -> None:
        """Have these agents run and see each other again, whatever a failed test left behind."""
        self.network.mend_all()
        agents = [self.agents[name] for name in names]
        for agent in agents:
            if agent.has_ended:
                agent.close()
            if agent.process:
                agent.resume()
            else:
                agent.start()
        alive = dict.fromkeys(names, "alive")
        for agent in agents:
            eventually(
                agent.states,
                lambda seen: seen.items() >= alive.items(),
                WHOLE_WITHIN_S,
                f"{agent.name} sees all that a failed test took away",
            )

    def end_agents(self) -> None:
        """End all agents that run."""
        for agent in self.agents.values():
            agent.close()

    def close(self) -> None:
        """End all agents, remove the network and the directories."""
        self.is_closed = True
        self.end_agents()
        if self._own_network:
            self.network.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        """Return the fleet itself."""
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Show the logs when a test failed, and clean up in any case."""
        if kind is not None:
            print(self.logs())
        self.close()
