"""Settings for the fleet: the narrower scope wins, and everybody comes to the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.control.fleet_settings import (
    FleetSetting,
    delete_setting,
    effective_settings,
    listed_settings,
    parse_setting_key,
    put_setting,
    setting_key,
)
from gossip.control.keys import KeyEntry
from gossip.core.errors import InvalidRequest


def anything(_name: str, _text: str) -> None:
    return


def entries(*settings: tuple[str, str, str]) -> list[KeyEntry]:
    made = [put_setting(scope, name, text, anything) for scope, name, text in settings]
    return [KeyEntry(put.key, put.value, at, at, 1) for at, put in enumerate(made, 1)]


def test_the_narrower_scope_wins() -> None:
    there = entries(
        ("node:pi-1", "log.level", "debug"),
        ("tag:site=barn", "log.level", "warning"),
        ("all", "log.level", "info"),
        ("all", "uplink.port", "1883"),
        ("tag:site=shed", "uplink.port", "8883"),
    )
    on_pi = effective_settings(there, "pi-1", {"site": "barn"})
    assert on_pi == {
        "log.level": FleetSetting("log.level", "debug", "node:pi-1", 1),
        "uplink.port": FleetSetting("uplink.port", "1883", "all", 4),
    }
    assert effective_settings(there, "pi-2", {"site": "barn"})["log.level"].text == "warning"
    assert effective_settings(there, "pi-3", {})["log.level"].text == "info"


def test_of_two_tags_the_later_by_its_letters_wins() -> None:
    there = entries(("tag:zone=b", "x", "zone"), ("tag:site=a", "x", "site"))
    for each in (there, there[::-1]):
        assert effective_settings(each, "pi", {"site": "a", "zone": "b"})["x"].text == "zone"


def test_other_keys_are_no_settings() -> None:
    assert listed_settings([KeyEntry("covey/else", b"", 1, 1, 1)]) == []
    assert parse_setting_key("covey/settings/all") is None


@pytest.mark.parametrize("scope", ["", "every", "tag:", "tag:site", "tag:=barn", "node:"])
def test_what_is_no_scope_is_refused(scope: str) -> None:
    with pytest.raises(InvalidRequest, match="no scope"):
        delete_setting(scope, "log.level")


def test_who_knows_the_settings_is_asked_before_one_is_set() -> None:
    def check(name: str, text: str) -> None:
        raise InvalidRequest(f"no setting {name} can be {text}")

    with pytest.raises(InvalidRequest, match=r"no setting log\.level can be loud"):
        put_setting("all", "log.level", "loud", check)
    with pytest.raises(InvalidRequest, match="missing"):
        delete_setting("all", "")


TEXTS = st.text(alphabet="ab/:=%.\u00e9\U0001f600", min_size=1, max_size=9)


@given(TEXTS, TEXTS)
def test_keys_come_back_as_scope_and_name(tag: str, name: str) -> None:
    scope = f"tag:site={tag}"
    assert parse_setting_key(setting_key(scope, name)) == (scope, name)
