"""A device that lay in a drawer for longer than its certificate was good comes back by itself."""

import datetime as dt

import pytest

from agent.identity import certificates, identity
from gossip.registry.registry import Registry, SignedRegistry
from tests.live.harness.agents import AgentProcess
from tests.live.harness.fleet import Fleet
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.live]


def _expire(agent: AgentProcess, issuer: AgentProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a certificate in place as it would be two days after its end."""
    who = identity.load(agent.directory / "data" / "identity")
    founder = identity.load(issuer.directory / "data" / "identity")
    authority = founder.authority
    signed = SignedRegistry.decode(who.first_registry())
    entry = Registry.decode(signed.payload).node(who.node_id)
    assert entry is not None
    subject = certificates.Subject(who.cluster_id, who.node_id, who.node_name)
    with monkeypatch.context() as patched:
        patched.setattr(certificates, "BACKDATED", dt.timedelta(days=92))
        patched.setattr(certificates, "NODE_VALIDITY", dt.timedelta(days=-2))
        key = founder.authority_private_key()
        who.renew(certificates.issue(key, authority, subject, entry.key, entry.serials[0]))


def test_an_expired_certificate_is_renewed(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.form("ash", "birch", "cedar")
    ash, birch, cedar = (fleet.agents[name] for name in ("ash", "birch", "cedar"))
    birch.stop()
    _expire(birch, ash, monkeypatch)
    birch.launch()
    eventually(
        ash.states, lambda seen: set(seen.values()) == {"alive"}, 60.0, "birch takes part again"
    )
    assert "the certificate was renewed" in birch.log
    birch.must("kv", "put", "key", "value")
    assert cedar.must("kv", "get", "key").stdout == "value", "its streams are accepted"

    # And the founder's own, which nobody else could renew.
    ash.stop()
    _expire(ash, ash, monkeypatch)
    ash.start()
    eventually(
        birch.states, lambda seen: set(seen.values()) == {"alive"}, 60.0, "the founder is back"
    )
    ash.must("kv", "put", "key", "newer")
    assert cedar.must("kv", "get", "key").stdout == "newer"
