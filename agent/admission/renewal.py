"""Renewing a node's certificate: at two thirds of its life, and also when that is over.

A certificate is good for ninety days, so that one that was copied is soon worth nothing. The node
asks the issuer over its stream for the next. The issuer puts the new serial into the registry
beside the one in use; when the registry that says so has come round to the node, it shows the new
certificate, and not before: with the old one everybody lets it in until then.

It is also renewed when the covey gets another authority (``ca_rollover.py``): soon after the news
is everywhere, and not by all at once.

A device that lay in a drawer for a winter has a certificate that opens no stream. It still has its
key, and the registry its place. So it asks as a guest, at the server at which devices join, and
signs with its key. A device that was removed meanwhile is refused there. Nothing of this needs a
token. One that trusts only an authority that was given up since can speak with nobody; it learns
there, too, which one followed. So does one that runs on past the end, while the issuer is away for
a month: no stream that it dials or accepts is good any more, and nobody will come to start it anew.

A certificate that begins later than now was made while a clock was ahead. It opens no stream
either, and is replaced in the same ways, as soon as the issuer and this device agree on the time.
"""

import asyncio
import logging
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable

from agent import exits
from agent.admission.client import visit
from agent.admission.member_search import MemberSearch
from agent.admission.messages import (
    GUEST_CODEC,
    GUEST_FRAME_BYTES_MAX,
    MEMBER_CODEC,
    Refused,
    Renewal,
    Welcome,
)
from agent.admission.messages import Renewed as RenewedMessage
from agent.admission.proofs import sign_renewal
from agent.config.settings import NetworkSettings
from agent.exits import AgentError
from agent.identity.identity import Identity, Peer
from agent.identity.private_keys import read_private_key
from agent.net.framing import framed, read_frame
from agent.store.control import ControlStore
from agent.system.wall_clock import flaw
from gossip.core.errors import Malformed, RemoteError
from gossip.core.machine import Address
from gossip.registry.node import RegisteredNode
from gossip.registry.registry import Registry, open_registry

DUE_SHARE = 2 / 3
LOOK_S = 600.0
SHOWN_WITHIN_S, SHOWN_LOOK_S = 60.0, 0.5
ATTEMPT_S = 15.0
PAUSE_FIRST_S, PAUSE_MAX_S = 0.05, 30.0

UNDECIDED = frozenset({exits.UNREACHABLE, exits.CLOCK_OFF})
"""Refusals after which somebody is asked again: the issuer is away, or a clock is wrong."""
REGISTRIES_BYTES_PER_S = 100_000.0
"""What the registries of a roll-over may cost the issuer, on the whole."""
HEARD_S = 2.0
"""How long the news of another authority gets to be everywhere, before its certificates are."""
LOOK_AGAIN_S = 30.0

Ask = Callable[[Renewal], Awaitable[bytes]]
"""Returns the new certificate (DER). Raises AgentError."""
Adopt = Callable[[bytes], Awaitable[None]]
"""Follows a signed registry, and whom it trusts. Raises RemoteError, OSError."""

log = logging.getLogger(__name__)


class Signals:
    """What calls for another certificate before its time."""

    def __init__(self) -> None:
        self.has_new_authority, self.is_lost = asyncio.Event(), asyncio.Event()
        """The registry names another authority; somebody trusts another one than we do."""


def is_due(who: Identity, now_s: float) -> bool:
    """Tell whether the certificate is to be renewed by now, as far as the clock can be right."""
    if flaw(now_s, valid_until=who.plausible[1]) is not None:
        return False
    is_late = now_s >= who.valid_from + DUE_SHARE * (who.valid_until - who.valid_from)
    return is_late or now_s < who.valid_from or not who.is_certified


def opens_streams(who: Identity, now_s: float) -> bool:
    """Tell whether others accept the certificate now, if they trust who signed it."""
    return who.valid_from <= now_s <= who.valid_until


