"""Another authority for a running covey: nobody is lost, and the old one opens nothing."""

import subprocess
import sys
from functools import partial

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import exits
from agent.config.settings import DEFAULT_PORT
from agent.identity import certificates, identity
from gossip.core.ids import format_node_id
from gossip.registry.registry import Registry, SignedRegistry
from tests.live.harness.admitted import registry_on_disk
from tests.live.harness.agents import AgentProcess
from tests.live.harness.fleet import Fleet
from tests.live.harness.traffic import buried, traffic
from tests.live.harness.waiting import eventually
from tests.support.patience import GIVE_UP_S

pytestmark = [pytest.mark.live]

DIAL = """
import socket, ssl, sys
host, port, certificate, key, patience_s = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.load_cert_chain(certificate, key)
try:
    with context.wrap_socket(socket.create_connection((host, int(port)), 180)) as stream:
        stream.settimeout(float(patience_s))
        print("spoken to" if stream.recv(1) else "refused")
except TimeoutError:
    print("listened to")
except (ssl.SSLError, ConnectionError):
    print("refused")
"""
"""A member says nothing on a stream that somebody else dialled, and waits for frames; to a stranger
it says one. Where the handshake failed it closes, with or without an alert."""

SILENT_S = 3.0


def _identity(agent: AgentProcess) -> identity.Identity:
    return identity.load(agent.directory / "data" / "identity")


def _dial(
    agent: AgentProcess, to: AgentProcess, certificate: bytes, patience_s: float = GIVE_UP_S
) -> str:
    """Say what becomes of a stream that shows this certificate, and the agent's own key.

    ``patience_s``: how long nothing is said until that means that nothing will be.
    """
    file = agent.directory / "shown.pem"
    file.write_bytes(certificates.to_pem(certificate))
    words = (
        to.at.ipv4,
        str(DEFAULT_PORT),
        str(file),
        str(_identity(agent).key_file),
        str(patience_s),
    )
    command = [*agent.at.enter(), sys.executable, "-c", DIAL, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _issued(
    who: identity.Identity,
    key: Ed25519PrivateKey,
    authority: bytes,
    registry: bytes,
    serial: bytes = b"",
) -> bytes:
    """Return the certificate that an authority's key makes for a node, with its present serial.

    Or with another one, which the registry does not have, as of one that was replaced.
    """
    entry = Registry.decode(SignedRegistry.decode(registry).payload).node(who.node_id)
    assert entry is not None
    subject = certificates.Subject(who.cluster_id, who.node_id, who.node_name)
    return certificates.issue(key, authority, subject, entry.key, serial or entry.serials[0])


def _number(agent: AgentProcess) -> int:
    number: int = agent.must("keys", "list", "-o", "json").json()["authority"]["number"]
    return number


def test_the_authority_is_replaced_under_traffic(fleet: Fleet) -> None:
    fleet.form("ash", "birch", "cedar")
    ash, birch, cedar = (fleet.agents[name] for name in ("ash", "birch", "cedar"))
    founder = _identity(ash)
    stolen, old = founder.authority_private_key(), founder.authority
    former = certificates.from_pem(_identity(birch).certificate_file.read_bytes())
    fleet.token(ash)
    assert ash.must("token", "list").stdout

    refused = birch.covey("keys", "rotate", "--authority")
    assert refused.status == exits.NOT_PERMITTED
    assert "ash" in refused.stderr
    with traffic(birch) as outcomes:
        done = ash.must("keys", "rotate", "--authority", "-o", "json", timeout_s=120)
    print(done.stderr)
    assert len(outcomes) > 10, "there was traffic"
    assert set(outcomes) == {"ok"}
    assert done.json()["authority"] == {"number": 1, "overlaps": False, "uncertified": []}
    for agent in (ash, birch, cedar):
        assert not buried(agent), agent.name
        eventually(
            partial(_authorities, agent),
            lambda seen: seen == 1,
            10.0,
            "the old authority is gone from the disk",
        )
        who = _identity(agent)
        assert who.authority == _identity(ash).authority != old
        assert who.is_certified

    # Whoever has the old key can sign whatever he likes, also with the serial that counts now.
    now = _identity(birch)
    key, registry = _identity(ash).authority_private_key(), registry_on_disk(birch.directory)
    birch.stop()  # else its own stream takes the place of ours
    good = _issued(now, key, now.authority, registry)
    assert _dial(birch, cedar, good, SILENT_S) == "listened to\n"
    assert _dial(birch, cedar, _issued(now, stolen, old, registry)) == "refused\n"
    assert _dial(birch, cedar, former) == "refused\n"
    replaced = _issued(now, key, now.authority, registry, certificates.new_serial())
    assert _dial(birch, cedar, replaced) == "spoken to\n", "as long as it takes to say: you are out"
    birch.start()
    assert not ash.must("token", "list").stdout, "none is good any more"

    _await_noted(birch, cedar)

    # One that is away for all of the next one, and for new keys of the datagrams besides.
    cedar.stop()
    waiting = ash.must("keys", "rotate", "--authority", "--force", "-o", "json", timeout_s=120)
    print(waiting.stderr)
    assert waiting.json()["authority"] == {"number": 2, "overlaps": False, "uncertified": ["cedar"]}
    ash.must("keys", "rotate", "--force", timeout_s=120)
    assert _identity(cedar).facts.authorities[0].number == 1
    cedar.launch()
    fleet.wait_formed(60.0, "cedar takes part again")
    eventually(lambda: _number(cedar), lambda seen: seen == 2, 60.0, "cedar follows")
    cedar.must("kv", "put", "key", "value")
    assert birch.must("kv", "get", "key").stdout == "value"
    assert _identity(cedar).is_certified


def _await_noted(replaced: AgentProcess, at: AgentProcess) -> None:
    """Wait until a member has written down who showed a certificate that was replaced."""

    def noted() -> list[tuple[str, str]]:
        entries = at.must("audit", "-o", "json").json()["entries"]
        old = [each for each in entries if each["outcome"] == "old_certificate"]
        return [(each["who"], each["from"]) for each in old]

    who = f"node {replaced.name} ({format_node_id(_identity(replaced).node_id)})"
    tried = who, replaced.at.ipv4
    eventually(noted, lambda seen: set(seen) == {tried}, 15.0, "the audit log says who tried it")


def _authorities(agent: AgentProcess) -> int:
    return len(_identity(agent).facts.authorities)
