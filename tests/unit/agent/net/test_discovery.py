"""Finding others: interfaces, seeds, the known peers, and mDNS that stays on the loopback."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast

import pytest
import uvloop
from zeroconf import ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from agent import exits
from agent.exits import AgentError
from agent.identity.identity import Peer
from agent.net import discovery, mdns
from agent.net.discovery import Discovery, Here, Plan
from agent.net.interfaces import Interface, choose, multicast_plugs, own_addresses, scan
from agent.net.mdns import (
    SERVICE_TYPE,
    Announcement,
    DiscoveredNode,
    Mdns,
    parse_service,
    service_info,
)
from agent.net.netlink import Notices
from agent.net.seeds import parse_seeds, resolve
from agent.store import known_peers
from agent.store.control import ControlStore
from agent.store.known_peers import KnownPeers
from gossip.core.machine import Address
from gossip.membership.model.members import Member, MemberChanged, MemberState
from tests.support.patience import GIVE_UP_S

LO = Interface("lo", 1, ("127.0.0.1", "::1"))
ETH = Interface("eth0", 2, ("192.0.2.2", "2001:db8::2", "fe80::2%eth0"))
WLAN = Interface("wlan0", 3, ("169.254.7.7", "fe80::3%wlan0"))
EVERY = ["0.0.0.0", "::"]
BARN, SHED = bytes(range(16)), bytes(16)


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until it holds; a hang, not a slow machine, fails the test."""
    async with asyncio.timeout(GIVE_UP_S):
        while not condition():  # noqa: ASYNC110 - any condition, not one that tells
            await asyncio.sleep(0.02)


def hosts(addresses: Iterable[Address]) -> list[str]:
    return [address.host for address in addresses]


def test_without_a_choice_it_is_everything_but_the_loopback() -> None:
    assert choose([LO, ETH, WLAN], []) == [ETH, WLAN]
    assert choose([LO], []) == [LO]


def test_interfaces_are_chosen_by_name_or_address() -> None:
    assert choose([LO, ETH, WLAN], ["lo"]) == [LO]
    assert choose([LO, ETH, WLAN], ["127.0.0.1", "wlan0"]) == [LO, WLAN]
    assert choose([LO, ETH], ["eth1"]) == [], "it may come later; nothing else is taken for it"


def test_link_local_addresses_are_never_told() -> None:
    told = own_addresses([ETH, WLAN], EVERY, 7747)
    assert hosts(told) == ["192.0.2.2", "2001:db8::2", "169.254.7.7"]


def test_only_what_is_bound_is_told() -> None:
    assert hosts(own_addresses([LO, ETH], ["0.0.0.0"], 1)) == ["127.0.0.1", "192.0.2.2"]
    assert hosts(own_addresses([LO, ETH], ["127.0.0.1"], 1)) == ["127.0.0.1"]


def test_what_is_advertised_replaces_the_rest() -> None:
    told = own_addresses([ETH], EVERY, 7747, ["203.0.113.5", "[2001:db8::9]:8000"])
    assert told == (Address("203.0.113.5", 7747), Address("2001:db8::9", 8000))
    with pytest.raises(AgentError) as caught:
        own_addresses([ETH], EVERY, 7747, ["pi.local"])
    assert caught.value.status == exits.BAD_CONFIG


def test_handles_for_multicast() -> None:
    handles = list(multicast_plugs([LO, ETH, WLAN]))
    assert handles == ["127.0.0.1", "192.0.2.2", "169.254.7.7", 2, 3]


def test_the_loopback_is_found_here() -> None:
    found = choose(scan(), ["lo"])
    assert [each.name for each in found] == ["lo"]
    assert found[0].is_loopback


def test_seeds_are_read_and_looked_up() -> None:
    assert parse_seeds(["pi", "10.0.0.1:80", "[::1]:90"], 7) == [
        ("pi", 7),
        ("10.0.0.1", 80),
        ("::1", 90),
    ]
    with pytest.raises(AgentError, match="seed cannot be read"):
        parse_seeds(["pi:port"], 7)
    found = asyncio.run(resolve(("localhost", 5)))
    assert Address("127.0.0.1", 5) in found
    assert asyncio.run(resolve(("::1", 5))) == [Address("::1", 5)]
    assert asyncio.run(resolve(("fe80::1%lo", 5))) == [Address("fe80::1%lo", 5)]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(resolve(("fe80::1%lo", 5))) == [Address("fe80::1%lo", 5)]


