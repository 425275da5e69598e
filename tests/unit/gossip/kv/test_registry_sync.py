"""Which registry a node follows: catching up, forks, and when an issuer may sign."""

import asyncio
import itertools
import random
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from agent.runtime.keeper import Keeper
from agent.store.clean_shutdown import CleanShutdownMark
from agent.store.control import ControlStore
from gossip.core.machine import Durability, Emit, Instant, Persist, SendFrame
from gossip.kv.limits import ASK_INTERVAL_S, BEHIND_PATIENCE_S, SETTLE_S
from gossip.kv.messages import CODEC, FORKED, Fetch, Message, Refused, RegistryAsk, RegistryOffer
from gossip.kv.outbound import OutboundFrames
from gossip.kv.registry_sync import RegistrySync, short_mark_of
from gossip.kv.requests import Get, Put, RegistryAdopted, RegistryForked, Rejected
from gossip.kv.storage import RegistryChange
from gossip.registry.lineage import LINEAGE_MAX
from gossip.registry.merge import merge
from gossip.registry.node import SERIAL_BYTES
from gossip.registry.registry import Registry, admit, amend, remove
from tests.support.kv_net import CLUSTER, Net, node, registry_of, sign, verify

ME, PEER = 1, 2


class One:
    """A registrar and what it says."""

    def __init__(self, registry: Registry, now: Instant = 100.0) -> None:
        self.outbound = OutboundFrames(ME, random.Random(1))
        self.it = RegistrySync(sign(registry), verify, self.outbound, itertools.count(1), now)

    def heard(self, registry: Registry, now: Instant, peer: int = PEER) -> list[Message]:
        self.it.on_epoch(peer, registry.epoch, short_mark_of(registry.mark), now)
        return self.said()

    def said(self) -> list[Message]:
        frames = [e.data for e in self.outbound.drain() if isinstance(e, SendFrame)]
        return [message for frame in frames if (message := CODEC.decode(frame)) is not None]


def base() -> Registry:
    return registry_of((1, 2, 3))


def chain(registry: Registry, *numbers: int) -> Registry:
    for number in numbers:
        registry = admit(registry, node(number))
    return registry


def test_who_is_behind_waits_a_moment_and_then_asks_one_at_a_time() -> None:
    one, newer = One(base()), chain(base(), 4)
    assert one.heard(newer, 100.0) == [], "the issuer offers it to all at once"
    asked = one.heard(newer, 100.0 + BEHIND_PATIENCE_S)
    assert asked == [RegistryAsk(1)]
    assert one.heard(newer, 100.1 + BEHIND_PATIENCE_S, peer=3) == []
    assert one.heard(newer, 100.0 + BEHIND_PATIENCE_S + ASK_INTERVAL_S, peer=3) == asked
    assert one.it.adopt(sign(newer), 102.0)
    assert one.heard(newer, 103.0) == []


def test_a_packet_that_says_nothing_of_registries_is_no_reason_for_anything() -> None:
    one = One(base())
    one.it.on_epoch(PEER, 0, 0, 101.0)
    assert not one.said()
    assert not one.it.is_current(101.0)


def test_an_issuer_that_starts_hears_a_member_or_waits_in_vain() -> None:
    one = One(base())
    assert not one.it.is_current(100.0)
    assert one.it.is_current(100.0 + SETTLE_S), "nobody is there"
    one = One(base())
    one.heard(base(), 100.1)
    assert one.it.is_current(100.1)
    one = One(base())
    one.heard(base(), 100.1, peer=99)
    assert not one.it.is_current(100.1), "a stranger is no company"


def test_an_issuer_that_was_set_back_waits_for_the_newer_registry() -> None:
    newer = chain(base(), 4, 5)
    one = One(base())
    one.heard(newer, 100.1)
    assert not one.it.is_current(100.2)
    assert one.it.adopt(sign(newer), 100.3)
    assert one.it.is_current(100.4)
    assert one.it.registry.epoch == 3


def test_a_liar_about_epochs_holds_an_issuer_up_for_a_moment_only() -> None:
    one = One(base())
    one.heard(base(), 100.1)
    for tenth in range(100):
        one.it.on_epoch(PEER, 4_000_000_000, 7, 100.1 + tenth / 10)
    assert len(one.said()) <= 11, "and asks once a second"
    assert one.it.is_current(100.2 + SETTLE_S + 5)


FUTURE = 4_000_000_000


