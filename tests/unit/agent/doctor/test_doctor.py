"""The doctor: what it makes of views, clocks, disks and packages."""

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from agent.admission.former_membership import FormerMembership, record_parting
from agent.config.paths import Paths
from agent.doctor import (
    address_family_checks,
    agent_checks,
    clock_checks,
    device_checks,
    reachability,
    stream_checks,
)
from agent.doctor.findings import Finding, Status, ok
from agent.doctor.messages import CODEC, NodeView, PeerView, ViewRequest
from agent.doctor.reachability import ReachKind
from agent.identity.at_rest import seal_identity
from agent.identity.identity import found
from agent.loop.stalls import MACHINE, Stall
from agent.net.dial_test import DialOutcome, DialTest
from agent.net.interfaces import Interface
from gossip.core.machine import Address
from gossip.membership.model.members import Member, MemberState
from gossip.registry.node import RegisteredNode

A, B, C = 1, 2, 3
NAMES = {A: "ada", B: "bob", C: "cy"}
PORTS = {A: 7747, B: 7748, C: 7749}
FRESH_S = 10.0


def view(*seen: PeerView, number: int = 1) -> NodeView:
    return NodeView(number, 0, seen)


def saw(
    member: int, udp_in: float | None = 1.0, udp_out: float | None = 1.0, stream: float | None = 1.0
) -> PeerView:
    return PeerView(member, "alive", udp_in, udp_out, stream)


def ways(
    views: Mapping[int, NodeView], nodes: tuple[int, ...] = (A, B)
) -> reachability.ReachMatrix:
    return asyncio.run(reachability.build(nodes, views, FRESH_S))


def test_all_is_well() -> None:
    built = ways({A: view(saw(B)), B: view(saw(A))})
    assert built.ways == {(A, A): "-", (A, B): "udp", (B, A): "udp", (B, B): "-"}
    [finding] = asyncio.run(reachability.examine(built, NAMES, PORTS))
    assert finding.status is Status.OK


def test_a_one_way_path_is_named_with_its_direction() -> None:
    built = ways({A: view(saw(B, 1.0, None)), B: view(saw(A, 99.0, None))})
    assert built.ways[A, B] is ReachKind.STREAM
    assert built.ways[B, A] is ReachKind.UDP
    [finding] = asyncio.run(reachability.examine(built, NAMES, PORTS))
    assert finding.id == "one-way"
    assert "from ada do not reach bob" in finding.message


@pytest.mark.parametrize(
    ("stream_s", "way"), [(3.0, ReachKind.STREAM), (99.0, ReachKind.RELAY), (None, ReachKind.RELAY)]
)
def test_no_datagrams_is_said_once_for_both(stream_s: float | None, way: ReachKind) -> None:
    dark = {A: view(saw(B, None, None, stream_s)), B: view(saw(A, None, None, stream_s))}
    built = ways(dark)
    assert built.ways[A, B] is built.ways[B, A] is way
    [finding] = asyncio.run(reachability.examine(built, NAMES, PORTS))
    assert finding.id == "paths"
    assert finding.status is Status.WARN


def test_of_many_broken_paths_some_are_told_and_the_rest_are_counted() -> None:
    nodes = tuple(range(30))
    nobody = view(*(saw(other, None, None, None) for other in nodes))
    built = asyncio.run(reachability.build(nodes, dict.fromkeys(nodes, nobody), FRESH_S))
    names, ports = {node: f"n{node}" for node in nodes}, dict.fromkeys(nodes, 7747)
    findings = asyncio.run(reachability.examine(built, names, ports))
    assert len(findings) == reachability.FINDINGS_MAX + 1
    assert f"{30 * 29 // 2 - reachability.FINDINGS_MAX} more pairs" in findings[-1].message


def test_who_does_not_answer_is_a_question() -> None:
    built = ways({A: view(saw(B), saw(C, None, None, None)), B: view(saw(A), saw(C))}, (A, B, C))
    assert built.ways[A, C] is ReachKind.UNKNOWN
    assert [finding.id for finding in asyncio.run(reachability.examine(built, NAMES, PORTS))] == [
        "paths"
    ]


