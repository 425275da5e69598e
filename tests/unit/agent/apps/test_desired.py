"""What the owner wants outlives the agent, or the command says that it does not."""

import json
from pathlib import Path

import pytest

from agent.apps.desired import DesiredApps
from agent.exits import AgentError


def test_the_configuration_decides_until_somebody_asks(tmp_path: Path) -> None:
    desired = DesiredApps(tmp_path / "apps.json")
    assert desired.runs("system", enabled=True)
    assert not desired.runs("system", enabled=False)
    desired.wish("system", runs=False)
    assert not desired.runs("system", enabled=True)


def test_wishes_are_found_again(tmp_path: Path) -> None:
    first = DesiredApps(tmp_path / "apps.json")
    first.wish("system", runs=True)
    first.wish("door", runs=False)
    again = DesiredApps(tmp_path / "apps.json")
    assert again.runs("system", enabled=False)
    assert again.names() == {"system"}
    assert {each.name for each in tmp_path.iterdir()} == {"apps.json", "spare"}


def test_a_wish_that_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    desired = DesiredApps(tmp_path / "missing" / "apps.json")
    with pytest.raises(AgentError, match="did not start system") as caught:
        desired.wish("system", runs=True)
    assert "disk" in caught.value.hint
    assert not desired.runs("system", enabled=False)


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "null", "\ufffd"])
def test_a_broken_file_does_not_keep_the_agent_down(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "apps.json").write_text(content)
    desired = DesiredApps(tmp_path / "apps.json")
    assert desired.runs("system", enabled=True)
    assert "apps run as the configuration says" in caplog.text
    desired.wish("system", runs=False)
    assert json.loads((tmp_path / "apps.json").read_text()) == {"system": False}
