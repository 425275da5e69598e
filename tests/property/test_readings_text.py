"""Laws of the text forms: what is written comes back, and no input makes a parser raise."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent.telemetry.readings_text import FORMATS, BadLine, parse, split_lines
from edge_apps.reading import Reading, check
from edge_apps.texts import flaw

names = st.from_regex(r"[a-z0-9_.:-]{1,12}(/[a-z0-9_.:-]{1,12}){0,2}", fullmatch=True)
floats = st.floats(allow_nan=False, allow_infinity=False)
integers = st.integers(-(2**63) + 1, 2**63 - 1)
# What one line can carry: no newline, no lone surrogates.
texts = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=40)
values = st.one_of(floats, integers, st.booleans(), texts)
# Names and units are told in headers of MQTT, too.
carried = texts.filter(lambda text: not flaw(text))
tags = st.dictionaries(carried.filter(str.strip), texts.filter(str.strip), max_size=3)
times_ns = st.integers(1, 2**63 - 1)


def parsed(text: str | bytes, form: Any = None) -> list[Any]:
    """Return the readings and the bad lines of a text, in order."""
    body = text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
    outcomes: list[Any] = []
    for each in parse(split_lines(body), form):
        outcomes += [each] if isinstance(each, BadLine) else each.readings
    return outcomes


def same(left: Any, right: Reading) -> bool:
    return left == right and type(left.value) is type(right.value)


@given(names, values, carried.filter(lambda t: len(t) <= 32), tags)
def test_json_comes_back(sensor: str, value: Any, unit: str, labels: dict[str, str]) -> None:
    line = json.dumps({"sensor": sensor, "value": value, "unit": unit, "tags": labels})
    (back,) = parsed(line)
    assert same(back, Reading(sensor, value, unit, tags=labels))


def escape(text: str, which: str) -> str:
    return "".join(f"\\{c}" if c in which else c for c in text)


def field(value: Any) -> str:
    if isinstance(value, str):
        return '"' + escape(value, '"\\') + '"'
    return f"{value}i" if type(value) is int else str(value)


plain_tags = st.dictionaries(
    st.from_regex(r"[a-z ,=]{1,8}", fullmatch=True),
    st.from_regex(r"[a-z ,=]{1,8}", fullmatch=True),
    max_size=3,
)


@given(names, values, plain_tags, times_ns)
def test_line_protocol_comes_back(
    sensor: str, value: Any, labels: dict[str, str], time_ns: int
) -> None:
    series = ",".join(
        [sensor, *(f"{escape(k, ',= ')}={escape(v, ',= ')}" for k, v in labels.items())]
    )
    (back,) = parsed(f"{series} value={field(value)} {time_ns}", "influx")
    assert same(back, Reading(sensor, value, time_ns=time_ns, tags=labels))


@given(names, st.one_of(floats, integers, st.booleans()), st.integers(1, 2**63 // 10**9 - 1))
def test_plain_comes_back(sensor: str, value: Any, time_s: int) -> None:
    (back,) = parsed(f"{sensor} {value} {time_s}", "plain")
    assert same(back, Reading(sensor, value, time_ns=time_s * 10**9))


@given(st.text(max_size=300) | st.binary(max_size=300), st.sampled_from([None, *FORMATS]))
def test_anything_is_a_reading_or_an_explained_line(text: str | bytes, form: Any) -> None:
    for outcome in parsed(text, form):
        if isinstance(outcome, BadLine):
            assert outcome.problem
        else:
            assert check(outcome) is outcome


@given(st.text('mt=,i"\\ 1.u#{\n', max_size=30))
def test_anything_near_line_protocol_is_a_reading_or_an_explained_line(text: str) -> None:
    for outcome in parsed(text, "influx"):
        assert isinstance(outcome, (BadLine, Reading))


@given(st.text('mt=,i"\\ 1.u#{\n', max_size=60))
def test_each_line_has_one_outcome_and_its_number(text: str) -> None:
    """A text over several lines takes them along; a bad line takes none."""
    numbers = [each.number for each in parse(split_lines(text.encode()), "influx")]
    assert numbers == sorted(set(numbers))
    assert set(numbers) <= set(range(1, text.count("\n") + 2))


@given(st.text(st.characters(), max_size=120), st.sampled_from([None, *FORMATS]))
def test_whatever_is_accepted_can_be_stored(text: str, form: Any) -> None:
    """Also of texts that are no UTF-8: what a shell passed, half of a character."""
    for outcome in parsed(text, form):
        if isinstance(outcome, Reading):
            json.dumps([outcome.sensor, outcome.value, outcome.tags], ensure_ascii=False).encode()
