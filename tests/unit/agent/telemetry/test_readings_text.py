"""Readings as text: the three forms, telling them apart, and errors that say what to change."""

import doctest
import re
from typing import Any

import pytest

from agent.telemetry import line_protocol, plain_lines, readings_json, readings_text
from agent.telemetry.line_protocol import NS_PER_UNIT
from agent.telemetry.readings_text import BadLine, GoodLine, parse, split_lines
from edge_apps.reading import TAGS_MAX, BadReading, Reading

TIME_NS = 1_700_000_000_000_000_000


def parsed(text: str | bytes, **options: Any) -> list[Any]:
    """Return the readings and the bad lines of a text, in order."""
    body = text if isinstance(text, bytes) else text.encode()
    outcomes: list[Any] = []
    for each in parse(split_lines(body), **options):
        outcomes += each.readings if isinstance(each, GoodLine) else [each]
    return outcomes


def one(line: str | bytes, **options: Any) -> Any:
    (outcome,) = parsed(line, **options)
    return outcome


def problem(line: str | bytes, **options: Any) -> str:
    outcome = one(line, **options)
    assert isinstance(outcome, BadLine), outcome
    return outcome.problem


def test_the_examples_in_the_docstrings() -> None:
    for module in (readings_text, line_protocol, plain_lines, readings_json):
        assert doctest.testmod(module).failed == 0
    assert doctest.testmod(readings_text).attempted > 0


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
    found = one(line)
    assert found == expected
    assert type(found.value) is type(expected.value)


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
        ('{"sensor":"t"}', "there is no value"),
        ('{"sensor":"t","value":null}', "value cannot be null"),
        ('{"sensor":7,"value":1}', "sensor cannot be a number"),
        (
            '{"sensor":"t","value":1,"units":"C"}',
            "fields are sensor, value, unit, time or time_ns, tags",
        ),
        ('{"sensor":"t","value":1,"units":"C"}', "a reading has no units"),
        ('{"sensor":"t","value":1,', "the object has no end; the fields are"),
        ("{'sensor':'t'}", "this is no JSON, from byte 1 on"),
        ('{"sensor":"t","value":1e999}', "a number is out of range"),
        ('{"sensor":"t","value":1,"time":1700000000000}', "milliseconds"),
        ('{"sensor":"t","value":1,"tags":{"a":1}}', "the value of a tag cannot be a number"),
    ],
)
def test_json_lines_that_are_refused(line: str, says: str) -> None:
    said = problem(line)
    assert says in said
    assert not re.search(r"`|\$|Expected|malformed|Object", said), "the decoder's own words"


def test_line_protocol_gives_a_reading_per_field() -> None:
    line = r'weather,room=the\ attic,a\=b=c\,d temperature=21.5,hum=40i,n=2u,ok=t,s="x, y=\"z\"" 17'
    tags = {"room": "the attic", "a=b": "c,d"}
    assert parsed(line) == [
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
    ("precision", "expected"),
    [
        *[("ns", 7), ("n", 7), ("us", 7_000), ("u", 7_000), ("ms", 7_000_000)],
        *[("s", 7_000_000_000), ("m", 420_000_000_000), ("h", 25_200_000_000_000)],
    ],
)
def test_line_protocol_precision(precision: str, expected: int) -> None:
    assert one("t value=1 7", unit_ns=NS_PER_UNIT[precision]).time_ns == expected


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("m", "MEASUREMENT"),
        ("m t=1 2 3", "nothing behind it"),
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
    outcomes = parsed("# comment\nt 1\n\nt\nt 2\nu x y z\n")
    assert [type(o) for o in outcomes] == [Reading, BadLine, Reading, BadLine]
    assert [o.number for o in outcomes if isinstance(o, BadLine)] == [4, 6]
    assert str(outcomes[1]).startswith("line 4: write NAME VALUE")


def test_one_bad_field_refuses_its_line_whole() -> None:
    assert [type(o) for o in parsed("m a=1,b=nan\nm a=1")] == [BadLine, Reading]


