"""What Telegraf and other clients of InfluxDB send, byte for byte, and what they are answered.

The requests are those that Telegraf's outputs.influxdb and outputs.influxdb_v2 make: their paths,
parameters and headers, the body packed with gzip or not.
"""

import asyncio
import base64
import gzip
import json
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agent.api import large_bodies, request_bodies
from agent.api.app import create
from agent.api.gates import TokenGate, Tokens
from agent.api.request_bodies import READINGS_BYTES_MAX, unzipped
from agent.exits import UNHEALTHY, AgentError
from agent.telemetry.intake import BAD_SHOWN_MAX
from tests.fuzz.requests import exchange as ask
from tests.support.fake_agent import FakeAgent, Served, serving
from tests.support.patience import GIVE_UP_S

BATCH = (
    b"cpu,cpu=cpu0,host=greenhouse-7 usage_idle=97.5,usage_user=2.1 1700000000000000000\n"
    b'docker_log,container_name=web,stream=tty message="one\ntwo" 1700000000000000001\n'
    b"mem,host=greenhouse-7 active=5124096i,total=16657383424u 1700000000000000002\n"
)
ONE_BAD = BATCH + b"mem,host=greenhouse-7 used=oops 1700000000000000003\n"
TELEGRAF = "Telegraf/1.39.0 Go/1.25.1"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as running:
        yield running


def exchange(target: Path, head: str, body: bytes = b"") -> Answer:
    """Say exactly this on a connection of its own, and return the answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.settimeout(GIVE_UP_S)
        channel.connect(str(target))
        channel.sendall(head.replace("\n", "\r\n").encode() + body)
        answer = b""
        while part := channel.recv(65536):
            answer += part
    top, _, rest = answer.partition(b"\r\n\r\n")
    first, *lines = top.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Answer(int(first.split()[1]), headers, rest)


def post(served: Served, path: str, body: bytes, *headers: str) -> Answer:
    """Make the request as Go's HTTP client does."""
    more = "".join(f"{header}\n" for header in headers)
    head = (
        f"POST {path} HTTP/1.1\nHost: 127.0.0.1\nUser-Agent: {TELEGRAF}\nConnection: close\n"
        f"Content-Length: {len(body)}\nContent-Type: text/plain; charset=utf-8\n{more}\n"
    )
    return exchange(served.paths.socket, head, body)


def accepted(served: Served) -> list[tuple[str, object, int]]:
    readings = [one.reading for one in served.agent.telemetry.accepted]
    return [(reading.sensor, reading.value, reading.time_ns) for reading in readings]


V1, V2 = "/write?db=telegraf", "/api/v2/write?bucket=bucket&org=org"
GZIP = "Content-Encoding: gzip"


@pytest.mark.parametrize("path", [V1, f"{V1}&precision=ns&rp=autogen&consistency=any", V2])
@pytest.mark.parametrize("packed", [False, True])
def test_a_batch_of_telegraf_is_taken(served: Served, path: str, packed: bool) -> None:
    body, headers = (gzip.compress(BATCH), [GZIP]) if packed else (BATCH, [])
    answer = post(served, path, body, "Authorization: Token x", *headers)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["x-influxdb-version"]
    assert accepted(served) == [
        ("cpu/usage_idle", 97.5, 1700000000000000000),
        ("cpu/usage_user", 2.1, 1700000000000000000),
        ("docker_log/message", "one\ntwo", 1700000000000000001),
        ("mem/active", 5124096, 1700000000000000002),
        ("mem/total", 16657383424, 1700000000000000002),
    ]


@pytest.mark.parametrize("path", [V1, V2])
def test_a_packed_batch_comes_in_chunks_of_unknown_number(served: Served, path: str) -> None:
    """Telegraf packs while it sends, so it cannot say the length first."""
    packed = gzip.compress(BATCH)
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (packed[:20], packed[20:]))
    head = (
        f"POST {path} HTTP/1.1\nHost: 127.0.0.1\nUser-Agent: {TELEGRAF}\nConnection: close\n"
        f"Transfer-Encoding: chunked\nAccept-Encoding: gzip\n{GZIP}\n\n"
    )
    assert exchange(served.paths.socket, head, chunks + b"0\r\n\r\n").status == 204
    assert len(accepted(served)) == 5


