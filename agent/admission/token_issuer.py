"""The join tokens of a covey: made, shown, ended, and looked at when somebody shows one.

They stand in the control plane's log, so any issuer makes them, ends them, and knows what they are
worth. Who made a token, who was let in with it and who ended it is told in the agent's log. A token
that expired stays so when the clock is set back: that it has is looked at every minute and written
down, and the clock that counts goes on by itself meanwhile.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from agent import exits
from agent.admission.messages import (
    HASH_PROOF_BYTES,
    TOKENS_SHOWN_MAX,
    AdmissionRequest,
    TokenShown,
)
from agent.admission.proofs import is_proven
from agent.admission.registry_draft import Draft
from agent.admission.registry_issuer import RegistryIssuer
from agent.admission.token_terms import TokenTerms, check_terms
from agent.admission.tokens import new_token
from agent.exits import AgentError
from agent.identity.identity import Identity
from agent.store.tokens import TokenNote, TokenRecord, TokenRefusedError, TokenState
from agent.text.units import counted, format_duration
from gossip.core.ids import format_node_id

EXPIRY_LOOK_S = 60.0
REMEMBERED_S = 30 * 86400.0
"""How long a token that ended is still told apart from one that never was."""
CHANGED_AT_ONCE = 20
"""Tokens that are forgotten, or written down as expired, in one step; the others come next time."""
REMEMBERED_BYTES_MAX = 128 * 1024
"""What all of them may take, with those that are good; half of what the log has room for."""

log = logging.getLogger(__name__)


class TokenIssuer:
    """Manages the tokens that let nodes in: only who holds the authority's key makes any."""

    def __init__(
        self, identity: Identity, registries: RegistryIssuer, wall_clock: Callable[[], float]
    ) -> None:
        self._identity, self._registries, self._wall_clock = identity, registries, wall_clock
        self._latest_s = wall_clock()
        self._looked_at = time.monotonic()

    async def create(self, terms: TokenTerms, maker: str) -> str:
        """Return a token for nodes that join under these terms. Raises AgentError."""
        check_terms(terms)
        from agent.identity import certificates  # X.509 costs 3 MiB that most runs never need

        authority = certificates.fingerprint(self._identity.authority)
        token = new_token(self._identity.cluster_id, authority)
        now_s = self._wall_clock()
        note = TokenNote(now_s, maker, terms.uses, terms.node_name, terms.zone, terms.weight)
        record = TokenRecord(
            token.token_id, token.public_key(), now_s + terms.ttl_s, terms.uses, note
        )

        def step(made: Draft) -> None:
            _check_room(made, now_s)
            _forget_old(made, now_s)
            made.put_token(record)

        await self._registries.change(step)
        log.info(
            "token %s made by %s: for %s within %s",
            token.token_id.hex(), maker, counted(terms.uses, "node"), format_duration(terms.ttl_s),
        )  # fmt: skip
        return token.encode()

    async def shown(self) -> list[TokenShown]:
        """Return the tokens that are remembered, the newest last; of many, all that are good.

        Raises AgentError.
        """
        now_s = self.now_s()
        tokens = await self._registries.tokens()
        good_last = sorted(tokens, key=lambda token: token.state(now_s) is TokenState.VALID)
        shown = [_shown(token, now_s) for token in good_last[-TOKENS_SHOWN_MAX:]]
        return sorted(shown, key=lambda token: token.made_at)

    async def revoke(self, token_id: bytes, who: str) -> TokenState:
        """End a token; return what it was worth before. Raises AgentError."""
        found: list[TokenState] = []

        def step(made: Draft) -> TokenState:
            token = made.token(token_id)
            state = TokenState.UNKNOWN if token is None else token.state(self.now_s())
            found.append(state)
            if token is not None and state is TokenState.VALID:
                made.put_token(token.ended_as(TokenState.REVOKED))
            return found[0]  # also where it was carried out twice, since no answer came

        state, _ = await self._registries.change(step)
        if state is TokenState.VALID:
            log.info("token %s revoked by %s", token_id.hex(), who)
        return state

    async def watch_expiry(self) -> None:
        """Write down which tokens have expired, for ever."""
        while True:
            try:
                await self.end_expired()
            except AgentError as error:
                log.debug("not written down which tokens have expired: %s", error)
            await asyncio.sleep(EXPIRY_LOOK_S)

    async def end_expired(self) -> None:
        """Write down of all tokens that have expired that they have. Raises AgentError."""
        now_s = self.now_s()

        def step(made: Draft) -> None:
            over = [token for token in made.tokens() if _is_over(token, now_s)]
            for token in over[:CHANGED_AT_ONCE]:
                made.put_token(token.ended_as(TokenState.EXPIRED))

        if any(_is_over(token, now_s) for token in await self._registries.kept_tokens()):
            await self._registries.change(step)

    def now_s(self) -> float:
        """Return the time at which tokens are judged: it goes on, whatever is set back."""
        at = time.monotonic()
        self._latest_s = max(self._wall_clock(), self._latest_s + at - self._looked_at)
        self._looked_at = at
        return self._latest_s

    async def check(self, admission: AdmissionRequest) -> TokenRecord:
        """Return the token that an admission shows. Raises AgentError for one that nobody has.

        To be asked before anything that costs more.
        """
        token = await self._registries.token(admission.token_id)
        if token is None:
            raise TokenRefusedError(TokenState.UNKNOWN)
        if token.is_outdated:  # and nothing is kept that could tell who has it
            raise TokenRefusedError(TokenState.OUTDATED)
        if len(admission.proof) == HASH_PROOF_BYTES:
            raise AgentError(
                "this device has an older version of Covey than the node that lets others in, and "
                "proves its token in a way that is not taken any more; nothing was changed.",
                hint="Install the covey's version on this device; the token stays good.",
                status=exits.NOT_PERMITTED,
            )
        if not is_proven(admission, token.public_key):
            raise TokenRefusedError(TokenState.UNKNOWN)
        return token


