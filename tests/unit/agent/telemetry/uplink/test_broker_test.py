"""`covey uplink test` against brokers of every kind: the step that fails, and the advice."""

import asyncio
import json
import random
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.config.settings import UplinkSettings
from agent.exits import AgentError
from agent.store.database import Database
from agent.telemetry.outbox import Outbox
from agent.telemetry.outbox_schema import OUTBOX_MIGRATIONS
from agent.telemetry.uplink import advice, broker_test, reason_codes, service
from agent.telemetry.uplink.broker_test import ConnectStep, StepOutcome
from agent.telemetry.uplink.mqtt_client import tls_context
from agent.telemetry.uplink.service import Uplink
from tests.support.certificates import Authority
from tests.support.strict_broker import StrictBroker, Verdict
from tests.support.uplink_rig import PLACE, rig, run

STEPS = ["name", "TCP", "TLS", "login", "publish", "acknowledgement"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STEP_TIMEOUT_S", "ANSWER_TIMEOUT_S", "BRIEF_S"):
        monkeypatch.setattr(broker_test, name, 1.0)


async def tried(port: int, host: str = "127.0.0.1", **settings: Any) -> list[ConnectStep]:
    settings = {"host": host, "port": port, **settings}
    return [step async for step in service.test(UplinkSettings(**settings), PLACE)]


def against(broker: StrictBroker, **settings: Any) -> list[ConnectStep]:
    async def scenario() -> list[ConnectStep]:
        async with broker:
            return await tried(broker.port, **settings)

    return asyncio.run(scenario())


def failed(steps: list[ConnectStep], at: str) -> ConnectStep:
    """Return the last step, which failed; all before it are good."""
    assert [step.step for step in steps] == STEPS[: STEPS.index(at) + 1]
    assert all(step.outcome is not StepOutcome.FAILED for step in steps[:-1])
    last = steps[-1]
    assert last.outcome is StepOutcome.FAILED
    assert last.message
    assert last.hint
    assert f"{last.message}{last.hint}".isprintable()
    return last


def refuse(code: Verdict) -> Any:
    return lambda _topic, _payload: code


# ---- all is well --------------------------------------------------------------------------------


def test_all_is_well() -> None:
    broker = StrictBroker(receive_maximum=1)
    steps = against(broker)
    outcomes = {step.step: step.outcome.value for step in steps}
    assert outcomes == dict.fromkeys(STEPS, "ok") | {"TLS": "skipped"}
    assert list(outcomes) == STEPS
    assert all(step.took_s >= 0 and not step.hint for step in steps)
    ((topic, payload),) = broker.published
    assert topic == "covey/home/pi/uplink_test"
    assert json.loads(payload)["id"] == "0000000000c0ffee-test"
    (session,) = broker.sessions
    assert session["client_id"] == "covey-home-0000000000c0ffee-test"
    assert not broker.violations


def test_the_older_version_is_found_and_said() -> None:
    for broker in (
        StrictBroker(versions=frozenset({4})),
        StrictBroker(silent_versions=frozenset({5})),
        StrictBroker(mute_versions=frozenset({5})),
    ):
        steps = {step.step: step for step in against(broker)}
        assert "MQTT 3.1.1" in steps["login"].message
        assert "throws away" in steps["acknowledgement"].message


def test_qos_0_has_no_acknowledgement() -> None:
    last = against(StrictBroker(), qos=0)[-1]
    assert (last.step, last.outcome) == ("acknowledgement", StepOutcome.SKIPPED)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_tls_with_a_good_certificate(authority: Authority, host: str) -> None:
    broker = StrictBroker(tls=authority.server("localhost", "127.0.0.1"))
    steps = {
        step.step: step
        for step in against(broker, host=host, tls=True, ca_file=str(authority.certificate))
    }
    assert steps["TLS"].outcome is StepOutcome.OK
    assert steps["TLS"].message == f"TLS 1.3, and the broker's certificate is good for {host}"
    assert steps["acknowledgement"].outcome is StepOutcome.OK


def test_the_agents_own_connection_is_left_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with StrictBroker(takeover=0) as broker, rig(tmp_path, broker.port) as r:
            await r.accept(range(3))
            await r.until_empty()
            own = service.default_client_id(PLACE)
            assert (await tried(broker.port, client_id="covey-test"))[-1].outcome is StepOutcome.OK
            assert own != "covey-test"
            assert r.pump.status().connected
            assert r.pump.counts["uplink_connections/opened"] == 1

    run(scenario())


def test_trials_of_one_agent_take_turns(tmp_path: Path) -> None:
    async def trial(uplink: Uplink) -> ConnectStep:
        return [step async for step in uplink.test()][-1]

    async def scenario() -> None:
        database = await Database.open(tmp_path / "telemetry.db", OUTBOX_MIGRATIONS)
        outbox = await Outbox.open(database, 1, 1)
        async with StrictBroker(takeover=reason_codes.TAKEN_OVER, answer_delay_s=0.2) as broker:
            settings = UplinkSettings(host="127.0.0.1", port=broker.port)
            uplink = Uplink(settings, outbox, PLACE, random.Random(1))
            both = await asyncio.gather(trial(uplink), trial(uplink))
            assert [step.outcome for step in both] == [StepOutcome.OK, StepOutcome.OK]
        await database.close()

    run(scenario())


# ---- name and TCP -------------------------------------------------------------------------------


def test_an_unknown_name() -> None:
    step = failed(asyncio.run(tried(1883, host="no-such-host.invalid")), "name")
    assert "'no-such-host.invalid'" in step.message
    assert "[uplink]" in step.hint or "network" in step.hint


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as taken:  # bound and not listening: nobody else gets it
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_nobody_listens(closed_port: int) -> None:
    step = failed(asyncio.run(tried(closed_port)), "TCP")
    assert step.message == f"nothing listens at 127.0.0.1:{closed_port}"
    assert "Is the broker running" in step.hint


def test_somebody_listens_at_the_other_usual_port(
    closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> list[ConnectStep]:
        async with StrictBroker() as broker:
            monkeypatch.setattr(advice, "OTHER_PORT", {closed_port: broker.port})
            monkeypatch.setattr(advice, "MQTT_TLS_PORT", broker.port)
            step = failed(await tried(closed_port), "TCP")
            assert f"set port = {broker.port} and tls = true" in step.hint
            return []

    asyncio.run(scenario())


def test_a_host_that_answers_nothing() -> None:
    with socket.socket() as full:  # a queue of one, taken: further connections get no answer
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        step = failed(asyncio.run(tried(port)), "TCP")
        for each in waiting:
            each.close()
    assert step.message == f"127.0.0.1:{port} does not answer"
    assert f"firewall let TCP port {port} through" in step.hint


# ---- TLS ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "days", "trusted", "message", "hint"),
    [
        (("localhost",), (-1, 1), False, "is not trusted", "ca_file"),
        (("other.lan", "::1"), (-1, 1), True, "not for 'localhost'", "'other.lan', '::1'"),
        (("localhost",), (-9, -1), True, "has expired", "Renew it; here it is 20"),
        (("localhost",), (1, 9), True, "not valid yet", "Check this clock"),
    ],
)
def test_a_bad_certificate(
    authority: Authority,
    names: tuple[str, ...],
    days: tuple[int, int],
    trusted: bool,
    message: str,
    hint: str,
) -> None:
    broker = StrictBroker(tls=authority.server(*names, begins=days[0], ends=days[1]))
    ca_file = str(authority.certificate) if trusted else ""
    step = failed(against(broker, host="localhost", tls=True, ca_file=ca_file), "TLS")
    assert message in step.message
    assert hint in step.hint


def test_a_certificate_is_good_with_every_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """3.13 asks for extensions that home-made ones lack, and would part devices by their Debian."""
    strict = ssl.create_default_context()
    strict.verify_flags |= ssl.VERIFY_X509_STRICT  # the default of 3.13
    monkeypatch.setattr(ssl, "create_default_context", lambda **_: strict)
    context = tls_context(UplinkSettings(host="broker", tls=True))
    assert context is not None
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_tls_at_a_port_without_it() -> None:
    step = failed(against(StrictBroker(), tls=True), "TLS")
    assert "Set tls = false" in step.hint


@pytest.mark.parametrize("kind", [ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionResetError])
def test_an_end_in_the_midst_of_tls_in_the_words_of_every_python(kind: type[OSError]) -> None:
    message, hint = advice.on_tls("broker", kind(8, "closed"), None)
    assert message == "the broker closed the connection in the midst of TLS"
    assert "Set tls = false" in hint


def test_tls_at_a_port_that_answers_in_something_else() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async def scenario() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            step = failed(await tried(port, tls=True), "TLS")
            assert step.message == "the broker answers, but not in TLS"

    asyncio.run(scenario())


def test_tls_that_is_never_answered(quiet_port: int) -> None:
    step = failed(asyncio.run(tried(quiet_port, tls=True)), "TLS")
    assert step.message == "the broker does not answer to TLS"


def test_no_tls_at_a_port_that_has_it(authority: Authority) -> None:
    step = failed(against(StrictBroker(tls=authority.server("localhost"))), "login")
    assert step.message == "the broker expects TLS at this port"
    assert "tls = true" in step.hint


# ---- login --------------------------------------------------------------------------------------


@pytest.fixture
def quiet_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as accepts_and_reads_nothing:
        yield accepts_and_reads_nothing.getsockname()[1]


def test_something_that_answers_nothing(quiet_port: int) -> None:
    step = failed(asyncio.run(tried(quiet_port)), "login")
    assert "answers nothing" in step.message


def test_a_broker_that_closes() -> None:
    step = failed(against(StrictBroker(silent_versions=frozenset({4, 5}))), "login")
    assert "closed the connection without an answer" in step.message


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (reason_codes.BAD_CREDENTIALS, "Check username and password_file"),
        (reason_codes.NOT_AUTHORIZED, "This test logs in as 'covey-home-0000000000c0ffee-test'"),
        (reason_codes.CLIENT_ID_REFUSED, "This test logs in as"),
        (0x89, "log may say more"),
    ],
)
def test_a_broker_that_refuses_the_login(code: int, hint: str) -> None:
    step = failed(against(StrictBroker(connack=code)), "login")
    assert step.message == f"the broker refused: {reason_codes.name_of(code)}"
    assert hint in step.hint


