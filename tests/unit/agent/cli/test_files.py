"""``covey file`` against a fake agent: names as typed, and sources that are no plain files."""

from pathlib import Path

import pytest

from agent import exits
from agent.blocks.named_files import FilePage
from agent.cli import files
from agent.cli.progress import Progress
from tests.support.command_line import Covey
from tests.support.fake_agent import Served


def test_a_name_without_characters_is_not_taken_for_none(
    served: Served, covey: Covey, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(b"1")
    assert covey("file", "put", str(tmp_path / "a"), "").status == exits.USAGE
    assert not served.agent.blocks.files.records
    assert covey("file", "put", str(tmp_path / "a")).status == exits.YES
    assert served.agent.blocks.files.records.keys() == {"a"}


@pytest.mark.usefixtures("served")
def test_what_does_not_tell_its_size_is_stored_without_a_bar(
    covey: Covey, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    quiet: list[bool] = []

    class Seen(Progress):
        def __init__(self, **options: bool) -> None:
            quiet.append(options["quiet"])
            super().__init__(quiet=True)

    monkeypatch.setattr(files, "Progress", Seen)
    (tmp_path / "a").write_bytes(b"1")
    assert covey("file", "put", str(tmp_path / "a")).status == exits.YES
    assert Path("/proc/self/status").stat().st_size == 0
    stored = covey("file", "put", "/proc/self/status", "-o", "json")
    assert stored.status == exits.YES, stored.stderr
    assert stored.json()["size_bytes"] > 0
    assert quiet == [False, True]


def test_a_list_that_may_miss_all_names_is_partial(
    served: Served, covey: Covey, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def page(*_args: object) -> FilePage:
        return FilePage([], "", "partial")

    monkeypatch.setattr(served.agent.blocks.files, "page", page)
    listed = covey("file", "ls", "-o", "json")
    assert listed.status == exits.UNHEALTHY
    assert listed.json() == {"files": [], "outcome": "partial"}
