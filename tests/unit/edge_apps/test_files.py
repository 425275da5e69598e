"""Files by way of the SDK, at a fake agent."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from agent.blocks.named_files import Upload
from edge_apps.client import ApiError, Client, ClientError
from edge_apps.files import BLOCK_BYTES, Files
from gossip.bodies.file_records import UploadRecord, digest_of
from tests.support.fake_agent import Served, serving
from tests.support.patience import GIVE_UP_S


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as running:
        running.agent.blocks.files.add("a", b"0123456789")
        running.agent.blocks.files.add("empty", b"")
        yield running


@pytest.fixture
def files(served: Served) -> Files:
    return Files(Client(served.paths.socket, timeout_s=GIVE_UP_S))


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, None), (3, None), (0, 4), (9, 10), (3, 99), (0, 0), (5, 5), (7, 3), (10, None), (99, 200)],
)
def test_a_range_is_what_python_takes_for_it(files: Files, start: int, end: int | None) -> None:
    assert b"".join(files.read("a", start, end)) == b"0123456789"[start:end]
    assert b"".join(files.read("empty", start, end)) == b""


@pytest.mark.parametrize(("now", "sent"), [(b"a", 1), (b"b", BLOCK_BYTES + 1)])
def test_an_upload_is_gone_on_with_only_with_the_bytes_that_it_began_with(
    served: Served, files: Files, now: bytes, sent: int
) -> None:
    began = digest_of(b"a" * BLOCK_BYTES)
    upload = Upload(bytes(16), UploadRecord("new", "m"), [began])
    served.agent.blocks.files.open_uploads = [upload]
    stored = files.put("new", BytesIO(now * (BLOCK_BYTES + 1)), mark="m")
    assert stored["size_bytes"] == sent, "the fake takes what comes for all"


def test_what_is_not_there_is_said_in_words(served: Served, files: Files) -> None:
    with pytest.raises(ApiError, match="there is no file"):
        list(files.read("none", 3))
    client = Client(served.paths.socket, timeout_s=GIVE_UP_S)
    for wrong in ("bytes=10-", "bytes=-0"):
        with pytest.raises(ApiError, match="10 bytes, and none of them is in this range") as caught:
            client.request("GET", "/api/v1/files/a", headers={"Range": wrong})
        assert caught.value.status == 416


class Changing(BytesIO):
    """A file to which somebody writes, or which somebody cuts, after its size was looked at."""

    def __init__(self, data: bytes, then: bytes) -> None:
        super().__init__(data)
        self._then: bytes | None = then

    def read(self, size: int | None = -1, /) -> bytes:
        """Read what is there by now."""
        if self._then is not None:
            at, then = self.tell(), self._then
            self._then = None
            self.truncate(0)
            self.seek(0)
            self.write(then)
            self.seek(at)
        return super().read(size)


def test_what_grows_is_stored_as_it_was_and_what_shrinks_is_not(
    served: Served, files: Files
) -> None:
    assert files.put("grows", Changing(b"12345", b"1234567"))["size_bytes"] == 5
    assert b"".join(files.read("grows")) == b"12345"
    with pytest.raises(ClientError, match="ended 2 bytes too soon; nothing of it is visible"):
        files.put("shrinks", Changing(b"12345", b"123"))
    assert "shrinks" not in served.agent.blocks.files.records
