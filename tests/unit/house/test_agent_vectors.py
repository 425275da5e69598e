"""Golden vectors of what agents say to each other: admission, keys, the doctor.

``tests/vectors/agents-v1.json`` holds for each name the message's type, its fields and its bytes;
devices in the field speak these. To add vectors for new messages, extend EXAMPLES and run
``python -m tests.unit.house.test_agent_vectors``: it adds what is missing and never changes what is
there.
"""

import json
import pathlib
import typing
from typing import Any

import msgspec
import pytest

from agent.admission import messages as admission
from agent.admission.token_terms import TokenTerms
from agent.cluster import kv_messages as kv_looks
from agent.doctor import messages as doctor
from agent.keys import messages as keys
from agent.net import relay_messages as relay
from gossip.bodies import messages as bodies
from gossip.bodies.file_records import BlockName
from gossip.core.machine import Address
from gossip.core.wire import Codec
from gossip.kv.takeover import Copy
from gossip.registry.node_change import NodeChange

FILE = pathlib.Path(__file__).parents[2] / "vectors" / "agents-v1.json"

ADMISSION, KEYS, DOCTOR = range(80, 90), range(90, 96), range(96, 98)
RELAYS, TO_GUESTS = range(100, 102), range(104, 112)
BODIES = range(22, 28)
KV_LOOKS = frozenset({98, 99, 102, 103})

BLOCK = BlockName(bytes(range(16)), 4095)
ID, MAX = 0xC0FFEE, 2**64 - 1
COVEY = bytes(range(16))
PEERS = (
    admission.KnownPeer(7, "pi", (Address("192.0.2.7", 7747), Address("2001:db8::7", 7747))),
    admission.KnownPeer(MAX, "Gr.-_0", ()),
)
APPLICATION = admission.AdmissionRequest(
    b"tokenid8", b"p" * 64, b"csr", 1_790_000_000_000, 1.5, "shed", signature=bytes(range(64))
)
GRANTED = admission.Granted(
    "barn", b"certificate", b"keyring", b"registry", PEERS, bytes(range(64))
)
TERMS = TokenTerms(60.0, 1, "pi9", "shed", 1.5)
TOKEN = admission.TokenShown(
    b"tokenid8", "valid", 1.0, "the operator of pi", 61.0, 2, 1, "", "shed", 0.0, ("0" * 16,)
)
RENEWAL = admission.Renewal(b"csr", bytes(range(20)), 1_790_000_000_000, bytes(range(64)))
REFUSED = admission.Refused(12, "no", "ask again")
SHOWN = (keys.KeyShown(1, "0123456789abcdef"), keys.KeyShown(2**32 - 1, "fedcba9876543210"))
SECRETS = ((1, bytes(range(32))), (2**32 - 1, bytes(32)))

