"""A ring outlives the authority that signed it: the next one signs the same keys again."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gossip.core.ids import NodeId
from tests.unit.agent.keys.test_rotation import CA as OLD
from tests.unit.agent.keys.test_rotation import A, B, C, Credentials, Net, quick_net, runs, until

NEW = Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\1")


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Net:
    return quick_net(tmp_path, monkeypatch)


def trust(net: Net, node: NodeId, *keys: Ed25519PrivateKey) -> Callable[[], None]:
    """Have a node trust these authorities alone; return what tells its service so."""
    who = net.services[node]._identity
    assert isinstance(who, Credentials)
    who.authorities = list(keys)
    return net.services[node].trust_changed


@runs
async def test_the_next_authority_signs_the_ring_in_use_again(net: Net) -> None:
    for service in net.services.values():
        service.start()
    await net.services[A].rotate(force=False)
    await until(net, [3, 3, 3])
    before = net.services[A].ring
    trust(net, C, OLD)
    for node in (A, B):
        trust(net, node, NEW, OLD)()
    await until(net, [4, 4, 3])
    assert net.services[C].counts["keyrings_refused/forged"], "it has not heard of the next one"
    assert net.services[A].ring.secrets == before.secrets
    trust(net, C, NEW)()
    await until(net, [4, 4, 4])

    await net.services[A].stop()
    again = net.boot(A)
    trust(net, A, NEW)
    again.start()
    trust(net, A, NEW)()
    await again.rotate(force=False)
    await until(net, [7, 7, 7])
    for service in net.services.values():
        await service.stop()


@runs
async def test_a_ring_that_nobody_has_signed_stays_as_it_is(net: Net) -> None:
    trust(net, A, NEW, OLD)()
    net.services[A].start()
    await until(net, [0, 0, 0])
    await net.services[A].stop()
    assert net.generations() == [0, 0, 0]