@pytest.mark.parametrize("step", [1, FUTURE], ids=["the next epoch", "one far ahead"])
def test_a_liar_holds_an_issuer_up_once_and_not_before_each_signature(step: int) -> None:
    one = One(base())
    one.heard(base(), 100.1)
    now, registry, waits = 100.1, base(), 0
    for number in range(4, 9):
        one.it.on_epoch(PEER, registry.epoch + step, 7, now)
        if not one.it.is_current(now):
            waits += 1
            now += SETTLE_S
        assert one.it.is_current(now)
        registry = chain(registry, number)
        assert one.it.adopt(sign(registry), now, announce=True)
    assert waits == 1


def test_another_than_the_liar_is_waited_for() -> None:
    one = One(base())
    one.it.on_epoch(PEER, FUTURE, 7, 100.0)
    now = 100.0 + SETTLE_S
    assert one.it.is_current(now)
    newer = chain(base(), 4)
    one.heard(newer, now, peer=3)
    assert not one.it.is_current(now)
    assert one.it.adopt(sign(newer), now + 1)
    assert one.it.is_current(now + 1)
    one.heard(chain(newer, 5), now + 2, peer=3)
    assert not one.it.is_current(now + 2), "it was right before"


def test_who_was_right_about_a_fork_is_no_liar() -> None:
    ours, theirs = chain(base(), 4), chain(base(), 5, 6)
    one = One(ours)
    one.heard(theirs, 100.0)
    assert not one.it.adopt(sign(theirs), 100.0 + 2 * SETTLE_S)
    assert not one.it._named


def test_invented_strangers_hold_an_issuer_up_as_one() -> None:
    one = One(base())
    one.heard(base(), 100.1)
    for stranger in range(1000, 3000):
        one.it.on_epoch(stranger, FUTURE, 7, 100.1)
    assert not one.it.is_current(100.1)
    one.it.on_epoch(999, FUTURE, 7, 100.1 + SETTLE_S)
    assert one.it.is_current(100.1 + SETTLE_S)
    assert len(one.it._named) == 1


def test_a_liar_keeps_nobody_from_being_asked() -> None:
    """It speaks just before everybody else, each time."""
    one, newer = One(base()), chain(base(), 4)
    asked_other = 0
    for tenth in range(200):
        one.it.on_epoch(PEER, FUTURE, 7, now := 100.0 + tenth / 10)
        one.said()
        asked_other += len(one.heard(newer, now, peer=3))
    assert asked_other > 0


FORKS = {
    "of one epoch": ((4,), (5,)),
    "the other is longer": ((4,), (5, 6, 7)),
    "ours is longer": ((4, 8, 9), (5,)),
}


@pytest.mark.parametrize("name", list(FORKS))
def test_two_registries_with_different_pasts_prove_a_fork(name: str) -> None:
    ours, theirs = (chain(base(), *numbers) for numbers in FORKS[name])
    one = One(ours)
    assert not one.it.adopt(sign(theirs), 101.0)
    assert one.it.rival == theirs
    assert one.it.registry == ours, "nobody can tell here which is right"


def test_both_sides_of_a_fork_learn_of_it_from_one_packet() -> None:
    ours, theirs = chain(base(), 4), chain(base(), 5)
    here, there = One(ours), One(theirs)
    [offer] = here.heard(theirs, 101.0)
    assert isinstance(offer, RegistryOffer)
    there.it.offered(offer, 3, 101.0)
    [answer] = there.said()
    assert isinstance(answer, RegistryOffer)
    here.it.offered(answer, PEER, 101.0)
    assert (here.it.rival, there.it.rival) == (theirs, ours)
    assert here.said() == [], "and they do not go on showing each other theirs"


def test_a_successor_is_no_fork_however_much_was_missed() -> None:
    newest = chain(base(), *range(10, 10 + LINEAGE_MAX + 5))
    for known in (base(), chain(base(), 10), newest):
        one = One(known)
        one.it.adopt(sign(newest), 101.0)
        assert one.it.rival is None
        assert one.it.registry == newest
        one.it.adopt(sign(base()), 102.0)
        assert one.it.rival is None


def test_in_a_fork_nothing_is_answered() -> None:
    net = Net(chain(base(), 4))
    for number in (1, 2, 3, 4):
        net.planes[number].adopt(sign(chain(base(), 5)), net.now)
    for request in (Get("lamp"), Put("lamp", b"on")):
        result = net.ask(2, request)
        assert isinstance(result, Rejected)
        assert "covey registry mend" in result.reason
        assert result.unreachable
    plane = net.planes[1]
    list(plane.effects())
    plane.receive_frame(CODEC.encode(Fetch(7, 2, "lamp")), 2, net.now)
    sent = [CODEC.decode(e.data) for e in plane.effects() if isinstance(e, SendFrame)]
    assert Refused(7, 2, FORKED) in sent