def limited(member: int, *, streamless: bool = False, narrow: bool = False) -> PeerView:
    return PeerView(member, "alive", 1.0, 1.0, 1.0, streamless, narrow)


def test_blocked_streams_are_said_of_whom_they_do_not_reach_and_name_its_port() -> None:
    views = {
        A: view(limited(B, streamless=True), saw(C)),
        B: view(saw(A), saw(C)),
        C: view(limited(B, streamless=True), saw(A)),
    }
    built = ways(views, (A, B, C))
    assert built.ways[A, B] is built.ways[C, B] is ReachKind.DATAGRAMS
    assert built.ways[B, A] is ReachKind.UDP
    [finding] = asyncio.run(reachability.examine(built, NAMES, PORTS))
    assert finding.status is Status.FAIL
    assert "no streams to bob from ada, cy" in finding.message
    assert "TCP to port 7748" in finding.hint


def test_what_was_found_just_now_counts_too() -> None:
    """Whoever is not reached by stream cannot tell its view, either."""
    built = asyncio.run(reachability.build((A, B), {A: view(saw(B))}, FRESH_S, {(A, B)}))
    assert built.ways[A, B] is ReachKind.DATAGRAMS
    assert [found.id for found in asyncio.run(reachability.examine(built, NAMES, PORTS))] == [
        "no-streams"
    ]


def test_a_narrow_path_is_said_with_its_size() -> None:
    built = ways({A: view(limited(B, narrow=True)), B: view(saw(A))})
    assert built.ways[A, B] is ReachKind.NARROW
    [finding] = asyncio.run(reachability.examine(built, NAMES, PORTS))
    assert finding.status is Status.WARN
    assert "packets of 1280 bytes do not reach bob from ada" in finding.message


@pytest.mark.parametrize(
    ("outcome", "words", "hint"),
    [
        (DialOutcome.NO_ANSWER, "TCP port 7748 at 10.0.0.2 does not answer", "TCP to port 7748"),
        (DialOutcome.REFUSED, "is refused", "TCP to port 7748"),
        (DialOutcome.STALLED, "no TLS handshake gets through", "packets of 1280 bytes"),
        (DialOutcome.FAILED, "ends the TLS handshake", "TCP to port 7748"),
        (DialOutcome.OPEN, "no answer comes back", "TCP to port 7747 of this device"),
    ],
)
def test_a_stream_on_trial_says_what_to_open(outcome: DialOutcome, words: str, hint: str) -> None:
    trials = {B: DialTest(Address("10.0.0.2", 7748), outcome)}
    assert stream_checks.blocked(trials) == (set() if outcome is DialOutcome.OPEN else {B})
    [finding] = stream_checks.examine(trials, [B], NAMES, 7747)
    assert finding.status is Status.FAIL
    assert words in finding.message
    assert hint in finding.hint
    [quiet] = stream_checks.examine(trials, [], NAMES, 7747)
    assert quiet.status is Status.OK, "where no datagrams pass either, the paths say so"


def test_no_advice_about_paths_that_cannot_be() -> None:
    dark = {A: view(saw(B, None, None, 1.0)), B: view(saw(A, None, None, 1.0))}
    are_apart = address_family_checks.apart({A: [V4], B: [V6], C: [V4, V6]})
    assert (are_apart(A, B), are_apart(A, C), are_apart(A, 9)) == (True, False, False)
    [finding] = asyncio.run(reachability.examine(ways(dark), NAMES, PORTS, are_apart))
    assert finding.status is Status.OK


V4, V6 = Address("10.0.0.1", 1), Address("fd77::1", 1)


