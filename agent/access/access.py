"""Access tokens, as the rest of the agent uses them: made and revoked by agreement, known here.

Each agent follows them in its copy of what the covey agrees on, so a token opens every member's
API, also while there is no majority. What is revoked elsewhere is good here for as long as the copy
is old: for a moment, or until this node is back where it can hear of it. ``listed`` says how old.
"""

import asyncio
import logging
import time
from contextlib import AbstractAsyncContextManager, aclosing
from typing import NamedTuple

from agent.access.access_tokens import (
    CLOCKS_DIFFER_S,
    TOKENS_MAX,
    AccessTerms,
    AccessToken,
    digest_of,
    encode_record,
    make_record,
    new_secret,
    read_records,
)
from agent.access.caller import Caller
from agent.access.open_requests import OpenRequests
from agent.access.rights import Role, rights_of
from agent.cluster.agreement import Agreement
from agent.exits import NO, UNHEALTHY, AgentError
from agent.loop.periodic import until_next
from gossip.control.fleet_settings import ACCESS_PREFIX
from gossip.control.transactions import (
    Compare,
    CompareField,
    CompareRelation,
    DeletedResult,
    DeleteKey,
    GetKey,
    PutKey,
)
from gossip.core.errors import InvalidRequest

AGAIN_S = 5.0

log = logging.getLogger(__name__)


class TokenRefusal(NamedTuple):
    """Why a token opens nothing; ``label`` is for a counter."""

    label: str
    message: str
    hint: str


class AccessTokenList(NamedTuple):
    """The tokens by name. ``age_s``: how old that is at most, None if nobody knows; 0: it is new.

    ``strange``: how many records a later version has made, which open nothing here.
    """

    tokens: dict[str, AccessToken]
    strange: int
    age_s: float | None


