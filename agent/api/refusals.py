"""What was refused at the API: counted by reason, logged at a limited rate, written down."""

import logging
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from agent.access.audit import AuditLog
from agent.config.logs import RateLimitedLog
from agent.net.origin import origin_of

log = logging.getLogger(__name__)

PATH_CHARACTERS_MAX = 120
HERE = "here"
"""Where somebody is who came by a Unix socket."""
SECRETS = re.compile(r"(covey1-|covey_)[\w-]+")


class Attempt(NamedTuple):
    """Who tried what, and from where."""

    who: str
    source: str
    method: str
    path: str

    @property
    def site(self) -> str:
        """Who counts as one at the place where it came from."""
        return self.source if self.source == HERE else origin_of(self.source)

    @property
    def action(self) -> str:
        """What was tried, for people; a token that somebody took for a name is not shown."""
        return f"{self.method} {SECRETS.sub('(token)', self.path)[:PATH_CHARACTERS_MAX]}"


class Refusals:
    """Counts what is refused at the API, and tells of it."""

    def __init__(self, counts: Counter[str], audit: AuditLog) -> None:
        self._counts = counts
        self._attempts = audit.attempts
        self._quiet = RateLimitedLog(log)

    def record(self, label: str, attempt: Attempt, why: str) -> None:
        """Take note of an attempt; ``label`` is its reason in one word."""
        self._counts[f"api_refusals/{label}"] += 1
        self._quiet.warning(
            f"{label} {attempt.who} {attempt.site}",
            "refused %r of %s, from %s: %s",
            *(attempt.action, attempt.who, attempt.source, why),
        )
        self._attempts.record(label, attempt.who, attempt.source, attempt.site, attempt.action)


def attempt_of(who: str, scope: Mapping[str, Any]) -> Attempt:
    """Return what a request tries."""
    client = scope.get("client")
    return Attempt(who, str(client[0]) if client else HERE, scope["method"], scope["path"])
