"""What many unit tests begin with: an agent that is not real, and the command line."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import Covey, commands_in
from tests.support.fake_agent import Served, serving


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Give a fake agent that serves its API in the test's directory."""
    with serving(tmp_path) as running:
        yield running


@pytest.fixture
def covey(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> Covey:
    """Give a function that runs ``covey`` on the agent of the test's directory."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COVEY_DIR"):
        monkeypatch.delenv(name, raising=False)
    return commands_in(tmp_path, capfdbinary)
