"""Streams on loopback: mutual certificates, order, failure told, strangers bounded."""

import asyncio
import contextlib
import socket
import tracemalloc
from asyncio.sslproto import SSLProtocol
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.config.logs import RateLimitedLog
from agent.files.private_files import staged_directory, write_private
from agent.identity import certificates, identity
from agent.identity.identity import Identity, found
from agent.identity.private_keys import private_pem
from agent.net import connection_slots, listener, outgoing, sockets, tls_buffers
from agent.net import streams as stream
from agent.net.authorization import ShownCertificate
from agent.net.dial_test import DialOutcome
from agent.net.framing import framed
from agent.net.origin import origin_of
from agent.net.sockets import open_sockets
from agent.net.streams import Streams
from agent.net.tls import dialling_context, guest_context
from gossip.core.ids import NodeId
from gossip.core.machine import Address
from gossip.core.tuning import FRAME_BYTES_MAX
from tests.support.patience import GIVE_UP_S

TLS_ALERT = b"\x15\x03\x01\x00\x02\x02\x46"
"""What OpenSSL answers to what is no handshake: an alert of an unsupported version."""
ENDS, ENOUGH_BYTES = 2, 80 * 1024


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until it holds; a hang, not a slow machine, fails the test."""
    async with asyncio.timeout(GIVE_UP_S):
        while not condition():  # noqa: ASYNC110 - any condition, not one that tells
            await asyncio.sleep(0.01)


class End:
    """One agent's streams, and what was heard on them."""

    def __init__(self, who: Identity) -> None:
        self.who = who
        self.counts: Counter[str] = Counter()
        self.sockets = open_sockets(["127.0.0.1"], 0)
        self.streams = Streams(who, self.sockets, self.counts)
        self.frames: list[tuple[NodeId, bytes]] = []
        self.unreachable: list[NodeId] = []
        self.closed: list[NodeId] = []
        self.where: dict[NodeId, list[Address]] = {}
        self.guests = 0
        self.strangers: set[NodeId] = set()
        self.knocks: list[NodeId] = []
        self.overheard_frames: list[tuple[NodeId, bytes]] = []

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self.sockets.port)

    def address_tuple(self) -> tuple[str, int]:
        return self.address.host, self.address.port

    def start(self, **more: Callable[..., Any]) -> None:
        self.streams.start(
            on_frame=lambda data, peer: self.frames.append((peer, data)),
            on_unreachable=self.unreachable.append,
            on_closed=self.closed.append,
            addresses_of=lambda node: self.where.get(node, []),
            on_guest=self._serve_guest,
            door=self,
            **more,
        )

    def admits(self, shown: ShownCertificate) -> bool:
        return shown.node not in self.strangers

    def registry_frame(self) -> bytes:
        return b"registry of " + self.who.node_name.encode()

    def overheard(self, frame: bytes, shown: ShownCertificate) -> None:
        self.overheard_frames.append((shown.node, frame))

    def knocked(self, shown: ShownCertificate, _host: str) -> None:
        self.knocks.append(shown.node)

    async def _serve_guest(
        self, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter
    ) -> None:
        self.guests += 1
        await reader.read()

    async def stop(self) -> None:
        await self.streams.stop()
        self.sockets.close()


def admitted(first: Identity, directory: Path, name: str) -> Identity:
    """Return another member's identity, as admission would make it."""
    key = Ed25519PrivateKey.generate()
    authority = first.authority
    subject = certificates.Subject(first.cluster_id, identity.new_id(), name)
    public = key.public_key().public_bytes_raw()
    given = identity.Credentials(
        cluster_id=first.cluster_id,
        cluster_name=first.cluster_name,
        certificate=certificates.issue(
            first.authority_private_key(), authority, subject, public, certificates.new_serial()
        ),
        authority=authority,
        keyring=first.keyring_bytes(),
        registry=first.first_registry(),
    )
    with staged_directory(directory) as staged:
        write_private(staged / "node.key", private_pem(key))
        identity.write_credentials(staged, given)
    return identity.load(directory)


@asynccontextmanager
async def pair(tmp_path: Path) -> AsyncIterator[tuple[End, End]]:
    first = found(tmp_path / "a", "barn", "pi1")
    one, two = End(first), End(admitted(first, tmp_path / "b", "pi2"))
    for end, other in ((one, two), (two, one)):
        end.where[other.who.node_id] = [other.address]
        end.start()
    try:
        yield one, two
    finally:
        await one.stop()
        await two.stop()


