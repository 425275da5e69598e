"""Requests that once ended in a 500, or in the end of the agent."""

import asyncio
import json

import pytest

from agent.api.application import create
from tests.fuzz.requests import exchange
from tests.unit.fake_agent import FakeAgent


def ask(method: str, path: str, query: str = "", body: bytes = b"") -> tuple[int | None, str]:
    status, answer = asyncio.run(
        exchange(create(FakeAgent()), method, path, query.encode(), [], body)
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


@pytest.mark.parametrize("reading", [b'{"sensor": "a\xff", "value": 1}', b'{"s\xed\xa0\x80": 1}'])
def test_readings_that_are_no_text_are_refused(reading: bytes) -> None:
    for body in (reading, b"[%b]" % reading, reading + b"\n" + reading):
        assert ask("POST", "/api/v1/readings", body=body)[0] == 400
