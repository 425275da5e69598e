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

Whole nodes play most of them. To show one rule by itself, ``solo a among b c`` starts one node
among scripted peers (``scripted_peer.py``), and then every word that it hears stands in the file
(``actors.py``).

A block is a few commands; what stands between ``----`` and the empty line that ends the block is
what the simulator answered when the file was last rewritten. When a transcript fails, run pytest
with ``--rewrite``, read the difference, and keep it only if you can say why it is right. (The
format is that of cockroachdb/datadriven, the habit that of etcd/raft.)
"""

from collections.abc import Callable
from functools import partial

from gossip.core.errors import LocalError
from gossip.core.ids import NodeId
from gossip.core.tuning import PROFILES
from gossip.membership.model.members import MemberState
from gossip.node import Node
from gossip.sim.network import Conditions
from gossip.sim.operations import Operation
from gossip.sim.script.actors import Actors
from gossip.sim.script.message_text import seconds, tags_of
from gossip.sim.script.views import ViewRecorder, listing, members, paths
from gossip.sim.world import World

DIVIDER = "----"
SEED = 1
PATIENCE_S = 120.0

Command = Callable[..., str | None]


class BadCommand(ValueError):
    """A line that is no command; the message says what would be one."""


class Transcript:
    """Runs the commands of one transcript on one world."""

    def __init__(self, seed: int = SEED) -> None:
        self._recorder = ViewRecorder()
        self._world = World(seed, checkers=[self._recorder])
        self._actors = Actors(self._world)
        self._reads: dict[str, Operation] = {}
        self._commands: dict[str, Command] = {
            **self._devices(),
            **self._air(),
            **self._clients(),
            **self._speech(),
            **self._questions(),
        }

    @property
    def words(self) -> tuple[str, ...]:
        """With what a command may begin."""
        return tuple(self._commands)

    def command(self, line: str) -> str:
        """Run one command and return its answer, "" for none. Raises BadCommand."""
        word, *arguments = line.split()
        action = self._commands.get(word)
        if action is None:
            raise BadCommand(f"{line!r}: {word} is none of {', '.join(self._commands)}")
        try:
            return action(*arguments) or ""
        except LocalError as error:
            return f"refused: {error}"
        except (TypeError, KeyError, ValueError) as error:
            raise BadCommand(f"{line!r}: {error}") from error

    # What can be done, by what it is done to.

    def _devices(self) -> dict[str, Command]:
        world, actors = self._world, self._actors
        return {
            "profile": self._profile,
            "nodes": world.add,
            "solo": actors.solo,
            "scripted": actors.add_scripted,
            "run": lambda time: world.run(seconds(time)),
            "crash": world.crash,
            "vanish": world.vanish,
            "restart": world.restart,
            "pause": world.pause,
            "resume": world.resume,
            "sleep": lambda name, time: world.sleep(name, seconds(time)),
            "awaken": world.awaken,
            "leave": world.leave,
            "remove": world.remove,
            "move": actors.move,
            "clock": lambda name, error: world.skew(name, seconds(error)),
            "mute": actors.mute,
            "unmute": partial(actors.mute, is_mute=False),
        }

    def _air(self) -> dict[str, Command]:
        world = self._world
        return {
            "partition": self._partition,
            "cut": world.cut,
            "mend": world.mend,
            "block": world.network.block,
            "unblock": world.network.unblock,
            "reject": world.network.reject,
            "admit": world.network.admit,
            "far": lambda one, other, time: world.network.lengthen(one, other, seconds(time)),
            "heal": world.heal,
            "lose": self._lose,
        }

    def _clients(self) -> dict[str, Command]:
        world = self._world
        return {
            "put": self._put,
            "replace": self._replace,
            "get": self._get,
            "delete": lambda name, key: self._outcome(world.delete(name, key)),
            "owners": lambda key: " ".join(sorted(world.owners(key))),
            "event": world.send_event,
            "describe": lambda name, size: self._call(name, Node.set_tags, tags_of(int(size))),
            "publish": lambda name, fact, size: self._call(
                name, Node.set_facts, {fact: "v" * int(size)}
            ),
        }

    def _speech(self) -> dict[str, Command]:
        actors = self._actors
        return {
            "say": actors.say,
            "tell": actors.tell,
            "raw": actors.raw,
            "record": actors.record,
            "replay": actors.replay,
            "foreign": actors.foreign,
            "flood": actors.flood,
            "invent": actors.invent,
            "refuse": actors.refuse,
            "hint": actors.hint,
            "listen": actors.listen,
            "heard": actors.heard,
            "first": actors.first,
            "tally": actors.tally,
            "pace": actors.pace,
        }

    def _questions(self) -> dict[str, Command]:
        world, witness = self._world, self._recorder
        return {
            "members": self._members,
            "listing": lambda name, other: listing(world, name, self._id(other)),
            "size": lambda name: f"{len(world.hosts[name].node.swim.members)} members",
            "until": self._until,
            "await": self._await,
            "story": lambda: "\n".join(world.trace.fresh()),
            "skip": self._skip,
            "history": lambda name: witness.history(self._id(name)),
            "deaths": lambda: witness.deaths(world),
            "events": lambda *names: witness.delivered(world, names),
            "count": self._count,
            "health": lambda name: f"{world.hosts[name].node.swim.health} (0 is well)",
            "incarnation": lambda name: str(world.hosts[name].node.swim.incarnation),
            "paths": lambda name, other: paths(world, name, self._id(other)),
            "clones": self._id_conflicts,
            "flapping": self._flapping,
            "facts": self._facts,
        }

    # How it is done.

    def _id(self, name: str) -> NodeId:
        return self._actors.host(name).id

    def _call(self, name: str, action: Callable[..., None], argument: object) -> None:
        host = self._world.hosts[name]
        self._world.driver.call(host, lambda node, now: action(node, argument, now))

    def _profile(self, name: str) -> None:
        if self._world.hosts:
            raise ValueError("the profile comes before all nodes")
        self._world.tuning = PROFILES[name]

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
        return "\n".join(f"{name}: {members(self._world, name)}" for name in names)

    def _skip(self) -> None:
        """Do not tell what happened up to here."""
        self._world.trace.fresh()
        self._recorder.skip()
        self._actors.skip()

    def _until(self, goal: str) -> str:
        goals = {
            "whole": self._world.is_whole,
            "settled": self._world.is_settled,
            "agreed": self._world.replicas_agree,
        }
        took_s = self._world.run_until(goals[goal], within_s=PATIENCE_S)
        return f"{goal}: " + ("never" if took_s is None else f"after {took_s:.1f} s")

    def _await(self, name: str, other: str, state: str) -> str:
        """Let time pass until a node believes this of a member; tell how long it took."""
        world, since = self._world, self._world.now
        look = partial(self._recorder.when, name, self._id(other), MemberState(state), since)
        world.run_until(lambda: look() is not None, within_s=PATIENCE_S)
        when = look()
        return f"{other} {state}: " + ("never" if when is None else f"after {when - since:.2f} s")

    def _count(self, name: str, *families: str) -> str:
        host = self._world.hosts[name]
        counted = [self._recorder.counted(host, family) for family in families]
        lines = [f"{label}: {count}" for found in counted for label, count in found.items()]
        return "\n".join(lines) or "nothing"

    def _id_conflicts(self, name: str, other: str) -> str:
        host = self._world.hosts[name]
        found = host.node.swim.clones_of(self._id(other), host.local(self._world.now))
        return " and ".join(address.host for address in found) or "one device"

    def _flapping(self, name: str, other: str) -> str:
        host = self._world.hosts[name]
        flaps = host.node.swim.is_flapping(self._id(other), host.local(self._world.now))
        return "comes and goes" if flaps else "steady"

    def _facts(self, name: str, other: str) -> str:
        known = self._world.hosts[name].node.swim.facts_of(self._id(other))
        return ", ".join(f"{fact}: {len(text)} bytes" for fact, text in known.items()) or "none"


def replay(text: str, seed: int = SEED) -> str:
    """Run a transcript; return its text with the answers that came this time."""
    transcript = Transcript(seed)
    blocks = [block for block in text.split("\n\n") if block.strip()]
    return "\n\n".join(_run_block(transcript, block) for block in blocks) + "\n"


def _run_block(transcript: Transcript, block: str) -> str:
    commands = block.strip("\n").split(f"\n{DIVIDER}\n")[0].splitlines()
    answers = [
        transcript.command(line) for line in commands if line.strip() and not line.startswith("#")
    ]
    told = [answer for answer in answers if answer]
    return "\n".join([*commands, *([DIVIDER] if told else []), *told])
