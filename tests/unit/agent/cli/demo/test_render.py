"""The demo's screen fits a terminal and shows what the agents see."""

import re

import pytest

from agent.cli.demo.log_view import describe
from agent.cli.demo.render import Screen, draw
from agent.cli.demo.views import AgentView, all_see

NAMES = ("heron", "lark", "wren")
OWNERS = ("heron", "lark")


def view(name: str, **states: str) -> AgentView:
    return AgentView(name, True, True, states, OWNERS, 7, "connected, MQTT 5")


def picture(*views: AgentView, events: int = 3) -> Screen:
    return Screen(
        views=views,
        broker="iotcore, MQTT 5, on 127.0.0.1:34519",
        rate=42.4,
        received=1234,
        repeated=2,
        events=[f"{number:7.1f} s  event {number}" for number in range(events)],
        elapsed_s=75.0,
    )


ALL = dict.fromkeys(NAMES, "alive")
HEALTHY = tuple(view(name, **ALL) for name in NAMES)
DOWN = AgentView("wren", False, False, {}, (), 0, "")
STARTING = DOWN._replace(running=True)


def test_no_text_of_others_does_anything() -> None:
    evil = "a\x1b[2J\x9b\u202e\r\nFORGED"
    shown = AgentView(evil, True, True, {evil: evil}, (evil,), 7, evil)
    for line in draw(picture(shown)._replace(broker=evil, events=[evil]), 200, 24, colour=False):
        assert line.isprintable()
        assert not line.startswith("FORGED")


@pytest.mark.parametrize("width", [20, 80, 200])
@pytest.mark.parametrize("height", [1, 5, 24, 60])
def test_fits_every_terminal(width: int, height: int) -> None:
    for colour in (True, False):
        lines = draw(picture(*HEALTHY, events=100), width, height, colour=colour)
        assert len(lines) == height
        assert all(len(re.sub(r"\x1b\[\d+m", "", line)) <= width for line in lines)
        assert colour or not any("\x1b" in line for line in lines)


def test_a_usual_terminal_shows_everything() -> None:
    text = "\n".join(draw(picture(*HEALTHY), 80, 24, colour=False))
    assert text.count("alive") == 9
    assert text.count("keeps demo/greeting") == 2
    assert text.count("outbox 7") == 3
    assert text.count("connected, MQTT 5") == 3
    for part in ("42/s", "1234 arrived", "2 came twice", "iotcore", "1:15", "event 2", "q quit"):
        assert part in text


def test_nothing_is_cut_off_at_80_columns() -> None:
    wide = [line.rstrip() for line in draw(picture(*HEALTHY), 200, 24, colour=False)]
    assert wide == draw(picture(*HEALTHY), 80, 24, colour=False)


def test_the_newest_events_stay_and_the_keys_are_last() -> None:
    lines = draw(picture(*HEALTHY, events=100), 80, 24, colour=False)
    assert "event 99" in "\n".join(lines)
    assert "kill -9" in lines[-1]


def test_disagreement_and_absence_can_be_seen() -> None:
    views = (view("heron", **{**ALL, "wren": "suspect"}), view("lark", **{**ALL, "wren": "dead"}))
    lines = draw(picture(*views, DOWN), 80, 24, colour=False)
    assert re.search(r"wren +suspect +dead$", "\n".join(lines), re.MULTILINE)
    assert any("3 wren" in line and "killed" in line for line in lines)
    starting = draw(picture(*views, STARTING), 80, 24, colour=False)
    assert any("3 wren" in line and "starting" in line for line in starting)


def test_nine_agents_fit_too() -> None:
    views = tuple(view(f"bird{number}", bird0="alive") for number in range(9))
    lines = draw(picture(*views), 80, 24, colour=False)
    assert len(lines) == 24
    assert "1..9" in lines[-1]


def test_a_line_for_a_log() -> None:
    assert describe([view("heron", **{**ALL, "lark": "dead"}), DOWN, STARTING]) == (
        "heron sees 2 of 3 alive, wren is down, wren is starting"
    )


def test_all_see_asks_those_who_run() -> None:
    expected = {**ALL, "wren": "dead"}
    seers = [view(name, **expected) for name in NAMES[:2]]
    assert all_see([*seers, DOWN], expected)
    assert not all_see([*seers, STARTING], expected)
    assert not all_see([seers[0], view("lark", **ALL), DOWN], expected)
