"""The stream of shared keys: many puts, gets and deletes under way on one connection.

A connection of HTTP has one request under way, with a task, headers and JSON for each. Who asks
often upgrades it (``edge_apps/kv_frames.py`` has what is said then), and pays for the keys alone.
Rights, names and refusals are those of the routes, looked at for each question.

What one client may have in memory is bounded: so many questions and bytes under way for each
stream, so many bytes for all. Nothing more is read from who has reached it, nor from who does not
take its answers. How many are under way begins small and grows with each answer, as long as the
answers are small: nobody knows beforehand how large what is asked for is.
"""

import asyncio
from functools import partial

from agent.access.caller import Caller, NotItsRight
from agent.access.rights import Right
from agent.api.callers import caller_of
from agent.api.durability import fsync_of
from agent.api.errors import BadRequest, error_of, status_of
from agent.api.interfaces import AgentServices
from agent.api.kv import get_key
from agent.api.name_scope import NotItsName, check_key_for
from agent.api.refusals import HERE, Attempt, Refusals
from agent.api.stream_budget import StreamBudget
from agent.exits import UNHEALTHY, AgentError
from agent.http.request import Request
from agent.http.response import Response
from agent.http.upgrade import UpgradeResponse, may_upgrade
from edge_apps.kv_frames import (
    ALWAYS,
    FRAME_BYTES_MAX,
    IF_ABSENT,
    IF_CONTEXT,
    PROTOCOL,
    Answer,
    ArrivingMessages,
    Ask,
    DeleteAsk,
    Failed,
    Found,
    GetAsk,
    PutAsk,
    StoredValue,
    WriteResult,
    decode_ask,
    framed,
)
from gossip.core.errors import InvalidRequest, LimitExceeded, Malformed
from gossip.kv.requests import Delete, Get, GetResult, Put, PutResult, Result

UNDER_WAY_FIRST, UNDER_WAY_MAX = 16, 128
"""So many questions of one stream at first, and at most."""
ANSWERS_BYTES = 8 * 1024 * 1024
"""What is under way is to be answered with no more, if all answers are as large as the largest."""
ASKED_BYTES_MAX, ALL_ASKED_BYTES_MAX = 2 * 1024 * 1024, 16 * 1024 * 1024
"""Of the questions that are under way, for one stream and for all; one of each always may be."""
METHODS = {PutAsk: "PUT", GetAsk: "GET", DeleteAsk: "DELETE"}
STAMP_MS_SHIFT = 16
"""The upper 48 bits of a stamp are Unix milliseconds (gossip/core/hlc.py)."""


