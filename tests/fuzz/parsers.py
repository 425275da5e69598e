"""Everything else that reads what others wrote: texts, files, requests, one function at a time.

A parser here is a name, a few good inputs, a way to spoil them, and what it may do with the rest:
return, or raise the errors that it documents. Any other exception is a finding. Where a parser
accepts something, ``feed`` also looks that what was accepted can be used, because an agent dies as
well of what it let in as of what it read.
"""

import asyncio
import contextlib
import json
import random
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from zeroconf.asyncio import AsyncServiceInfo

from agent.admission.issuer import Issuer
from agent.admission.messages import GUEST_CODEC, AdmissionRequest, Greeting
from agent.admission.proofs import prove
from agent.admission.server import _read
from agent.admission.tokens import Token, parse_token
from agent.cluster.event_json import parse_id
from agent.config import loader
from agent.config.paths import Paths
from agent.exits import AgentError
from agent.identity import certificates
from agent.identity.identity import found, load
from agent.identity.keyring import new_keyring, parse_keyring
from agent.identity.node_uri import node_uri, parse_node_uri
from agent.net.framing import framed, read_frame
from agent.net.mdns import SERVICE_TYPE, Announcement, parse_service, service_info
from agent.net.seeds import parse_seeds
from agent.store.tokens import TokenRefusedError, TokenState
from agent.system.wall_clock import flaw
from agent.telemetry.readings_text import FORMATS, GoodLine, parse, split_lines
from agent.text.units import parse_endpoint
from edge_apps import kv_frames
from edge_apps.units import read_duration
from gossip.core.errors import InvalidRequest, Malformed, RemoteError
from gossip.core.machine import Address
from gossip.kv.coverages import difference, in_at_least
from gossip.kv.dots import PartitionClock
from gossip.kv.records import decode_context, encode_context
from gossip.kv.watch_token import decode_token, encode_token
from gossip.registry.node import RegisteredNode
from gossip.registry.registry import Registry, SignedRegistry, admit
from gossip.registry.registry import found as found_registry
from tests.fuzz.hostile import Mutator

COVEY = bytes(range(16))
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
AUTHORITY = certificates.make_authority(KEY, COVEY, "barn")
SUBJECT = certificates.Subject(COVEY, 0xC0FFEE, "pi")
REQUEST = certificates.make_request(KEY, SUBJECT)
CERTIFICATE = certificates.issue(
    KEY, AUTHORITY, SUBJECT, KEY.public_key().public_bytes_raw(), bytes(19) + b"\1"
)
REGISTRY = admit(
    found_registry(COVEY, RegisteredNode(1, "a"), 8), RegisteredNode(2, "b", b"k", 2.0, "north")
)

Spoil = Callable[[Mutator, bytes], bytes]


class Parser(NamedTuple):
    """One reader of foreign bytes."""

    name: str
    goods: tuple[bytes, ...]
    feed: Callable[[bytes], object]
    may_raise: tuple[type[Exception], ...] = ()
    spoil: Spoil = Mutator.spoil


def spoil_text(mutator: Mutator, data: bytes) -> bytes:
    """Spoil a text: characters and words cut, doubled, swapped, and replaced by nasty ones."""
    rng = mutator.rng
    text = data.decode()
    for _ in range(rng.randrange(1, 4)):
        at, to = sorted((rng.randrange(len(text) + 1), rng.randrange(len(text) + 1)))
        text = rng.choice(
            [
                text[:at] + text[to:],
                text[:at] + text[at:to] * 2 + text[to:],
                text[:at] + mutator._text() + text[to:],
                text[:at] + rng.choice(WORDS) + text[at:],
                text[:at] + rng.choice(WORDS) + text[at + 1 :],
                text[to:] + text[:to],
            ]
        )[:200_000]
    return text.encode(errors="surrogatepass")


def spoil_packed(mutator: Mutator, data: bytes) -> bytes:
    """Spoil what is inside of compressed bytes, or these themselves."""
    if mutator.rng.random() < 0.3:
        return spoil_blindly(mutator, data)
    return zlib.compress(mutator.spoil(zlib.decompress(data)))