def test_of_too_many_addresses_of_a_name_each_is_tried_some_day(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Resolvers sort them: the first ones would be the same for ever."""
    everybody = [f"10.0.0.{n}" for n in range(1, 25)]

    async def sorted_ones(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(2, 2, 17, "", (host, 5)) for host in everybody]

    async def scenario() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", sorted_ones)
        found = [hosts(await resolve(("covey.example", 5))) for _ in range(100)]
        assert {len(each) for each in found} == {16}
        assert {host for each in found for host in each} == set(everybody)

    asyncio.run(scenario())


def test_an_announcement_reads_back() -> None:
    where = (Address("192.0.2.2", 7000), Address("2001:db8::2", 7000))
    info = service_info(Announcement(BARN, 0xC0FFEE, where))
    assert parse_service(info) == DiscoveredNode(BARN, 0xC0FFEE, where)


@pytest.mark.parametrize("facts", [{}, {"cluster": "zz", "node": "1"}, {"cluster": "00"}])
def test_other_services_of_our_type_are_ignored(facts: dict[str, str]) -> None:
    info = service_info(Announcement(BARN, 1, (Address("192.0.2.2", 7000),)))
    info._set_properties(dict[str | bytes, str | bytes | None](facts.items()))
    assert parse_service(info) is None


class Finder:
    """A discovery on the loopback, and what it found."""

    def __init__(self, covey: bytes, node: int, port: int, **more: object) -> None:
        self.found: list[Address] = []
        self.moved: list[Here] = []
        self.counts: Counter[str] = Counter()
        plan = Plan(["127.0.0.1"], port, interfaces=["lo"], **more)  # type: ignore[arg-type]
        self.discovery = Discovery(
            covey,
            node,
            plan,
            on_found=self.found.extend,
            on_moved=self.moved.append,
            counts=self.counts,
            known=[Address("192.0.2.99", 1)],
        )


def test_two_of_one_covey_find_each_other_and_a_third_stays_apart() -> None:
    async def scenario() -> None:
        finders = [Finder(BARN, 1, 7001), Finder(BARN, 2, 7002), Finder(SHED, 3, 7003)]
        one, two, other = finders
        for each in finders:
            await each.discovery.start()
        await eventually(lambda: Address("127.0.0.1", 7002) in one.found)
        await eventually(lambda: Address("127.0.0.1", 7001) in two.found)
        await eventually(lambda: other.counts["discovery/other_covey"] >= 2)
        await eventually(lambda: one.counts["discovery/other_covey"] >= 1)
        for each in finders:
            await each.discovery.stop()
        assert other.found == [Address("192.0.2.99", 1)], "the book, and nobody else's members"
        assert Address("127.0.0.1", 7001) not in one.found, "oneself is nobody to find"
        assert Address("127.0.0.1", 7003) not in one.found

    asyncio.run(scenario())


def test_a_goodbye_takes_a_sighting_away() -> None:
    async def scenario() -> None:
        seen: list[DiscoveredNode] = []
        listening, speaking = Mdns(seen.append, Counter()), Mdns(lambda _: None, Counter())
        handles = multicast_plugs(choose(scan(), ["lo"]))
        await listening.update(handles)
        me = Announcement(BARN, 77, (Address("127.0.0.1", 7005),))
        await speaking.update(handles, me)
        await eventually(lambda: any(each.node_id == 77 for each in seen))
        await speaking.stop()
        await eventually(lambda: not any("4d" in name for name in listening.sightings))
        await listening.stop()

    asyncio.run(scenario())


def test_without_any_interface_it_waits_for_one() -> None:
    async def scenario() -> None:
        seen: list[DiscoveredNode] = []
        waiting, other = Mdns(seen.append, Counter()), Mdns(lambda _: None, Counter())
        await waiting.update({}, Announcement(BARN, 78, ()))
        assert waiting._zeroconf is None
        handles = multicast_plugs(choose(scan(), ["lo"]))
        await other.update(handles, Announcement(BARN, 79, (Address("127.0.0.1", 7006),)))
        await waiting.update(handles, Announcement(BARN, 78, (Address("127.0.0.1", 7007),)))
        await eventually(lambda: any(each.node_id == 79 for each in seen))
        absent: dict[str | int, object] = {"192.0.2.250": 1}
        await waiting.update(handles | absent)  # one that is not there harms nothing
        await waiting.stop()
        await other.stop()

    asyncio.run(scenario())


class NotedZeroconf:
    """In place of both of zeroconf's classes: notes how often something is said."""

    def __init__(self) -> None:
        self.zeroconf = self
        self.said: list[str] = []

    async def async_register_service(self, _info: object, **_options: bool) -> None:
        self.said.append("registered")

    async def async_update_service(self, _info: object) -> None:
        self.said.append("updated")

    def generate_service_broadcast(self, info: AsyncServiceInfo, _ttl: None) -> AsyncServiceInfo:
        return info

    def async_send(self, info: AsyncServiceInfo) -> None:
        self.said.append(f"port {info.port}")


def test_an_announcement_is_repeated_in_one_packet_and_told_anew_when_it_changes() -> None:
    """Whoever was on another network at the first one hears the next."""

    async def scenario() -> list[str]:
        speaking, noted = Mdns(lambda _: None, Counter()), NotedZeroconf()
        for port in (7001, 7001, 7001, 7002, 7002):
            what = Announcement(BARN, 1, (Address("127.0.0.1", port),))
            await speaking._announce(cast("AsyncZeroconf", noted), what)
        return noted.said

    told = ["registered", "port 7001", "port 7001", "updated", "port 7002"]
    assert asyncio.run(scenario()) == told


def test_seeds_are_looked_up_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "SEEDS_AT_FIRST_S", 0.01)
    answers: list[list[Address] | OSError] = [
        OSError("no such name"),
        [Address("192.0.2.5", 7747)],
        [Address("192.0.2.6", 7747)],
    ]

    async def changing(seed: tuple[str, int]) -> list[Address]:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(discovery, "resolve", changing)

    async def scenario() -> None:
        finder = Finder(BARN, 1, 7001, mdns=False, seeds=["pi.example"])
        await finder.discovery.start()
        await eventually(lambda: Address("192.0.2.6", 7747) in finder.found)
        assert Address("192.0.2.5", 7747) in finder.found
        assert finder.counts["discovery/seed_failed"] == 1
        await finder.discovery.stop()

    asyncio.run(scenario())


