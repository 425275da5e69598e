"""Many puts, gets and deletes of shared keys under way at once, over one connection to the agent.

What ``edge_apps/client.py`` does for one request, this does for hundreds a moment: each call sends
its question and returns at once what will hold the answer::

    with KvStream.open(client) as keys:
        writes = [keys.put(f"lights/{n}", b"on") for n in range(1000)]
        for write in writes:
            write.result()             # WriteResult, or raises ApiError or AgentUnreachable
        found = keys.get("lights/7").result()

A call waits while ``UNDER_WAY_MAX`` are under way, so that a program that asks faster than it is
answered holds no more than that. Answers come in the order in which they are done: what must come
after something else is asked when that is answered.

When the connection ends, all that is under way ends with ``AgentUnreachable``: it may have happened
or not. A stream does not connect anew; open another one.
"""

import contextlib
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from edge_apps.client import (
    AgentTimedOut,
    AgentUnreachable,
    ApiError,
    Client,
    ClientError,
    api_error,
)
from edge_apps.kv_frames import (
    ALWAYS,
    ANSWER_BYTES_MAX,
    FRAME_BYTES_MAX,
    LENGTH_BYTES,
    PATH,
    PROTOCOL,
    TIMEOUT_S,
    Answer,
    ArrivingMessages,
    Ask,
    DeleteAsk,
    Failed,
    Found,
    GetAsk,
    PutAsk,
    WriteResult,
    decode_answer,
    decode_ask,
    framed,
)
from gossip.core.errors import Malformed

if TYPE_CHECKING:
    import socket

UNDER_WAY_MAX = 256
READ_BYTES = 64 * 1024
HEAD_BYTES_MAX = 16 * 1024
HEAD_END = b"\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 "
ENDED = "the stream has ended"
NOT_ASKED = "nothing was asked, and the stream goes on"
UNKNOWN = "what was under way may or may not have happened; open another stream"

A = TypeVar("A", WriteResult, Found)


class KvStream:
    """A stream of shared keys; may be shared by threads."""

    def __init__(self, connected: "socket.socket", headers: Mapping[str, str]) -> None:
        """Upgrade a connection to the agent's socket, which is closed with this.

        Raises ApiError when the agent refuses, AgentUnreachable when it hangs up.
        """
        self._connected = connected
        self._lock, self._sending = threading.Lock(), threading.Lock()
        self._room = threading.BoundedSemaphore(UNDER_WAY_MAX)
        self._under_way: dict[int, Future[Answer]] = {}
        self._number = 0
        self._why: ClientError | None = None
        try:
            early = _upgraded(connected, headers)
        except BaseException:
            connected.close()
            raise
        connected.settimeout(None)  # a question has a time of its own
        self._reader = threading.Thread(
            target=self._read, args=(early,), name="covey-kv-stream", daemon=True
        )
        self._reader.start()

    @classmethod
    def open(cls, client: Client) -> Self:
        """Open a stream at the socket of a client. Raises as ``__init__``."""
        return cls(*client.connect())

    def put(
        self,
        key: str,
        value: bytes,
        *,
        w: int | None = None,
        context: bytes | None = None,
        timeout_s: float = TIMEOUT_S,
        condition: int = ALWAYS,
        durability: str = "",
        ttl_s: float | None = None,
    ) -> "Future[WriteResult]":
        """Write a value to ``w`` owners, most of them unless given, all for -1.

        ``durability``: "flush" or "fsync", ``ttl_s``: for how long, as in docs/api.md.

        ``condition``: IF_CONTEXT or IF_ABSENT of ``edge_apps/kv_frames.py``. The future raises
        ApiError when it was refused. ``indeterminate`` is an outcome, and no error.
        """
        return self._ask(
            lambda number: PutAsk(
                number, key, value, w, context, timeout_s, condition, durability, ttl_s
            ),
            WriteResult,
        )

    def get(
        self, key: str, *, r: int | None = None, timeout_s: float = TIMEOUT_S
    ) -> "Future[Found]":
        """Read a key from ``r`` owners; without values if there is none of that name."""
        return self._ask(lambda number: GetAsk(number, key, r, timeout_s), Found)

    def delete(
        self,
        key: str,
        *,
        w: int | None = None,
        context: bytes | None = None,
        timeout_s: float = TIMEOUT_S,
        durability: str = "",
    ) -> "Future[WriteResult]":
        """Delete a key, or the versions that the context names."""
        return self._ask(
            lambda number: DeleteAsk(number, key, w, context, timeout_s, durability), WriteResult
        )

    def close(self) -> None:
        """End it; what is under way ends with AgentUnreachable."""
        self._fail(AgentUnreachable(ENDED, UNKNOWN))
        if threading.current_thread() is not self._reader:  # closed by who was told a result
            self._reader.join()
        self._connected.close()

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.close()

    def _ask(self, make: Any, _expected: type[A]) -> "Future[A]":
        self._room.acquire()
        future: Future[Answer] = Future()
        with self._lock:
            if self._why is not None:
                self._room.release()
                raise self._why
            self._number += 1
            number = self._number
            self._under_way[number] = future
        try:
            data = _question(make(number))
        except BaseException:
            self._take_back(number)
            raise
        try:
            with self._sending:
                self._connected.sendall(data)
        except OSError:
            self._fail(AgentUnreachable("the agent hung up", UNKNOWN))
        return cast("Future[A]", future)

    def _take_back(self, number: int) -> None:
        """Give up what was not asked."""
        with self._lock:
            was_under_way = self._under_way.pop(number, None) is not None
        if was_under_way:
            self._room.release()

    def _read(self, early: bytes) -> None:
        """Hand out answers until the connection ends."""
        arriving = ArrivingMessages(ANSWER_BYTES_MAX)
        data = early
        try:
            while True:
                arriving.feed(data)
                while (message := arriving.take()) is not None:
                    self._settle(decode_answer(message))
                data = self._connected.recv(READ_BYTES)
                if not data:
                    break
        except (OSError, Malformed) as error:
            self._fail(AgentUnreachable(f"the stream broke: {error}", UNKNOWN))
        self._fail(AgentUnreachable("the agent ended the stream", UNKNOWN))

    def _settle(self, answer: Answer) -> None:
        if isinstance(answer, Failed) and answer.number == 0:
            self._fail(_error_of(answer))
            return
        with self._lock:
            future = self._under_way.pop(answer.number, None)
        if future is None:
            return
        self._room.release()
        if not future.set_running_or_notify_cancel():
            return
        if isinstance(answer, Failed):
            future.set_exception(_error_of(answer))
        else:
            future.set_result(answer)

    def _fail(self, why: ClientError) -> None:
        """End all that is under way; the first reason is the one that counts."""
        import socket  # late, as in client.py

        with self._lock:
            self._why = self._why or why
            failed, self._under_way = self._under_way, {}
        with contextlib.suppress(OSError):  # it has ended before
            self._connected.shutdown(socket.SHUT_RDWR)
        for future in failed.values():
            self._room.release()
            if future.set_running_or_notify_cancel():
                future.set_exception(self._why)


