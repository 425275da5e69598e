"""One node's commands, each carried out once: forgotten in between, declined, repeated."""

from typing import Any

import pytest

from gossip.control import clients, committed_log, proposals, state_machine
from gossip.control.commands import Command, RegisterClient, Transact, decode_command
from gossip.control.outcomes import TransactionResult
from gossip.control.requests import ControlWrite, IndeterminateResult
from gossip.control.transactions import PutKey
from tests.support.control_net import ControlNet


def put(net: ControlNet, node: int, key: str, timeout_s: float = 30.0) -> int:
    return net.submit(node, ControlWrite(Transact((), (PutKey(key, b""),)), timeout_s))


def version(net: ControlNet, key: str) -> int:
    entry = net.planes[1].state.keys.get(key)
    return entry.version if entry is not None else 0


def forgotten(monkeypatch: pytest.MonkeyPatch) -> tuple[ControlNet, int]:
    """Return a net in which node 4's write of `a` was carried out, and node 4 then forgotten.

    It heard no answer, and takes its copy of the log later than it repeats what was not answered.
    """
    monkeypatch.setattr(clients, "CLIENTS_MAX", 2)
    monkeypatch.setattr(committed_log, "GATHER_S", 0.0)
    net = ControlNet(5)
    net.leader()
    net.run(1.0)
    net.put(4, "warm")
    net.planes[4].part.copy.stop()
    first = put(net, 4, "a")
    net.until(lambda: bool(version(net, "a")))
    net.cut.add(frozenset((1, 4)))
    net.put(2, "x")
    net.put(3, "y")
    net.heal()
    net.run(0.3)
    assert (4, first) not in net.results
    return net, first


@pytest.mark.parametrize("save_s", [0.002, 1.2], ids=["quick", "slow"])
def test_what_was_sent_is_sent_under_no_other_number(
    monkeypatch: pytest.MonkeyPatch, save_s: float
) -> None:
    """While a slow disk saves the registration there is no number at all."""
    net, first = forgotten(monkeypatch)
    in_log: list[Command] = []

    def decode(data: bytes) -> Command:
        in_log.append(decode_command(data))
        return in_log[-1]

    monkeypatch.setattr(state_machine, "decode_command", decode)
    net.save_s = lambda node: save_s if node == 1 else 0.002
    second = put(net, 4, "b")
    net.until(lambda: {(4, first), (4, second)} <= net.results.keys())
    assert isinstance(net.results[4, first].result, IndeterminateResult)
    assert isinstance(net.results[4, second].result, TransactionResult)
    net.run(5.0)
    assert (version(net, "a"), version(net, "b")) == (1, 1)
    assert all(each.client for each in in_log if not isinstance(each.action, RegisterClient))


def test_what_nobody_took_is_sent_under_the_new_number(monkeypatch: pytest.MonkeyPatch) -> None:
    net, first = forgotten(monkeypatch)
    numbers = [put(net, 4, key) for key in ("b", "c")]
    net.until(lambda: all((4, number) in net.results for number in (first, *numbers)))
    results: list[Any] = [net.results[4, number].result for number in (first, *numbers)]
    assert isinstance(results[0], IndeterminateResult)
    assert isinstance(results[1], TransactionResult), "its one copy was declined"
    assert [version(net, key) for key in "abc"] == [1, 1, int(results[2] == results[1])]


def test_one_that_is_not_answered_lets_no_other_be_declined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As many may be unsettled as outcomes are kept, with those that came after an open one."""
    monkeypatch.setattr(clients, "CLIENT_OUTCOMES_MAX", 4)
    monkeypatch.setattr(proposals, "PENDING_MAX", 4)
    net = ControlNet(2)
    net.put(2, "warm")
    numbers = [put(net, 2, "first")]
    net._queue.clear()  # the question is lost, and nobody is told
    numbers += [put(net, 2, str(each)) for each in range(9)]
    net.until(lambda: all((2, number) in net.results for number in numbers))
    assert all(isinstance(net.results[2, n].result, TransactionResult) for n in numbers)


def test_a_copy_that_was_declined_for_now_is_not_the_end_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first copy finds no room for its outcome; the second one finds some."""
    monkeypatch.setattr(clients, "CLIENT_BYTES_MAX", 1)
    net = ControlNet(2)
    net.put(2, "warm")
    answered, number = put(net, 2, "a"), put(net, 2, "b")
    net.until(lambda: (2, answered) in net.results)
    assert (2, number) not in net.results, "it is answered a moment later"
    net.planes[2].proposals.leader_changed(net.now)  # it is sent a second time
    net._perform(2)
    net.until(lambda: (2, number) in net.results)
    net.run(5.0)
    assert isinstance(net.results[2, number].result, TransactionResult)
    assert version(net, "b") == 1
