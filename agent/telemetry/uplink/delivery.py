"""Delivery: takes readings from the outbox and sees them through to the broker.

It connects, fills the window, and refills it as the broker answers; nothing is sent while there
is no connection, and nothing is kept but the positions in flight. What the broker acknowledged
with a good reason code is settled in the outbox. After the end of a connection, the pump starts
over at the oldest reading that is not settled.

    connect ──► fill window ──► answers ──► settle, fill ──► ...
       ▲                           │ a refusal: stop filling, let the window drain,
       └────── wait, longer ◄──────┴ end of the connection: forget what was in flight

**Order.** Readings are published in the order of their acceptance, and MQTT keeps the order of a
publisher's messages on a topic (MQTT 5, section 4.6). After a reconnection some may arrive a
second time, in order again. Only a reading that the broker refused alone arrives after its
successors that were already in flight.

**What "delivered" means** is the broker's word: with QoS 1 and 2, that it took responsibility;
with QoS 0, nothing more than that the bytes went into our socket. Version 3.1.1 has no reason
codes, and brokers acknowledge with it what they then drop.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter, deque
from collections.abc import Callable

from agent.config.settings import UplinkSettings
from agent.store.errors import StorageError
from agent.telemetry.outbox import Accepted, Outbox
from agent.telemetry.uplink import reason_codes
from agent.telemetry.uplink.backoff import Backoff
from agent.telemetry.uplink.broker_memory import BrokerMemory
from agent.telemetry.uplink.client_id_conflict import ClientIdConflict
from agent.telemetry.uplink.in_flight import InFlight
from agent.telemetry.uplink.mqtt import ConnectError, ConnectResult, MqttClient, publish_bytes
from agent.telemetry.uplink.poison import Burials, PoisonDetector, PoisonPhase
from agent.telemetry.uplink.status import UplinkStatus
from agent.telemetry.uplink.template import Message, Template
from agent.telemetry.uplink.troubles import Troubles
from agent.telemetry.uplink.version_fallback import VersionFallback
from edge_apps.texts import topic_flaw

BACKOFF_BASE_S, BACKOFF_CAP_S = 1.0, 60.0
# A broker that holds back its answers for so long has forgotten us, whatever TCP says.
ANSWER_TIMEOUT_S = 30.0
READ_AHEAD = 256
HANGS_UP_WITHIN_S = 0.25
# While a reading may be what ends the connections, the others should not wait for long.
URGENT_DELAY_MAX_S = 5.0

log = logging.getLogger(__name__)


class Delivery:
    """Delivers the readings of an outbox over a link; ``run`` until cancelled."""

    def __init__(
        self,
        settings: UplinkSettings,
        outbox: Outbox,
        link: MqttClient,
        template: Template,
        *,
        rng: random.Random,
        memory: BrokerMemory | None = None,
        backoff: Backoff | None = None,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._settings = settings
        self._outbox = outbox
        self._link = link
        self._template = template
        self._backoff = backoff or Backoff(rng, BACKOFF_BASE_S, BACKOFF_CAP_S)
        self._refusal_backoff = self._backoff.fresh()
        self._answer_timeout_s = answer_timeout_s
        self._wall_s = wall_s
        self._broker = f"{settings.host}:{settings.broker_port}"
        self._memory = memory or BrokerMemory()
        self._versions = VersionFallback(settings.version, self._memory.recall(self._broker))
        self._rivalry = ClientIdConflict()
        self._troubles = Troubles()
        self._poison = PoisonDetector()
        self._window = InFlight()
        outbox.room.is_held = self._holds
        self._ready: deque[Accepted] = deque()  # read from the outbox, not yet sent
        self._read_to = 0  # the position up to which the outbox was read
        self._acknowledged: list[int] = []  # good answers, not yet told to the outbox
        self._dead_letters: Burials = []
        self._session: ConnectResult | None = None
        self._lost_code: int | None = None  # why the connection ended
        self._refused: list[int] = []  # what the broker refused; filling stops until it drained
        self._has_passed = False  # whether this connection has taken a reading
        self._skips_large = False  # whether it has passed over some that are too large for it
        self._something = asyncio.Event()
        self._watch: asyncio.TimerHandle
        self._anew: asyncio.TimerHandle | None = None
        self._hurry = asyncio.Event()
        self._state, self._since_s = "connecting", wall_s()

    async def run(self) -> None:
        """Deliver until cancelled, then say goodbye to the broker."""
        stop_listening = self._outbox.subscribe(lambda *_: self._something.set())
        try:
            while True:
                try:
                    delay_s = await self._one_connection()
                except StorageError as error:
                    self._link.abort()
                    self._troubles.record(
                        "The outbox cannot be read", reason_codes.SUCCESS, str(error)
                    )
                    delay_s = self._backoff.slow_s()
                self._become("waiting")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), delay_s)
                self._hurry.clear()
        finally:
            stop_listening()
            if self._anew is not None:
                self._anew.cancel()
            await self._link.disconnect()
            self._settle()
            self._become("off")

    def hurry(self) -> None:
        """Try again now, if the next attempt is being waited for: the broker takes connections."""
        if self._state == "waiting":
            self._hurry.set()

    def status(self) -> UplinkStatus:
        """Return one look at the uplink."""
        stats = self._outbox.stats()
        session = self._session
        return UplinkStatus(
            state=self._state,
            since_s=self._since_s,
            host=self._settings.host,
            port=self._settings.broker_port,
            version=self._versions.current,
            client_id=self._link.client_id,
            fell_back=self._versions.fell_back,
            window=self._size(session) if session else 0,
            in_flight=len(self._window),
            waiting=stats.waiting,
            delivered=stats.delivered,
            dead_letters=stats.dead_letters,
            last_error=self._troubles.error,
            hint=self._hint(),
        )

    def _hint(self) -> str:
        if self._rivalry.is_suspected(time.monotonic()):
            return self._rivalry.hint(self._link.client_id)
        return self._troubles.hint

    # ---- one connection -------------------------------------------------------------------------

    async def _one_connection(self) -> float:
        """Connect and deliver until the connection ends; return how long to wait then."""
        self._become("connecting")
        self._start_over()
        try:
            version = self._versions.begin(self._wall_s())
            session = await self._link.connect(version, self, self._versions.patience_s)
        except ConnectError as error:
            return self._on_failure(error)
        spoken = self._versions.connected(self._wall_s())
        await asyncio.to_thread(self._memory.record, self._broker, spoken)
        self._rivalry.connected(time.monotonic())
        self.counts["uplink_connections/opened"] += 1
        qos = min(self._settings.qos, session.qos_max)
        log.info("Connected to %s: MQTT %s, QoS %d.", self._settings.host, session.version, qos)
        self._session = session
        self._become("connected")
        self._watch_answers()
        try:
            await self._deliver(session)
        finally:
            self._watch.cancel()
            self._session = None
            self._settle()
        return await self._on_loss()

    async def _deliver(self, session: ConnectResult) -> None:
        """Send and settle until the connection is lost."""
        while self._lost_code is None:
            self._something.clear()
            self._settle()
            if self._dead_letters:
                await self._dead_letter()
            if self._refused and not self._window:
                await self._end_round()
            if self._must_take_up_large and not self._window:
                self._skips_large = False
                self._rewind()
            self._fill(session)
            if self._poison.is_calm and not self._skips_large:
                self._troubles.over()
            await self._something.wait()

    def _watch_answers(self) -> None:
        """End a connection on which the oldest reading has had no answer for too long."""
        loop = asyncio.get_running_loop()
        self._watch = loop.call_later(self._answer_timeout_s / 4, self._watch_answers)
        if self._window.oldest_age_s(loop.time()) > self._answer_timeout_s:
            self._watch.cancel()
            self.counts["uplink_connections/stalled"] += 1
            self._link.abort()
            self.lost(reason_codes.SILENCE)

    def _size(self, session: ConnectResult) -> int:
        return self._poison.window(min(self._settings.window, session.receive_maximum))

    def _fill(self, session: ConnectResult) -> None:
        """Send until the window is full or nothing waits."""
        now = asyncio.get_running_loop().time()
        qos = min(self._settings.qos, session.qos_max)
        skipped = 0
        while not self._refused and len(self._window) < self._size(session):
            if (
                len(self._dead_letters) >= READ_AHEAD
            ):  # let the event loop breathe, and bury these first
                return
            if skipped >= READ_AHEAD:
                asyncio.get_running_loop().call_soon(self._something.set)
                return
            if self._must_take_up_large:
                return
            if self._poison.trial_is_due:
                if not self._window:
                    self._poison.begin_trial()
                    self._rewind()
                return
            accepted = self._next()
            if accepted is None:
                return
            if not self._outbox.is_waiting(accepted.position):
                continue  # evicted since it was read
            message = self._template.message(accepted)
            size_bytes = publish_bytes(message, qos, session.version)
            if size_bytes > session.packet_bytes_max and not self._has_passed:
                self._skip_large(size_bytes, session.packet_bytes_max)
                skipped += 1
                continue
            flaw = self._flaw(message, size_bytes, session)
            if flaw:
                self._dead_letters.append((accepted.position, flaw))
                self._something.set()
                continue
            self._window.add(accepted.position, now)
            self._poison.sent(accepted.position, accepted.reading.sensor)
            self._link.publish(accepted.position, message, qos)

    def _holds(self, position: int) -> bool:
        """Tell whether a reading is in our hands: sent, or answered and not yet settled."""
        return (
            position in self._window
            or position in self._acknowledged
            or position in self._refused
            or any(position == each for each, _ in self._dead_letters)
        )

    @property
    def _must_take_up_large(self) -> bool:
        """Whether smaller readings pass by now, so that it is known what keeps the large ones."""
        return self._skips_large and self._has_passed

    def _skip_large(self, size_bytes: int, limit_bytes: int) -> None:
        """Let smaller ones go first: if nothing passes under this limit, no reading is at fault."""
        if not self._skips_large:
            self._skips_large = True
            told = (
                f"it takes packets of {limit_bytes} bytes, and a reading makes one of {size_bytes}"
            )
            self._troubles.record(
                "The broker has taken nothing yet", reason_codes.PACKET_TOO_LARGE, told
            )

    def _flaw(self, message: Message, size_bytes: int, session: ConnectResult) -> str:
        """Say why this message must not be sent, also if it was stored before that was a rule."""
        if size_bytes > session.packet_bytes_max:
            return f"larger than the broker's limit of {session.packet_bytes_max} bytes"
        flaw = topic_flaw(message.topic)
        return flaw and f"MQTT cannot publish to its topic: {flaw}"

    def _next(self) -> Accepted | None:
        """Return the next reading to send, in order; None when there is none for now."""
        if not self._ready:
            self._ready.extend(self._outbox.batch(READ_AHEAD, self._read_to))
            if not self._ready:
                self._retry_passed_over()
                return None
            self._read_to = self._ready[-1].position
        while self._ready:
            accepted = self._ready.popleft()
            if not self._poison.passes_over(accepted.position, accepted.reading.sensor):
                return accepted
        # All of them wait for others; look at the next ones when the event loop had its turn.
        asyncio.get_running_loop().call_soon(self._something.set)
        return None

    def _retry_passed_over(self) -> None:
        """Nothing is left to send: take up those that were passed over, now or later."""
        if self._window:
            return
        if self._poison.exhausted():
            self._rewind()
        elif self._poison.phase is PoisonPhase.BEYOND and self._anew is None:
            loop = asyncio.get_running_loop()
            self._anew = loop.call_later(self._refusal_backoff.slow_s(), self._begin_anew)

    def _begin_anew(self) -> None:
        """Nothing came that could prove anything about those in trouble: try them again."""
        self._anew = None
        if self._poison.phase is PoisonPhase.BEYOND and not self._window:
            self._poison.begin_anew()
            self._rewind()

    def _rewind(self) -> None:
        """Go on with the oldest unsettled reading. Called when nothing is in flight."""
        self._ready.clear()
        self._read_to = 0
        self._something.set()

    def _start_over(self) -> None:
        self._window.clear()
        self._has_passed = self._skips_large = False
        self._refused = []
        self._lost_code = None
        self._rewind()

    # ---- what the link says ---------------------------------------------------------------------

    def acknowledged(self, token: int, code: int) -> None:
        """Take in the broker's answer for one reading."""
        if not self._window.remove(token):
            return
        self._something.set()
        if reason_codes.is_good(code):
            self._has_passed = True
            self._acknowledged.append(token)
            self._poison.delivered(token)
            return
        self.counts[f"uplink_refusals/{reason_codes.label_of(code)}"] += 1
        self._dead_letters += self._poison.refused(token, code)
        self._refused.append(token)
        self._troubles.record("The broker refused a reading", code)

    def lost(self, code: int) -> None:
        """Take in the end of the connection."""
        self._lost_code = code
        self._something.set()

    # ---- consequences ---------------------------------------------------------------------------

    def _settle(self) -> None:
        """Tell the outbox what the broker has taken."""
        if self._acknowledged:
            self._outbox.delivered(self._acknowledged)
            self._acknowledged = []
            self._backoff.reset()
            self._refusal_backoff.reset()
            if self._poison.is_calm:
                self._troubles.delivered()

    async def _dead_letter(self) -> None:
        burials, self._dead_letters = self._dead_letters, []
        for position, reason in burials:
            log.warning("Giving up %s: %s.", self._name_of(position), reason)
            try:
                await self._outbox.dead_letter(position, reason)
            except StorageError as error:
                log.warning("It goes on waiting, as it cannot be set aside: %s", error)

    def _name_of(self, position: int) -> str:
        """Return what a reading is called in the log: its id, and its sensor's name escaped."""
        found = self._outbox.batch(1, position - 1)
        if not found:
            return f"the reading {self._outbox.id_of(position)} of an unknown sensor"
        return f"the reading {found[0].id} of sensor {found[0].reading.sensor!a}"

    async def _end_round(self) -> None:
        """After a refusal, with nothing in flight: wait, then start at the oldest again.

        After a trial others go first, so nobody has to wait for long; but some brokers refuse and
        hang up, and then the end of the connection is to be seen before anything else is sent.
        """
        on_trial = self._poison.phase is PoisonPhase.TRIAL
        delay_s = self._refusal_backoff.next_s()
        with contextlib.suppress(TimeoutError):
            wait_s = min(delay_s, HANGS_UP_WITHIN_S) if on_trial else delay_s
            await asyncio.wait_for(self._until_lost(), wait_s)
        if self._lost_code is None:
            self._poison.drained(self._refused)
            self._refused = []
            self._rewind()

    async def _until_lost(self) -> None:
        while self._lost_code is None:
            self._something.clear()
            await self._something.wait()

    async def _on_loss(self) -> float:
        """Draw the consequences of a lost connection; return how long to wait."""
        code = reason_codes.SILENCE if self._lost_code is None else self._lost_code
        self.counts[f"uplink_losses/{reason_codes.label_of(code)}"] += 1
        self._troubles.record(f"The connection to {self._broker} ended", code)
        # Some brokers refuse a reading and then end the connection all the same.
        unsettled = sorted({*self._window.clear(), *self._refused})
        if self._rivalry.lost(code, unsettled[0] if unsettled else None, time.monotonic()):
            log.warning("%s", self._rivalry.hint(self._link.client_id))
        if code not in reason_codes.BREACHES:
            if len(unsettled) == 1:
                self._accuse(unsettled[0])
            self._dead_letters += self._poison.lost(unsettled, code)
        await self._dead_letter()
        return self._delay_s(code)

    def _accuse(self, position: int) -> None:
        """Say, once between two deliveries, who was alone in flight at the end of a connection."""
        name = self._name_of(position)
        self._troubles.warn(f"The connection ended while only {name} was in flight.")

    def _on_failure(self, error: ConnectError) -> float:
        self.counts[f"uplink_connects_failed/{reason_codes.label_of(error.code)}"] += 1
        self._troubles.record(
            f"Cannot connect to {self._broker}", error.code, str(error), connecting=True
        )
        before = self._versions.current
        if self._versions.failed(error.code):
            now = self._versions.current
            log.warning("The broker does not take MQTT %s; trying MQTT %s.", before, now)
            if error.code in (reason_codes.UNSUPPORTED_VERSION, reason_codes.NO_ANSWER):
                return 0.0  # an answer, or enough waiting
        return self._delay_s(error.code)

    def _delay_s(self, code: int) -> float:
        if code in reason_codes.NEEDS_A_PERSON or self._rivalry.is_suspected(time.monotonic()):
            return self._backoff.slow_s()
        delay_s = self._backoff.next_s()
        return min(delay_s, URGENT_DELAY_MAX_S) if self._poison.is_urgent else delay_s

    def _become(self, state: str) -> None:
        self._state, self._since_s = state, self._wall_s()