def _question(ask: Ask) -> bytes:
    """Return what goes over the connection. Raises ApiError for what no agent would understand.

    The agent would end the stream for it, and all else that is under way with it.
    """
    try:
        data = framed(ask)
        decode_ask(data[LENGTH_BYTES:])
    except (TypeError, ValueError, Malformed) as error:
        raise ApiError(400, "usage", f"this cannot be asked: {error}", NOT_ASKED) from None
    if len(data) - LENGTH_BYTES > FRAME_BYTES_MAX:
        message = f"a question has at most {FRAME_BYTES_MAX} bytes with its value and its context"
        raise ApiError(413, "usage", message, NOT_ASKED)
    return data


def _error_of(failed: Failed) -> ApiError:
    return ApiError(failed.status, failed.code, failed.message, failed.hint)


def _upgraded(connected: "socket.socket", headers: Mapping[str, str]) -> bytes:
    """Ask for the upgrade; return what came behind the answer. Raises ClientError."""
    lines = [
        f"GET {PATH} HTTP/1.1", "Host: localhost", "Connection: Upgrade", f"Upgrade: {PROTOCOL}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]  # fmt: skip
    answer = b""
    try:
        connected.sendall("\r\n".join(lines).encode("latin-1") + HEAD_END)
        while HEAD_END not in answer and len(answer) < HEAD_BYTES_MAX:
            data = connected.recv(READ_BYTES)
            if not data:
                break
            answer += data
        head, _, rest = answer.partition(HEAD_END)
        if head.startswith(SWITCHED):
            return rest
        raise _refusal(connected, head, rest)
    except TimeoutError:
        raise AgentTimedOut(
            "the agent did not open a stream in time", "it may be busy or stopped"
        ) from None
    except OSError as error:
        raise AgentUnreachable("the agent hung up", "see `covey status`") from error


def _refusal(connected: "socket.socket", head: bytes, body: bytes) -> ClientError:
    """Return the error that an answer other than the upgrade is."""
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    try:
        status, size = int(head.split(b" ", 2)[1]), int(fields.get(b"content-length", b"0"))
    except (IndexError, ValueError):
        return AgentUnreachable("what answered is no agent", "see `covey status`")
    while len(body) < min(size, HEAD_BYTES_MAX) and (data := connected.recv(READ_BYTES)):
        body += data
    return api_error(status, body)