def spread_s(registry: Registry) -> float:
    """Return how long to take for asking one after the other, when all have to at once.

    Each answer makes a registry that goes to everybody.
    """
    nodes = len(registry.nodes)
    return nodes * nodes * len(registry.encode()) / REGISTRIES_BYTES_PER_S


def application(who: Identity) -> Renewal:
    """Return what this node asks with. Raises AgentError for a key that cannot be read."""
    from agent.identity import certificates

    key = read_private_key(who.key_file)
    in_use = ssl.PEM_cert_to_DER_cert(who.certificate_file.read_text())
    subject = certificates.Subject(who.cluster_id, who.node_id, who.node_name)
    renewal = Renewal(
        request=certificates.make_request(key, subject),
        serial=certificates.serial_of(in_use),
        clock_ms=int(time.time() * 1000),
        signature=b"",
    )
    return sign_renewal(renewal, key)


async def keep_renewed(
    who: Identity,
    ask: Ask,
    registry: Callable[[], Registry],
    show: Callable[[], None],
    guest_search: Callable[[], MemberSearch],
    adopt: Adopt,
    signals: Signals,
) -> None:
    """Renew the certificate whenever it is due, for ever; ``show`` it in new handshakes."""
    while True:
        if is_due(who, now_s := time.time()):
            try:
                if who.is_issuer or opens_streams(who, now_s):
                    await renew(who, ask, registry)
                else:
                    await renew_as_guest(who, guest_search(), adopt)
                show()
            except (AgentError, OSError, RemoteError, TimeoutError) as error:
                log.warning("the certificate was not renewed: %s", error or "no answer in time")
                if not who.is_certified:
                    signals.is_lost.set()
        try:
            async with asyncio.timeout(LOOK_S if who.is_certified else LOOK_AGAIN_S):
                await signals.has_new_authority.wait()
        except TimeoutError:
            continue
        signals.has_new_authority.clear()
        await asyncio.sleep(HEARD_S + random.uniform(0.0, spread_s(registry())))


async def keep_found(
    who: Identity,
    guest_search: Callable[[], MemberSearch],
    adopt: Adopt,
    show: Callable[[], None],
    signals: Signals,
) -> None:
    """Ask as a guest whether the covey has another authority, whenever there is a sign, for ever.

    Anybody can give that sign, so it costs no more than a visit now and then.
    """
    while True:
        await signals.is_lost.wait()
        try:
            async with asyncio.timeout(LOOK_AGAIN_S):
                if await renew_as_guest(who, guest_search(), adopt):
                    show()
        except (AgentError, OSError, TimeoutError) as error:
            log.info("nobody told which authority the covey has: %s", error or "no answer in time")
        await asyncio.sleep(LOOK_AGAIN_S)
        signals.is_lost.clear()


async def renew(who: Identity, ask: Ask, registry: Callable[[], Registry]) -> None:
    """Get a certificate, and use it once the registry knows it.

    Raises AgentError, OSError; TimeoutError when the registry does not come round.
    """
    from agent.identity import certificates

    certificate = await ask(await asyncio.to_thread(application, who))
    serial = certificates.serial_of(certificate)
    async with asyncio.timeout(SHOWN_WITHIN_S):
        while not _shows(registry().node(who.node_id), serial):  # noqa: ASYNC110 - seldom, short
            await asyncio.sleep(SHOWN_LOOK_S)
    await _install(who, certificate)