def test_addresses_that_change_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "ADDRESSES_S", 0.01)

    async def scenario() -> None:
        finder = Finder(BARN, 1, 7001, mdns=False)
        await finder.discovery.start()
        moved = Interface("lo", 1, ("127.0.0.1", "127.0.0.2"))
        finder.discovery._plan = finder.discovery._plan._replace(bind=EVERY)
        monkeypatch.setattr(discovery, "scan", lambda: [moved])
        monkeypatch.setattr(Notices, "any", lambda _: True)
        there = (Address("127.0.0.1", 7001), Address("127.0.0.2", 7001))
        await eventually(lambda: there in [here.told for here in finder.moved])
        assert [here.told for here in finder.moved].count(there) == 1
        await finder.discovery.stop()

    asyncio.run(scenario())


def test_while_the_kernel_tells_of_no_change_nothing_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(discovery, "ADDRESSES_S", 0.01)
    looks = rounds = 0

    def counted() -> list[Interface]:
        nonlocal looks
        looks += 1
        return [Interface("lo", 1, ("127.0.0.1",))]

    def quiet(_: Notices) -> bool:
        nonlocal rounds
        rounds += 1
        return False

    monkeypatch.setattr(discovery, "scan", counted)
    monkeypatch.setattr(Notices, "any", quiet)

    async def scenario() -> None:
        finder = Finder(BARN, 1, 7001, mdns=False)
        await finder.discovery.start()
        await eventually(lambda: rounds > 20)
        await finder.discovery.stop()

    asyncio.run(scenario())
    assert looks == 2, "one by the start and one by the first round"