EXAMPLES: dict[str, tuple[Codec[Any], Any]] = {
    "greeting": (admission.GUEST_CODEC, admission.Greeting(COVEY)),
    "welcome": (admission.MEMBER_CODEC, admission.Welcome(COVEY, b"authority")),
    "admission": (admission.GUEST_CODEC, APPLICATION),
    "granted": (admission.MEMBER_CODEC, GRANTED),
    "granted, to the first": (
        admission.MEMBER_CODEC,
        admission.Granted("b", b"", b"", b"", ()),
    ),
    "refused": (admission.MEMBER_CODEC, REFUSED),
    "ask for a token": (
        admission.RELAY_CODEC,
        admission.RelayedRequest(1, admission.TokenRequest(TERMS)),
    ),
    "ask for an admission": (
        admission.RELAY_CODEC,
        admission.RelayedRequest(300, APPLICATION, "192.0.2.9"),
    ),
    "ask for the tokens": (
        admission.RELAY_CODEC,
        admission.RelayedRequest(2, admission.TokenList()),
    ),
    "ask to revoke a token": (
        admission.RELAY_CODEC,
        admission.RelayedRequest(3, admission.TokenRevocation(b"tokenid8")),
    ),
    "answer, tokens": (
        admission.RELAY_CODEC,
        admission.RelayedReply(2, admission.TokensShown((TOKEN,))),
    ),
    "renewal": (admission.GUEST_CODEC, RENEWAL),
    "renewed": (admission.MEMBER_CODEC, admission.Renewed(b"certificate", b"registry")),
    "ask for a renewal": (admission.RELAY_CODEC, admission.RelayedRequest(4, RENEWAL)),
    "answer, renewed": (
        admission.RELAY_CODEC,
        admission.RelayedReply(4, admission.Renewed(b"certificate", b"registry")),
    ),
    "answer, revoked": (
        admission.RELAY_CODEC,
        admission.RelayedReply(3, admission.TokenRevoked("valid")),
    ),
    "ask, removal": (
        admission.RELAY_CODEC,
        admission.RelayedRequest(4, admission.RemovalOrder(ID)),
    ),
    "answer, removed": (
        admission.RELAY_CODEC,
        admission.RelayedReply(4, admission.NodeRemoved(2**40)),
    ),
    "ask for the authority's key": (
        admission.RELAY_CODEC,
        admission.RelayedRequest(5, admission.AuthorityRequest()),
    ),
    "answer, the authority's key": (
        admission.RELAY_CODEC,
        admission.RelayedReply(5, admission.AuthorityAnswer(b"key", b"next")),
    ),
    "ask to keep the next authority's key": (
        admission.RELAY_CODEC,
        admission.RelayedRequest(6, admission.NextAuthority(b"next")),
    ),
    "answer, the next authority's key is kept": (
        admission.RELAY_CODEC,
        admission.RelayedReply(6, admission.NextAuthorityAnswer()),
    ),
    "ask, placement": (
        admission.RELAY_CODEC,
        admission.RelayedRequest(5, admission.PlacementOrder(ID, NodeChange("shed", 2.0))),
    ),
    "ask, drain": (
        admission.RELAY_CODEC,
        admission.RelayedRequest(6, admission.PlacementOrder(MAX, NodeChange(drains=True))),
    ),
    "ask, owners of a space": (
        admission.RELAY_CODEC,
        admission.RelayedRequest(7, admission.SpaceOrder("photos", 5)),
    ),
    "answer, placed": (
        admission.RELAY_CODEC,
        admission.RelayedReply(5, admission.NodePlaced(7)),
    ),
    "answer, a token": (
        admission.RELAY_CODEC,
        admission.RelayedReply(1, admission.TokenIssued("covey1-x_")),
    ),
    "answer, granted": (admission.RELAY_CODEC, admission.RelayedReply(300, GRANTED)),
    "answer, refused": (admission.RELAY_CODEC, admission.RelayedReply(2**32, REFUSED)),
    "keyring state": (keys.CODEC, keys.KeyringState(3, "used", 1, SHOWN, wants_reply=True)),
    "keyring state, founder's": (keys.CODEC, keys.KeyringState(0, "steady", 1, SHOWN[:1])),
    "keyring offer": (
        keys.CODEC,
        keys.KeyringOffer(4, "installed", "chacha20-poly1305", 1, SECRETS, bytes(range(64)), 9),
    ),
    "keyring offer, largest numbers": (
        keys.CODEC,
        keys.KeyringOffer(MAX, "steady", "aes-256-gcm", MAX, SECRETS[1:], b""),
    ),
    "rotate order": (keys.CODEC, keys.RotateRequest(7)),
    "rotate order, by force": (keys.CODEC, keys.RotateRequest(MAX, force=True)),
    "rotate answer": (keys.CODEC, keys.RotateReply(7, 0)),
    "rotate answer, refused": (keys.CODEC, keys.RotateReply(8, 13, "no room", "free some")),
    "view ask": (doctor.CODEC, doctor.ViewRequest(2**33)),
    "view": (
        doctor.CODEC,
        doctor.NodeView(
            2**33,
            1_790_000_000_000,
            (
                doctor.PeerView(ID, "alive", 0.25, 1.0, None, True, True),
                doctor.PeerView(MAX, "suspect", None, None, 3600.0),
            ),
        ),
    ),
    "relay ask": (relay.CODEC, relay.RelayAsk(MAX)),
    "relay answer": (relay.CODEC, relay.RelayAnswer(is_through=True)),
    "view, of nobody": (doctor.CODEC, doctor.NodeView(0, 0, ())),
    "block push": (
        bodies.CODEC,
        bodies.BlockPush(2**33, MAX, BLOCK, 2**20, bytes(range(32)), 65536, b"data", (7, MAX)),
    ),
    "block stored": (bodies.CODEC, bodies.BlockStored(7)),
    "block not stored": (bodies.CODEC, bodies.BlockStored(2**33, "full")),
    "block fetch": (bodies.CODEC, bodies.BlockFetch(7, BLOCK, 65536, 4096)),
    "block slice": (bodies.CODEC, bodies.BlockSlice(7, 65536, b"data")),
    "block not there": (bodies.CODEC, bodies.BlockSlice(7, 0, b"", "missing")),
    "blocks ask": (bodies.CODEC, bodies.BlockAsk(7, (COVEY, bytes(16)))),
    "blocks held": (bodies.CODEC, bodies.BlocksHeld(7, (b"\x05", b""), 2**30, 2**33)),
    "key view ask": (kv_looks.VIEW_CODEC, kv_looks.KeyViewRequest(2**33, "lights/é", ((MAX, 7),))),
    "key view": (
        kv_looks.VIEW_CODEC,
        kv_looks.KeyView(
            2**33,
            9,
            Copy(is_sound=True, complete_for=4),
            True,
            False,
            (kv_looks.VersionView(MAX, 7, 2**63, 300, bytes(range(8))),),
            ((1, 2), (MAX, 7)),
            ((MAX, 7),),
        ),
    ),
    "key statistics ask": (kv_looks.STATS_CODEC, kv_looks.KvStatsRequest(2**33)),
    "key statistics": (
        kv_looks.STATS_CODEC,
        kv_looks.KvStats(
            2**33,
            9,
            3600.5,
            2**40,
            ((0, 1), (255, 70_000)),
            1,
            2,
            True,
            3,
            4,
            5,
            6,
            7,
            (kv_looks.ComparisonView(MAX, 0.25, 8), kv_looks.ComparisonView(ID, None, 0)),
            2**41,
            1024.5,
            2**42,
            1,
            6,
            85,
        ),
    ),
    "key statistics, with spaces that have a quota": (
        kv_looks.STATS_CODEC,
        kv_looks.KvStats(
            2**33,
            9,
            3600.5,
            2**40,
            (),
            0,
            0,
            False,
            0,
            0,
            0,
            0,
            0,
            (),
            0,
            0.0,
            0,
            0,
            0,
            0,
            False,
            (
                kv_looks.SpaceUse("lamps", ((0, 1, 17), (255, 70_000, 2**40))),
                kv_looks.SpaceUse("ü", ()),
            ),
        ),
    ),
    "key view, of a damaged copy": (
        kv_looks.VIEW_CODEC,
        kv_looks.KeyView(0, 0, Copy(False, 0), False, True, (), (), (), is_cut=True),
    ),
}