def test_members_without_a_common_family_are_named_and_who_carries_their_streams() -> None:
    assert address_family_checks.examine({}).status is Status.OK
    assert (
        address_family_checks.examine({"ada": [V4], "bob": [V4, V6], "cy": []}).status is Status.OK
    )
    carried = address_family_checks.examine({"ada": [V4], "bob": [V6], "cy": [V4, V6]})
    assert carried.status is Status.WARN
    assert "ada with IPv4 alone and bob with IPv6 alone" in carried.message
    assert "go through cy" in carried.message
    apart = address_family_checks.examine(
        {"ada": [V4], **{f"n{number}": [V6] for number in range(10)}}
    )
    assert apart.status is Status.FAIL
    assert "no member has both" in apart.message
    assert "and 2 more" in apart.message


def test_whose_clock_is_off_is_named() -> None:
    [finding] = clock_checks.examine({A: 0.0, B: 0.1, C: 180.0}, A, NAMES)
    assert finding.status is Status.FAIL
    assert "clock off by 3m: cy is ahead" in finding.message
    [own] = clock_checks.examine({A: 0.0, B: 30.0, C: 30.2}, A, NAMES)
    assert own.status is Status.WARN
    assert "ada (this node) is behind" in own.message
    assert clock_checks.examine({A: 0.0, B: 0.5}, A, NAMES)[0].status is Status.OK
    assert clock_checks.examine({A: 0.0}, A, NAMES)[0].status is Status.OK


def test_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_checks.disk(tmp_path, 100.0).status is Status.OK
    assert not list(tmp_path.iterdir()), "nothing is left behind"
    assert device_checks.disk(tmp_path / "none", 100.0).status is Status.WARN
    monkeypatch.setattr(device_checks, "used_percent", lambda _: 95.1)
    finding = device_checks.disk(tmp_path, 95.0)
    assert finding.status is Status.WARN
    assert "95.1 % in use, and above 95 % puts are refused" in finding.message
    assert "disk_percent_max" in finding.hint
    monkeypatch.setattr(device_checks, "SYNC_FAIL_S", 0.0)
    assert device_checks.disk(tmp_path, 100.0).status is Status.FAIL

    def refuse(_data: Path) -> float:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(device_checks, "_sync_time_s", refuse)
    finding = device_checks.disk(tmp_path, 100.0)
    assert finding.status is Status.FAIL
    assert "read-only" in finding.hint


def test_a_disk_that_hangs_holds_the_doctor_up_for_a_while_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_over = threading.Event()

    def hang(_data: Path) -> float:
        is_over.wait()
        return 0.0

    monkeypatch.setattr(device_checks, "_sync_time_s", hang)
    monkeypatch.setattr(device_checks, "SYNC_PATIENCE_S", 0.01)
    finding = device_checks.disk(tmp_path, 100.0)
    is_over.set()
    assert finding.status is Status.FAIL
    assert "the disk hangs" in finding.message


def test_the_certificate_and_its_dates(tmp_path: Path) -> None:
    assert device_checks.certificate(tmp_path / "identity").status is Status.FAIL
    me = found(tmp_path / "identity", "attic", "ada")
    assert device_checks.certificate(tmp_path / "identity").status is Status.OK
    assert (
        device_checks.certificate(tmp_path / "identity", me.valid_until - 86400).status
        is Status.WARN
    )
    assert (
        device_checks.certificate(tmp_path / "identity", me.valid_until + 1).status is Status.FAIL
    )


@pytest.mark.parametrize(
    ("uncertified", "overlaps", "status", "said", "hint"),
    [
        ((), False, Status.OK, "all have certificates of the present", ""),
        ((), True, Status.OK, "and all have new certificates", ""),
        (("bob", "cy"), True, Status.WARN, "of the new one: bob, cy.", "--authority --force"),
        (("cy",), False, Status.WARN, "open nothing: cy.", "they get new ones"),
    ],
)
def test_who_lacks_a_certificate_of_the_present_authority_is_named(
    uncertified: tuple[str, ...], overlaps: bool, status: Status, said: str, hint: str
) -> None:
    finding = agent_checks.authority(uncertified, overlaps=overlaps)
    assert (finding.id, finding.status) == ("authority", status)
    assert said in finding.message
    assert hint in finding.hint


