"""The stream of shared keys, by the SDK's client and by hand, on real sockets, at a fake agent."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.api.kv_stream import UNDER_WAY_FIRST, UNDER_WAY_MAX
from agent.config.settings import ApiSettings
from edge_apps.client import AgentUnreachable, ApiError, Client
from edge_apps.kv_frames import (
    ANSWER_BYTES_MAX,
    FRAME_BYTES_MAX,
    IF_ABSENT,
    IF_CONTEXT,
    PATH,
    Answer,
    ArrivingMessages,
    Failed,
    Found,
    GetAsk,
    PutAsk,
    WriteResult,
    decode_answer,
    framed,
)
from edge_apps.kv_stream import UNDER_WAY_MAX as UNDER_WAY_AT_CLIENT_MAX
from edge_apps.kv_stream import KvStream
from tests.support.fake_agent import STALE_CONTEXT, Served, finish, serving
from tests.support.patience import GIVE_UP_S
from tests.unit.agent.api.test_listeners import free_port

UPGRADE = (
    f"GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: covey-kv\r\n"
)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as running:
        yield running


@pytest.fixture
def keys(served: Served) -> Iterator[KvStream]:
    with KvStream.open(Client(served.paths.socket, timeout_s=GIVE_UP_S)) as opened:
        yield opened


def eventually(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + GIVE_UP_S
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


class ByHand:
    """A client that sends what it likes."""

    def __init__(self, served: Served, behind: bytes = b"") -> None:
        self.connected = socket.socket(socket.AF_UNIX)
        self.connected.settimeout(GIVE_UP_S)
        self.connected.connect(str(served.paths.socket))
        self.connected.sendall(UPGRADE.encode() + b"\r\n" + behind)
        self.head, _, rest = self.read_until(b"\r\n\r\n").partition(b"\r\n\r\n")
        self.arriving = ArrivingMessages(ANSWER_BYTES_MAX)
        self.arriving.feed(rest)

    def read_until(self, end: bytes) -> bytes:
        got = b""
        while end not in got and (data := self.connected.recv(4096)):
            got += data
        return got

    def answer(self) -> Answer | None:
        """Return the next answer; None at the end of the connection."""
        while (message := self.arriving.take()) is None:
            data = self.connected.recv(65536)
            if not data:
                return None
            self.arriving.feed(data)
        return decode_answer(message)


def test_many_at_once_are_answered_each_under_its_number(keys: KvStream) -> None:
    writes = [keys.put(f"k/{n}", b"%d" % n, w=2) for n in range(1000)]
    assert {each.result(GIVE_UP_S).outcome for each in writes} == {"ok"}
    found = [keys.get(f"k/{n}", r=1).result(GIVE_UP_S) for n in range(0, 1000, 50)]
    assert [each.values[0].data for each in found] == [b"%d" % n for n in range(0, 1000, 50)]
    assert found[0].context == b"ctx\xff"
    assert found[0].values[0].written_ms == 1_700_000_000_000
    assert keys.delete("k/1").result(GIVE_UP_S).outcome == "ok"
    assert keys.get("k/1").result(GIVE_UP_S).values == ()


def test_what_is_asked_arrives_as_over_http(served: Served, keys: KvStream) -> None:
    keys.put("a", b"1", w=-1, context=b"c", timeout_s=2.0, condition=IF_CONTEXT).result(GIVE_UP_S)
    keys.put("b", b"1", condition=IF_ABSENT).result(GIVE_UP_S)
    keys.delete("a", context=b"c", timeout_s=3.0).result(GIVE_UP_S)
    keys.get("a", r=2).result(GIVE_UP_S)
    assert served.agent.kv.asked == [
        {"w": -1, "context": b"c", "timeout_s": 2.0, "if_unchanged": True},
        {"w": None, "context": None, "timeout_s": 5.0, "if_unchanged": True},
        {"w": None, "context": b"c", "timeout_s": 3.0},
        {"r": 2, "timeout_s": 5.0},
    ]


def test_durability_is_told_on(served: Served, keys: KvStream) -> None:
    client = Client(served.paths.socket)
    for word, told in (("fsync", {"fsync": True}), ("", {})):
        keys.put("a", b"1", durability=word).result(GIVE_UP_S)
        keys.delete("a", durability=word).result(GIVE_UP_S)
        for method, body in (("PUT", b"1"), ("DELETE", None)):
            client.request(method, "/api/v1/kv/a", query={"durability": word or None}, body=body)
        change = {"type": "counter"}
        query = {"durability": word or None}
        client.request("POST", "/api/v1/kv/a", query=query, json=change)
        asked = [{k: v for k, v in each.items() if k == "fsync"} for each in served.agent.kv.asked]
        assert asked == 5 * [told]
        served.agent.kv.asked.clear()
    client.request("PUT", "/api/v1/kv/a", query={"durability": "flush"}, body=b"1")
    assert served.agent.kv.asked[0]["fsync"] is False
    with pytest.raises(ApiError, match="durability=none"):
        client.request("PUT", "/api/v1/kv/a", query={"durability": "none"}, body=b"1")
    with pytest.raises(ApiError, match="durability=none"):
        keys.put("a", b"1", durability="none").result(GIVE_UP_S)


def test_outcomes_and_errors_are_those_of_the_routes(served: Served, keys: KvStream) -> None:
    served.agent.kv.outcome = "indeterminate"
    written = keys.put("a", b"1").result(GIVE_UP_S)
    assert (written.outcome, written.acks, written.needed) == ("indeterminate", 1, 2)
    client = Client(served.paths.socket)
    for path, query, stream in (
        ("/api/v1/kv/a", {}, lambda: keys.get("a")),
        ("/api/v1/kv/a", {"w": "9"}, lambda: keys.put("a", b"1", w=9)),
        ("/api/v1/kv/a", {"if_absent": "1"}, lambda: keys.put("a", b"", condition=IF_ABSENT)),
    ):
        method = "PUT" if query else "GET"
        with pytest.raises(ApiError) as by_http:
            client.request(method, path, query=query, body=b"1" if query else None)
        with pytest.raises(ApiError) as by_stream:
            stream().result(GIVE_UP_S)
        assert (by_stream.value.status, by_stream.value.code) == (
            by_http.value.status,
            by_http.value.code,
        )
    with pytest.raises(ApiError, match="needs one"):
        keys.put("a", b"1", condition=IF_CONTEXT).result(GIVE_UP_S)
    with pytest.raises(ApiError, match="goes without"):
        keys.put("a", b"1", context=STALE_CONTEXT, condition=IF_ABSENT).result(GIVE_UP_S)
    assert served.agent.metrics.counts()["api_errors/usage"] >= 4


@pytest.mark.parametrize(
    ("key", "value", "status"),
    [
        ("\udcff", b"1", 400),
        ("a", "text", 400),
        ("a", None, 400),
        ("a", bytes(FRAME_BYTES_MAX), 413),
    ],
)
def test_what_cannot_be_asked_harms_nothing_else(
    keys: KvStream, key: str, value: Any, status: int
) -> None:
    pending = keys.put("b", b"1")
    for _ in range(UNDER_WAY_AT_CLIENT_MAX + 1):
        with pytest.raises(ApiError) as refused:
            keys.put(key, value)
        assert refused.value.status == status
    assert pending.result(GIVE_UP_S).outcome == "ok"
    assert keys.get("b").result(GIVE_UP_S).values[0].data == b"1"


def test_a_key_called_stream_is_read_as_any_other(served: Served) -> None:
    client = Client(served.paths.socket)
    client.request("PUT", PATH, body=b"mine")
    assert client.request("GET", PATH).body == b"mine"
    with pytest.raises(ApiError, match="nothing here is called"):
        client.request("GET", PATH, headers={"Upgrade": "websocket", "Connection": "upgrade"})
    for headers in ({"Upgrade": "covey-kv"}, {"Upgrade": "covey-kv", "Connection": "close"}):
        with pytest.raises(ApiError, match="no request for an upgrade"):
            client.request("GET", PATH, headers=headers)


def test_a_question_right_behind_the_request_is_answered(served: Served) -> None:
    by_hand = ByHand(served, framed(GetAsk(7, "none")))
    assert by_hand.head.startswith(b"HTTP/1.1 101 ")
    assert by_hand.answer() == Found(7, (), b"ctx\xff", 2, 2)


def test_what_is_no_question_ends_the_stream_and_is_counted(served: Served) -> None:
    for bad in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x01\x90", b"\0\0\0\x03\x93\x09\x01"):
        by_hand = ByHand(served)
        by_hand.connected.sendall(framed(PutAsk(1, "k", b"v")) + bad)
        answers = [by_hand.answer(), by_hand.answer()]
        last = next(each for each in answers if isinstance(each, Failed))
        assert (last.number, last.status, last.code) == (0, 400, "usage")
    assert served.agent.metrics.counts()["api_connections/malformed"] == 4


def test_a_number_that_is_under_way_is_not_given_twice(served: Served) -> None:
    served.agent.kv.is_stuck = True
    by_hand = ByHand(served)
    by_hand.connected.sendall(2 * framed(GetAsk(5, "k")))
    last = by_hand.answer()
    assert isinstance(last, Failed)
    assert "under way" in last.message
    assert by_hand.answer() is None
    eventually(lambda: not served.agent.kv.under_way)  # nobody waits for it any more


def test_only_so_many_are_under_way_and_nothing_is_lost(served: Served) -> None:
    kv = served.agent.kv
    kv.is_stuck = True
    by_hand = ByHand(served)
    asks = b"".join(framed(PutAsk(n, f"k/{n}", b"v")) for n in range(1, 501))
    by_hand.connected.sendall(asks)
    eventually(lambda: len(kv.under_way) == UNDER_WAY_FIRST)
    most = 0
    got: list[Answer | None] = []
    while len(got) < 500:
        most = max(most, len(kv.under_way))
        for number in list(kv.under_way):
            served.loop.call_soon_threadsafe(finish, kv, number)
        got.append(by_hand.answer())
    assert sorted(each.number for each in got if each) == list(range(1, 501))
    assert UNDER_WAY_FIRST < most <= UNDER_WAY_MAX


def test_who_takes_no_answers_is_asked_nothing_more(served: Served) -> None:
    kv = served.agent.kv
    kv.values["big"] = [b"x" * 250_000]
    by_hand = ByHand(served)
    asks = b"".join(framed(GetAsk(n, "big")) for n in range(1, 2001))
    asking = threading.Thread(target=by_hand.connected.sendall, args=(asks,), daemon=True)
    asking.start()
    eventually(lambda: kv.begun > 0)
    before = -1
    while before != kv.begun:  # until nothing moves for a while
        before = kv.begun
        time.sleep(0.3)
    assert kv.begun < 200
    got = [by_hand.answer() for _ in range(2000)]
    assert [each.number for each in got if isinstance(each, Found)] == list(range(1, 2001))
    asking.join(GIVE_UP_S)


def test_a_client_that_leaves_is_waited_for_no_longer(served: Served) -> None:
    served.agent.kv.is_stuck = True
    keys = KvStream.open(Client(served.paths.socket))
    pending = keys.put("a", b"1")
    eventually(lambda: len(served.agent.kv.under_way) == 1)
    keys.close()
    with pytest.raises(AgentUnreachable, match="has ended"):
        pending.result(GIVE_UP_S)
    with pytest.raises(AgentUnreachable):
        keys.get("a")
    eventually(lambda: not served.agent.kv.under_way)


def test_an_agent_that_stops_answers_what_is_under_way(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        keys = KvStream.open(Client(served.paths.socket))
        assert isinstance(keys.put("a", b"1").result(GIVE_UP_S), WriteResult)
        begun = time.monotonic()
    assert time.monotonic() - begun < GIVE_UP_S
    with pytest.raises(AgentUnreachable):
        keys.get("a").result(GIVE_UP_S)
    keys.close()


def test_rights_and_names_are_looked_at_for_each_question(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        served.agent.app_keys = {"k1": "scale"}
        served.agent.app_prefixes = ("scale/",)
        client = Client(served.paths.app_door, timeout_s=GIVE_UP_S, token="k1")
        with KvStream.open(client) as keys:
            assert keys.put("scale/a", b"1").result(GIVE_UP_S).outcome == "ok"
            for refused in (keys.put("other/a", b"1"), keys.get("other/a"), keys.delete("b")):
                with pytest.raises(ApiError) as caught:
                    refused.result(GIVE_UP_S)
                assert (caught.value.status, caught.value.code) == (403, "not-permitted")
            assert keys.get("scale/a").result(GIVE_UP_S).values[0].data == b"1"
        assert served.agent.metrics.counts()["api_refusals/name"] == 3
        with pytest.raises(ApiError, match="no app has this key"):
            KvStream.open(Client(served.paths.app_door, token="wrong"))


def test_a_token_over_tcp_opens_a_stream(tmp_path: Path) -> None:
    port = free_port()
    with serving(tmp_path, ApiSettings(listen=f"127.0.0.1:{port}")) as served:
        token = served.paths.api_token.read_text().strip()
        connected = socket.create_connection(("127.0.0.1", port), GIVE_UP_S)
        with KvStream(connected, {"Authorization": f"Bearer {token}"}) as keys:
            assert keys.put("a", b"1").result(GIVE_UP_S).outcome == "ok"
        with pytest.raises(ApiError) as caught:
            KvStream(socket.create_connection(("127.0.0.1", port), GIVE_UP_S), {})
        assert caught.value.status == 401