MODULES = (admission, keys, doctor, relay, kv_looks, bodies)


def vector_of(message: Any, codec: Codec[Any]) -> dict[str, Any]:
    fields = {f: msgspec.to_builtins(getattr(message, f)) for f in message.__struct_fields__}
    return {
        "message": type(message).__name__,
        "fields": json.loads(msgspec.json.encode(fields)),
        "hex": codec.encode(message).hex(),
    }


def recorded() -> dict[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_the_bytes_are_the_recorded_ones(name: str) -> None:
    codec, message = EXAMPLES[name]
    assert vector_of(message, codec) == recorded()[name]


@pytest.mark.parametrize("name", list(recorded()))
def test_the_recorded_bytes_decode_to_the_recorded_message(name: str) -> None:
    codec, message = EXAMPLES[name]
    assert codec.decode(bytes.fromhex(recorded()[name]["hex"])) == message


def test_every_message_has_a_vector() -> None:
    """Also those that travel only inside others: a question, an answer."""
    kinds = {
        kind.__name__
        for module in MODULES
        for kind in vars(module).values()
        if isinstance(kind, type)
        and issubclass(kind, msgspec.Struct)
        and kind.__struct_config__.tag is not None
    }
    inside = {
        type(part).__name__
        for _, message in EXAMPLES.values()
        for part in (message, getattr(message, "question", None), getattr(message, "answer", None))
    }
    assert inside >= kinds
    assert kinds >= {vector["message"] for vector in recorded().values()}


def test_each_plane_keeps_to_its_tags() -> None:
    """As ``gossip/core/wire.py`` has them."""
    owned: list[tuple[frozenset[int], list[Codec[typing.Any]]]] = [
        (
            frozenset([*ADMISSION, *TO_GUESTS]),
            [admission.GUEST_CODEC, admission.MEMBER_CODEC],
        ),
        (frozenset(ADMISSION), [admission.RELAY_CODEC]),
        (frozenset(KEYS), [keys.CODEC]),
        (frozenset(DOCTOR), [doctor.CODEC]),
        (frozenset(RELAYS), [relay.CODEC]),
        (frozenset(BODIES), [bodies.CODEC]),
        (KV_LOOKS, [kv_looks.VIEW_CODEC, kv_looks.STATS_CODEC]),
    ]
    assert not [codec.tags for tags, codecs in owned for codec in codecs if not codec.tags <= tags]
    ranges = [ADMISSION, TO_GUESTS, KEYS, DOCTOR, RELAYS, KV_LOOKS, BODIES]
    assert sum(map(len, ranges)) == len(set().union(*ranges)), "one tag, one plane"


if __name__ == "__main__":
    vectors = {name: vector_of(message, codec) for name, (codec, message) in EXAMPLES.items()}
    text = json.dumps(vectors | recorded(), indent=1, ensure_ascii=False)
    FILE.write_text(text + "\n", encoding="utf-8")