def test_the_first_line_decides_the_form() -> None:
    outcomes = parsed("m a=1\nt 2")
    assert outcomes[0] == Reading("m/a", 1.0)
    assert isinstance(outcomes[1], BadLine)


# ---- what is a line, and what is text ------------------------------------------------------------

NO_LINE_ENDS = ("\u2028", "\u2029", "\x0b", "\x0c", "\x1c", "\x85", "\r")


@pytest.mark.parametrize("separator", NO_LINE_ENDS)
def test_lines_end_at_a_newline_alone(separator: str) -> None:
    text = f"a{separator}b"
    assert one(f'm t="{text}"\n').value == text
    assert one(f"m,place={text} value=1").tags == {"place": text}
    if separator == "\u2028":
        assert one(f'{{"sensor":"t","value":"{text}"}}').value == text
        assert one(f"t {text}").value == text


@pytest.mark.parametrize("form", ["plain", "influx", "json"])
def test_a_carriage_return_in_front_of_the_newline_is_tolerated(form: Any) -> None:
    line = {"plain": "t 1", "influx": "t value=1 5", "json": '{"sensor":"t","value":1}'}[form]
    assert [o.value for o in parsed(f"{line}\r\n{line}\r\n", form=form)] == [1, 1]


@pytest.mark.parametrize("line", ["t 1", "t value=1", '{"sensor":"t","value":1}'])
def test_a_byte_order_mark_in_front_is_no_letter(line: str) -> None:
    first, second = parsed(f"\ufeff{line}\n{line}")
    assert first == second
    assert first.sensor == "t"


def test_a_text_may_go_on_over_lines_and_an_open_one_costs_its_line_alone() -> None:
    outcomes = parsed('m t="one\n two ",u=1 5\nm t="open\nm v=1\nm t="x" 6\n')
    assert outcomes[:2] == [
        Reading("m/t", "one\n two ", time_ns=5),
        Reading("m/u", 1.0, time_ns=5),
    ]
    assert [type(o) for o in outcomes[2:]] == [BadLine, Reading, Reading]
    assert outcomes[2].number == 3
    assert "closing quote" in outcomes[2].problem


def test_a_backslash_before_the_quote_leaves_the_text_open() -> None:
    assert "closing quote" in problem(r'm b="a\"', form="influx")
    assert one(r'm b="a\\"').value == "a\\"


def test_quotes_are_characters_outside_of_fields() -> None:
    assert one('m,q="x,r=y" v=1').tags == {"q": '"x', "r": 'y"'}
    assert one('say"so",a="b value=1').sensor == 'say"so"'
    assert one('m a"b=1').sensor == 'm/a"b'


@pytest.mark.parametrize("number", ["\u0663", "\u0663.5", "\uff11", "1\u0663", "1_0"])
def test_only_ascii_digits_make_a_number(number: str) -> None:
    assert one(f"t {number}", form="plain").value == number
    for suffix in ("", "i", "u"):
        assert "is no value" in problem(f"m t={number}{suffix}", form="influx")
    assert "time" in problem(f"t 1 {number}", form="plain")
    assert "time" in problem(f"m t=1 {number}", form="influx")


def test_time_zero_is_1970_and_no_time_is_none() -> None:
    for line in ("t 1 0", "t value=1 0", '{"sensor":"t","value":1,"time":0}'):
        assert one(line).time_ns == 0
    assert one('{"sensor":"t","value":1,"time_ns":0}').time_ns == 0
    assert one("t 1 1970-01-01T00:00:00Z").time_ns == 0
    for line in ("t 1", "t value=1", '{"sensor":"t","value":1}'):
        assert one(line) == Reading("t", 1)


def test_two_times_are_one_too_many() -> None:
    both = '{"sensor":"t","value":1,"time":1,"time_ns":1000000000}'
    assert "time or time_ns, not both" in problem(both)
    assert "since 1970" in problem('{"sensor":"t","value":1,"time_ns":-1}')


def test_a_comma_in_a_number_is_not_silently_a_text() -> None:
    assert "a decimal point: 21.5" in problem("t 21,5")
    assert one("t 21,5,3").value == "21,5,3"