def test_the_application_hears_of_a_fork_once_for_each_longer_rival() -> None:
    one = One(chain(base(), 4))
    for rival in (chain(base(), 5), chain(base(), 5), chain(base(), 5, 6)):
        one.it.adopt(sign(rival), 101.0)
    events = [e.event for e in one.outbound.drain() if isinstance(e, Emit)]
    assert [type(event) for event in events] == [RegistryForked] * 2


@pytest.mark.parametrize("name", list(FORKS))
def test_a_merged_registry_ends_the_fork_on_both_sides(name: str) -> None:
    ours, theirs = (chain(base(), *numbers) for numbers in FORKS[name])
    merged = merge(ours, ours.mark, theirs, theirs.mark)
    assert Registry.decode(merged.encode()) == merged
    assert merged.epoch == 1 + max(ours.epoch, theirs.epoch)
    for mine, rival in ((ours, theirs), (theirs, ours)):
        one = One(mine)
        one.it.adopt(sign(rival), 101.0)
        assert one.it.adopt(sign(merged), 102.0)
        assert one.it.rival is None
        # Also who slept through it, or is still behind on its side.
        late = One(mine)
        assert late.it.adopt(sign(admit(merged, node(20))), 102.0)
        assert late.it.rival is None
    behind = One(base())
    assert behind.it.adopt(sign(merged), 101.0)


def test_a_merged_registry_has_all_of_both_but_who_was_removed() -> None:
    ours, theirs = chain(base(), 4, 6), remove(chain(base(), 5), 3)
    merged = merge(ours, ours.mark, theirs, theirs.mark)
    assert set(merged.ids()) == {1, 2, 4, 5, 6}
    assert [gone.id for gone in merged.removed] == [3]
    for p, ownership in enumerate(merged.table):
        if ours.table[p] != theirs.table[p]:
            both = {*ours.table[p].holders, *theirs.table[p].holders} - {3}
            assert set(ownership.owners) == both
            assert ownership.owners_since == merged.epoch, "nobody answers before it compared"
        assert 3 not in ownership.target


def test_two_nodes_of_one_name_keep_it_apart() -> None:
    ours = chain(base(), 4)
    theirs = admit(base(), msgspec.structs.replace(node(5), name="node-4"))
    merged = merge(ours, ours.mark, theirs, theirs.mark)
    names = {each.id: each.name for each in merged.nodes}
    assert (names[4], names[5]) == ("node-4", "node-4-0000000000000005")
    assert len(set(names.values())) == len(names)


def test_a_certificate_that_either_side_renewed_is_good() -> None:
    def renewed(registry: Registry, serial: bytes) -> Registry:
        entry = msgspec.structs.replace(node(2), serials=(serial * SERIAL_BYTES,))
        return admit(registry, entry)

    ours, theirs = renewed(base(), b"a"), renewed(base(), b"b")
    entry = merge(ours, ours.mark, theirs, theirs.mark).node(2)
    assert entry is not None
    assert entry.serials == (b"a" * SERIAL_BYTES, b"b" * SERIAL_BYTES)


def test_a_fork_that_was_mended_is_none_again_after_the_next_one() -> None:
    """Anybody can keep a registry that was given up, and show it again."""
    start = base()
    for _ in range(LINEAGE_MAX):
        start = amend(start, start.nodes[0])
    ours, given_up = chain(start, 4), chain(start, 5)
    mended = merge(ours, ours.mark, given_up, given_up.mark)
    ours, theirs = chain(mended, 6), chain(mended, 7)
    one = One(merge(ours, ours.mark, theirs, theirs.mark))
    for old in (given_up, theirs):
        assert not one.it.adopt(sign(old), 101.0)
        assert one.it.rival is None


def test_invented_senders_are_offered_nothing() -> None:
    one = One(chain(base(), 4))
    for stranger in range(1000, 2000):
        one.it.on_epoch(stranger, one.it.registry.epoch, 7, 101.0)
        one.it.on_epoch(stranger, one.it.registry.epoch - 1, 7, 101.0)
    assert one.said() == []
    assert one.heard(chain(base(), 5), 101.0, peer=PEER) != [], "who belongs may show a fork"


