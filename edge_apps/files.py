"""Files of the covey, for apps and the command line: streamed either way, never whole in memory.

    files = Files(client)
    with open("model.bin", "rb") as source:
        files.put("models/v2.bin", source)
    for part in files.read("models/v2.bin"):
        ...

A put that broke off is gone on with: the agent keeps the blocks that were safe for a day, and finds
them by ``mark``, which stands for this very content. What is read is compared with the digest that
the file was stored under.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any, BinaryIO

from edge_apps.client import ApiError, Client, ClientError

DIGEST_BYTES = 32
BLOCK_BYTES = 1024 * 1024
"""A file's digest is the BLAKE2b of the BLAKE2b's of its parts of this size."""
PART_BYTES = 256 * 1024
WRITTEN_WITHIN_S = 120.0
"""The agent answers when the last blocks are on the disks of most of their owners."""
PAGE_FILES = 500
RANGE_NOT_SATISFIABLE = 416

OnProgress = Callable[[int], object]


class FileBroken(ClientError):
    """What was read of a file is not what was stored, or not all of it."""


class FileDigest:
    """The digest of a file, of its bytes as they come."""

    def __init__(self) -> None:
        self._blocks = blake2b(digest_size=DIGEST_BYTES)
        self._block = blake2b(digest_size=DIGEST_BYTES)
        self._filled = 0

    def add(self, data: bytes) -> None:
        """Take in what comes next."""
        with memoryview(data) as view:
            at = 0
            while at < len(view):
                part = view[at : at + BLOCK_BYTES - self._filled]
                self._block.update(part)
                self._filled += len(part)
                at += len(part)
                if self._filled == BLOCK_BYTES:
                    self._end_block()

    def _end_block(self) -> None:
        self._blocks.update(self._block.digest())
        self._block = blake2b(digest_size=DIGEST_BYTES)
        self._filled = 0

    def hex(self) -> str:
        """Return the digest of all that has come; nothing more may come."""
        if self._filled:
            self._end_block()
        return self._blocks.hexdigest()


class Files:
    """Puts, reads, lists, moves and removes files. All raise ClientError."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def put(
        self,
        name: str,
        source: BinaryIO,
        *,
        mark: str = "",
        on_progress: OnProgress = lambda _bytes: None,
    ) -> dict[str, Any]:
        """Store what ``source`` has as the file of this name; return what is known of it.

        With a ``mark``, ``source`` can be sought in, and what an earlier put with this mark has
        stored of it is not sent again. ``on_progress`` hears how many bytes are through.
        """
        query: dict[str, str | float | None] = {"mark": mark or None}
        if mark and (found := self._begun(name, mark)) is not None:
            same = _same_blocks(source, found["blocks"], on_progress)
            if same == len(found["blocks"]):
                query |= {"upload": found["upload"], "from": same}
            else:  # it is another content by now
                same = 0
            source.seek(same * BLOCK_BYTES)
        left = _bytes_left(source)
        length = {} if left is None else {"Content-Length": str(left)}
        headers = {"Content-Type": "application/octet-stream", **length}
        parts = _parts(source, left, on_progress)
        answer = self._client.send(
            "PUT", _path(name), parts, query=query, headers=headers, timeout_s=WRITTEN_WITHIN_S
        )
        stored: dict[str, Any] = answer.json()
        return stored

    def _begun(self, name: str, mark: str) -> dict[str, Any] | None:
        """Return what an earlier put with this mark has left of this file."""
        uploads = self._client.get("/api/v1/file-uploads", mark=mark)["uploads"]
        found = [each for each in uploads if each["name"] == name]
        return max(found, key=lambda each: len(each["blocks"]), default=None)

    def read(self, name: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the bytes of a file from ``start`` up to ``end``; none where it has none there.

        Raises FileBroken when it ends too soon, as it does when the file was replaced or removed
        for more than a minute, and for a whole file that does not fit its digest.
        """
        if start == 0 and end is None:
            yield from self._read(name, {})
        elif end is None or end > start:
            last = "" if end is None else str(end - 1)
            try:
                yield from self._read(name, {"Range": f"bytes={start}-{last}"})
            except ApiError as error:
                if error.status != RANGE_NOT_SATISFIABLE:
                    raise

    def _read(self, name: str, headers: Mapping[str, str]) -> Iterator[bytes]:
        is_whole = not headers
        with self._client.receive(_path(name), headers=headers) as answer:
            wanted, got, digest = int(answer.getheader("content-length") or 0), 0, FileDigest()
            while data := _read(answer, name):
                got += len(data)
                digest.add(data)
                yield data
            if got != wanted:
                raise _broken_off(name, got, wanted)
            if is_whole and digest.hex() != answer.getheader("covey-digest"):
                raise FileBroken(f"what was read of {name!r} is not what was stored", "read again")

    def list(self, prefix: str = "") -> Iterator[dict[str, Any]]:
        """Yield what is known of the files whose names begin with a prefix, in their order."""
        after = ""
        while True:
            page = self._client.get("/api/v1/files", prefix=prefix, after=after, limit=PAGE_FILES)
            yield from page["files"]
            if page["outcome"] != "ok":
                raise ClientError(
                    "the list is partial: not enough owners of some names answered",
                    "see `covey members`; try again when they are back",
                )
            if not (after := page["next"]):
                return

    def stat(self, name: str) -> dict[str, Any]:
        """Return what is known of a file, and who has which of its blocks."""
        told: dict[str, Any] = self._client.get(f"/api/v1/file-stat/{name}")
        return told

    def move(self, old: str, new: str) -> dict[str, Any]:
        """Give a file another name, in the place of what that one stands for."""
        moved: dict[str, Any] = self._client.post(_path(old), {"move_to": new})
        return moved

    def remove(self, name: str) -> dict[str, Any]:
        """Remove a file; return what it was."""
        removed: dict[str, Any] = self._client.request("DELETE", _path(name)).json()
        return removed


def _path(name: str) -> str:
    return f"/api/v1/files/{name}"


def _same_blocks(source: BinaryIO, digests: Iterable[str], on_progress: OnProgress) -> int:
    """Return how many of these blocks, from the first on, are what the source has."""
    same = 0
    for digest in digests:
        if blake2b(source.read(BLOCK_BYTES), digest_size=DIGEST_BYTES).hexdigest() != digest:
            break
        same += 1
        on_progress(same * BLOCK_BYTES)
    return same


def _bytes_left(source: BinaryIO) -> int | None:
    """Return how much is to come; None where that is not known, as of a pipe or a device."""
    if not source.seekable():
        return None
    at = source.tell()
    try:
        end = source.seek(0, 2)
    except OSError:  # as in /proc
        return None
    source.seek(at)
    return end - at if end > at else None


def _parts(source: BinaryIO, left: int | None, on_progress: OnProgress) -> Iterator[bytes]:
    """Yield what is to come, and no more of it: what grows is stored as it was.

    Raises ClientError for what became shorter.
    """
    sent = source.tell() if source.seekable() else 0
    while data := source.read(PART_BYTES if left is None else min(PART_BYTES, left)):
        yield data
        sent += len(data)
        left = None if left is None else left - len(data)
        on_progress(sent)
    if left:
        raise ClientError(
            f"what is to be stored ended {left} bytes too soon; nothing of it is visible",
            "somebody made it shorter meanwhile: store it again",
        )


def _read(answer: Any, name: str) -> bytes:
    from http.client import IncompleteRead

    try:
        data: bytes = answer.read(PART_BYTES)
    except IncompleteRead as error:
        raise _broken_off(name, len(error.partial), None) from None
    return data


def _broken_off(name: str, got: int, wanted: int | None) -> FileBroken:
    of = f" of {wanted}" if wanted is not None else ""
    return FileBroken(
        f"{name!r} ended after {got}{of} bytes: its blocks are not to be had, or it was replaced "
        "or removed meanwhile",
        "read it again; `covey file stat` shows who has which blocks",
    )