def _check_room(made: Draft, now_s: float) -> None:
    """Raise AgentError when so many tokens are good that a list could not show one more."""
    good = sum(token.state(now_s) is TokenState.VALID for token in made.tokens())
    if good >= TOKENS_SHOWN_MAX:
        raise AgentError(
            f"{good} tokens are good at this time, which is the most; none was made.",
            "See `covey token list`, and end what nobody needs: `covey token revoke ID`.",
            exits.NOT_PERMITTED,
        )


def _forget_old(made: Draft, now_s: float) -> None:
    """Forget those that are over for long; of many, also of late."""
    tokens = made.tokens()
    left_bytes = sum(len(token.encode()) for token in tokens)
    over = [token for token in tokens if token.state(now_s) is not TokenState.VALID]
    for token in over[:CHANGED_AT_ONCE]:
        if token.expires_at < now_s - REMEMBERED_S or left_bytes > REMEMBERED_BYTES_MAX:
            made.forget_token(token.id)
            left_bytes -= len(token.encode())


def _is_over(token: TokenRecord, now_s: float) -> bool:
    """Tell whether it has expired for good: a clock that is behind just now ends none."""
    is_expired = token.state(now_s) is TokenState.EXPIRED and token.expires_at <= now_s
    return is_expired and not token.note.ended


def _shown(token: TokenRecord, now_s: float) -> TokenShown:
    note = token.note
    return TokenShown(
        id=token.id,
        state=token.state(now_s).value,
        made_at=note.made_at,
        made_by=note.made_by,
        expires_at=token.expires_at,
        uses=note.uses,
        uses_left=token.uses_left,
        node_name=note.node_name,
        zone=note.zone,
        weight=note.weight,
        admitted=tuple(map(format_node_id, token.admitted)),
    )
