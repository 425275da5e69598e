"""Golden transcripts of a Raft group: commands above a ``----``, what the stores did below it.

``RaftScript.words`` has every command. Each message is told when it is *delivered*, and what
the application hears; batches for a disk only where a disk is slow, for then they have a story. A
message is told in the words of its struct, without the identities that its arrow shows.
"""

import shlex
from collections.abc import Callable

import msgspec

from gossip.consensus import messages as m
from gossip.consensus.configuration import Configuration, Voter, decode_configuration
from gossip.consensus.requests import (
    CloneSeen,
    Committed,
    ConfigurationChanged,
    ReadFailed,
    ReadReady,
    RoleChanged,
    SnapshotInstalled,
)
from gossip.consensus.storage import AppendChange, HardState, SnapshotChange, TruncateChange
from gossip.consensus.tuning import ConsensusTuning
from gossip.core.errors import LocalError
from gossip.core.machine import Persist
from tests.support.raft_group import TUNING, RaftGroup

DIVIDER = "----"

Command = Callable[..., str | None]


class RaftScript:
    """One group, and what is told of it."""

    def __init__(self) -> None:
        self.group = RaftGroup()
        self.told: list[str] = []
        self.reads: dict[int, str] = {}
        self.is_quiet = False
        self.hidden: set[str] = set()
        self.kept = ("", "", b"")
        self._listen()
        self.words: dict[str, Command] = {
            "tuning": self._tuning,
            "group": self._found,
            "campaign": lambda name: self.group.campaign(name),
            "propose": lambda name, *texts: self.group.propose(name, *texts),
            "read": self._read,
            "change": self._change,
            "transfer": self._transfer,
            "forget": self._forget,
            "compact": self._compact,
            "settle": lambda among="": self.group.settle(among),
            "stand": self._stand,
            "unreachable": self._unreachable,
            "deliver": lambda a, b, count="": self.group.deliver(a, b, int(count or 0) or None),
            "keep": self._keep,
            "again": self._again,
            "hide": self._hide,
            "lose": lambda a, b, count="": self.group.lose(a, b, int(count or 0) or None),
            "split": lambda *words: self.group.split(*" ".join(words).split("|")),
            "heal": lambda: self.group.heal(),
            "run": lambda seconds: self.group.run(float(seconds.removesuffix("s"))),
            "wait": lambda seconds: self.group.run(float(seconds.removesuffix("s")), settle=False),
            "slow": self._slow,
            "fast": self._fast,
            "write": lambda name, count="1": self.group.write(name, int(count)),
            "crash": lambda name: self.group.crash(name),
            "start": lambda name: self.group.start(name),
            "quiet": lambda: self._hush(is_quiet=True),
            "aloud": lambda: self._hush(is_quiet=False),
            "log": self._log,
            "show": self._show,
            "count": self._count,
        }

    def _listen(self) -> None:
        group = self.group
        group.on_deliver = self._delivered
        group.on_event = self._event
        group.on_persist = self._persist

    def command(self, line: str) -> str:
        """Carry one line out; return what is to be told of it."""
        word, *arguments = shlex.split(line)
        try:
            answer = self.words[word](*arguments)
        except LocalError as error:
            answer = f"refused: {error}"
        told, self.told = self.told, []
        return "\n".join([*told, *([answer] if answer else [])])

    # What commands do.

    def _tuning(self, *words: str) -> None:
        values = {name: float(value) for name, value in (word.split("=") for word in words)}
        plain = msgspec.to_builtins(TUNING) | values
        self.group = RaftGroup(msgspec.convert(plain, ConsensusTuning, strict=False))
        self._listen()

    def _found(self, voters: str, *more: str) -> None:
        """``group abc learners d blank e``: a letter is a store."""
        others = dict(zip(more[::2], more[1::2], strict=True))
        self.group.found(voters, others.pop("learners", ""), others.pop("blank", ""))
        assert not others, "learners or blank"

    def _do(self, name: str, method: str, *arguments: object) -> object:
        return self.group.do(name, lambda r: getattr(r, method)(*arguments, self.group.now))

    def _stand(self, name: str) -> None:
        self.group.do(name, lambda raft: raft.election.stand())

    def _unreachable(self, name: str, other: str) -> None:
        self._do(name, "peer_unreachable", self.group.stores[other].voter.node)

    def _forget(self, name: str) -> None:
        self._do(name, "forget_leader")

    def _keep(self, sender: str, receiver: str) -> None:
        """Copy the first frame that waits."""
        self.kept = (sender, receiver, self.group.wire[sender, receiver][0])

    def _again(self) -> None:
        """Deliver the copy."""
        self.group.hand_over(*self.kept)

    def _hide(self, *kinds: str) -> None:
        self.hidden = {kind.replace("-", " ") for kind in kinds}

    def _read(self, name: str) -> None:
        label = f"read {len(self.reads) + 1}"
        found = self.group[name].read(self.group.now)
        self.reads[found] = label
        self.group.collect(name)

    def _change(self, name: str, voters: str, learners: str = "") -> None:
        target = Configuration(self._voters(voters), (), self._voters(learners))
        self._do(name, "change", target)

    def _voters(self, names: str) -> tuple[Voter, ...]:
        return tuple(self.group.stores[name].voter for name in names.strip("-"))

    def _transfer(self, name: str, to: str) -> None:
        self._do(name, "transfer", self.group.stores[to].voter.store)

    def _compact(self, name: str) -> str:
        return "" if self.group.compact(name) else "not taken"

    def _slow(self, name: str) -> None:
        self.group.stores[name].is_slow = True

    def _fast(self, name: str) -> None:
        self.group.stores[name].is_slow = False
        self.group.write(name)

    def _hush(self, *, is_quiet: bool) -> None:
        self.is_quiet = is_quiet

    # What is told.

    def _tell(self, line: str) -> None:
        if not self.is_quiet:
            self.told.append(line)

    def _delivered(self, sender: str, receiver: str, message: m.Message) -> None:
        if kind_of(message) not in self.hidden:
            self._tell(f"{sender} -> {receiver}  {describe(message, self._names)}")

    def _persist(self, name: str, persist: Persist) -> None:
        if self.group.stores[name].is_slow:
            parts = "; ".join(self._change_text(change) for change in persist.changes)
            self._tell(f"{name} waits for its disk: {parts}")

    def _change_text(self, change: object) -> str:
        match change:
            case HardState(_, term, vote):
                return f"term {term}" + (f" vote {self._name(vote)}" if vote else "")
            case AppendChange(entries):
                return "add " + " ".join(entry_text(entry, self._names) for entry in entries)
            case TruncateChange(after):
                return f"cut behind {after}"
            case SnapshotChange(mark):
                return f"snapshot {mark.index}/{mark.term}"
            case _:
                return type(change).__name__

    def _event(self, name: str, event: object) -> None:
        self._tell(f"{name}: {self._event_text(event)}")

    def _event_text(self, event: object) -> str:
        match event:
            case RoleChanged(role, term, leader):
                ours = f", led by {self._name(leader.store)}" if leader and role != "leader" else ""
                return f"{role} in term {term}{ours}"
            case Committed(entries):
                return "committed " + " ".join(entry_text(each, self._names) for each in entries)
            case ReadReady(number, index):
                return f"{self.reads[number]} is ready at {index}"
            case ReadFailed(number):
                return f"{self.reads[number]} failed"
            case SnapshotInstalled(index, data):
                return f"snapshot {index} installed: {data.decode() or 'nothing'}"
            case ConfigurationChanged(_, configuration):
                return f"now {self._names(configuration)}"
            case CloneSeen(store):
                return f"{self._name(store)} lives twice"
            case _:
                raise AssertionError(event)

    def _name(self, store: int) -> str:
        return self.group.name_of(store)

    def _names(self, configuration: Configuration) -> str:
        def letters(voters: tuple[Voter, ...]) -> str:
            return "".join(sorted(self._name(each.store) for each in voters))

        text = letters(configuration.voters)
        if configuration.outgoing:
            text = f"{letters(configuration.outgoing)}=>{text}"
        if configuration.learners:
            text += f"+{letters(configuration.learners)}"
        return text

    def _log(self, *names: str) -> str:
        return "\n".join(f"{name}: {self._log_text(name)}" for name in names)

    def _log_text(self, name: str) -> str:
        log = self.group[name].following._state.log
        entries = log.between(log.first_index, log.last_index)
        before = f"..{log.first_index - 1} " if log.first_index > 1 else ""
        return before + " ".join(entry_text(entry, self._names) for entry in entries)

    def _show(self, *names: str) -> str:
        lines = []
        for name in names:
            status = self.group[name].status()
            leader = f", led by {self._name(status.leader.store)}" if status.leader else ""
            lines.append(
                f"{name}: {status.role} in term {status.term}{leader}, "
                f"log to {status.last_index}, committed {status.commit_index}, "
                f"{self._names(status.configuration)}"
            )
            lines += [
                f"   {self._name(each.member.store)}: {each.phase}, has {each.match_index}"
                for each in status.members
            ]
        return "\n".join(lines)

    def _count(self, name: str, key: str) -> str:
        return f"{key}: {self.group[name].counts[f'consensus_{key}']}"