def test_a_key_that_opens_and_should_not_is_told_of() -> None:
    known = agent_checks.keys([], is_turning=True, is_known_outside=True)
    assert (known.status, "removed" in known.message) == (Status.WARN, True)
    waits = agent_checks.keys(["cy"], is_turning=True, is_known_outside=False)
    assert (waits.status, waits.message[-4:]) == (Status.WARN, " cy.")
    assert "`covey keys rotate --force`" in waits.hint
    for is_turning in (False, True):
        told = agent_checks.keys([], is_turning=is_turning, is_known_outside=False)
        assert told.status is Status.OK


def test_a_device_that_was_removed_knows_that_its_certificate_is_good_for_nothing(
    tmp_path: Path,
) -> None:
    paths = Paths.find(tmp_path, {})
    paths.create()
    found(paths.identity, "attic", "ada")
    for parting, status in (
        (FormerMembership.STAYS_AWAY, Status.OK),
        (FormerMembership.REMOVED, Status.FAIL),
    ):
        record_parting(paths, parting)
        finding = device_checks.examine_device(paths, [], 100.0, mdns=False)[0]
        assert finding.status is status
    assert finding.message == "ada was removed from attic: its certificate opens nothing."
    assert "`covey join TOKEN`" in finding.hint


def test_packages_of_others_with_our_names() -> None:
    ours = {"agent": ["covey", "covey"], "gossip": ["covey"], "numpy": ["numpy"]}
    assert device_checks.packages(ours).status is Status.OK
    finding = device_checks.packages({**ours, "gossip": ["covey", "gossip-python"]})
    assert finding.status is Status.FAIL
    assert "gossip-python" in finding.message


def test_multicast_says_what_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    interfaces = [Interface("eth0", 2, ("192.168.1.7", "fe80::1%eth0"))]

    def found_with(heard: bool) -> Finding:
        monkeypatch.setattr(device_checks, "_hears_itself", lambda _host, _number: heard)
        [finding] = device_checks.multicast(interfaces, mdns=True)
        return finding

    assert found_with(True).status is Status.OK
    blocked = found_with(False)
    assert blocked.status is Status.WARN
    assert "multicast blocked" in blocked.message
    assert "seeds" in blocked.hint
    assert device_checks.multicast(interfaces, mdns=False)[0].status is Status.OK
    assert device_checks.multicast([], mdns=True)[0].status is Status.WARN