def test_a_kept_stream_stays_open_in_silence_and_tells_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "IDLE_S", 0.05)
    monkeypatch.setattr(outgoing, "REDIAL_FIRST_S", 0.05)

    async def scenario() -> None:
        async with pair(tmp_path) as (one, two):
            one.streams.pin([two.who.node_id])
            await eventually(lambda: two.counts["streams/accepted"])
            await asyncio.sleep(0.3)
            assert one.counts["streams/dialled"] == 1
            assert not one.closed
            await two.streams.stop()
            await eventually(lambda: one.closed == [two.who.node_id])
            two.start()
            await eventually(lambda: two.counts["streams/accepted"] == 2)
            one.streams.pin([])
            await eventually(lambda: two.counts["streams/ended"] >= 1)

    asyncio.run(scenario())


def test_a_kept_stream_carries_frames_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pair(tmp_path) as (one, two):
            one.streams.pin([two.who.node_id])
            await eventually(lambda: two.counts["streams/accepted"])
            one.streams.send(b"hello", two.who.node_id)
            await eventually(lambda: two.frames == [(one.who.node_id, b"hello")])
            assert one.counts["streams/dialled"] == 1

    asyncio.run(scenario())


def test_frames_arrive_in_order_both_ways(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pair(tmp_path) as (one, two):
            sent = [number.to_bytes(4) for number in range(500)] + [bytes(FRAME_BYTES_MAX)]
            for frame in sent:
                one.streams.send(frame, two.who.node_id)
            two.streams.send(b"back", one.who.node_id)
            await eventually(lambda: len(two.frames) == len(sent) and one.frames)
            assert two.frames == [(one.who.node_id, frame) for frame in sent]
            assert one.frames == [(two.who.node_id, b"back")]
            assert one.counts["streams/dialled"] == 1
            assert not one.unreachable

    asyncio.run(scenario())


def test_an_open_stream_takes_little_memory_and_carries_large_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SSLProtocol, "max_size", SSLProtocol.max_size)  # it is put back behind us
    tls_buffers.keep_small()
    large = bytes(FRAME_BYTES_MAX)

    async def scenario() -> int:
        async with pair(tmp_path) as (one, two):
            one.streams.send(b"first", two.who.node_id)  # what all streams share is made for it
            await eventually(lambda: two.frames)
            tracemalloc.start()
            two.streams.send(b"second", one.who.node_id)
            await eventually(lambda: one.frames)
            taken_bytes, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            two.streams.send(large, one.who.node_id)
            await eventually(lambda: one.frames[1:] == [(two.who.node_id, large)])
            return taken_bytes

    assert asyncio.run(scenario()) < ENDS * ENOUGH_BYTES


def test_a_node_without_address_is_unreachable_but_not_from_within_send(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pair(tmp_path) as (one, _):
            one.streams.send(b"x", 12345)
            assert one.unreachable == []
            await eventually(lambda: one.unreachable == [12345])
            one.streams.send(b"y", 12345)  # while it cools: refused at once, but later
            assert one.unreachable == [12345]
            await eventually(lambda: one.unreachable == [12345, 12345])
            assert one.counts["frames_dropped/cooling"] == 1

    asyncio.run(scenario())


def test_who_is_heard_again_is_answered_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pair(tmp_path) as (one, two):
            there = one.where.pop(two.who.node_id)
            one.streams.send(b"lost", two.who.node_id)
            await eventually(lambda: one.unreachable)
            one.where[two.who.node_id] = there
            two.streams.send(b"ask", one.who.node_id)
            await eventually(lambda: one.frames)
            one.streams.send(b"answer", two.who.node_id)
            await eventually(lambda: two.frames)
            assert [frame for _, frame in two.frames] == [b"answer"]
            assert one.counts["frames_dropped/cooling"] == 0

    asyncio.run(scenario())


def test_the_next_address_is_tried(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pair(tmp_path) as (one, two):
            one.where[two.who.node_id] = [
                Address("pi.local", 7747),
                Address("127.0.0.1", 9),
                one.address,  # answers, but is somebody else
                two.address,
            ]
            one.streams.send(b"x", two.who.node_id)
            await eventually(lambda: two.frames)
            assert one.counts["streams/wrong_node"] == 1

    asyncio.run(scenario())


def test_a_peer_that_goes_away_is_told_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "COOLING_S", 0.05)

    async def scenario() -> None:
        async with pair(tmp_path) as (one, two):
            one.streams.send(b"x", two.who.node_id)
            await eventually(lambda: two.frames)
            await two.streams.stop()
            await eventually(lambda: one.unreachable)
            two.start()

            def arrived() -> bool:
                one.streams.send(b"again", two.who.node_id)
                return (one.who.node_id, b"again") in two.frames

            await eventually(arrived)

    asyncio.run(scenario())


def test_an_idle_link_closes_without_complaint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "IDLE_S", 0.05)

    async def scenario() -> None:
        async with pair(tmp_path) as (one, two):
            one.streams.send(b"x", two.who.node_id)
            await eventually(lambda: two.counts["streams/ended"] == 1)
            one.streams.send(b"y", two.who.node_id)
            await eventually(lambda: len(two.frames) == 2)
            assert one.counts["streams/dialled"] == 2
            assert one.unreachable == []

    asyncio.run(scenario())