Names = Callable[[Configuration], str]


def entry_text(entry: m.Entry, names: Names) -> str:
    """Write an entry as index/term and what it is."""
    match entry.kind:
        case m.EntryKind.NOTHING:
            text = "-"
        case m.EntryKind.COMMAND:
            text = entry.data.decode()
        case m.EntryKind.CONFIGURATION:
            text = names(decode_configuration(entry.data))
    return f"{entry.index}/{entry.term}:{text}"


def describe(message: m.Message, names: Names) -> str:
    """Write a message in a line."""
    return f"{kind_of(message)} t{message.term}{_fields(message, names)}"


def kind_of(message: m.Message) -> str:
    """Write what a message is, in words."""
    words = [c if c.islower() else f" {c.lower()}" for c in type(message).__name__]
    return "".join(words).strip()


def _fields(message: m.Message, names: Names) -> str:
    match message:
        case m.PreVoteRequest() | m.VoteRequest():
            asked = " at the leader's wish" if getattr(message, "transfer", False) else ""
            return f" last {message.last_index}/{message.last_term}{asked}"
        case m.PreVoteReply() | m.VoteReply():
            return " granted" if message.granted else " refused"
        case m.Append():
            entries = " ".join(entry_text(entry, names) for entry in message.entries)
            after = f" behind {message.previous_index}/{message.previous_term}"
            return f"{after} commit {message.commit}{' ' if entries else ''}{entries}"
        case m.AppendReply(accepted=True):
            return f" has {message.index}"
        case m.AppendReply():
            return f" not behind {message.index}, rather {message.hint_index}/{message.hint_term}"
        case m.Heartbeat():
            return f" commit {message.commit}"
        case m.SnapshotChunk():
            mark = message.mark
            return f" of {mark.index}/{mark.term}, {message.number + 1} of {mark.chunks}"
        case m.SnapshotReply():
            return f" of {message.index}, has {message.following}"
        case m.ReadReply():
            return " cannot tell" if message.index is None else f" index {message.index}"
        case _:
            return ""


def replay(text: str) -> str:
    """Run a transcript; return its text with the answers that came this time."""
    script = RaftScript()
    blocks = [block for block in text.split("\n\n") if block.strip()]
    return "\n\n".join(_run_block(script, block) for block in blocks) + "\n"


def _run_block(script: RaftScript, block: str) -> str:
    commands = block.strip("\n").split(f"\n{DIVIDER}\n")[0].splitlines()
    told = [script.command(line) for line in commands if line.strip() and not line.startswith("#")]
    answers = [each for each in told if each]
    return "\n".join([*commands, *([DIVIDER] if answers else []), *answers])