def test_a_look_that_fails_is_counted_and_another_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "ADDRESSES_S", 0.01)
    calls = 0

    def failing() -> list[Interface]:
        nonlocal calls
        calls += 1
        if calls < 20:
            raise OSError(24, "Too many open files")
        return [Interface("lo", 1, ("127.0.0.1",))]

    monkeypatch.setattr(discovery, "scan", failing)

    async def scenario() -> None:
        finder = Finder(BARN, 1, 7001, mdns=False)
        await finder.discovery.start()
        await eventually(lambda: finder.moved)
        assert finder.moved[0].told == (Address("127.0.0.1", 7001),)
        assert finder.counts["discovery/look_failed"] == 19
        await finder.discovery.stop()

    asyncio.run(scenario())


def test_services_that_come_in_crowds_are_all_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred devices after a power cut: more than are looked up at a time."""
    monkeypatch.setattr(mdns, "RESOLVING_MAX", 3)
    monkeypatch.setattr(mdns, "SIGHTINGS_MAX", 40)

    class Answered:
        def __init__(self, _type: str, name: str) -> None:
            self.name = name

        async def async_request(self, _zeroconf: object, _timeout_ms: int) -> bool:
            await asyncio.sleep(0)
            return True

    def read(info: Answered) -> DiscoveredNode:
        return DiscoveredNode(BARN, 1, (Address(info.name, 1),))

    monkeypatch.setattr(mdns, "AsyncServiceInfo", Answered)
    monkeypatch.setattr(mdns, "parse_service", read)

    async def scenario() -> None:
        seen: list[DiscoveredNode] = []
        counts: Counter[str] = Counter()
        listening = Mdns(seen.append, counts)

        def announce(numbers: Iterable[int]) -> None:
            for n in numbers:
                listening._on_change(
                    cast("Zeroconf", None), SERVICE_TYPE, f"n{n}", ServiceStateChange.Added
                )

        announce(range(30))
        await eventually(lambda: len(seen) == 30)
        announce(range(30, 60))
        await eventually(lambda: len(seen) == 60)
        assert list(listening.sightings) == [f"n{n}" for n in range(20, 60)], "the latest are kept"
        assert counts["discovery/too_many_services"] == 20
        await listening.stop()

    asyncio.run(scenario())


def test_a_replugged_card_is_joined_anew() -> None:
    async def scenario() -> None:
        counts: Counter[str] = Counter()
        listening = Mdns(lambda _: None, counts)
        me = Announcement(BARN, 80, (Address("127.0.0.1", 7008),))
        await listening.update({"127.0.0.1": (1, 0)}, me)
        before = listening._zeroconf
        assert before is not None
        [sender] = before.zeroconf.engine.senders
        await listening.update({"127.0.0.1": (1, 0)}, me)
        assert before.zeroconf.engine.senders == [sender]
        await listening.update({"127.0.0.1": (2, 0)}, me)
        assert before.zeroconf.engine.senders != [sender]
        assert counts["discovery/mdns_joined_anew"] == 1
        assert listening._zeroconf is before
        await listening.stop()

    asyncio.run(scenario())


def nowhere(_node: int) -> list[Address]:
    return []


def changed(node: int, *where: Address, state: MemberState = MemberState.ALIVE) -> MemberChanged:
    member = Member(
        id=node,
        name=f"pi{node}",
        addresses=where,
        tags={},
        state=state,
        boot=1,
        incarnation=0,
        changed_at=0.0,
    )
    return MemberChanged(member, None, "joined")


def test_the_peer_book_survives_a_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = await ControlStore.open(tmp_path / "control.db", BARN, 1)
        book = KnownPeers(
            store, 1, lambda node: [Address("10.9.9.9", 1)] * (node == 2), lambda: 1e3
        )
        await book.start([Peer(5, "pi5", (Address("10.0.0.5", 1),))])
        book.record(changed(2, Address("10.0.0.2", 1)))
        book.record(changed(1, Address("10.0.0.1", 1)))
        book.record("something else")
        await book.stop()
        await store.close()
        store = await ControlStore.open(tmp_path / "control.db", BARN, 1)
        again = KnownPeers(store, 1, nowhere)
        await again.start([Peer(2, "pi2", (Address("10.0.0.222", 1),))])
        assert hosts(again.addresses()) == ["10.9.9.9", "10.0.0.5", "10.0.0.2"]
        await again.stop()
        await store.close()

    asyncio.run(scenario())


def test_the_book_begins_with_one_address_of_each_those_seen_last_first(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = await ControlStore.open(tmp_path / "control.db", BARN, 1)
        for seen_at, node in enumerate((2, 3, 4)):
            book = KnownPeers(store, 1, nowhere, lambda: 1000.0 + seen_at)  # noqa: B023
            await book.start([])
            book.record(changed(node, *(Address(f"10.{n}.0.{node}", 1) for n in range(3))))
            await book.stop()
        assert hosts(book.addresses()) == [
            *("10.0.0.4", "10.0.0.3", "10.0.0.2"),
            *("10.1.0.4", "10.1.0.3", "10.1.0.2"),
            *("10.2.0.4", "10.2.0.3", "10.2.0.2"),
        ]
        await store.close()

    asyncio.run(scenario())


def test_whom_a_device_without_a_clock_sees_is_newer_than_all_it_knew(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = await ControlStore.open(tmp_path / "control.db", BARN, 1)
        for node, wall_s in ((2, 1.8e9), (3, 12.0), (4, 13.0)):
            book = KnownPeers(store, 1, nowhere, lambda: wall_s)  # noqa: B023
            await book.start([])
            book.record(changed(node, Address(f"10.0.0.{node}", 1)))
            await book.stop()
        assert hosts(book.addresses()) == ["10.0.0.4", "10.0.0.3", "10.0.0.2"]
        await store.close()

    asyncio.run(scenario())


def test_the_dead_are_no_news_in_the_book(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = await ControlStore.open(tmp_path / "control.db", BARN, 1)
        book = KnownPeers(store, 1, nowhere, lambda: 1000.0)
        await book.start([])
        book.record(changed(2, Address("10.0.0.2", 1)))
        book.record(changed(3, Address("10.0.0.3", 1)))
        book.record(changed(2, Address("10.0.0.2", 1), state=MemberState.DEAD))
        book.record(changed(4, Address("10.0.0.4", 1), state=MemberState.DEAD))
        await book.stop()
        assert hosts(book.addresses()) == ["10.0.0.3", "10.0.0.2", "10.0.0.4"]
        await store.close()

    asyncio.run(scenario())


def test_what_the_disk_did_not_take_is_written_with_the_next_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        store = await ControlStore.open(tmp_path / "control.db", BARN, 1)
        book = KnownPeers(store, 1, nowhere)
        await book.start([])
        book.record(changed(2, Address("10.0.0.2", 1)))
        with monkeypatch.context() as full:

            async def refuse(_peers: object) -> None:
                raise AgentError("the disk is full")

            full.setattr(store, "save_peers", refuse)
            await book._write()
        book.record(changed(3, Address("10.0.0.3", 1)))
        await book.stop()
        assert sorted(hosts(book.addresses())) == ["10.0.0.2", "10.0.0.3"]
        await store.close()

    asyncio.run(scenario())


def test_the_peer_book_writes_many_changes_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_peers, "WRITE_DELAY_S", 0.05)

    async def scenario() -> None:
        store = await ControlStore.open(tmp_path / "control.db", BARN, 1)
        book = KnownPeers(store, 1, nowhere)
        await book.start([])
        before = store.database.counts["database_transactions/committed"]
        for node in range(2, 52):
            book.record(changed(node, Address("10.0.0.9", node)))
        await eventually(lambda: len(book.addresses()) == 50)
        assert store.database.counts["database_transactions/committed"] - before == 1
        await book.stop()
        await store.close()

    asyncio.run(scenario())
