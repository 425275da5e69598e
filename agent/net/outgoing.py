"""Frames on their way to one node.

A link dials when there is something to send, keeps the connection while it is used, and closes
it after five minutes of silence, or after one where many are open. Opening one costs either side
1.8 kB and some milliseconds, and in a small covey there is a word for everybody each minute or two:
closed sooner, its streams would cost as much as all other talk of its idle members.

Frames travel on the connection that the sender dialled, so two nodes that talk have two
connections, and neither has to decide which of them survives.

    IDLE ──send──▶ DIALLING ──▶ OPEN ──silence──▶ IDLE
                       └─fails─┐  └─breaks─┐
                               ▼           ▼
                             COOLING ──────▶ IDLE

A link can be *kept*: then it is dialled without anything to send, stays open in silence, and is
dialled again when it ends, after pauses that double. What a kept link carries is its own end: a
process that dies closes its connections at once (``gossip/membership/detection/observers.py``).

Whatever was waiting when a link fails is dropped, and the node's machine hears of it: it knows
best whether to ask somebody else. While a link cools, sending fails at once instead of queueing
behind one hopeless dial after another; a frame from the other side ends that, for its sender wants
an answer. TCP's own patience is some 15 minutes;
``TCP_USER_TIMEOUT`` (RFC 5482) makes it ten seconds.
"""

import asyncio
import contextlib
import enum
import socket
from collections import Counter, deque
from collections.abc import Awaitable, Callable

from agent.loop import watched
from agent.net.framing import framed, read_frame
from gossip.core.errors import LimitExceeded, RemoteError
from gossip.core.ids import NodeId

IDLE_S, IDLE_AMONG_MANY_S = 300.0, 60.0
COOLING_S = 0.3
"""Short: right after a start, the address of a node may be learnt a moment after it was needed."""
WAITING_BYTES_MAX = 8 * 1024 * 1024
WRITTEN_BYTES = 64 * 1024
"""At a time, or one frame: the loop encrypts it in one go."""
USER_TIMEOUT_MS = 10_000
KEEP_ALIVE_IDLE_S, KEEP_ALIVE_INTERVAL_S, KEEP_ALIVE_COUNT = 300, 30, 4
"""A silent connection shows the peer's kernel, and every NAT in between, that it is still used."""
REDIAL_FIRST_S, REDIAL_LONGEST_S = 1.0, 60.0

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class LinkState(enum.Enum):
    """Where a link is in the picture above."""

    IDLE = "idle"
    DIALLING = "dialling"
    OPEN = "open"
    COOLING = "cooling"


NEXT_STATES: dict[LinkState, frozenset[LinkState]] = {
    LinkState.IDLE: frozenset({LinkState.DIALLING}),
    LinkState.DIALLING: frozenset({LinkState.OPEN, LinkState.COOLING}),
    LinkState.OPEN: frozenset({LinkState.IDLE, LinkState.COOLING}),
    LinkState.COOLING: frozenset({LinkState.IDLE}),
}


