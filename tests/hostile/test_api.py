"""Requests that once ended in a 500, or in the end of the agent."""

import asyncio
import http.client
import json
import socket
from pathlib import Path

import pytest

from agent.api.app import create
from edge_apps.client import Client
from tests.fuzz.requests import exchange
from tests.support.fake_agent import FakeAgent, serving
from tests.support.patience import GIVE_UP_S


def raw(path: Path, method: str, target: str, body: bytes | None = None) -> tuple[int, str]:
    """Send a request whose target is not made by a well-meaning client."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(GIVE_UP_S)
    connection.sock.connect(str(path))
    connection.request(method, target, body)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def ask(method: str, path: str, query: str = "", body: bytes = b"") -> tuple[int | None, str]:
    status, answer = asyncio.run(
        exchange(create(FakeAgent().services()), method, path, query.encode(), [], body)
    )
    return status, json.loads(answer)["error"]["message"] if status and status >= 400 else ""


@pytest.mark.parametrize("name", [b"\\ud800", b"a\\udcff", b"\xed\xa0\x80"])
@pytest.mark.parametrize(
    "body", [b'{"name": "%b"}', b'{"%b": 1}', b'{"name": "a", "payload": "%b"}']
)
def test_half_a_character_is_refused_before_anybody_has_to_send_it(
    body: bytes, name: bytes
) -> None:
    """An event with such a name could not be encoded, and the agent stopped."""
    status, message = ask("POST", "/api/v1/events", body=body % name)
    assert status == 400
    assert "not JSON" in message


@pytest.mark.parametrize("limit", ["0" * 30 + "9" * 30, "0" * 20 + "9" * 5000, "9" * 21])
def test_a_number_with_more_digits_than_any_limit_is_refused(limit: str) -> None:
    status, message = ask("GET", "/api/v1/readings", f"limit={limit}")
    assert status == 400
    assert "a whole number" in message


@pytest.mark.parametrize("timeout", [b"1" + b"0" * 400, b"NaN", b"Infinity", b"-1", b"0", b"true"])
def test_a_query_waits_for_no_impossible_time(timeout: bytes) -> None:
    body = b'{"name": "log", "timeout_s": %b}' % timeout
    assert ask("POST", "/api/v1/queries", body=body)[0] == 400


def test_a_time_with_thousands_of_digits_is_a_bad_line() -> None:
    status, message = ask("POST", "/api/v1/write", body=b"m v=1 " + b"1" * 5000)
    assert status == 400
    assert "line 1: time" in message


@pytest.mark.parametrize("wrong", ["%ff", "%fe", "a%c3", "%ed%a0%80", "%C0%80"])
def test_names_that_are_not_utf_8_are_refused_before_two_become_one(
    tmp_path: Path, wrong: str
) -> None:
    with serving(tmp_path) as served:
        for target in (
            f"/api/v1/kv/{wrong}",
            f"/api/v1/kv?prefix={wrong}",
            f"/api/v1/ring?key={wrong}",
        ):
            status, body = raw(served.paths.socket, "GET", target)
            assert (status, "not UTF-8" in body) == (400, True), target
        status, _ = raw(served.paths.socket, "PUT", f"/api/v1/kv/{wrong}", b"value")
        assert status == 400
        assert not served.agent.kv.values


@pytest.mark.parametrize(
    "key", ["a\n", "\n", "\na", "a\n/b\r\n", "\ufffd", "a/", "/a", "a b?c#d", "é"]
)
def test_any_text_is_a_key_of_its_own(tmp_path: Path, key: str) -> None:
    with serving(tmp_path) as served:
        client = Client(served.paths.socket)
        client.request("PUT", f"/api/v1/kv/{key}", body=b"value")
        assert list(served.agent.kv.values) == [key]
        assert client.request("GET", f"/api/v1/kv/{key}").body == b"value"


@pytest.mark.parametrize("reading", [b'{"sensor": "a\xff", "value": 1}', b'{"s\xed\xa0\x80": 1}'])
def test_readings_that_are_no_text_are_refused(reading: bytes) -> None:
    for body in (reading, b"[%b]" % reading, reading + b"\n" + reading):
        assert ask("POST", "/api/v1/readings", body=body)[0] == 400
