"""Readings as text: the three forms, telling them apart, and errors that say what to change."""

import doctest
from typing import Any

import pytest

from agent.telemetry import influx, lines
from agent.telemetry.lines import BadLine, parse
from edge_apps.reading import Reading

TIME_NS = 1_700_000_000_000_000_000


def one(line: str, **options: Any) -> Any:
    (outcome,) = parse([line], **options)
    return outcome


def problem(line: str, **options: Any) -> str:
    outcome = one(line, **options)
    assert isinstance(outcome, BadLine), outcome
    return outcome.problem


def test_the_examples_in_the_docstrings() -> None:
    for module in (lines, influx):
        assert doctest.testmod(module).failed == 0
        assert doctest.testmod(module).attempted > 0


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("t 21.5", Reading("t", 21.5)),
        ("attic/t -3", Reading("attic/t", -3)),
        ("door open", Reading("door", "open")),
        ("on TRUE", Reading("on", value=True)),
        ("t 1e3 1700000000", Reading("t", 1000.0, time_ns=TIME_NS)),
        ("t\t1   1700000000.000000001", Reading("t", 1, time_ns=TIME_NS + 1)),
        ("t 1 2023-11-14T22:13:20Z", Reading("t", 1, time_ns=TIME_NS)),
        ("t 1 2023-11-14T23:13:20.5+01:00", Reading("t", 1, time_ns=TIME_NS + 500_000_000)),
        ("t 1_000", Reading("t", "1_000")),
    ],
)
def test_plain_lines(line: str, expected: Reading) -> None:
    parsed = one(line)
    assert parsed == expected
    assert type(parsed.value) is type(expected.value)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("t", "NAME VALUE"),
        ("t 1 2 3", "with blanks between them"),
        ("t nan", "no measurement"),
        ("t inf", "no measurement"),
        ("t 99999999999999999999", "64 bits"),
        ("a#b 1", "sensor"),
        ("t 1 yesterday", "seconds since 1970"),
        ("t 1 2023-11-14T22:13:20", "with its zone"),
        ("t 1 1700000000000", "not milliseconds"),
        ("t 1 1700000000000000000", "not nanoseconds"),
        ("t 1 -5", "seconds since 1970"),
        ("t 1 1969-01-01T00:00:00Z", "since 1970"),
    ],
)
def test_plain_lines_that_are_refused(line: str, says: str) -> None:
    assert says in problem(line, form="plain")


def test_json_lines() -> None:
    line = '{"sensor":"t","value":1,"unit":"C","time":1700000000.25,"tags":{"a":"b"}}'
    assert one(line) == Reading("t", 1, "C", TIME_NS + 250_000_000, {"a": "b"})
    assert one('{"sensor":"t","value":true}').value is True
    assert one('{"sensor":"t","value":1,"time":"2023-11-14T22:13:20Z"}').time_ns == TIME_NS
    assert one('{"sensor":"t","value":1,"time":1700000000}').time_ns == TIME_NS


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"sensor":"t"}', "value"),
        ('{"sensor":"t","value":null}', "value"),
        ('{"sensor":"t","value":1,"units":"C"}', "fields are sensor, value, unit, time, tags"),
        ('{"sensor":"t","value":1,', "fields are"),
        ('{"sensor":"t","value":1,"time":1700000000000}', "milliseconds"),
        ('{"sensor":"t","value":1,"tags":{"a":1}}', "tags"),
    ],
)
def test_json_lines_that_are_refused(line: str, says: str) -> None:
    assert says in problem(line)


def test_line_protocol_gives_a_reading_per_field() -> None:
    line = r'weather,room=the\ attic,a\=b=c\,d temperature=21.5,hum=40i,n=2u,ok=t,s="x, y=\"z\"" 17'
    tags = {"room": "the attic", "a=b": "c,d"}
    assert list(parse([line])) == [
        Reading("weather/temperature", 21.5, time_ns=17, tags=tags),
        Reading("weather/hum", 40, time_ns=17, tags=tags),
        Reading("weather/n", 2, time_ns=17, tags=tags),
        Reading("weather/ok", value=True, time_ns=17, tags=tags),
        Reading("weather/s", 'x, y="z"', time_ns=17, tags=tags),
    ]


def test_line_protocol_types_and_the_default_field() -> None:
    assert one("t value=3") == Reading("t", 3.0)
    assert type(one("t value=3").value) is float
    assert type(one("t value=3i").value) is int
    assert one(r't value="back\\slash"').value == "back\\slash"
    assert one(r"t value=1 5").time_ns == 5


@pytest.mark.parametrize(
    ("precision", "expected"), [("ns", 7), ("us", 7_000), ("ms", 7_000_000), ("s", 7_000_000_000)]
)
def test_line_protocol_precision(precision: Any, expected: int) -> None:
    assert one("t value=1 7", precision=precision).time_ns == expected


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("m", "MEASUREMENT"),
        ("m t=1 2 3", "there are 4 parts"),
        ("m,room t=1", "tag 'room'"),
        ("m,room= t=1", "tag"),
        ("m t=", "field 't='"),
        ("m t", "put texts in double quotes"),
        ("m t=abc", "is no value"),
        ("m t=1_0", "is no value"),
        ("m t=1x", "is no value"),
        ('m t="abc', "closing quote"),
        ("m t=NaN", "no measurement"),
        ("m t=99999999999999999999i", "64 bits"),
        ("m t=1 1.5", "whole number of ns"),
        ("m t=1 -5", "since 1970"),
        (r"m t\ u=1", "without blanks"),
    ],
)
def test_line_protocol_that_is_refused(line: str, says: str) -> None:
    assert says in problem(line, form="influx")


def test_a_bad_line_hides_no_other() -> None:
    outcomes = list(parse(["# comment", "t 1", "", "t", "t 2\n", "u x y z"]))
    assert [type(o) for o in outcomes] == [Reading, BadLine, Reading, BadLine]
    assert [o.number for o in outcomes if isinstance(o, BadLine)] == [4, 6]
    assert str(outcomes[1]).startswith("line 4: write NAME VALUE")


def test_one_bad_field_refuses_its_line_whole() -> None:
    assert [type(o) for o in parse(["m a=1,b=nan", "m a=1"])] == [BadLine, Reading]


def test_the_first_line_decides_the_form() -> None:
    outcomes = list(parse(["m a=1", "t 2"]))
    assert outcomes[0] == Reading("m/a", 1.0)
    assert isinstance(outcomes[1], BadLine)