def test_a_question_that_came_back_while_nobody_looked_counts() -> None:
    """As on a machine so busy that the time is over before the first look."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.sendto(b"of others", listening.getsockname())
        listening.sendto(b"ours", listening.getsockname())
        assert device_checks._receives(listening, b"ours", time.monotonic() - 1.0)
        assert not device_checks._receives(listening, b"ours", time.monotonic() - 1.0)


def test_what_was_counted() -> None:
    assert agent_checks.seals(Counter()).status is Status.OK
    assert agent_checks.seals(Counter({"datagrams_dropped/forged": 500})).status is Status.WARN
    assert agent_checks.other_coveys([], 0).status is Status.OK
    assert "wrong cluster" in agent_checks.other_coveys(["ab"], 3).hint
    assert agent_checks.sightings(3, 0, mdns=True).status is Status.WARN
    assert agent_checks.sightings(3, 1, mdns=True).status is Status.OK
    assert agent_checks.health(["the disk is full"]).status is Status.FAIL


def test_who_calls_itself_otherwise_is_named() -> None:
    honest = Member(7, "ash", (), {}, MemberState.ALIVE, 1, 1, 0.0)
    liar = msgspec.structs.replace(honest, id=8, name="birch", says="root")
    assert agent_checks.names([honest]).status is Status.OK
    found = agent_checks.names([honest, liar])
    assert found.status is Status.WARN
    assert "birch (as root)" in found.message


def test_an_api_that_others_reach_in_the_clear_is_named() -> None:
    assert agent_checks.api_tls("", tls=False).status == "ok"
    assert agent_checks.api_tls("127.0.0.1:7748", tls=False).status == "ok"
    assert agent_checks.api_tls("0.0.0.0:7748", tls=True).status == "ok"
    seen = agent_checks.api_tls("0.0.0.0:7748", tls=False)
    assert (seen.id, seen.status) == ("api-tls", "warn")
    assert "tls = true" in seen.hint


def test_programs_that_could_read_the_keys_are_named() -> None:
    apart = agent_checks.program_users(["scale"], "", is_issuer=True)
    assert (apart.status, apart.id) == (Status.OK, "program-users")
    assert agent_checks.program_users([], "the agent does not run as root", is_issuer=True) == ok(
        "program-users", "all programs that run here come with Covey."
    )
    seen = agent_checks.program_users(["scale", "handlers"], "it is no service", is_issuer=True)
    assert seen.status is Status.WARN
    assert "scale, handlers could read this node's keys, and the authority's," in seen.message
    assert "it is no service" in seen.message
    assert "authority" not in agent_checks.program_users(["a"], "x", is_issuer=False).message


def test_an_agent_that_stands_still_is_told_where() -> None:
    assert agent_checks.loop(0, None).status is Status.OK
    assert agent_checks.loop(3, Stall(0.03, "agent/cluster/kv.py:list", 1.0)).status is Status.OK
    slow = agent_checks.loop(3, Stall(0.4, "agent/cluster/kv.py:list", 1.0))
    assert slow.status is Status.WARN
    assert "400 ms in agent/cluster/kv.py:list" in slow.message
    assert "top" in agent_checks.loop(3, Stall(9.0, MACHINE, 1.0)).hint


def test_the_whole_device(tmp_path: Path) -> None:
    findings = device_checks.examine_device(Paths.find(tmp_path), (), 100.0, mdns=False)
    expected = {
        "certificate",
        "sealed-keys",
        "sealed-values",
        "disk",
        "sqlite",
        "packages",
        "multicast",
    }
    assert {finding.id for finding in findings} == expected
    assert any(finding.status is Status.FAIL for finding in findings)


def test_the_bytes_of_the_messages() -> None:
    assert CODEC.encode(ViewRequest(7)).hex() == "926007"
    told = NodeView(7, 1000, (PeerView(1, "alive", 0.5, None, None),))
    assert CODEC.encode(told).hex() == "946107cd03e8919701a5616c697665cb3fe0000000000000c0c0c2c2"
    assert CODEC.decode(CODEC.encode(told)) == told


def test_other_profiles_and_copied_identities_are_named() -> None:
    assert agent_checks.profiles("lan", {"bob": "lan"}).status is Status.OK
    mixed = agent_checks.profiles("lan", {"bob": "wan", "cy": "lan"})
    assert mixed.status is Status.WARN
    assert "bob (wan)" in mixed.message
    assert agent_checks.clones({}).status is Status.OK
    unheard = agent_checks.clones({}, is_superseded=True, has_begun_anew=True)
    assert (unheard.status, "nobody listens to this one" in unheard.message) == (Status.FAIL, True)
    assert agent_checks.clones({}, has_begun_anew=True).status is Status.WARN
    copied = agent_checks.clones({"bob": (Address("10.0.0.1", 7747), Address("10.0.0.2", 7747))})
    assert copied.status is Status.FAIL
    assert "bob (10.0.0.1:7747, 10.0.0.2:7747)" in copied.message


def test_whether_keys_are_sealed_and_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = Paths.find(tmp_path / "agent")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert device_checks.sealed_keys(paths).status is Status.OK
    founded = found(paths.identity, "barn", "pi1")
    seen = device_checks.sealed_keys(paths)
    assert seen.status is Status.OK
    assert "3 files with keys of this node lie in clear" in seen.message
    monkeypatch.setattr(device_checks, "SYSTEM_DATA", paths.data)
    monkeypatch.setattr(device_checks, "service_is_installed", lambda: True)
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert "systemd 250" in device_checks.sealed_keys(paths).message
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    seen = device_checks.sealed_keys(paths)
    assert (seen.status, "service install" in seen.hint) == (Status.WARN, True)
    (tmp_path / "covey.seal").write_bytes(bytes(32))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    seen = device_checks.sealed_keys(paths)
    assert seen.status is Status.WARN
    assert "could not seal keyring.json, node.key, authority.key" in seen.message
    seal_identity(paths.identity)
    assert device_checks.sealed_keys(paths).status is Status.OK
    assert device_checks.certificate(founded.directory).status is Status.OK
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    monkeypatch.setattr(device_checks, "SYSTEM_SEAL", tmp_path / "covey.seal")
    assert device_checks.sealed_keys(paths).status is Status.OK
    assert device_checks.certificate(founded.directory).status is Status.OK, (
        "nobody can tell from here"
    )


def test_sealed_keys_without_their_key_are_why_the_agent_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data of another machine, the seal moved away, the service uninstalled, another key."""
    paths, seal = Paths.find(tmp_path / "agent"), tmp_path / "covey.seal"
    seal.write_bytes(bytes(32))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    found(paths.identity, "barn", "pi1")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "covey.seal").write_bytes(bytes(range(32)))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "other"))
    assert "another key" in device_checks.sealed_keys(paths).message
    assert device_checks.sealed_keys(paths).status is Status.FAIL
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")

    def seen(data: Path, place: Path, *, is_installed: bool) -> Finding:
        monkeypatch.setattr(device_checks, "SYSTEM_DATA", data)
        monkeypatch.setattr(device_checks, "SYSTEM_SEAL", place)
        monkeypatch.setattr(device_checks, "service_is_installed", lambda: is_installed)
        return device_checks.sealed_keys(paths)

    assert seen(paths.data, seal, is_installed=True).status is Status.OK
    for told in (
        seen(paths.data, tmp_path / "gone", is_installed=True),
        seen(paths.data, seal, is_installed=False),
        seen(tmp_path, seal, is_installed=True),
    ):
        assert told.status is Status.FAIL
        assert "the agent does not start" in told.message
        assert "mkdir -p -m 700" in told.hint
        assert "covey run" not in told.hint