class KvStream:
    """One client's stream, from its upgrade on; see ``agent/http/upgrade.py``."""

    def __init__(self, request: Request) -> None:
        state = request.app.state
        agent: AgentServices = state.agent
        client = request.scope.get("client")
        self._kv, self._caller = agent.kv, caller_of(request)
        self._source = str(client[0]) if client else HERE
        self._counts, self._refusals = state.counts, state.refusals
        self._budget: StreamBudget = state.stream_budget
        self._arriving = ArrivingMessages(FRAME_BYTES_MAX)
        self._under_way: dict[int, tuple[int, int]] = {}
        """By the client's number: the driver's, and the size of the question."""
        self._asked_bytes = 0
        self._window = UNDER_WAY_FIRST
        self._answers: list[bytes] = []
        self._is_sending = self._is_held = self._is_paused = False
        self._is_shutting_down = False
        self._ended = asyncio.Event()
        self._transport: asyncio.Transport

    # ---- the connection's -----------------------------------------------------------------------

    def begin(self, transport: asyncio.Transport) -> None:
        """Take the connection over."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Begin what has come."""
        self._arriving.feed(data)
        self._go_on()

    def pause_writing(self) -> None:
        """Begin nothing more for who does not take its answers."""
        self._is_held = True
        self._go_on()

    def resume_writing(self) -> None:
        """Go on."""
        self._is_held = False
        self._go_on()

    def connection_lost(self) -> None:
        """Wait for nothing that is under way; its writes are carried out."""
        for number, _ in list(self._under_way.values()):
            self._kv.drop(number)
        self._budget.asked_bytes -= self._asked_bytes
        self._asked_bytes = 0
        self._under_way.clear()
        self._ended.set()

    def shut_down(self) -> None:
        """Answer what is under way, and end."""
        self._is_shutting_down = True
        self._go_on()

    async def ended(self) -> None:
        """Return when it is over; cancelled, it says so to the client."""
        try:
            await self._ended.wait()
        except asyncio.CancelledError:
            message = "the token of this stream was revoked or has expired, or the agent stops"
            self._end(Failed(0, 401, "unauthorized", f"{message}; what had begun may be done"))
            raise
        finally:
            self._send()

    # ---- questions ------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Begin what has come, as far as that may be; read more while it may."""
        try:
            while self._may_begin() and (data := self._arriving.take()) is not None:
                self._begin(data)
        except Malformed as error:
            self._counts["api_connections/malformed"] += 1
            self._end(Failed(0, 400, "usage", f"this is no question: {error}"))
        if self._is_shutting_down and not self._under_way:
            self._ended.set()
        self._read_on(self._may_begin())

    def _may_begin(self) -> bool:
        if self._ended.is_set() or self._is_shutting_down or self._is_held:
            return False
        if not self._under_way:
            return True
        return (
            len(self._under_way) < self._window
            and self._asked_bytes < ASKED_BYTES_MAX
            and self._budget.asked_bytes < ALL_ASKED_BYTES_MAX
        )

    def _read_on(self, wanted: bool) -> None:  # noqa: FBT001 - one word, of this file alone
        if self._transport.is_closing() or wanted is not self._is_paused:
            return
        self._is_paused = not wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _begin(self, data: bytes) -> None:
        """Begin what a message asks. Raises Malformed."""
        ask = decode_ask(data)
        if ask.number in self._under_way:
            raise Malformed(f"number {ask.number} is under way already")
        try:
            request = self._checked(ask)
            number = self._kv.begin(request, partial(self._settle, ask.number))
        except (AgentError, InvalidRequest, LimitExceeded) as error:
            self._answer(self._failure(ask.number, error))
            return
        self._under_way[ask.number] = number, len(data)
        self._asked_bytes += len(data)
        self._budget.asked_bytes += len(data)

    def _checked(self, ask: Ask) -> Put | Get | Delete:
        """Return what is asked, if this client may. Raises AgentError."""
        try:
            self._caller.check(Right.READ if isinstance(ask, GetAsk) else Right.WRITE)
            check_key_for(self._caller, ask.key)
        except (NotItsRight, NotItsName) as error:
            label = "right" if isinstance(error, NotItsRight) else "name"
            self._refuse(label, self._caller, ask, error.message)
            raise
        if isinstance(ask, GetAsk):
            return Get(ask.key, ask.r, ask.timeout_s)
        fsync = self._kv.is_synced(fsync_of(ask.durability))
        if isinstance(ask, PutAsk):
            return _put(ask, fsync=fsync)
        return Delete(ask.key, ask.w, ask.context or None, ask.timeout_s, fsync)

    def _refuse(self, label: str, caller: Caller, ask: Ask, why: str) -> None:
        refusals: Refusals = self._refusals
        path = f"/api/v1/kv/{ask.key}"
        refusals.record(label, Attempt(caller.who, self._source, METHODS[type(ask)], path), why)

    # ---- answers --------------------------------------------------------------------------------

    def _settle(self, asked: int, outcome: Result | AgentError) -> None:
        under_way = self._under_way.pop(asked, None)
        if under_way is None:
            return
        self._asked_bytes -= under_way[1]
        self._budget.asked_bytes -= under_way[1]
        if isinstance(outcome, AgentError):
            self._answer(self._failure(asked, outcome))
        else:
            self._answer(self._answer_of(asked, outcome))
        self._go_on()

    def _answer_of(self, asked: int, result: Result) -> Answer:
        if isinstance(result, PutResult):
            outcome, acks, needed = result.outcome, result.acks, result.needed
            return WriteResult(asked, outcome, acks, needed, result.context, result.versions)
        assert isinstance(result, GetResult), "each question has its own kind of result"
        if result.outcome != "ok":
            message = f"only {result.answered} of {result.needed} owners of this key answered"
            hint = "try again when more of them are back, or accept fewer with r = 1"
            return self._failure(asked, AgentError(message, hint, UNHEALTHY))
        values = tuple(
            StoredValue(each.data, each.stamp >> STAMP_MS_SHIFT, each.type, each.expires_ms)
            for each in result.values
        )
        return Found(asked, values, result.context, result.answered, result.needed)

    def _failure(self, asked: int, error: Exception) -> Failed:
        told = error_of(error)["error"]
        if isinstance(error, AgentError):
            status = status_of(error)
        else:
            status = 413 if isinstance(error, LimitExceeded) else 400
        self._counts[f"api_errors/{told['code']}"] += 1
        return Failed(asked, status, told["code"], told["message"], told["hint"])

    def _answer(self, answer: Answer) -> None:
        """Send it with all others of this turn of the loop."""
        data = framed(answer)
        self._window = min(self._window + 1, UNDER_WAY_MAX, max(1, ANSWERS_BYTES // len(data)))
        self._answers.append(data)
        if not self._is_sending:
            self._is_sending = True
            asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        self._is_sending = False
        data, self._answers = b"".join(self._answers), []
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def _end(self, why: Failed) -> None:
        """Say why nothing more is answered; the connection closes behind it."""
        if not self._ended.is_set():
            self._answer(why)
            self._ended.set()


def _put(ask: PutAsk, *, fsync: bool) -> Put:
    """Return the put that is asked for. Raises BadRequest where context and condition disagree."""
    context = ask.context or None
    if ask.condition == IF_CONTEXT and context is None:
        raise BadRequest("a put if the context is unchanged needs one", "send what a get answered")
    if ask.condition == IF_ABSENT and context is not None:
        raise BadRequest("a put if absent goes without a context", "send one of the two")
    is_informed = ask.condition != ALWAYS
    return Put(ask.key, ask.value, ask.w, context, ask.timeout_s, is_informed, fsync, ask.ttl_s)


async def open_stream(request: Request) -> Response:
    """Go on with a stream of shared keys where one is asked for; else read the key ``stream``."""
    asked_for = request.headers.get("upgrade")
    if asked_for is None:
        request.scope["path_params"] = {"key": "stream"}
        return await get_key(request)
    if asked_for.lower() != PROTOCOL:
        hint = f"send `Upgrade: {PROTOCOL}`"
        raise BadRequest(f"nothing here is called {asked_for[:40]!r}", hint)
    if not may_upgrade(request.scope):
        hint = "send it by HTTP/1.1 with `Connection: Upgrade`, and without a body"
        raise BadRequest("this is no request for an upgrade", hint)
    return UpgradeResponse(PROTOCOL, KvStream(request))


ROUTES = (("GET", "/api/v1/kv/stream", open_stream),)
