"""Who sends a stream of shared keys what it should not, or stays on it too long."""

import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.access.access_tokens import digest_of
from agent.access.rights import Role
from agent.config.settings import ApiSettings
from edge_apps.client import ApiError
from edge_apps.kv_frames import (
    Answer,
    ArrivingMessages,
    Ask,
    DeleteAsk,
    Failed,
    Found,
    GetAsk,
    PutAsk,
    StoredValue,
    WriteResult,
    decode_answer,
    decode_ask,
    framed,
)
from edge_apps.kv_stream import KvStream
from gossip.core.errors import Malformed
from tests.fuzz.hostile import Mutator, bit_flips, truncations
from tests.hostile.test_access import Remote, free_port
from tests.support.fake_agent import Served, serving
from tests.support.patience import GIVE_UP_S
from tests.unit.agent.api.test_kv_stream import ByHand, eventually

QUESTIONS: tuple[Ask, ...] = (
    PutAsk(1, "lights/north", b"on", 2, b"\x92", 2.5, 1),
    GetAsk(2**63 - 1, "k", -1),
    DeleteAsk(3, "k", None, b"c"),
)
ANSWERS: tuple[Answer, ...] = (
    WriteResult(1, "ok", 2, 2, b"c", 3),
    Found(2, (StoredValue(b"v", 1, "register"),), b"c", 2, 2),
    Failed(3, 404, "not-found", "there is none", "look"),
)
SEEDS = range(60)


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    port = free_port()
    with serving(tmp_path, ApiSettings(listen=f"127.0.0.1:{port}")) as served:
        yield Remote(served, port)


def opened(remote: Remote, token: str) -> KvStream:
    connected = socket.create_connection(("127.0.0.1", remote.port), GIVE_UP_S)
    return KvStream(connected, {"Authorization": f"Bearer {token}"})


@pytest.mark.parametrize("message", [*QUESTIONS, *ANSWERS], ids=lambda each: type(each).__name__)
def test_every_spoilt_message_is_one_or_malformed(message: Ask | Answer) -> None:
    decode = decode_ask if message in QUESTIONS else decode_answer
    data = framed(message)[4:]
    assert decode(data) == message
    for cut in truncations(data):
        with pytest.raises(Malformed):
            decode(cut)
    for flipped in bit_flips(data):
        try:
            decode(flipped)
        except Malformed:
            continue


@pytest.mark.parametrize("size", [0, 2**32 - 1, 320 * 1024 + 1])
def test_a_length_that_no_message_has_takes_no_room(size: int) -> None:
    arriving = ArrivingMessages(320 * 1024)
    arriving.feed(size.to_bytes(4))
    with pytest.raises(Malformed):
        arriving.take()


def test_spoilt_streams_end_and_leave_the_agent_whole(tmp_path: Path) -> None:
    """Whatever comes, each stream ends with a word or an answer, and the next client is served."""
    with serving(tmp_path) as served:
        for seed in SEEDS:
            by_hand = ByHand(served, _spoilt(random.Random(f"kv stream {seed}")))
            by_hand.connected.shutdown(socket.SHUT_WR)
            while by_hand.answer() is not None:
                pass
        _is_whole(served)


def _spoilt(rng: random.Random) -> bytes:
    """Return frames of which one is spoilt, or its length."""
    messages = [framed(each)[4:] for each in QUESTIONS]
    at = rng.randrange(len(messages))
    messages[at] = Mutator(rng).spoil(messages[at])
    frames = [len(each).to_bytes(4) + each for each in messages]
    if rng.random() < 0.2:
        frames[at] = rng.randbytes(4) + messages[at]
    return b"".join(frames)


def _is_whole(served: Served) -> None:
    counts = served.agent.metrics.counts()
    assert counts["api_errors/internal"] == 0
    by_hand = ByHand(served, framed(PutAsk(1, "k", b"v")))
    assert isinstance(by_hand.answer(), WriteResult)
    assert not served.agent.kv.under_way


def test_a_stream_ends_with_its_token(remote: Remote) -> None:
    writer, other = remote.token("w", Role.OPERATOR, "mine/"), remote.token("o", Role.OPERATOR)
    of_writer, of_other = opened(remote, writer), opened(remote, other)
    assert of_writer.put("mine/a", b"1").result(GIVE_UP_S).outcome == "ok"
    remote.served.agent.kv.is_stuck = True
    pending = of_writer.get("mine/a")
    eventually(lambda: bool(remote.served.agent.kv.under_way))
    remote.served.call(remote.served.agent.access.revoke("w"))
    with pytest.raises(ApiError) as ended:
        pending.result(GIVE_UP_S)
    assert (ended.value.status, ended.value.code) == (401, "unauthorized")
    eventually(lambda: remote.refused("ended") == 1)
    remote.served.agent.kv.is_stuck = False
    assert of_other.put("a", b"1").result(GIVE_UP_S).outcome == "ok"
    of_other.close()
    of_writer.close()


def test_a_stream_ends_when_its_token_expires(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = remote.token("short", Role.OPERATOR)
    _, record = remote.served.agent.access._tokens[digest_of(token.encode())]
    remote.served.agent.kv.is_stuck = True
    monkeypatch.setattr(time, "time", lambda: record.expires_at - 0.5)
    stream = opened(remote, token)
    with pytest.raises(ApiError) as ended:
        stream.get("a").result(GIVE_UP_S)
    assert ended.value.code == "unauthorized"
    stream.close()


def test_who_may_only_read_writes_nothing_and_that_is_written_down(remote: Remote) -> None:
    with opened(remote, remote.token("r", Role.READER, "mine/")) as stream:
        assert stream.get("mine/a").result(GIVE_UP_S).values == ()
        for refused in (stream.put("mine/a", b"1"), stream.delete("mine/a"), stream.get("its/a")):
            with pytest.raises(ApiError) as caught:
                refused.result(GIVE_UP_S)
            assert caught.value.status == 403
    assert remote.refused("right") == 2
    assert remote.refused("name") == 1
    assert remote.served.agent.kv.values == {}
    with pytest.raises(ApiError) as without:
        opened(remote, "none")
    assert without.value.status == 401