def test_one_bad_line_costs_itself_and_version_1_is_told_so(served: Served) -> None:
    """Telegraf looks for "partial write" and drops the batch; else it may send it again."""
    answer = post(served, V1, ONE_BAD)
    assert answer.status == 400
    told = str(answer.json()["error"])
    assert told.startswith("partial write: unable to parse: line 5: field 'used'")
    assert told.endswith(" dropped=1")
    assert len(accepted(served)) == 5


def test_one_bad_line_costs_itself_and_version_2_is_told_so(served: Served) -> None:
    answer = post(served, V2, ONE_BAD)
    assert (answer.status, answer.json()["code"]) == (422, "unprocessable entity")
    assert answer.json()["line"] == 5
    assert "dropped=1" in str(answer.json()["message"])
    assert len(accepted(served)) == 5


def test_one_bad_line_costs_itself_in_our_own_words(served: Served) -> None:
    answer = post(served, "/api/v1/write", ONE_BAD)
    assert answer.status == 200
    told = answer.json()
    assert (told["accepted"], told["bad"]) == (5, 1)
    assert [p.startswith("line 5: field 'used'") for p in told["problems"]] == [True]


def test_one_bad_reading_of_one_is_told_in_a_sentence(served: Served) -> None:
    answer = post(served, "/api/v1/readings", b'{"sensor":"t"}')
    assert "bad readings: 1 of 1; none was accepted: line 1: there is no value" in str(
        answer.json()
    )


@pytest.mark.parametrize("path", [V1, V2, "/api/v1/write"])
def test_bad_lines_alone_are_refused_counted_and_told_a_few_of(served: Served, path: str) -> None:
    answer = post(served, path, b"nonsense\n" * 1000)
    assert answer.status == 400
    words = str(answer.json())
    assert f"line {BAD_SHOWN_MAX}: " in words
    assert f"and {1000 - BAD_SHOWN_MAX} more" in words
    assert len(words) < 2000
    assert accepted(served) == []
    assert served.agent.metrics.counts()["readings_refused/bad"] == 1000


@pytest.mark.parametrize(
    ("precision", "factor"),
    [("n", 1), ("ns", 1), ("u", 10**3), ("us", 10**3), ("ms", 10**6), ("s", 10**9),
     ("m", 60 * 10**9), ("h", 3600 * 10**9)],
)  # fmt: skip
def test_the_precisions_of_both_versions(served: Served, precision: str, factor: int) -> None:
    assert post(served, f"{V1}&precision={precision}", b"t value=1 7\n").status == 204
    assert accepted(served) == [("t", 1.0, 7 * factor)]


def test_an_unknown_precision_is_refused_in_the_words_of_the_version(served: Served) -> None:
    assert "precision=d" in str(post(served, f"{V1}&precision=d", b"t v=1").json()["error"])
    assert post(served, f"{V2}&precision=d", b"t v=1").json()["code"] == "invalid"


def test_ping_and_the_first_question_of_telegraf(served: Served) -> None:
    for method in ("GET", "HEAD"):
        head = f"{method} /ping HTTP/1.1\nHost: x\nConnection: close\n\n"
        answer = exchange(served.paths.socket, head)
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["x-influxdb-version"].startswith("covey-")
    created = post(served, "/query", b"q=CREATE+DATABASE+%22telegraf%22")
    assert (created.status, created.json()) == (200, {"results": [{"statement_id": 0}]})
    assert post(served, "/query", b"q=SHOW+DATABASES").status == 400


def test_clients_of_version_2_ask_for_its_health(served: Served) -> None:
    head = "GET /health HTTP/1.1\nHost: x\nConnection: close\n\n"
    well = exchange(served.paths.socket, head)
    assert (well.status, well.json()["status"], well.json()["name"]) == (200, "pass", "covey")
    served.agent.reasons = ["the disk is full"]
    ill = exchange(served.paths.socket, head)
    assert (ill.status, ill.json()["status"]) == (503, "fail")
    assert ill.json()["message"] == "the disk is full"


@pytest.mark.parametrize("path", [V1, V2])
def test_a_full_outbox_asks_to_come_back(served: Served, path: str) -> None:
    served.agent.telemetry.refusal = AgentError("the outbox is full.", "wait", UNHEALTHY)
    answer = post(served, path, BATCH)
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) > 0
    assert "the outbox is full" in str(answer.json())