def test_bytes_that_are_not_utf8_cost_their_line() -> None:
    outcomes = parsed(b"t 1\nt gr\xfcn\nt 2\n", form="plain")
    assert [type(o) for o in outcomes] == [Reading, BadLine, Reading]
    assert "byte 5 of the line is not UTF-8" in outcomes[1].problem


def test_what_one_line_may_hold_is_bounded() -> None:
    fields = ",".join(f"f{n}=1" for n in range(line_protocol.FIELDS_MAX + 1))
    assert "divide the line" in problem(f"m {fields}")
    assert "bytes; it was left out" in problem(
        b"m t=" + b"1" * readings_text.LINE_BYTES_MAX, form="influx"
    )
    assert len(one("m," + ",".join(f"t{n}=v" for n in range(TAGS_MAX)) + " v=1").tags) == TAGS_MAX
    crowd = ",".join(f"t{n}=v" for n in range(TAGS_MAX + 1))
    assert "at most 64" in problem(f"m,{crowd} v=1")
    assert one(f"m,path={'x' * 1024} v=1").tags == {"path": "x" * 1024}


def test_the_objects_of_a_list_are_found_whatever_their_texts_hold() -> None:
    texts = ["", "}", '\\"]', "[{", "\u2028", "a,b", "{}{", "\\\\"]
    items = [
        f'{{"sensor":"t","value":"{text}","tags":{{"a":"{text}"}}}}'.encode() for text in texts
    ]
    for glue in (b",", b" ,\n "):
        assert list(readings_json.items_of(b"\n[ " + glue.join(items) + b" ]\n")) == items
    assert list(readings_json.items_of(b"[ ]")) == []


@pytest.mark.parametrize(
    "body", [b"[", b"[1]", b"[{}", b"[{},]", b"[{}]]", b"[{},{]", b'[{"a":"}]', b"[{{{}}}]"]
)
def test_a_list_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(BadReading):
        list(readings_json.items_of(body))


@pytest.mark.parametrize(
    "digits", ["1", "1.", "-1", "1e", "1,", ".", "=", "\\", '"', "\\ ", "a=1,"]
)
@pytest.mark.parametrize("form", ["plain", "influx", "json"])
def test_a_long_line_is_read_in_a_time_that_grows_with_its_length(form: Any, digits: str) -> None:
    """Some expressions take the square of it: for a line of this length that is minutes."""
    for end in ("", "i", "x", '"'):
        text = digits * (120_000 // len(digits)) + end
        for line in (
            f"m v={text}",
            f"m,t={text} v=1",
            f'm t="{text}',
            f"m v=1 {text}",
            f"t {text}",
        ):
            parsed(line, form=form)


def test_texts_that_stay_open_over_long_lines_are_not_read_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each such try reads the line from its beginning, and the agent stands still for all."""
    read = 0
    parse_line = line_protocol.parse_line

    def counting(line: str, unit_ns: int = 1) -> list[Reading]:
        nonlocal read
        read += len(line)
        return parse_line(line, unit_ns)

    monkeypatch.setattr(line_protocol, "parse_line", counting)
    opens = b'm a="' + b"x" * 100_000 + b"\n"
    goes_on = b"y" * 120_000 + b'\\"\n'
    first = next(parse(split_lines(opens + goes_on * 12), "influx"))
    assert isinstance(first, BadLine)
    assert read <= readings_text.JOINED_CHARACTERS_MAX
    several = 'm a="' + 'one\\"\n' * readings_text.JOINS_MAX + 'two" 7'
    assert one(several, form="influx").value == 'one"\n' * readings_text.JOINS_MAX + "two"


@pytest.mark.parametrize("line", ["m,a=1,a=2 v=1", "m,a=1,b=2,a=1 v=1", r"m,a\ b=1,a\ b=2 v=1"])
def test_a_tag_that_is_there_twice_is_not_one_of_both(line: str) -> None:
    with pytest.raises(BadReading, match="twice"):
        line_protocol.parse_line(line)