class OutgoingStream:
    """The sending side of the streams to one node."""

    def __init__(
        self,
        to: NodeId,
        dial: Callable[[NodeId], Awaitable[Connection]],
        on_broken: Callable[[NodeId], None],
        on_closed: Callable[[NodeId], None],
        on_frame: Callable[[bytes, NodeId], None],
        counts: Counter[str],
        are_few: Callable[[], bool] = lambda: True,
    ) -> None:
        """``are_few`` says whether so few connections are open that silent ones may stay."""
        self.state = LinkState.IDLE
        self.counts = counts
        self._to, self._dial = to, dial
        self._on_broken, self._on_closed, self._on_frame = on_broken, on_closed, on_frame
        self._are_few = are_few
        self._is_kept = self._is_stale = False
        self._redial_s = REDIAL_FIRST_S
        self._redial: asyncio.TimerHandle | None = None
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._more = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether there is no connection, and nothing waits for one."""
        return self.state is LinkState.IDLE and not self._is_kept

    @property
    def waiting_bytes(self) -> int:
        """How much waits to be sent."""
        return self._waiting_bytes

    def send(self, data: bytes) -> None:
        """Queue a frame, dialling if need be. Never blocks or raises."""
        try:
            frame = framed(data)
        except LimitExceeded:
            self.counts["frames_dropped/too_large"] += 1
            return
        if self.state is LinkState.COOLING:
            self._refuse("cooling")
        elif self._waiting_bytes + len(frame) > WAITING_BYTES_MAX:
            self._refuse("queue_full")
        else:
            self._waiting.append(frame)
            self._waiting_bytes += len(frame)
            self._more.set()
            if self.state is LinkState.IDLE:
                self._begin()

    def pin(self) -> None:
        """Dial, and hold the connection open in silence."""
        if not self._is_kept:
            self._is_kept = True
            self._redial_s = REDIAL_FIRST_S
            self._more.set()  # the pump looks again how long it is to wait
            self._dial_again()

    def unpin(self) -> None:
        """Hold the connection open no longer than it is used."""
        self._is_kept = False
        self._more.set()
        if self._redial is not None:
            self._redial.cancel()

    def end_cooldown(self) -> None:
        """Cool no longer: the other side has just shown that it is there."""
        if self.state is LinkState.COOLING:
            assert self._task is not None, "somebody waits for the end of it"
            self._task.cancel()
            self._enter(LinkState.IDLE)
            self._dial_again()

    def _dial_again(self) -> None:
        if self._is_kept and self.state is LinkState.IDLE:
            self._begin()

    def redial(self) -> None:
        """Close the connection when all that waits is written; what comes then dials anew."""
        if self.state in (LinkState.DIALLING, LinkState.OPEN):
            self._is_stale = True
            self._more.set()

    def end(self) -> None:
        """Close the connection and forget what waits; this link is not to be used again."""
        self.unpin()
        if self._task is not None:
            self._task.cancel()

    async def stop(self) -> None:
        """End, and return when all is closed."""
        self.end()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    def _refuse(self, reason: str) -> None:
        self.counts[f"frames_dropped/{reason}"] += 1
        # Not from within send(): the machine that we would tell is still being served.
        asyncio.get_running_loop().call_soon(self._on_broken, self._to)

    def _begin(self) -> None:
        self._enter(LinkState.DIALLING)
        self._is_stale = False
        self._task = watched.start("link", self._run, f"{self._to:016x}")

    def _enter(self, state: LinkState) -> None:
        assert state in NEXT_STATES[self.state], f"{self.state} does not lead to {state}"
        self.state = state

    async def _run(self) -> None:
        try:
            await self._connect_and_pump()
        except Exception as error:  # noqa: BLE001 - whatever it is, this member is to be dialled again
            watched.report("link", error)
            if self.state in (LinkState.DIALLING, LinkState.OPEN):
                await self._cool()

    async def _connect_and_pump(self) -> None:
        try:
            reader, writer = await self._dial(self._to)
        except (OSError, RemoteError):  # TimeoutError and ssl.SSLError are OSErrors
            self.counts["streams/dial_failed"] += 1
            return await self._cool()
        self._enter(LinkState.OPEN)
        self.counts["streams/dialled"] += 1
        self._redial_s = REDIAL_FIRST_S
        _bound_patience(writer)
        # Of what we dialled, only its end matters, and a word to somebody who is not let in.
        ending = asyncio.create_task(self._read_frames(reader), name="link-end")
        try:
            await self._pump(writer, ending)
        except OSError:
            self.counts["streams/broken"] += 1
            self._on_closed(self._to)
            return await self._cool()
        finally:
            ending.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError, EOFError, RemoteError):
                await ending
            writer.close()
        self._enter(LinkState.IDLE)
        if self._waiting or self._is_kept:  # wanted while the connection was being closed
            self._begin()
        return None

    async def _read_frames(self, reader: asyncio.StreamReader) -> None:
        """Hand on what is said to us here. Raises EOFError, OSError, RemoteError at its end."""
        while True:
            self._on_frame(await read_frame(reader), self._to)

    async def _pump(self, writer: asyncio.StreamWriter, ending: asyncio.Task[None]) -> None:
        """Write what waits until there was none for long enough. Raises OSError when it breaks.

        For a kept connection nothing is long enough.
        """
        ending.add_done_callback(lambda _ending: self._more.set())
        while not ending.done():
            if self._waiting:
                writer.write(self._take_waiting())
                await writer.drain()
                continue
            if self._is_stale:
                return
            self._more.clear()
            if self._is_kept:
                await self._more.wait()
                continue
            try:
                async with asyncio.timeout(self._patience_s()):
                    await self._more.wait()
            except TimeoutError:
                if not self._waiting and not self._is_kept:  # it may be kept since
                    return
        raise ConnectionResetError("the other side closed the stream")

    def _take_waiting(self) -> bytes:
        """Take out what waits, so many bytes: frames that go together cost one record of TLS."""
        taken: list[bytes] = []
        size_bytes = 0
        while self._waiting and size_bytes < WRITTEN_BYTES:
            taken.append(self._waiting.popleft())
            size_bytes += len(taken[-1])
        self._waiting_bytes -= size_bytes
        self.counts["frames/sent"] += len(taken)
        return b"".join(taken)

    def _patience_s(self) -> float:
        return IDLE_S if self._are_few() else IDLE_AMONG_MANY_S

    async def _cool(self) -> None:
        """Drop what waits, say so, and take no more for a moment."""
        if self._waiting:
            self.counts["frames_dropped/unreachable"] += len(self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0
        self._enter(LinkState.COOLING)
        self._on_broken(self._to)
        await asyncio.sleep(COOLING_S)
        self._enter(LinkState.IDLE)
        if self._is_kept:
            self._redial = asyncio.get_running_loop().call_later(self._redial_s, self._dial_again)
            self._redial_s = min(2 * self._redial_s, REDIAL_LONGEST_S)


def _bound_patience(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
    keep_alive(connection)


def keep_alive(connection: socket.socket) -> None:
    """Have the kernel ask now and then whether the other side is there, instead of us."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_ALIVE_IDLE_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEP_ALIVE_INTERVAL_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEP_ALIVE_COUNT)
