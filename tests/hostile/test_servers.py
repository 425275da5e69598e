"""The desks at which agents talk to each other: whatever is said there is counted or answered."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from agent.admission.issuer_relay import IssuerRelay
from agent.admission.messages import RELAY_CODEC, RelayedRequest, TokenRequest
from agent.admission.server import ASKING_EACH_MAX, ASKING_MAX, AdmissionServer
from agent.admission.token_terms import TokenTerms
from agent.cluster import kv_messages
from agent.cluster.cluster_view import ClusterView
from agent.cluster.kv_stats import ANSWERS_MAX, KvSurvey
from agent.cluster.kv_why import KeyViews
from agent.doctor import messages as doctor
from agent.doctor.survey import Survey
from agent.identity.identity import Identity
from agent.identity.keyring import new_keyring, parse_keyring
from agent.keys import messages as keys
from agent.keys.key_service import KeyService
from gossip.core.errors import Malformed
from gossip.core.wire import Codec
from tests.fuzz.codecs import goldens
from tests.fuzz.hostile import bit_flips, truncations
from tests.support.kv_net import Net, registry_of
from tests.unit.agent.keys.test_rotation import COVEY, A, B, Circle, Credentials


def spoilt(codec: Codec[Any]) -> Iterator[bytes]:
    for golden in goldens():
        if golden.codec is codec:
            yield from truncations(golden.data)
            yield from bit_flips(golden.data)


def refusable(codec: Codec[Any], frames: list[bytes]) -> int:
    """Count the frames that are no message, or none that is known."""
    count = 0
    for data in frames:
        try:
            count += codec.decode(data) is None
        except Malformed:
            count += 1
    return count


def refused(counts: Counter[str]) -> int:
    return counts["frames_dropped/malformed"]


class Deaf:
    """Streams to nobody, as the cluster view of a key service sees them."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.away: frozenset[int] = frozenset()
        self.knocked: list[object] = []
        self.removed_at = 0
        self.epochs: dict[int, int] = dict.fromkeys((A, B), 1)
        self.never_ran: frozenset[int] = frozenset()

    def carry(self, data: bytes, *_: object) -> None:
        self.sent.append(data)


def test_spoilt_key_frames_change_no_ring(tmp_path: Path) -> None:
    """Only the authority's signature gives a node other keys."""
    file = tmp_path / "keyring.json"
    file.write_bytes(new_keyring())
    frames, counts, net = list(spoilt(keys.CODEC)), Counter[str](), Deaf()

    async def receive() -> KeyService:
        ring = parse_keyring(file.read_bytes(), COVEY)
        covey = cast("ClusterView", Circle(A, net))  # type: ignore[arg-type]
        service = KeyService(Credentials(A, file, is_issuer=False), ring, covey, counts)
        for data in frames:
            service.receive_frame(data, B)
        await asyncio.sleep(0)
        await service.stop()
        return service

    before = file.read_bytes()
    service = asyncio.run(receive())
    assert file.read_bytes() == before
    assert service.ring.generation == 0
    assert len(service._seen) <= 1
    assert refused(counts) == refusable(keys.CODEC, frames) > 100


def test_spoilt_doctor_frames_are_counted_or_answered() -> None:
    counts, sent = Counter[str](), list[bytes]()
    swim = SimpleNamespace(members=[], paths_of=None)
    node = SimpleNamespace(settings=SimpleNamespace(me=A), swim=swim)
    driver = SimpleNamespace(
        node=node, counts=counts, now=lambda: 0.0, send_frame=lambda data, _to: sent.append(data)
    )
    survey = Survey(driver)  # type: ignore[arg-type]
    frames = list(spoilt(doctor.CODEC))
    for data in frames:
        survey.receive_frame(data, B)
    assert refused(counts) == refusable(doctor.CODEC, frames) > 100
    assert sent
    assert not survey._replies._waiting