async def renew_as_guest(who: Identity, search: MemberSearch, adopt: Adopt) -> bool:
    """Ask one member after the other until one decides, and use what comes.

    That may take weeks: it asks ever less often, and tells of each address only what is new.
    False: there is no need, for this node trusts and shows what it should. Raises AgentError when
    the issuer refuses for good.
    """
    told: dict[Address, str] = {}
    pause_s = PAUSE_FIRST_S
    async with search:
        while True:
            address = await search.next_address()
            try:
                async with asyncio.timeout(ATTEMPT_S):
                    renewed = await _ask_at(address, who)
                if renewed is None:
                    return False
                await adopt(renewed.registry)
                await _install(who, renewed.certificate)
            except (OSError, EOFError, RemoteError, AgentError) as error:
                if isinstance(error, AgentError) and error.status not in UNDECIDED:
                    raise
                if told.get(address) != (why := str(error) or "no answer in time"):
                    log.info("%s did not renew the certificate: %s", address, why)
                told[address] = why
            else:
                return True
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MAX_S)


async def renew_own(who: Identity, store: ControlStore) -> None:
    """Have an issuer certify itself again, before it takes part. Raises AgentError.

    Under the serial that it uses: nothing can be agreed on yet, and where all voters were off for a
    season, nothing could be before one of them is certified.
    """
    from agent.admission.issuer import certify  # most members never sign anything
    from agent.identity import certificates

    kept = store.registry()
    registry = open_registry(kept[1] if kept else who.first_registry(), who.verify)
    serial = certificates.serial_of(ssl.PEM_cert_to_DER_cert(who.certificate_file.read_text()))
    if not _shows(registry.node(who.node_id), serial):
        raise AgentError(
            "this node's certificate is not in the registry any more; nothing was changed.",
            "Members that it can reach renew it.",
            exits.NOT_PERMITTED,
        )
    await _install(who, await asyncio.to_thread(certify, who, registry, who.node_id, serial))


async def adopt_early(who: Identity, store: ControlStore, signed: bytes) -> None:
    """Keep a registry that came before the node takes part. Raises RemoteError, OSError."""
    registry = open_registry(signed, who.verify)
    await store.save_registry(registry.epoch, signed)
    if who.trust.adopt(registry):
        await asyncio.to_thread(who.keep_trust, who.trust.authorities, signed)


def places(
    who: Identity, network: NetworkSettings, book: Callable[[], Iterable[Peer]]
) -> MemberSearch:
    """Return where to look for members: those that were met, and as `covey join` does."""
    met = (str(address) for peer in (*book(), *who.first_peers()) for address in peer.addresses)
    seeds = dict.fromkeys([*network.seeds, *met])
    return MemberSearch(
        who.cluster_id, tuple(seeds), network.port, network.interfaces, mdns=network.mdns
    )


async def _ask_at(address: Address, who: Identity) -> RenewedMessage | None:
    """Raise AgentError when the issuer refuses, RemoteError, OSError, EOFError."""
    from agent.identity import certificates

    def judge(welcome: Welcome) -> list[bytes]:
        return who.trust.acceptable(welcome.successions)

    async with visit(address, who.cluster_id, judge) as ((reader, writer), welcome):
        leader = who.trust.lead_to(welcome.successions)
        is_good = who.is_certified and opens_streams(who, time.time())
        if leader == who.trust.newest and is_good:
            return None
        writer.write(framed(GUEST_CODEC.encode(await asyncio.to_thread(application, who))))
        verdict = MEMBER_CODEC.decode(await read_frame(reader, GUEST_FRAME_BYTES_MAX))
    if isinstance(verdict, Refused):
        raise AgentError(verdict.message, verdict.hint, verdict.status)
    if not isinstance(verdict, RenewedMessage):
        raise Malformed("it answered with something that is no certificate")
    subject, key = certificates.check_issued(verdict.certificate, leader.certificate)
    ours = read_private_key(who.key_file).public_key().public_bytes_raw()
    if subject.node_id != who.node_id or key != ours:
        raise Malformed("it sent somebody else's certificate")
    return verdict


async def _install(who: Identity, certificate: bytes) -> None:
    await asyncio.to_thread(who.renew, certificate)
    log.info("the certificate was renewed")


def _shows(entry: RegisteredNode | None, serial: bytes) -> bool:
    return entry is not None and entry.shows(serial)
