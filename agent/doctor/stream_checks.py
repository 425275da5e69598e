"""Why members did not answer by stream: each was dialled on trial, and this says what to open."""

from collections.abc import Iterable, Mapping

from agent.doctor.findings import Finding, fail, ok
from agent.net.dial_test import DialOutcome, DialTest
from gossip.core.ids import NodeId
from gossip.core.tuning import PATH_BYTES

TOLD = {
    DialOutcome.REFUSED: "is refused",
    DialOutcome.NO_ANSWER: "does not answer",
    DialOutcome.STALLED: "answers, but no TLS handshake gets through",
    DialOutcome.FAILED: "answers, but ends the TLS handshake",
}
"""What is said of the port. Where there is no route, ``paths`` says what there is to say."""


def blocked(trials: Mapping[NodeId, DialTest]) -> set[NodeId]:
    """Return to whom no stream could be opened."""
    return {node for node, trial in trials.items() if trial.outcome is not DialOutcome.OPEN}


def examine(
    trials: Mapping[NodeId, DialTest],
    heard: Iterable[NodeId],
    names: Mapping[NodeId, str],
    port: int,
) -> list[Finding]:
    """Return advice about members whose datagrams are ``heard`` and who are silent by stream.

    ``trials`` has those that did not answer; ``port`` is this node's own.
    """
    silent = {node: trials[node] for node in heard if node in trials}
    findings = [
        _unopened(names[node], trial) for node, trial in silent.items() if trial.outcome in TOLD
    ]
    unanswered = [names[node] for node, each in silent.items() if each.outcome is DialOutcome.OPEN]
    if unanswered:
        findings.append(_unanswered(sorted(unanswered), port))
    return findings or [ok("streams", "members answer by stream, as far as they are heard.")]


def _unopened(name: str, trial: DialTest) -> Finding:
    address = trial.address
    message = (
        f"no stream to {name}, whose datagrams pass: TCP port {address.port} at {address.host} "
        f"{TOLD[trial.outcome]}. Keys are not written or read over this path."
    )
    hint = f"Let TCP to port {address.port} pass as UDP does: on {name}, out of here, and between."
    if trial.outcome is DialOutcome.STALLED:
        hint = (
            f"Let packets of {PATH_BYTES} bytes pass: set the MTU of the VPN or tunnel in between "
            f"to {PATH_BYTES} or more."
        )
    return fail("streams", message, hint)


def _unanswered(names: list[str], port: int) -> Finding:
    return fail(
        "streams",
        f"streams to {', '.join(names)} open, and no answer comes back by stream.",
        f"Members dial each other: let TCP to port {port} of this device in.",
    )
