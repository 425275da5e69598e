"""Golden transcripts: a scenario in plain words, and the reaction that was recorded.

A transcript is a text file that tells a story in commands and is read by people first::

    # A crash is noticed by those who are left.
    nodes a b c
    run 5s
    crash c
    run 15s
    members a
    ----
    a: a alive, b alive, c dead

A block is a few commands; what stands between ``----`` and the empty line that ends the block is
what the simulator answered when the file was last rewritten. When a transcript fails, run pytest
with ``--rewrite``, read the difference, and keep it only if you can say why it is right. (The
format is that of cockroachdb/datadriven, the habit that of etcd/raft.)
"""

from collections.abc import Callable

from gossip.sim.network import Conditions
from gossip.sim.operations import Operation
from gossip.sim.world import World

DIVIDER = "----"
SEED = 1
PATIENCE_S = 120.0

Command = Callable[..., str | None]


class BadCommand(ValueError):
    """A line that is no command; the message says what would be one."""


class Transcript:
    """Runs the commands of one transcript on one world."""

    def __init__(self) -> None:
        self._world = world = World(SEED)
        self._reads: dict[str, Operation] = {}
        self._commands: dict[str, Command] = {
            "nodes": world.add,
            "run": lambda time: world.run(_seconds(time)),
            "crash": world.crash,
            "vanish": world.vanish,
            "restart": world.restart,
            "pause": world.pause,
            "resume": world.resume,
            "leave": world.leave,
            "remove": world.remove,
            "partition": self._partition,
            "cut": world.cut,
            "heal": world.heal,
            "lose": self._lose,
            "put": self._put,
            "replace": self._replace,
            "get": self._get,
            "delete": lambda name, key: self._outcome(world.delete(name, key)),
            "owners": lambda key: " ".join(sorted(world.owners(key))),
            "members": self._members,
            "until": self._until,
            "story": lambda: "\n".join(world.story.fresh()),
            "skip": self._skip,
        }

    def command(self, line: str) -> str:
        """Run one command and return its answer, "" for none. Raises BadCommand."""
        word, *arguments = line.split()
        action = self._commands.get(word)
        if action is None:
            raise BadCommand(f"{line!r}: {word} is none of {', '.join(self._commands)}")
        try:
            return action(*arguments) or ""
        except (TypeError, KeyError, ValueError) as error:
            raise BadCommand(f"{line!r}: {error}") from error

    def _partition(self, *words: str) -> None:
        sides = " ".join(words).split("|")
        self._world.partition(*(side.split() for side in sides))

    def _lose(self, share: str) -> None:
        self._world.weather(Conditions(loss=float(share.removesuffix("%")) / 100))

    def _put(self, name: str, key: str, value: str) -> str:
        return self._outcome(self._world.put(name, key, value.encode()))

    def _replace(self, name: str, key: str, value: str) -> str:
        return self._outcome(self._world.put(name, key, value.encode(), after=self._reads[key]))

    def _get(self, name: str, key: str) -> str:
        read = self._reads[key] = self._world.get(name, key)
        return "\n".join([self._outcome(read), *(value.decode() for value in read.values)])

    def _outcome(self, operation: Operation) -> str:
        self._world.run_until(lambda: operation.is_done, within_s=PATIENCE_S)
        return operation.outcome

    def _members(self, *names: str) -> str:
        return "\n".join(f"{name}: {self._view_of(name)}" for name in names)

    def _view_of(self, name: str) -> str:
        states = sorted(self._world.members(name).items())
        return ", ".join(f"{other} {state.value}" for other, state in states)

    def _skip(self) -> None:
        """Do not tell the story up to here."""
        self._world.story.fresh()

    def _until(self, goal: str) -> str:
        goals = {
            "whole": self._world.is_whole,
            "settled": self._world.is_settled,
            "agreed": self._world.replicas_agree,
        }
        took_s = self._world.run_until(goals[goal], within_s=PATIENCE_S)
        return f"{goal}: " + ("never" if took_s is None else f"after {took_s:.1f} s")


def replay(text: str) -> str:
    """Run a transcript; return its text with the answers that came this time."""
    transcript = Transcript()
    blocks = [block for block in text.split("\n\n") if block.strip()]
    return "\n\n".join(_run_block(transcript, block) for block in blocks) + "\n"


def _run_block(transcript: Transcript, block: str) -> str:
    commands = block.strip("\n").split(f"\n{DIVIDER}\n")[0].splitlines()
    answers = [
        transcript.command(line) for line in commands if line.strip() and not line.startswith("#")
    ]
    told = [answer for answer in answers if answer]
    return "\n".join([*commands, *([DIVIDER] if told else []), *told])


def _seconds(text: str) -> float:
    """Read a time such as ``5s``, ``250ms`` or ``2min``."""
    for unit, seconds in (("ms", 0.001), ("min", 60.0), ("s", 1.0)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * seconds
    raise ValueError(f"a time ends with ms, s or min: {text!r}")