# ---- publish and acknowledgement ----------------------------------------------------------------


def test_a_reading_that_is_too_large_for_the_broker() -> None:
    step = failed(against(StrictBroker(packet_bytes_max=64)), "publish")
    assert "the broker takes 64" in step.message


@pytest.mark.parametrize(
    ("rule", "message", "hint"),
    [
        (
            refuse(reason_codes.NOT_AUTHORIZED),
            "refused it: not authorized",
            "'covey/home/pi/uplink_test'",
        ),
        (refuse(reason_codes.QUOTA_EXCEEDED), "refused it: quota exceeded", "limits this client"),
        (refuse("drop"), "ended the connection over it", "access list"),
        (refuse("silence"), "did not acknowledge it", "log may say why"),
    ],
)
def test_a_broker_that_does_not_take_the_message(rule: Any, message: str, hint: str) -> None:
    step = failed(against(StrictBroker(rule=rule)), "acknowledgement")
    assert message in step.message
    assert hint in step.hint


def test_without_a_broker_it_says_what_to_set() -> None:
    with pytest.raises(AgentError, match="No broker is configured") as caught:
        service.test(UplinkSettings(), PLACE)
    assert "host in [uplink]" in caught.value.hint


def test_a_trial_that_is_given_up_leaves_nothing_open(quiet_port: int) -> None:
    async def scenario() -> None:
        steps = service.test(UplinkSettings(host="127.0.0.1", port=quiet_port), PLACE)
        assert (await anext(steps)).step == "name"
        assert (await anext(steps)).step == "TCP"
        await steps.aclose()  # type: ignore[attr-defined]

    asyncio.run(scenario())


def test_a_certificate_that_cannot_be_read_has_no_names() -> None:
    assert advice.names_in(b"\x30\x03\x02\x01\x00") == ()
    assert advice.names_in(b"") == ()