WORDS = (
    "\x00", "\ud800", "\udc80", "=", "==", ",", "\\", '"', "'", "[", "]", "{", "}", "#", "/", "%",
    ":", "\n", "\r", "\t", "\u2028", "-", "+", "_", "9" * 25, "9" * 5000, "0" * 30 + "9" * 5000,
    "1e999", "nan", "-inf", "true", "1_000", "٣", "ä", "\U0010ffff", "[" * 3000, '{"a":' * 3000,
)  # fmt: skip


def spoil_json(mutator: Mutator, data: bytes) -> bytes:
    """Spoil a JSON document, as a tree or as a text."""
    if mutator.rng.random() < 0.3:
        return spoil_text(mutator, data)
    tree = mutator.mutate(msgspec.json.decode(data))
    with contextlib.suppress(TypeError, ValueError):  # what msgpack alone can say
        return json.dumps(tree, ensure_ascii=mutator.rng.random() < 0.5).encode(
            errors="surrogatepass"
        )
    return spoil_text(mutator, data)


def spoil_blindly(mutator: Mutator, data: bytes) -> bytes:
    """Spoil bytes of a format that others decode for us: X.509, frames."""
    return mutator._blindly(data)


# What is fed, and looked at.


def _text(data: bytes) -> str:
    """Return what a terminal or a file hands to Python: it may have lone surrogates."""
    return data.decode(errors="surrogateescape")


def _token(data: bytes) -> None:
    text = _text(data)
    assert parse_token(text).encode() == text.strip(), "one token, one spelling"


def _registry(data: bytes) -> None:
    registry = Registry.decode(data)
    assert Registry.decode(registry.encode()) == registry
    registry.owners_of("a key")
    admit(registry, RegisteredNode(77, "another"))


def _lines(data: bytes) -> None:
    """Readings from a pipe, in each of the forms; what is accepted must fit a database."""
    for form in (None, *FORMATS):
        for outcome in parse(split_lines(data), form):
            if isinstance(outcome, GoodLine):
                msgspec.json.encode(outcome.readings)
            else:
                str(outcome).encode(errors="surrogateescape")


def _in_file(name: str, feed: Callable[[Path], object]) -> Callable[[bytes], object]:
    """Let a reader of files find the bytes in one of that name."""

    def put_and_feed(data: bytes) -> None:
        with tempfile.TemporaryDirectory(prefix="covey-fuzz-") as folder:
            directory = Path(folder) / "x"
            directory.mkdir(mode=0o700)
            (directory / name).write_bytes(data)
            feed(directory)

    return put_and_feed


def _identity(directory: Path) -> None:
    """The identity is loaded, and asked what an agent asks it when it starts."""
    identity = load(directory)
    repr(identity)
    identity.verify(b"payload", bytes(64))
    identity.verify_keyring(b"payload", bytes(64))
    flaw(1.8e9, identity.valid_from, identity.valid_until)


def _configuration(directory: Path) -> None:
    loaded = loader.load(Paths.find(directory), {})
    loaded.values()


def _service(data: bytes) -> None:
    """An announcement by mDNS: whatever it says, a hint or nothing."""
    said = msgspec.msgpack.decode(data, type=tuple[list[list[bytes]], list[bytes], int])
    properties: dict[str | bytes, str | bytes | None] = {
        pair[0]: pair[-1] for pair in said[0] if pair and len(b"=".join(pair)) < 256
    }
    hosts = [host for host in said[1] if len(host) in (4, 16)]
    info = AsyncServiceInfo(
        SERVICE_TYPE,
        f"x.{SERVICE_TYPE}",
        port=said[2] % 2**16,
        addresses=hosts,
        properties=properties,
    )
    parse_service(info)


def _good_service() -> bytes:
    info = service_info(Announcement(COVEY, 7, (Address("192.0.2.7", 7747),)))
    pairs = [[key, value or b""] for key, value in info.properties.items()]
    return msgspec.msgpack.encode((pairs, info.addresses, info.port))


class _Store:
    """Knows no token; what comes so far was worth asking."""

    async def redeem(self, *_: object) -> None:
        raise TokenRefusedError(TokenState.UNKNOWN)


class _Founder:
    """As much of an issuer's identity as admission looks at before it asks the store."""

    cluster_id, is_issuer, cluster_name = COVEY, True, "barn"


