"""Ends what a token has under way when the token ends: streams, and long waits, above all.

A gate looks at a token once, when a request comes. A stream that began a minute before the token
was revoked would tell its reader everything for as long as it likes.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from agent.access.access_tokens import AccessToken

GRACE_S = 1.0
"""Who revokes its own token still gets the answer to that."""


class OpenRequests:
    """The requests under way, by the digest of the token that they came with."""

    def __init__(self) -> None:
        self._of: defaultdict[str, dict[asyncio.Timeout, AccessToken]] = defaultdict(dict)

    @asynccontextmanager
    async def as_long_as(self, token: AccessToken, now_s: float) -> AsyncIterator[asyncio.Timeout]:
        """Cancel what is inside when the token ends, and raise TimeoutError then.

        ``now_s`` is Unix time. Other timeouts pass through: ask ``expired()`` of what is yielded.
        """
        open_here = self._of[token.digest]
        try:
            async with asyncio.timeout(max(0.0, token.expires_at - now_s)) as until:
                open_here[until] = token
                yield until
        finally:
            open_here.pop(until, None)
            if not open_here:
                self._of.pop(token.digest, None)

    def changed(self, good: Mapping[str, AccessToken]) -> None:
        """Take in which tokens are good now, by digest; another record is another token."""
        at = asyncio.get_running_loop().time() + GRACE_S
        for digest, open_here in self._of.items():
            for until, token in open_here.items():
                if good.get(digest) != token and not until.expired():
                    until.reschedule(min(at, until.when() or at))