def member(node: int, state: MemberState = MemberState.ALIVE) -> Member:
    return Member(
        id=node, name=NAMES[node], addresses=(), tags={}, state=state, boot=1, incarnation=1,
        changed_at=0.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("states", "uptime_s", "told"),
    [
        ({A: MemberState.ALIVE, B: MemberState.ALIVE}, 600.0, "heard since this agent started: cy"),
        ({A: MemberState.ALIVE, B: MemberState.DEAD}, 600.0, "dead: bob; not heard since"),
        ({A: MemberState.ALIVE, B: MemberState.DEAD}, 10.0, "suspect or dead: bob."),
        ({A: MemberState.ALIVE, B: MemberState.ALIVE}, 10.0, "nobody is suspect or dead."),
        (dict.fromkeys(NAMES, MemberState.ALIVE), 600.0, "nobody is suspect or dead."),
    ],
)
def test_who_was_off_before_the_agent_started_is_missed(
    states: dict[int, MemberState], uptime_s: float, told: str
) -> None:
    """No list of members has it: it stands in the registry alone."""
    belonging = [RegisteredNode(node, name) for node, name in NAMES.items()]
    never_ran = RegisteredNode(4, "dog", absent=True)
    finding = agent_checks.membership(
        [member(*each) for each in states.items()], [*belonging, never_ran], uptime_s
    )
    assert told in finding.message
    assert "dog" not in finding.message, "the check `absent` names it"
    assert (finding.status is Status.OK) == ("nobody" in told)