@pytest.mark.parametrize("path", [V1, V2, "/api/v1/write", "/api/v1/readings"])
def test_a_gzip_bomb_costs_no_more_than_the_limit(served: Served, path: str) -> None:
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join(packer.compress(bytes(1024 * 1024)) for _ in range(50)) + packer.flush()
    assert len(bomb) < READINGS_BYTES_MAX
    assert post(served, path, bomb, GZIP).status == 413
    assert accepted(served) == []


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (gzip.compress(BATCH)[:-9], "gzip", 400),
        (b"no gzip", "gzip", 400),
        (gzip.compress(BATCH) + b"rest", "gzip", 400),
        (BATCH, "br", 415),
    ],
)
def test_a_body_that_cannot_be_unpacked_is_refused(
    served: Served, body: bytes, encoding: str, status: int
) -> None:
    answer = post(served, V1, body, f"Content-Encoding: {encoding}")
    assert answer.status == status
    assert answer.json()["error"]
    assert accepted(served) == []


def test_a_gzip_may_have_several_members() -> None:
    noise = bytes(range(256)) * 2000
    packed = gzip.compress(noise) + gzip.compress(b"") + gzip.compress(b"end")
    assert b"".join(unzipped(packed)) == noise + b"end"


def test_readings_may_be_packed_too(served: Served) -> None:
    body = gzip.compress(b'[{"sensor":"t","value":1}]')
    assert post(served, "/api/v1/readings", body, GZIP).json()["accepted"] == 1


@pytest.mark.parametrize("form", ["Bearer {}", "Token {}", "Basic {}"])
def test_the_token_is_taken_in_the_forms_of_both_versions(form: str) -> None:
    agent = FakeAgent()
    guarded = TokenGate(create(agent.services()), Tokens("secret", "metrics"), agent.access)

    def status(token: str) -> int | None:
        if "Basic" in form:
            token = base64.b64encode(f"telegraf:{token}".encode()).decode()
        header = (b"authorization", form.format(token).encode())
        return asyncio.run(ask(guarded, "POST", "/api/v2/write", b"", [header], BATCH))[0]

    assert (status("secret"), status("secrets"), status("")) == (204, 401, 401)


# ---- many at once -------------------------------------------------------------------------------


def test_few_large_bodies_are_in_memory_at_a_time(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty-four uploads of 8 MiB took 600 MB, and the unit ends an agent with 384."""
    monkeypatch.setattr(large_bodies, "PATIENCE_S", GIVE_UP_S)
    monkeypatch.setattr(
        request_bodies, "PAUSE_S", GIVE_UP_S
    )  # each stands still while others are read
    body = (b"#" + b"-" * 1000 + b"\n") * 1800 + b"m v=1\n"  # large, and soon read
    head = f"POST /write HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    path = str(served.paths.socket)

    async def upload() -> asyncio.StreamWriter:
        reader, writer = await asyncio.open_unix_connection(path)
        readers[writer] = reader
        writer.write(head + body[:-1])
        writer.transport.set_write_buffer_limits(high=0)
        await writer.drain()  # all but the last byte is with the agent
        return writer

    async def end(writer: asyncio.StreamWriter) -> bytes:
        writer.write(body[-1:])
        answer = await readers[writer].readuntil(b"\r\n")
        writer.close()
        return answer

    async def story() -> None:
        uploads = {asyncio.create_task(upload()) for _ in range(3 * large_bodies.PLACES)}
        ended = 0
        while uploads:
            async with asyncio.timeout(GIVE_UP_S):
                done, uploads = await asyncio.wait(uploads, return_when=asyncio.FIRST_COMPLETED)
            small = await asyncio.to_thread(post, served, V1, BATCH)
            assert small.status == 204, "it waits for none of them"
            under_way.update(done)
            assert len(under_way) <= large_bodies.PLACES
            for each in list(under_way):
                assert b" 204 " in await end(each.result())
                under_way.discard(each)
                ended += 1
        assert ended == 3 * large_bodies.PLACES

    readers: dict[asyncio.StreamWriter, asyncio.StreamReader] = {}
    under_way: set[asyncio.Task[asyncio.StreamWriter]] = set()
    asyncio.run(story())


def test_a_body_that_stands_still_gives_its_place_back(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_bodies, "PAUSE_S", 0.2)
    head = "POST /write HTTP/1.1\nHost: x\nContent-Length: 99999\nConnection: close\n\n"
    stopped = exchange(served.paths.socket, head, b"m v=1\n")
    assert stopped.status == 504, "what a collector sends again"
    assert "fell 0.2 s behind 1 KiB/s" in stopped.json()["error"]