def test_an_idle_link_closes_sooner_where_many_are_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "IDLE_AMONG_MANY_S", 0.05)

    async def scenario() -> None:
        async with pair(tmp_path) as (one, two):
            one.streams.send(b"x", two.who.node_id)
            await eventually(lambda: len(two.frames) == 1)
            await asyncio.sleep(0.3)
            assert two.counts["streams/ended"] == 0, "one is few"
            monkeypatch.setattr(stream, "FEW_LINKS", 0)
            one.streams.send(b"y", two.who.node_id)
            await eventually(lambda: two.counts["streams/ended"] == 1)

    asyncio.run(scenario())


def test_too_large_a_frame_is_counted_and_harms_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pair(tmp_path) as (one, two):
            one.streams.send(bytes(FRAME_BYTES_MAX + 1), two.who.node_id)
            one.streams.send(b"", two.who.node_id)
            one.streams.send(b"fine", two.who.node_id)
            await eventually(lambda: two.frames)
            assert one.counts["frames_dropped/too_large"] == 2

    asyncio.run(scenario())


def test_a_member_of_another_covey_gets_nowhere(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pair(tmp_path) as (one, _):
            stranger = End(found(tmp_path / "x", "barn", "pi1"))
            stranger.start()
            stranger.where[one.who.node_id] = [one.address]
            stranger.streams.send(b"let me in", one.who.node_id)
            await eventually(lambda: stranger.unreachable)
            await eventually(lambda: one.counts["streams_refused/handshake_failed"])
            assert one.frames == []
            assert one.guests == 0
            await stranger.stop()

    asyncio.run(scenario())


def test_a_huge_length_ends_the_stream_and_costs_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pair(tmp_path) as (one, two):
            _, writer = await asyncio.open_connection(
                "127.0.0.1",
                two.address.port,
                ssl=dialling_context(one.who),
                server_hostname="",
            )
            writer.write(framed(b"good") + b"\xff\xff\xff\xff" + bytes(1000))
            await eventually(lambda: two.counts["streams_refused/malformed"] == 1)
            assert two.frames == [(one.who.node_id, b"good")]
            writer.transport.abort()

    asyncio.run(scenario())


def test_a_clone_of_this_node_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pair(tmp_path) as (one, _):
            one.where[one.who.node_id] = [one.address]
            one.streams.send(b"it is me", one.who.node_id)
            await eventually(lambda: one.counts["streams_refused/own_identity"])
            assert one.frames == []

    asyncio.run(scenario())


def test_half_open_connections_find_no_more_than_their_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "HANDSHAKE_TIMEOUT_S", 3.0)

    async def scenario() -> None:
        async with pair(tmp_path) as (one, _):
            silent = [socket.create_connection(one.address_tuple()) for _ in range(60)]
            taken = one.streams._listener.places
            await eventually(lambda: one.counts["streams_refused/no_place"] >= 60 - 16)
            assert len(taken) <= listener.PLACES_EACH
            silent[-1].sendall(b"GET / HTTP/1.1\r\n\r\n")
            for each in silent:
                await asyncio.to_thread(each.settimeout, GIVE_UP_S)
                with contextlib.suppress(ConnectionResetError):
                    assert await asyncio.to_thread(each.recv, 100) in (b"", TLS_ALERT), "closed"
                each.close()
            await eventually(lambda: len(taken) == 0)
            assert one.streams._listener.tasks <= 2, "nothing of them is left"

    asyncio.run(scenario())


@pytest.mark.parametrize("is_known", [True, False], ids=["from a known host", "from another"])
def test_a_member_dials_in_beside_any_number_of_silent_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_known: bool
) -> None:
    """Whoever comes takes the place of who has been silent for longest: it waits for nobody."""
    monkeypatch.setattr(connection_slots, "YOUNG_S", 0.0)  # all of them come from one host here

    async def scenario() -> None:
        async with pair(tmp_path) as (one, two):
            await one.streams.stop()
            one.start(is_known=lambda _host: is_known)
            silent = [socket.create_connection(one.address_tuple()) for _ in range(200)]
            await eventually(lambda: one.counts["streams_refused/no_place"])
            two.streams.send(b"hello", one.who.node_id)
            await eventually(lambda: one.frames)
            assert two.counts["streams/dialled"] == 1, "at the first attempt"
            for each in silent:
                each.close()

    asyncio.run(scenario())