def test_spoilt_looks_at_keys_are_counted_or_answered() -> None:
    net, counts, sent = Net(registry_of([A, B])), Counter[str](), list[bytes]()
    node = SimpleNamespace(settings=SimpleNamespace(me=A), state=net.planes[A])
    driver = SimpleNamespace(
        node=node, counts=counts, send_frame=lambda data, _to: sent.append(data)
    )
    views = KeyViews(driver)  # type: ignore[arg-type]
    frames = list(spoilt(kv_messages.VIEW_CODEC))
    for data in frames:
        views.receive_frame(data, B)
    assert refused(counts) == refusable(kv_messages.VIEW_CODEC, frames) > 100
    assert sent
    assert not views._replies._waiting


def test_spoilt_questions_for_statistics_are_counted_or_answered() -> None:
    """As many at a time as there is room for; the keys are counted once for all of them."""
    net, counts, sent, looks = Net(registry_of([A, B])), Counter[str](), list[bytes](), list[int]()
    node = SimpleNamespace(settings=SimpleNamespace(me=A), state=net.planes[A])
    driver = SimpleNamespace(
        node=node, counts=counts, now=lambda: net.now,
        send_frame=lambda data, _to: sent.append(data),
    )  # fmt: skip

    def count(partition: int) -> int:
        looks.append(partition)
        return 1

    counter = SimpleNamespace(count_keys=count, size_bytes=lambda: 4096)
    frames = list(spoilt(kv_messages.STATS_CODEC))
    flood = [kv_messages.STATS_CODEC.encode(kv_messages.KvStatsRequest(n)) for n in range(1000)]

    async def scenario() -> None:
        survey = KvSurvey(driver, counter, lambda: 1.0)  # type: ignore[arg-type]
        for data in [*frames, *flood]:
            survey.receive_frame(data, B)
        assert len(survey._answers) == ANSWERS_MAX
        await survey._answers.finish()
        assert not survey._replies._waiting
        await survey.stop()

    asyncio.run(scenario())
    assert refused(counts) == refusable(kv_messages.STATS_CODEC, frames) > 100
    assert len(sent) == ANSWERS_MAX
    assert counts["frames_dropped/questions_too_many"] >= len(flood) - ANSWERS_MAX
    assert len(looks) == net.registry.partitions


def test_spoilt_questions_get_no_more_answers_than_there_is_room_for() -> None:
    """Who asks without end is answered so many at a time; the rest is counted, others are heard."""
    counts, sent = Counter[str](), Counter[int]()
    server = AdmissionServer.__new__(AdmissionServer)
    server.counts, server._answering = counts, {}
    server._identity = cast("Identity", SimpleNamespace(is_issuer=False))
    covey = SimpleNamespace(send_frame=lambda _data, to: sent.update([to]))
    server._covey = cast("ClusterView", covey)
    server._relay = IssuerRelay(server._covey, counts)
    frames = list(spoilt(RELAY_CODEC))
    flood = [
        RELAY_CODEC.encode(RelayedRequest(2**40 + n, TokenRequest(TokenTerms(1.0))))
        for n in range(10 * ASKING_MAX)
    ]
    others = range(100, 100 + 2 * ASKING_MAX)

    async def receive() -> None:
        for data in (*frames, *flood):
            server.receive_frame(data, B)
            assert len(server._answering) <= ASKING_EACH_MAX
        for other in others:
            server.receive_frame(flood[0], other)
        await asyncio.wait(list(server._answering.values()))

    asyncio.run(receive())
    assert refused(counts) == refusable(RELAY_CODEC, frames) > 100
    assert sent[B] == ASKING_EACH_MAX, "it took no more than its share"
    assert sent.total() == ASKING_MAX, "and all of them no more than there is"
    assert {other for other in others if sent[other]} == set(others[: ASKING_MAX - ASKING_EACH_MAX])
    assert counts["admissions/too_many"] > len(flood) - ASKING_EACH_MAX
