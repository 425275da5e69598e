"""Joining a covey with a token: the device's side of ``agent/admission/messages.py``.

The agent, if there is one, waits. The device looks for a member of the token's covey, by mDNS and
at the seeds; makes sure that it is one, by the authority's fingerprint in the token; and only then
proves that it has the token. What comes back is checked and put in place as a whole, so that the
agent can start right away. When anything fails, the device is as it was before.

One thing is kept on purpose: when the covey may have let us in, and we have no identity yet (the
answer got lost, the disk is full, somebody presses Ctrl-C), the new key stays in a hidden directory
beside the identity. The next try with the same token uses it again, so that the covey recognises
who is asking and the token is not used twice.
"""

import asyncio
import errno
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import exits
from agent.admission.client import FOREIGN, visit
from agent.admission.member_search import MemberSearch
from agent.admission.messages import GUEST_CODEC as SENDING
from agent.admission.messages import (
    GUEST_FRAME_BYTES_MAX,
    MEMBER_CODEC,
    AdmissionRequest,
    Granted,
    Refused,
    Welcome,
)
from agent.admission.proofs import check_signed, prove
from agent.admission.tokens import Token, foreign_token, parse_token
from agent.config.settings import DEFAULT_PORT
from agent.exits import AgentError
from agent.files.private_files import discard, staged_directory, write_private
from agent.identity.at_rest import write_secret
from agent.identity.identity import (
    Credentials,
    Identity,
    Peer,
    check_absent,
    check_name,
    load,
    new_id,
    write_credentials,
)
from agent.identity.private_keys import private_pem, read_private_key
from agent.identity.trust import is_signed
from agent.net.framing import framed, read_frame
from gossip.core.errors import Forged, Malformed, RemoteError
from gossip.core.ids import NodeId, format_node_id, parse_node_id
from gossip.core.machine import Address
from gossip.registry.succession import Succession, statement

TIMEOUT_S = 30.0
ATTEMPT_S = 15.0
NO_ROUTE = {errno.ENETUNREACH, errno.EAFNOSUPPORT}


class PendingIdentity(msgspec.Struct, frozen=True):
    """Who asks to be let in: made once for each token, and the same at each try."""

    directory: Path
    node_id: NodeId
    name: str
    weight: float
    zone: str
    replaces: bool

    def key(self) -> Ed25519PrivateKey:
        """Load the private key that will be this node's."""
        return read_private_key(self.directory / "node.key")


class AnswerLost(Exception):
    """The question was sent, and nobody knows whether it was answered."""


async def join(
    token_text: str,
    identity_dir: Path,
    node_name: str,
    *,
    seeds: Sequence[str] = (),
    interfaces: Sequence[str] = (),
    mdns: bool = True,
    port: int = DEFAULT_PORT,
    weight: float = 1.0,
    zone: str = "",
    replaces: bool = False,
    timeout_s: float = TIMEOUT_S,
    say: Callable[[str], None] = lambda _text: None,
) -> Identity:
    """Join the token's covey and return the identity that is now in ``identity_dir``.

    ``seeds`` are hosts to ask besides those that mDNS finds, with ``port`` unless they name one;
    ``interfaces`` limits mDNS to these. ``replaces``: take the
    place of the node of this name. ``say`` is told what is being done. Raises AgentError; its
    status tells the reasons apart.
    """
    token = parse_token(token_text)
    check_name(node_name, "node")
    check_absent(identity_dir)
    search = MemberSearch(token.cluster_id, seeds, port, interfaces, mdns=mdns, say=say)
    applicant = _apply(identity_dir, token, node_name, weight, zone, replaces=replaces)
    joining = JoinAttempt(token, applicant, search, say)
    say("looking for a member of the covey")
    try:
        async with asyncio.timeout(timeout_s), search:
            say(search.describe())
            credentials = await joining.run()
    except TimeoutError:
        raise joining.explain_timeout(timeout_s) from None
    finally:
        if not joining.may_be_in:
            discard(applicant.directory)
    with staged_directory(identity_dir) as staged:
        write_secret(staged / "node.key", private_pem(joining.key))
        write_credentials(staged, credentials)
    discard(applicant.directory)
    return load(identity_dir)