class AccessService:
    """The access tokens of the covey; ``take_in`` once there is an agreement, then ``follow``."""

    def __init__(self) -> None:
        self._agreement: Agreement | None = None
        self._node_id = self._node_name = ""
        self._tokens: dict[str, tuple[str, AccessToken]] = {}
        """By their digests, each with its name."""
        self._open = OpenRequests()

    def take_in(self, agreement: Agreement, node_id: str, node_name: str) -> None:
        """This agent takes part in its covey, as this node."""
        self._agreement, self._node_id, self._node_name = agreement, node_id, node_name

    def caller_with(self, shown: bytes) -> Caller | TokenRefusal:
        """Return whoever has this token, or why it opens nothing here."""
        name, token = self._tokens.get(digest_of(shown), ("", None))
        if token is None:
            return UNKNOWN
        now_s = time.time()
        if now_s >= token.expires_at:
            return TokenRefusal("expired", f"the token {name} has expired", MAKE_ONE)
        if now_s < token.made_at - CLOCKS_DIFFER_S:
            return CLOCK_OFF
        if token.role is Role.NODE and token.node != self._node_id:
            return TokenRefusal(
                "other_node", f"the token {name} is another node's own", "ask that node's agent"
            )
        scope = token.prefixes
        label = label_of(name, token) if scope else ""
        return Caller(
            f"token {name} ({token.id})", rights_of(token.role, scope), scope, scope, label
        )

    def while_good(self, shown: bytes) -> AbstractAsyncContextManager[asyncio.Timeout]:
        """Cancel what is done in the name of this token when it ends; TimeoutError says so then."""
        _, token = self._tokens.get(digest_of(shown), ("", None))
        return self._open.as_long_as(token, time.time()) if token else asyncio.timeout(None)

    async def create(self, terms: AccessTerms, caller: Caller) -> tuple[str, AccessToken]:
        """Make a token: return its text, which is kept nowhere, and its record.

        Raises InvalidRequest or AgentError.
        """
        terms.check()
        secret, key = new_secret(), f"{ACCESS_PREFIX}{terms.name}"
        record = make_record(secret, terms, f"{caller.who} at {self._node_name}", time.time())
        _, done = await self._agreed().transact(
            (
                Compare(key, CompareField.VERSION, CompareRelation.EQUAL, 0),
                Compare(ACCESS_PREFIX, CompareField.COUNT, CompareRelation.LESS, TOKENS_MAX),
            ),
            (PutKey(key, encode_record(record)),),
        )
        if done.succeeded:
            return secret, record
        if terms.name in (await self.listed()).tokens:
            hint = "choose another name, or revoke that one first: `covey access revoke NAME`"
            raise AgentError(f"there is a token {terms.name} already; none was made", hint, NO)
        raise AgentError(
            f"there are {TOKENS_MAX} access tokens already; none was made",
            "revoke those that nobody needs: `covey access list`",
            NO,
        )

    async def revoke(self, name: str) -> bool:
        """Make a token good for nothing any more; False if there is none. Raises AgentError.

        The sessions of a token for some names end with it: what they hold is free at once.
        """
        _, done = await self._agreed().transact((), (DeleteKey(f"{ACCESS_PREFIX}{name}"),))
        (deleted,) = done.results
        assert isinstance(deleted, DeletedResult), "a delete was asked for"
        await self._close_sessions_of(name)
        return deleted.count > 0

    async def _close_sessions_of(self, name: str) -> None:
        """End the sessions of tokens that had this name, but not of one that has it now.

        Sessions are looked up before that one is: of no session that is found is it too new.
        """
        agreed = self._agreed()
        sessions = await agreed.sessions_labelled(_label_begins(name))
        _, (found,) = await agreed.read((GetKey(f"{ACCESS_PREFIX}{name}"),))
        tokens, _ = read_records(list(found.entries))
        spared = {label_of(*each) for each in tokens.items()}
        await agreed.close_sessions(s.number for s in sessions if s.label not in spared)

    async def listed(self) -> AccessTokenList:
        """Return all tokens: as agreed on, or without a majority as our copy has them."""
        agreed = self._agreed()
        try:
            _, entries = await agreed.all_under(ACCESS_PREFIX)
            age_s: float | None = 0.0
        except AgentError:
            _, entries = await agreed.all_under(ACCESS_PREFIX, stale=True)
            age_s = agreed.status().heard_s_ago
        tokens, strange = read_records(entries)
        return AccessTokenList(tokens, strange, age_s)

    async def follow(self) -> None:
        """Keep what is known here up to date. Runs until cancelled."""
        while True:
            try:
                async with aclosing(self._agreed().follow(ACCESS_PREFIX)) as states:
                    async for _, entries in states:
                        tokens, _ = read_records(entries)
                        self._tokens = {each.digest: (n, each) for n, each in tokens.items()}
                        self._open.changed({each.digest: each for each in tokens.values()})
            except (AgentError, InvalidRequest) as error:
                log.info("access tokens: %s", error)
                await until_next(AGAIN_S)

    def _agreed(self) -> Agreement:
        if self._agreement is None:
            raise AgentError("this agent does not take part in its covey yet", "", UNHEALTHY)
        return self._agreement


def label_of(name: str, token: AccessToken) -> str:
    """Return the label of the sessions of a token for some names; no other token has ever had it.

    Another one of its name is another token, and may not use what this one holds.
    """
    return f"{_label_begins(name)}{token.id}"


def _label_begins(name: str) -> str:
    assert ":" not in name, "no name begins as another one's label does"
    return f"token:{name}:"


MAKE_ONE = "make another one: `covey access create`"
UNKNOWN = TokenRefusal(
    "unknown_token",
    "the token is wrong, or was revoked, or is not known to this node yet",
    f"`covey access list` shows those that are good; {MAKE_ONE}",
)
CLOCK_OFF = TokenRefusal(
    "clock",
    "this device's clock is before the making of the token: nobody knows when it ends",
    "set the clock, or wait until it is",
)
