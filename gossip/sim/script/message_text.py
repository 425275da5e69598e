"""The messages of the membership in plain words, both ways, as transcripts write them.

::

    alive c@2              the words of c at its incarnation 2
    suspect c by d         d accuses c, at the incarnation that the receiver knows
    dead c/2@max by d      ... in its second life, at the largest incarnation that fits the wire
    asleep c@2 60s         c announces a minute of sleep

Life and incarnation of whom a message is about may be left out; then they are what its receiver
believes, so that a transcript need not keep count.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeGuard

from gossip.core.ids import BOOT_RANDOM_BITS, UINT64_MAX, Boot, NodeId
from gossip.core.machine import Address
from gossip.events.messages import BROADCASTS, Broadcast, Event, Query, QueryResponse
from gossip.membership.model.members import MemberState
from gossip.membership.model.messages import (
    DATAGRAMS,
    TAG_VALUE_CHARACTERS_MAX,
    Ack,
    Alive,
    Asleep,
    CoordinateUpdate,
    Datagram,
    Dead,
    Hello,
    Left,
    Nack,
    Ping,
    PingRequest,
    Suspect,
)
from gossip.membership.model.sanity import starts_of
from gossip.sim.host import PORT

LARGEST = "max"

Message = Datagram | Broadcast

MESSAGES = DATAGRAMS | BROADCASTS
"""All that stands in packets."""

KINDS: dict[type[Message], str] = {
    Ping: "ping",
    Ack: "ack",
    PingRequest: "ping-request",
    Nack: "nack",
    Hello: "hello",
    Alive: "alive",
    Suspect: "suspect",
    Dead: "dead",
    Left: "left",
    Asleep: "asleep",
    Event: "event",
    Query: "query",
    QueryResponse: "query-answer",
    CoordinateUpdate: "position",
}


class Life(NamedTuple):
    """Whom a message is about, at which point of its existence."""

    node: NodeId
    boot: Boot
    incarnation: int


class ReceiverView(NamedTuple):
    """What a receiver knows of a member, or would learn first."""

    life: Life
    address: Address


Look = Callable[[str], ReceiverView]
"""Finds a member by its name, as the receiver of a message knows it."""


def seconds(text: str) -> float:
    """Read a time such as ``5s``, ``250ms``, ``2min`` or ``25h``."""
    for unit, length_s in (("ms", 0.001), ("min", 60.0), ("s", 1.0), ("h", 3600.0)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * length_s
    raise ValueError(f"a time ends with ms, s, min or h: {text!r}")


def name_in(text: str) -> str:
    """Return who is meant by ``NAME/LIFE@INCARNATION``."""
    return text.partition("@")[0].partition("/")[0]


def is_about(message: Message, life: Life) -> TypeGuard[Alive]:
    """Say whether a member of this id and life describes itself in the message."""
    return isinstance(message, Alive) and (message.member, message.boot) == (life.node, life.boot)


def life_of(text: str, look: Look) -> Life:
    """Read ``NAME``, ``NAME@INCARNATION`` or ``NAME/LIFE@INCARNATION``."""
    rest, _, incarnation = text.partition("@")
    name, _, life = rest.partition("/")
    known = look(name).life
    boot = known.boot
    if life:
        boot = UINT64_MAX if life == LARGEST else int(life) << BOOT_RANDOM_BITS
    return Life(known.node, boot, _number(incarnation, known.incarnation))


def read(text: str, look: Look, asked: Iterable[int] = ()) -> list[Message]:
    """Read one message, or an answer to each of the pings that were asked with these numbers."""
    kind, *words = text.split()
    if kind == "nothing":
        return []
    if kind in ANSWERS:
        return [ANSWERS[kind](number) for number in asked]
    if kind == "hello":
        return [Hello(wants_reply=True)]
    return [READERS[kind](words, look)]


def write(message: Message, names: Mapping[NodeId, str]) -> str:
    """Write one message."""
    kind = KINDS[type(message)]
    match message:
        case Ping() | PingRequest():
            return f"{kind} {names.get(message.target, 'a stranger')}"
        case Hello():
            return kind if message.wants_reply else f"{kind} back"
        case Suspect() | Dead():
            by = f"{_life(message, names)} by {names.get(message.accuser, 'a stranger')}"
            return f"{kind} {by}" + (", refused" if message.evidence else "")
        case Asleep():
            return f"{kind} {_life(message, names)} {message.duration_s}s"
        case Alive() | Left():
            return f"{kind} {_life(message, names)}"
        case Event():
            return f"{kind} {message.name}"
    return kind


def at(host: str) -> Address:
    """Return the address of an agent on this host."""
    return Address(host, PORT)


def _life(claim: Alive | Suspect | Dead | Left | Asleep, names: Mapping[NodeId, str]) -> str:
    starts = starts_of(claim.boot)
    life = f"/{starts}" if starts > 1 else ""
    return f"{names.get(claim.member, 'a stranger')}{life}@{claim.incarnation}"


def _number(text: str, known: int) -> int:
    if text == LARGEST:
        return UINT64_MAX
    return int(text) if text else known


def _alive(words: list[str], look: Look) -> Alive:
    """Read ``NAME [named OTHER] [at HOST ...] [with BYTES]``."""
    subject, *more = words
    called = name_in(subject)
    addresses: tuple[Address, ...] = (look(called).address,)
    tags: dict[str, str] = {}
    while more:
        match more:
            case ["named", called, *more]:
                pass
            case ["with", size, *more]:
                tags = tags_of(int(size))
            case ["at", *hosts]:
                addresses, more = tuple(at(host) for host in hosts), []
            case _:
                raise ValueError(f"alive NAME [named OTHER] [with BYTES] [at HOST ...]: {more}")
    return Alive(*life_of(subject, look), called, addresses, tags)


def tags_of(size_bytes: int) -> dict[str, str]:
    """Return tags that take about so much room."""
    whole, rest = divmod(size_bytes, TAG_VALUE_CHARACTERS_MAX)
    sizes = [TAG_VALUE_CHARACTERS_MAX] * whole + [rest]
    return {str(number): "v" * size for number, size in enumerate(sizes)}


def _suspect(words: list[str], look: Look) -> Suspect:
    """Read ``NAME by ACCUSER``."""
    name, _, accuser = words
    return Suspect(*life_of(name, look), look(accuser).life.node)


def _dead(words: list[str], look: Look) -> Dead:
    """Read ``NAME by ACCUSER``."""
    name, _, accuser = words
    return Dead(*life_of(name, look), look(accuser).life.node)


def _left(words: list[str], look: Look) -> Left:
    [name] = words
    return Left(*life_of(name, look))


def _asleep(words: list[str], look: Look) -> Asleep:
    name, duration = words
    return Asleep(*life_of(name, look), int(seconds(duration)))


def _ping(words: list[str], look: Look) -> Ping:
    [name] = words
    return Ping(1, look(name).life.node)


def _ping_request(words: list[str], look: Look) -> PingRequest:
    name, *elsewhere = words
    known = look(name)
    address = at(elsewhere[1]) if elsewhere else known.address
    return PingRequest(1, known.life.node, address)


def _event(words: list[str], look: Look) -> Event:
    """Read ``NAME from SENDER number SEQUENCE at TIME``."""
    name, _, sender, _, sequence, _, time = words
    life = look(sender).life
    return Event(life.node, life.boot, int(sequence), _number(time, 0), name, b"")


ANSWERS: dict[str, Callable[[int], Message]] = {"ack": Ack, "nack": Nack}
READERS: dict[str, Callable[[list[str], Look], Message]] = {
    "alive": _alive,
    "suspect": _suspect,
    "dead": _dead,
    "left": _left,
    "asleep": _asleep,
    "ping": _ping,
    "ping-request": _ping_request,
    "event": _event,
}
STATES: dict[str, MemberState] = {state.value: state for state in MemberState}
