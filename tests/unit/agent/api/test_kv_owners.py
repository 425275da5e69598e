"""How many own the keys of a space: what is asked, and when it is refused."""

import pytest

from agent import exits
from tests.support.command_line import Covey
from tests.support.fake_agent import Served


@pytest.fixture
def spaces(served: Served, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What the issuer was asked for."""
    asked: dict[str, int] = {}

    async def place_space(name: str, replicas: int) -> int:
        asked[name] = replicas
        return 8

    admission = served.agent.admission
    monkeypatch.setattr(admission, "place_space", place_space, raising=False)
    return asked


def test_a_space_without_keys_gets_as_many_owners_as_was_asked_for(
    covey: Covey, spaces: dict[str, int]
) -> None:
    outcome = covey("kv", "space", "create", "photos", "--replicas", "5")
    assert outcome.status == exits.YES
    assert spaces == {"photos": 5}
    told = covey("kv", "space", "create", "photos", "--replicas", "2", "-o", "json").json()
    assert told == {"name": "photos", "replicas": 2, "epoch": 8}


def test_a_space_with_keys_is_left_as_it_is(covey: Covey, spaces: dict[str, int]) -> None:
    covey("kv", "put", "photos/1", "x")
    outcome = covey("kv", "space", "create", "photos", "--replicas", "5")
    assert outcome.status == exits.NO
    assert "there are keys that begin with photos/; nothing was changed" in outcome.stderr
    assert "covey kv export --prefix photos/" in outcome.stderr
    assert spaces == {}


def test_a_space_whose_first_keys_have_expired_has_keys(
    covey: Covey, served: Served, spaces: dict[str, int]
) -> None:
    served.agent.kv.expired = {f"photos/{n:03}" for n in range(250)}
    served.agent.kv.values = {key: [b"old"] for key in (*served.agent.kv.expired, "photos/z")}
    outcome = covey("kv", "space", "create", "photos", "--replicas", "5")
    assert outcome.status == exits.NO
    assert spaces == {}


def test_what_cannot_be_is_refused(covey: Covey, spaces: dict[str, int]) -> None:
    assert covey("kv", "space", "create", "device", "--replicas", "2").status == exits.USAGE
    assert covey("kv", "space", "create", "photos", "--replicas", "8").status == exits.USAGE
    assert covey("kv", "space", "create", "photos").status == exits.USAGE
    assert spaces == {}
