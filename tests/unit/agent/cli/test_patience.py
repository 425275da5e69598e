"""Who waits for whom: a client outwaits its agent, and hears from it what became of a command."""

from agent.cli.txn import txn
from edge_apps import client, locks
from gossip.control.requests import TIMEOUT_S


def test_clients_wait_longer_than_the_agent_waits_for_the_voters() -> None:
    assert client.TIMEOUT_S > TIMEOUT_S
    assert locks.EXTRA_S > TIMEOUT_S


def test_a_transaction_waits_as_long_as_any_other_command() -> None:
    [timeout] = [each for each in txn.params if each.name == "timeout"]
    assert timeout.default == f"{TIMEOUT_S:.0f}s"