def _application(data: bytes) -> None:
    """A guest's application, up to the moment at which a token would be spent.

    What passes must fit the registry that everybody decodes: one entry that does not would make
    it unreadable for the whole covey. Whoever writes it can sign it, too: with its own key.
    """
    admission = GUEST_CODEC.decode(data)
    if isinstance(admission, AdmissionRequest):
        admission = prove(admission, KEY, KEY)
        issuer = Issuer(_Founder(), _Store(), lambda: 1_790_000_000.0)  # type: ignore[arg-type]
        entry = issuer._check(admission)
        Registry.decode(admit(REGISTRY, entry).encode())


def _guest(data: bytes) -> None:
    """What a stranger writes on a stream that was just opened."""

    async def serve() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        await _read(reader)

    asyncio.run(serve())


def _frames(data: bytes) -> None:
    """Frames on a member's stream, up to its end."""

    async def read() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        while True:
            assert await read_frame(reader, 1000)

    asyncio.run(read())


def _node_uri(data: bytes) -> None:
    assert node_uri(*parse_node_uri(_text(data))) == _text(data)


def _event_id(data: bytes) -> None:
    parse_id(_text(data))


def _identity_file() -> bytes:
    with tempfile.TemporaryDirectory(prefix="covey-fuzz-") as folder:
        found(Path(folder) / "identity", "barn", "pi")
        return (Path(folder) / "identity" / "identity.json").read_bytes()


TOKEN = Token(COVEY, bytes(range(32)), b"tokenid8", b"s" * 20).encode().encode()
LINES = (
    b"attic/temperature 21.5 1700000000.5\nattic/door open\nb 3",
    b'{"sensor": "a", "value": 2.5, "unit": "C", "time": "2026-01-31T12:00:00Z", "tags": {}}',
    b'weather,room=attic temperature=21.5,humidity=40i,t="a \\"b\\"",on=true 1700000000000000000',
)
CONFIGURATION = b"""
[node]
name = "pi"
zone = "shed"
weight = 1.5
tags = { room = "attic" }
[network]
port = 7747
bind = ["0.0.0.0"]
seeds = ["10.0.0.1:7747"]
[gossip]
profile = "lan"
[apps.system]
enabled = true
every = "10s"
"""


def _watch_token(data: bytes) -> None:
    clocks = decode_token(data, 7)
    found = in_at_least(2, [*clocks.values(), *clocks.values()])
    for clock in clocks.values():
        difference(clock, PartitionClock(found))


ASKS = (kv_frames.framed(kv_frames.PutAsk(1, "a", b"v", 2, b"c")) + kv_frames.framed(
    kv_frames.GetAsk(2, "a")
),)  # fmt: skip
ANSWERS = (kv_frames.framed(kv_frames.WriteResult(1, "ok", 2, 2, b"c")) + kv_frames.framed(
    kv_frames.Found(2, (kv_frames.StoredValue(b"v", 1, "register"),), b"c", 2, 2)
),)  # fmt: skip


def _asks(data: bytes) -> None:
    arriving = kv_frames.ArrivingMessages(kv_frames.FRAME_BYTES_MAX)
    arriving.feed(data)
    while (message := arriving.take()) is not None:
        kv_frames.decode_ask(message)


def _answers(data: bytes) -> None:
    arriving = kv_frames.ArrivingMessages(kv_frames.ANSWER_BYTES_MAX)
    arriving.feed(data)
    while (message := arriving.take()) is not None:
        kv_frames.decode_answer(message)


