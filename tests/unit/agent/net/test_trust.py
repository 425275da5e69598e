"""Streams while the authority is replaced: who still gets in, and what is closed at the end."""

import asyncio
import datetime as dt
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.identity import certificates
from agent.identity.identity import Identity
from agent.net import streams as stream
from gossip.registry.succession import Authority
from tests.unit.agent.net.test_streams import GIVE_UP_S, End, eventually, pair


class Next:
    """Another authority than the one that the members know."""

    def __init__(self, who: Identity) -> None:
        self.key = Ed25519PrivateKey.generate()
        public = self.key.public_key().public_bytes_raw()
        certificate = certificates.make_authority(self.key, who.cluster_id, who.cluster_name)
        self.authority = Authority(1, public, certificate)

    def certify(self, end: End) -> None:
        """Give a member a certificate of this authority, which it trusts beside others."""
        who = end.who
        old = certificates.from_pem(who.certificate_file.read_bytes())
        subject, key = certificates.check_issued(old, who.trust.authorities[-1].certificate)
        serial = certificates.new_serial()
        who.renew(certificates.issue(self.key, self.authority.certificate, subject, key, serial))
        end.streams.renew()

    def trust(self, end: End, *former: Authority) -> None:
        end.who.trust.authorities = (self.authority, *former)
        end.streams.renew()


async def pass_frames(one: End, two: End, word: bytes) -> None:
    """Send a frame each way, again and again: a link that has just failed takes none."""
    async with asyncio.timeout(GIVE_UP_S):
        for end, other in ((one, two), (two, one)):
            while (end.who.node_id, word) not in other.frames:
                end.streams.send(word, other.who.node_id)
                await asyncio.sleep(0.1)


def test_in_the_overlap_old_and_new_certificates_open_streams(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pair(tmp_path) as (one, two):
            former, following = one.who.trust.newest, Next(one.who)
            for end in (one, two):
                following.trust(end, former)
            following.certify(one)
            await pass_frames(one, two, b"overlap")

    asyncio.run(scenario())


def test_an_authority_that_was_made_while_a_clock_was_ahead_opens_streams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Certificates of nodes are replaced when the clock is right again; nothing replaces it."""
    ahead = dt.datetime.now(dt.UTC) + dt.timedelta(days=400)

    async def scenario() -> None:
        async with pair(tmp_path) as (one, two):
            with monkeypatch.context() as patched:
                patched.setattr(certificates, "_now", lambda: ahead)
                following = Next(one.who)
            for end in (one, two):
                former = end.who.trust.newest
                following.trust(end, former)
                following.certify(end)
                following.trust(end)
            await pass_frames(one, two, b"right again")

    asyncio.run(scenario())


def test_streams_from_before_the_authority_was_replaced_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "FORMER_S", 0.2)

    async def scenario() -> None:
        async with pair(tmp_path) as (one, two):
            former, following = one.who.trust.newest, Next(one.who)
            await pass_frames(one, two, b"before")
            for end in (one, two):
                following.trust(end, former)
            following.certify(one)
            following.trust(one)
            two.streams.pin([one.who.node_id])  # it does not let go by itself
            one.streams.end_former()
            await eventually(lambda: one.counts["streams/closed_as_former"] == 1)
            await eventually(lambda: two.closed)
            assert one.unreachable == [], "its own streams are dialled anew when they are needed"
            two.streams.send(b"with the old one", one.who.node_id)
            await eventually(lambda: one.counts["streams_refused/handshake_failed"])
            following.certify(two)
            following.trust(two)
            await pass_frames(one, two, b"after")
            assert (two.who.node_id, b"with the old one") not in one.frames

    asyncio.run(scenario())


def test_who_trusts_another_authority_is_noticed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pair(tmp_path) as (one, two):
            former, following, noticed = one.who.trust.newest, Next(one.who), set[str]()
            for end in (one, two):
                name = end.who.node_name
                end.streams._on_strange_authority = partial(noticed.add, f"{name} dials")
                heard = partial(noticed.add, f"{name} is dialled")
                end.streams._listener._on_strange_authority = heard
            following.trust(one, former)
            following.certify(one)
            one.streams.send(b"word", two.who.node_id)
            await eventually(lambda: noticed == {"pi2 is dialled"})
            following.trust(one)
            for end, other in ((one, two), (two, one)):
                noticed.clear()
                async with asyncio.timeout(GIVE_UP_S):
                    while f"{end.who.node_name} dials" not in noticed:
                        end.streams.send(b"word", other.who.node_id)
                        await asyncio.sleep(0.1)
            assert not one.frames
            assert not two.frames

    asyncio.run(scenario())