OTHER_AUTHORITY = "its certificate authority is not the one that the token names"
MAKE_ANOTHER = (
    "A token ends when the covey's authority is replaced (`covey keys rotate --authority`): make a "
    "new one on a member, with `covey token create`. If it was not replaced, somebody else poses "
    "as this covey."
)


class JoinAttempt:
    """One run of ``join``: asks one member after the other until one decides."""

    def __init__(
        self,
        token: Token,
        applicant: PendingIdentity,
        search: MemberSearch,
        say: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self.key = applicant.key()
        self._say = say
        self.answer_lost = False
        self.may_be_in = False
        """Whether a member was asked, and the covey has not refused since."""
        self._token, self._applicant, self._search = token, applicant, search
        self._failures: dict[Address, str] = {}
        self._refused: AgentError | None = None

    async def run(self) -> Credentials:
        """Return what the covey gives us. Raises AgentError when it refuses; runs until then."""
        while True:
            address = await self._search.next_address()
            if address not in self._failures:
                self._say(f"asking {address}")
            try:
                async with asyncio.timeout(ATTEMPT_S):
                    return await self._ask(address)
            except AnswerLost as error:
                self.answer_lost = True
                self._record_failure(address, str(error))
            except AgentError as error:
                if error.status != exits.UNREACHABLE:
                    self.may_be_in = False  # the issuer has decided, whatever went before
                    raise
                self._refused = error
            except RemoteError as error:
                self._record_failure(address, str(error))
            except (OSError, EOFError) as error:
                self._record_failure(address, why_not(error, address))

    def _record_failure(self, address: Address, why: str) -> None:
        """Remember why an address did not help, and say so once: it is tried again and again."""
        if self._failures.get(address) != why:
            self._say(f"{address}: {why}")
        self._failures[address] = why

    async def _ask(self, address: Address) -> Credentials:
        """Ask the member at this address. Raises AgentError, RemoteError, OSError, EOFError."""
        token = self._token
        async with visit(address, token.cluster_id, self._judge) as ((reader, writer), welcome):
            self.may_be_in = True
            writer.write(framed(SENDING.encode(self._admission())))
            try:
                verdict = MEMBER_CODEC.decode(await read_frame(reader, GUEST_FRAME_BYTES_MAX))
            except (OSError, EOFError, asyncio.CancelledError) as error:
                self.answer_lost = True
                if isinstance(error, asyncio.CancelledError):
                    raise
                raise AnswerLost("the answer was lost") from None
        return self._accept(verdict, welcome.authority)

    def _judge(self, welcome: Welcome) -> list[bytes]:
        """Return the authority that the token names. Raises Forged for another one.

        Raises AgentError, which ends the search, where the one that the token names has said that
        another follows it: no member takes this token any more.
        """
        from agent.identity import certificates

        if certificates.fingerprint(welcome.authority) == self._token.fingerprint:
            return [welcome.authority]
        if any(map(self._has_ended, welcome.successions)):
            raise AgentError(
                "this token has ended: the covey's authority was replaced since it was made; "
                "nothing was changed.",
                hint="Make a new one on a member, with `covey token create`.",
                status=exits.TOKEN_EXPIRED,
            )
        raise Forged(OTHER_AUTHORITY)

    def _has_ended(self, step: Succession) -> bool:
        """Tell whether the authority that the token names has signed who follows it."""
        from agent.identity import certificates

        former = step.former
        if certificates.fingerprint(former.certificate) != self._token.fingerprint:
            return False
        key = certificates.authority_key_of(former.certificate)
        told = statement(self._token.cluster_id, former, step.next)
        return is_signed(key, told, step.by_former)

    def _admission(self) -> AdmissionRequest:
        from agent.identity import certificates

        applicant = self._applicant
        subject = certificates.Subject(self._token.cluster_id, applicant.node_id, applicant.name)
        token = self._token
        unproven = AdmissionRequest(
            token_id=token.token_id,
            proof=b"",
            request=certificates.make_request(self.key, subject),
            clock_ms=int(time.time() * 1000),
            weight=applicant.weight,
            zone=applicant.zone,
            replaces=applicant.replaces,
        )
        return prove(unproven, token.key(), self.key)

    def _accept(self, verdict: object, authority: bytes) -> Credentials:
        """Return the credentials if all of them are sound. Raises AgentError, RemoteError."""
        from agent.identity import certificates

        if isinstance(verdict, Refused):
            raise AgentError(verdict.message, verdict.hint, verdict.status)
        if not isinstance(verdict, Granted):
            raise Malformed("it answered with something that is no verdict")
        subject, key = certificates.check_issued(verdict.certificate, authority)
        if key != self.key.public_key().public_bytes_raw():
            raise Forged("it sent a certificate for somebody else's key")
        check_signed(verdict, certificates.authority_key_of(authority))
        return Credentials(
            cluster_id=subject.cluster_id,
            cluster_name=verdict.cluster_name,
            certificate=verdict.certificate,
            authority=authority,
            keyring=verdict.keyring,
            registry=verdict.registry,
            peers=tuple(Peer(each.id, each.name, each.addresses) for each in verdict.peers),
        )

    def explain_timeout(self, timeout_s: float) -> AgentError:
        """Return the error that says best why nobody has let us in."""
        if self._refused is not None:
            return self._refused
        tried = self._search.describe()
        if self.answer_lost:
            return AgentError(
                f"the answer of the covey was lost; it may have let this node in. {tried}",
                hint="Run the same command again with the same token: that is safe, and does not "
                "use the token twice. If no answer comes again, does `covey --version` say the "
                "same here and there?",
                status=exits.TIMED_OUT,
            )
        answered = [f"{address}: {why}" for address, why in list(self._failures.items())[:5]]
        foreign = FOREIGN in self._failures.values() or self._search.others_seen
        if foreign and all(why == FOREIGN for why in self._failures.values()):
            return foreign_token()
        if answered:
            return AgentError(
                f"nobody let this node in within {timeout_s:.0f} s ({'; '.join(answered)}); "
                f"nothing was changed. {tried}",
                hint=MAKE_ANOTHER
                if OTHER_AUTHORITY in self._failures.values()
                else "Is the agent running there, and TCP open on its port? Name a member with "
                "--seed HOST.",
                status=exits.UNREACHABLE,
            )
        return AgentError(
            f"no member of the token's covey was found within {timeout_s:.0f} s; nothing was "
            f"changed. {tried}",
            hint="Is an agent running on this network? Where multicast is blocked, name a member "
            "with --seed HOST.",
            status=exits.UNREACHABLE,
        )


def why_not(error: OSError | EOFError, address: Address) -> str:
    """Return why there was no answer, in plain words where people would not guess it."""
    if getattr(error, "errno", None) in NO_ROUTE:
        family = "IPv6" if ":" in address.host else "IPv4"
        return f"this device has no {family} that leads there; name a member that has another"
    return getattr(error, "strerror", None) or str(error) or "no answer in time"


def _apply(
    identity_dir: Path, token: Token, name: str, weight: float, zone: str, *, replaces: bool
) -> PendingIdentity:
    """Make the key and id that we ask with, or find those of an earlier try with this token."""
    directory = identity_dir.with_name(f".{identity_dir.name}.joining-{token.token_id.hex()}")
    if not directory.exists():
        with staged_directory(directory) as staged:
            write_secret(staged / "node.key", private_pem(Ed25519PrivateKey.generate()))
            write_private(staged / "node.id", format_node_id(new_id()).encode())
    applicant = PendingIdentity(directory, _kept_id(directory), name, weight, zone, replaces)
    applicant.key()
    return applicant


def _kept_id(directory: Path) -> NodeId:
    try:
        return parse_node_id((directory / "node.id").read_text())
    except (OSError, ValueError):
        raise AgentError(
            f"what an earlier try with this token left in {directory} is damaged; nothing was "
            "changed.",
            hint="Remove that directory, and join with a new token.",
            status=exits.BAD_CONFIG,
        ) from None