def test_a_guest_has_a_limited_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "GUEST_S", 0.1)

    async def scenario() -> None:
        async with pair(tmp_path) as (one, _):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", one.address.port, ssl=guest_context(), server_hostname=""
            )
            await eventually(lambda: one.guests == 1)
            assert await reader.read() == b""
            await eventually(lambda: len(one.streams._listener.places) == 0)
            assert one.counts["streams_refused/stream_failed"] == 1
            writer.transport.abort()

    asyncio.run(scenario())


def test_random_bytes_are_refused_and_the_peers_stay(tmp_path: Path) -> None:
    import random

    rng = random.Random(7)

    async def scenario() -> None:
        async with pair(tmp_path) as (one, two):
            two.streams.send(b"before", one.who.node_id)
            await eventually(lambda: one.frames)
            for _ in range(50):
                with socket.create_connection(one.address_tuple()) as noisy:
                    noisy.sendall(rng.randbytes(rng.randrange(1, 3000)))
                await asyncio.sleep(0)
            await eventually(lambda: len(one.streams._listener.places) == 0)
            two.streams.send(b"after", one.who.node_id)
            await eventually(lambda: len(one.frames) == 2)
            assert two.counts["streams/dialled"] == 1, "the connection outlived the noise"

    asyncio.run(scenario())


def test_an_ipv6_site_counts_as_one_address() -> None:
    assert origin_of("2001:db8::1") == origin_of("2001:db8::ffff")
    assert origin_of("2001:db8::1") != origin_of("2001:db8:0:1::1")
    assert origin_of("fe80::1%eth0") == origin_of("fe80::2%eth0")
    assert origin_of("10.0.0.1") != origin_of("10.0.0.2")


def test_the_quiet_log_says_each_kind_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    import logging

    now = [0.0]
    quiet = RateLimitedLog(logging.getLogger("quiet"), clock=lambda: now[0])
    for _ in range(10):
        quiet.warning("kind", "bad %s", "peer")
    quiet.warning("other", "worse")
    assert [record.getMessage() for record in caplog.records] == ["bad peer", "worse"]
    now[0] = 61.0
    quiet.warning("kind", "bad %s", "peer")
    assert caplog.records[-1].getMessage() == "bad peer (and 9 more like it)"


def test_a_stream_on_trial_opens_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pair(tmp_path) as (one, two):
            there = two.who.node_id
            nobody = Address("127.0.0.1", 9)
            one.where[there] = [Address("a name", 1), nobody, two.address]
            found = await one.streams.try_out(there)
            assert found is not None
            assert (found.address, found.outcome) == (two.address, DialOutcome.OPEN)
            await eventually(lambda: two.counts["streams/ended"])
            one.where[there] = [Address("a name", 1), nobody]
            found = await one.streams.try_out(there)
            assert found is not None
            assert (found.address, found.outcome) == (nobody, DialOutcome.REFUSED), "says most"
            assert await one.streams.try_out(12345) is None
            assert not one.closed
            assert not one.unreachable

    asyncio.run(scenario())


def test_segments_are_cut_for_a_narrow_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    connect = sockets.connected_to

    async def noted(host: str, port: int, path_bytes: int) -> socket.socket:
        asked.append(path_bytes)
        return await connect(host, port, path_bytes)

    async def scenario() -> None:
        async with pair(tmp_path) as (one, two):
            one.streams._path_bytes = {two.who.node_id: 576}.__getitem__
            one.streams.send(b"\x90", two.who.node_id)
            await eventually(lambda: two.frames)

    monkeypatch.setattr(stream, "connected_to", noted)
    asyncio.run(scenario())
    assert asked == [576]


def test_a_member_is_met_also_where_nobody_says_that_it_is(tmp_path: Path) -> None:
    """Who spoils its addresses, and says that it is dead, does not get it taken for gone."""

    async def scenario() -> None:
        async with pair(tmp_path) as (one, two):
            node = two.who.node_id
            two.streams.send(b"\x90", one.who.node_id)
            await eventually(lambda: one.frames)
            false = Address("127.0.0.1", 9)
            one.where[node] = [Address("127.0.0.1", port) for port in range(1, 9)]
            assert not await one.streams.meets(node), "on which port it listens nobody knows"
            one.where[node].append(Address("192.0.2.9", two.address.port))
            assert await one.streams.meets(node), "its own stream comes from there"
            one.streams.send(b"\x90", node)  # in vain, as nothing is known
            one.where[node] = [false]
            assert await one.streams.meets(node), "it was met there just now"
            assert not two.closed, "the stream that is open is left alone"
            await two.stop()
            assert not await one.streams.meets(node)

    asyncio.run(scenario())