PARSERS: tuple[Parser, ...] = (
    Parser("token", (TOKEN,), _token, (AgentError,), spoil_text),
    Parser(
        "token's inside",
        (msgspec.msgpack.encode((COVEY, bytes(32), b"tokenid8", b"s" * 20)),),
        lambda data: msgspec.msgpack.decode(data, type=Token),
        (msgspec.DecodeError, UnicodeDecodeError, RecursionError),
    ),
    Parser(
        "keyring file",
        (new_keyring(), new_keyring("aes-256-gcm")),
        lambda data: parse_keyring(data, COVEY).aead(1, 1, 1),
        (ValueError,),
        spoil_json,
    ),
    Parser("identity file", (_identity_file(),), _in_file("identity.json", _identity),
           (AgentError,), spoil_json),
    Parser("registry", (REGISTRY.encode(),), _registry, (Malformed,)),
    Parser(
        "signed registry",
        (SignedRegistry(REGISTRY.encode(), bytes(64)).encode(),),
        SignedRegistry.decode,
        (Malformed,),
    ),
    Parser("configuration", (CONFIGURATION,), _in_file("config.toml", _configuration),
           (AgentError,), spoil_text),
    Parser("signing request", (REQUEST,), certificates.read_request, (RemoteError,), spoil_blindly),
    Parser(
        "certificate",
        (CERTIFICATE,),
        lambda data: certificates.check_issued(data, AUTHORITY),
        (RemoteError,),
        spoil_blindly,
    ),
    Parser("authority", (AUTHORITY,), certificates.authority_key_of, (RemoteError,), spoil_blindly),
    Parser(
        "application",
        (GUEST_CODEC.encode(
            AdmissionRequest(b"tokenid8", b"s" * 64, REQUEST, 1_790_000_000_000, 1.0, "shed")
        ),),
        _application,
        (RemoteError, AgentError),
    ),
    Parser("guest", (framed(GUEST_CODEC.encode(Greeting(COVEY))),), _guest,
           (RemoteError, EOFError), spoil_blindly),
    Parser("frames", (framed(b"one") + framed(b"x" * 500),), _frames,
           (RemoteError, EOFError), spoil_blindly),
    Parser("questions of a stream", ASKS, _asks, (Malformed,), spoil_blindly),
    Parser("answers of a stream", ANSWERS, _answers, (Malformed,), spoil_blindly),
    Parser("mDNS announcement", (_good_service(),), _service,
           (msgspec.DecodeError, UnicodeDecodeError, RecursionError)),
    Parser("node uri", (node_uri(COVEY, 0xC0FFEE).encode(),), _node_uri, (RemoteError,),
           spoil_text),
    Parser("lines", LINES, _lines, (), spoil_text),
    Parser("endpoint", (b"pi.local:7747", b"[fe80::1%eth0]:7747", b"10.0.0.1"),
           lambda data: parse_endpoint(_text(data), 7747), (ValueError,), spoil_text),
    Parser("seeds", (b"pi.local:7747", b"[::1]:1"), lambda data: parse_seeds([_text(data)], 7747),
           (AgentError,), spoil_text),
    Parser("duration", (b"1h30m", b"500ms"), lambda data: read_duration(_text(data)),
           (ValueError,), spoil_text),
    Parser("event id", (b"000000000000000a-0000000100000000-7",), _event_id, (), spoil_text),
    Parser(
        "context",
        (encode_context("k", ((1, 2), (2**64 - 1, 3))),),
        lambda data: decode_context("k", data),
        (InvalidRequest,),
    ),
    Parser(
        "watch token",
        (encode_token(7, {0: ((2**64 - 1, ((1, 3),)),), 9: ()}),),
        _watch_token,
        (InvalidRequest,),
        spoil_packed,
    ),
)  # fmt: skip

BY_NAME = {parser.name: parser for parser in PARSERS}


class Misread(AssertionError):
    """A parser raised what it does not document."""


def feed(parser: Parser, data: bytes) -> None:
    """Let a parser read. Raises Misread, with the input, when it ends otherwise than it may."""
    try:
        parser.feed(data)
    except parser.may_raise:
        return
    except Exception as error:
        raise Misread(f"{parser.name}: {type(error).__name__}: {error}: {data[:300]!r}") from error


def feed_spoilt(seed: int) -> None:
    """Let every parser read one good input, spoilt as the seed has it."""
    rng = random.Random(f"parsers {seed}")
    mutator = Mutator(rng)
    for parser in PARSERS:
        feed(parser, parser.spoil(mutator, rng.choice(parser.goods)))


def feed_goods() -> None:
    """Let every parser read its good inputs. Raises whatever it raises: none is refused."""
    for parser in PARSERS:
        for data in parser.goods:
            with contextlib.suppress(EOFError):  # the end of the stream, behind all frames
                parser.feed(data)