def test_a_fork_is_known_again_after_a_start(tmp_path: Path) -> None:
    """Before anybody is heard: else it would answer what no other answers."""

    async def life(signed: bytes, *heard: bytes) -> tuple[bool, bytes]:
        store = await ControlStore.open(tmp_path / "control.db", CLUSTER, ME)
        keeper = Keeper(store, CleanShutdownMark(tmp_path / "running"), bool, lambda: None)
        outbound = OutboundFrames(ME, random.Random(1))
        it = RegistrySync(signed, verify, outbound, itertools.count(1), 100.0)
        node = SimpleNamespace(adopt_registry=it.adopt)
        keeper.remind(node, 100.0)  # type: ignore[arg-type]
        for each in heard:
            it.adopt(each, 101.0)
        for effect in outbound.drain():
            if isinstance(effect, Emit):
                keeper.record(effect.event)
        await keeper.finish()
        await store.close()
        return it.rival is not None, it.signed

    ours, theirs = chain(base(), 4), chain(base(), 5, 6)
    both = merge(ours, ours.mark, theirs, theirs.mark)
    assert asyncio.run(life(sign(ours))) == (False, sign(ours))
    assert asyncio.run(life(sign(ours), sign(theirs))) == (True, sign(ours))
    assert asyncio.run(life(sign(ours))) == (True, sign(ours)), "nobody has told it"
    assert asyncio.run(life(sign(ours), sign(both))) == (False, sign(both))
    assert asyncio.run(life(sign(both))) == (False, sign(both)), "it is mended"


def test_what_is_shown_is_followed_once_it_is_on_the_disk() -> None:
    newer, newest = chain(base(), 4), chain(base(), 4, 5)
    one = One(base())
    one.it.offered(RegistryOffer(sign(newer)), PEER, 100.0)
    (save,) = one.outbound.drain()
    assert save == Persist(1, (RegistryChange(2, sign(newer)),), Durability.FSYNC)
    assert one.it.registry.epoch == 1, "a crash now starts with this one"
    one.it.offered(RegistryOffer(sign(newest)), 3, 100.0)
    one.it.offered(RegistryOffer(sign(newer)), 3, 100.0)
    assert not list(one.outbound.drain()), "one after the other"
    assert one.outbound.counts["frames_dropped/registry_again"] == 1
    assert not one.it.saved(7, 100.1), "that was something else"
    assert one.it.saved(1, 100.1)
    assert one.it.registry.epoch == 2
    (adopted, save) = one.outbound.drain()
    assert adopted == Emit(RegistryAdopted(sign(newer), newer))
    assert isinstance(save, Persist)
    assert save.changes == (RegistryChange(3, sign(newest)),)
    assert one.it.saved(save.token, 100.2)
    assert one.it.registry.epoch == 3


def test_a_fork_is_seen_at_once_and_saved_as_no_successor() -> None:
    ours, theirs = chain(base(), 4), chain(base(), 5, 6)
    one = One(ours)
    one.it.offered(RegistryOffer(sign(theirs)), PEER, 101.0)
    assert one.it.rival is not None
    assert not any(isinstance(effect, Persist) for effect in one.outbound.drain())


def test_one_that_its_authority_lost_while_it_was_written_is_not_followed() -> None:
    trusted = True

    def verify_now(payload: bytes, signature: bytes) -> bool:
        return trusted and verify(payload, signature)

    outbound = OutboundFrames(ME, random.Random(1))
    it = RegistrySync(sign(base()), verify_now, outbound, itertools.count(1), 100.0)
    it.offered(RegistryOffer(sign(chain(base(), 4))), PEER, 100.0)
    trusted = False
    assert it.saved(1, 100.1)
    assert it.registry.epoch == 1
    assert outbound.counts["frames_dropped/bad_registry"] == 1


def test_a_crash_before_the_registry_is_saved_forgets_nothing_that_others_count_on() -> None:
    """The issuer lets the old owners go once the new ones say that they follow: they must not
    come back with the registry of before, in which the old ones answer."""
    net = Net(registry_of((1, 2, 3)))
    net.save_s = lambda who: 5.0 if who == 2 else 0.002
    newer = admit(net.registry, node(4))
    net.registry = newer
    net.kept[1] = newer
    net.planes[1].adopt(sign(newer), net.now, announce=True)
    net.settle(1)
    net.run(1.0)
    assert net.planes[3].registry.epoch == 2
    assert net.planes[2].registry.epoch == net.kept[2].epoch == 1, "its disk takes its time"
    net.crash(2)
    plane = net.start(2, net.kept[2])
    assert plane.registry.epoch == 1, "nobody heard anything else of it"
    net.save_s = lambda _who: 0.002
    net.planes[2].on_epoch(1, 2, net.now + 5)
    net.settle(2)
    net.run(6.0)
    assert plane.registry.epoch == net.kept[2].epoch == 2
