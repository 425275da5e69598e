"""Which texts MQTT carries, and that none of the others passes any door."""

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.settings import UplinkSettings
from edge_apps.reading import TAG_CHARACTERS_MAX, BadReading, Checked, Reading, check
from edge_apps.texts import flaw, topic_flaw
from tests.support.strict_broker import StrictBroker
from tests.support.uplink_rig import rig, run, sent

CARRIED = [
    "",
    "t",
    "greenhouse/Außen",
    "温度",
    "a b",
    "a\u2028b",
    "a\u00a0b",
    "\U0001f326",
    "\u00ad",
]
FORBIDDEN = [
    "\x00", "\x01", "\t", "\n", "\x1b", "\x1f", "\x7f", "\x80", "\x85", "\x9f",
    "\ud800", "\udfff", "\ufdd0", "\ufdef", "\ufffe", "\uffff", "\U0001fffe", "\U0010ffff",
]  # fmt: skip


@pytest.mark.parametrize("text", CARRIED)
def test_what_mqtt_carries(text: str) -> None:
    assert flaw(text) == ""


@pytest.mark.parametrize("character", FORBIDDEN)
def test_what_it_does_not(character: str) -> None:
    assert f"U+{ord(character):04X}" in flaw(f"a{character}b")


def test_the_whole_of_unicode_has_so_many_flaws() -> None:
    flawed = sum(bool(flaw(chr(code))) for code in range(0x110000))
    controls, surrogates, non_characters = 32 + 1 + 32, 2048, 32 + 2 * 17
    assert flawed == controls + surrogates + non_characters


@pytest.mark.parametrize(
    ("topic", "says"),
    [
        ("", "empty"),
        ("$SYS/a", "broker's"),
        ("a/+", "wildcard"),
        ("a#", "wildcard"),
        ("a\x85", "a control character, U+0085"),
        ("ä" * 40_000, "65535 bytes"),
    ],
)
def test_topics_to_which_nothing_can_be_published(topic: str, says: str) -> None:
    assert says in topic_flaw(topic)


def test_topics_of_any_length_up_to_the_limit() -> None:
    assert topic_flaw("x" * 65_535) == ""
    assert topic_flaw("a/$b") == ""


@pytest.mark.parametrize("character", FORBIDDEN)
@pytest.mark.parametrize("place", ["sensor", "unit", "tag"])
def test_no_name_holds_them(character: str, place: str) -> None:
    text = f"caf{character}e"
    reading = {
        "sensor": Reading(text, 1),
        "unit": Reading("t", 1, text),
        "tag": Reading("t", 1, tags={text: "b"}),
    }[place]
    with pytest.raises(BadReading) as caught:
        check(reading)
    assert f"U+{ord(character):04X}" in str(caught.value)
    assert str(caught.value).isprintable(), "the complaint goes to terminals and logs"


def test_what_was_found_good_once_is_good_in_its_place_only() -> None:
    """Good names are remembered: the same texts elsewhere, and bad ones a second time, are not."""
    check(Reading("room/t", 1, "C", tags={"floor of the house": "2"}))
    for bad in (
        Reading("floor of the house", 1, "C"),
        Reading("room/t", 1, "C", tags={"": "2"}),
        Reading("room/t", 1, "C\x85", tags={"floor of the house": "2"}),
        Reading("room/t", 1, "C", tags={"floor of the house": "2" * 1025}),
        Reading("room/t", math.inf, "C", tags={"floor of the house": "2"}),
    ):
        for _ in range(2):
            with pytest.raises(BadReading):
                check(bad)


@pytest.mark.parametrize(
    "character", [each for each in FORBIDDEN if not "\ud800" <= each <= "\udfff"]
)
def test_a_text_in_the_payload_is_data_and_may(character: str) -> None:
    check(Reading("t", f"line{character}line", tags={"a": f"line{character}line"}))


def test_but_no_text_is_anything_else_than_utf_8() -> None:
    for reading in (Reading("t", "\ud800"), Reading("t", 1, tags={"a": "\ud800"})):
        with pytest.raises(BadReading, match="not UTF-8"):
            check(reading)


def test_a_sensor_does_not_begin_with_a_dollar() -> None:
    with pytest.raises(BadReading, match="at the start"):
        check(Reading("$SYS/x", 1))
    check(Reading("a/$b", 1))


@given(st.text(max_size=20))
def test_a_sensor_that_is_accepted_is_a_topic(name: str) -> None:
    try:
        check(Reading(name, 1))
    except BadReading:
        return
    assert topic_flaw(name) == ""


def test_what_was_stored_before_the_rule_is_buried_without_being_sent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"bad\x85{n}" for n in range(30)] + ["$SYS/x", "a\ufffe"]

    async def scenario() -> None:
        async with StrictBroker() as broker, rig(tmp_path, broker.port) as r:
            await r.outbox.accept([cast("Checked", Reading(name, 1)) for name in names])
            await r.accept(range(100))
            await r.until_empty()
            assert sent(broker) == list(range(100))
            assert len(broker.sessions) == 1
            letters = r.outbox.dead_letters()
            assert [letter.reading.sensor for letter in letters] == names
            assert "U+0085" in letters[0].reason

    run(scenario())
    assert r"sensor 'bad\x850'" in caplog.text
    assert "\x85" not in caplog.text


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"client_id": "a\x85"}, "client_id: holds a control character"),
        ({"username": "a\ufffe"}, "username: holds a non-character"),
    ],
)
def test_settings_that_mqtt_cannot_carry(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says.split()[0]) as caught:
        UplinkSettings(**settings)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("tags", "says"),
    [
        ({"a": "x" * TAG_CHARACTERS_MAX, "b": "y" * TAG_CHARACTERS_MAX}, ""),
        ({"a": "Gewächshaus", "b": "naïve"}, ""),
        ({"a": "x", "b": "y" * (TAG_CHARACTERS_MAX + 1)}, "tag 'b' of t: its value has at most"),
        ({"a": "x", "b": "\udcff"}, "a text is not UTF-8"),
    ],
)
def test_values_of_tags_are_short_texts(tags: dict[str, str], says: str) -> None:
    with pytest.raises(BadReading, match=says) if says else nullcontext():
        check(Reading("t", 1, tags=tags))
